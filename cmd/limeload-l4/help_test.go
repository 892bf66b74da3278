package main

import (
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// helpMistakes says what the help about a command lacks, or has too much of.
func helpMistakes(name, page string) (wrong []string) {
	first, rest, _ := strings.Cut(page, "\n")
	if !strings.HasPrefix(first, "Usage: limeload-l4 "+name) {
		wrong = append(wrong, "it does not begin with the usage")
	}
	if !strings.Contains(rest, "--help, -h") {
		wrong = append(wrong, "it has no flags")
	}
	if !strings.Contains(rest, "limeload-l4 "+strings.Fields(name + " ")[0]) {
		wrong = append(wrong, "it has no example")
	}
	for line := range strings.Lines(page) {
		if len(line) > helpColumns+1 && !strings.Contains(line, "limeload-l4") {
			wrong = append(wrong, "too long: "+line)
		}
	}
	return wrong
}

// TestHelp: `help COMMAND`, `COMMAND --help` and --help behind arguments print the same, in one form.
func TestHelp(t *testing.T) {
	if len(helpMistakes("x", strings.Repeat("long ", 20)+"\n")) != 4 {
		t.Fatal("the guard finds nothing")
	}
	n := 0
	var walk func(before []string, commands []*cli.Command)
	walk = func(before []string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			n++
			path := append(append([]string{}, before...), c.Name)
			code, page, stderr := command(t, append([]string{"help"}, path...)...)
			if code != exitDone || stderr != "" {
				t.Errorf("help %q: exit code %d, %s", path, code, stderr)
			}
			for _, wrong := range helpMistakes(strings.Join(path, " "), page) {
				t.Errorf("help %q: %s", path, wrong)
			}
			for _, last := range [][]string{{"--help"}, {"-h"}, {"word", "--help"}} {
				if len(c.Subcommands) > 0 && len(last) > 1 {
					continue
				}
				if _, same, _ := command(t, append(path, last...)...); same != page {
					t.Errorf("%q %q prints\n%s\nand help\n%s", path, last, same, page)
				}
			}
			walk(path, c.Subcommands)
		}
	}
	walk(nil, wholeApp(io.Discard, io.Discard).Commands)
	if n < 30 {
		t.Errorf("%d commands", n)
	}
	_, page, _ := command(t, "help")
	if _, same, _ := command(t, "--help"); same != page || !strings.Contains(page, "Commands that ask the daemon:") {
		t.Errorf("--help prints\n%s\nand help\n%s", same, page)
	}
}

// TestHelpExamples: each example is of a command that exists, and is a command line that the program knows.
func TestHelpExamples(t *testing.T) {
	app := wholeApp(io.Discard, io.Discard)
	for name, example := range helpExamples() {
		if _, err := commandPath(app, strings.Fields(name)); err != nil {
			t.Error(err)
		}
		for line := range strings.SplitSeq(example, "\n") {
			line, _, _ = strings.Cut(strings.TrimPrefix(line, "limeload-l4 "), " <")
			if err := parses(t, strings.Fields(line)); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

// TestMistakes: a wrong command line ends with exit code 2, and says in the words of a user what is wrong and what was
// probably meant.
func TestMistakes(t *testing.T) {
	startFake(t)
	for _, test := range []struct {
		line, want string
	}{
		{"bakends", `unknown command or argument "bakends", did you mean "backends"?`},
		{"backends lst", `did you mean "list"?`},
		{"check extra more", `unknown command or argument`},
		{"help stats", `did you mean "status"?`},
		{"drain", `did you mean "backends drain"?`},
		{"log", `did you mean "log-level"?`},
		{"help dns puge", `did you mean "purge"?`},
		{"--confg x", `unknown flag "--confg", did you mean "--config"?`},
		{"status --outptu json", `unknown flag "--outptu", did you mean "--output"?`},
		{"backends drain redis b1 --dedline 5m", `did you mean "--deadline"?`},
		{"simulate --algoritm p2c", `did you mean "--algorithm"?`},
		{"status --zzz", `unknown flag "--zzz"`},
		{"status -z", `unknown flag "-z"`},
		{"status ---zzz", `"---zzz" is no flag`},
		{"status --timeout 5", `--timeout "5": needs a time with a unit, such as 30s or 5m`},
		{"backends set redis b1 --weight much", `--weight "much": needs a whole number`},
		{"simulate --rate fast", `--rate "fast": needs a number`},
		{"check --syntax=perhaps", `--syntax "perhaps": needs no value`},
		{"backends drain redis b1 --wait=perhaps", `--wait "perhaps": needs no value`},
		{"status --output", "--output needs FORMAT"},
		{"backends drain redis b1 --deadline", "--deadline needs TIME"},
		{"completion ksh", `SHELL "ksh": needs one of bash, zsh, fish`},
		{"man 3", `SECTION "3": needs 8 or 5`},
	} {
		code, stdout, stderr := command(t, strings.Fields(test.line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d\n%s%s", test.line, code, stdout, stderr)
		}
		for _, inner := range []string{"strconv", "parse error", "not defined", "json:", "context ", "unmarshal", "time:"} {
			if strings.Contains(stderr, inner) {
				t.Errorf("%s: a user does not know %q: %s", test.line, inner, stderr)
			}
		}
	}
}

// TestHelpAbout: after a mistake, the help about the nearest command that exists is named.
func TestHelpAbout(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	for line, want := range map[string]string{
		"nonsense": "help", "help nonsense": "help", "backends lst": "help backends", "help backends lst": "help backends",
	} {
		if got := helpAbout(app, strings.Fields(line)); got != "limeload-l4 "+want {
			t.Errorf("%s: %s", line, got)
		}
	}
}

// TestNamesThatExist: an error about a name says which names there are.
func TestNamesThatExist(t *testing.T) {
	startFake(t)
	if _, _, stderr := command(t, "dns", "purge", "dn", "example.com"); !strings.Contains(stderr, `did you mean "dns"?`) {
		t.Error(stderr)
	}
	for _, test := range []struct {
		wrong string
		names []string
		want  string
	}{
		{"rediss", []string{"dns", "redis"}, `did you mean "redis"? there are dns, redis`},
		{"x", []string{"only"}, "there is only only"},
		{"x", strings.Split(strings.Repeat("a,", 11)+"b", ","), "there are a, a, a, a, a, a, a, a, a, a and 2 more"},
	} {
		if got := thereAre(test.wrong, test.names); got != test.want {
			t.Errorf("%q of %q: %s", test.wrong, test.names, got)
		}
	}
}
