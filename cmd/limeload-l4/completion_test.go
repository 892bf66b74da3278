package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// completions returns what the program offers for the last of the words.
func completions(t *testing.T, words ...string) []string {
	t.Helper()
	code, stdout, stderr := command(t, append([]string{completeName, "--"}, words...)...)
	if code != exitDone || stderr != "" {
		t.Errorf("%q: exit code %d, %s", words, code, stderr)
	}
	var found []string
	for line := range strings.Lines(stdout) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		found = append(found, word)
	}
	return found
}

// A completionCase is the words after the program's name, of which the last is incomplete, and the words that must be
// offered.
type completionCase struct {
	line string
	want []string
}

// completionCases returns what every shell must offer.
func completionCases() []completionCase {
	return []completionCase{
		{"stat", []string{"status"}},
		{"backends ", []string{"list", "add", "remove", "set", "drain"}},
		{"backends d", []string{"drain"}},
		{"backends drain --de", []string{"--deadline"}},
		{"backends drain redis b2 --re", []string{"--remove"}},
		{"backends drain redis ", []string{"b1", "b2", "10.0.0.13:6379"}},
		{"backends set re", []string{"redis"}},
		{"backends set redis b1 --mode m", []string{"maintenance"}},
		{"status --output=j", []string{"--output=json"}},
		{"sessions --listener ma", []string{"main"}},
		{"dns ", []string{"stats", "purge"}},
		{"dns purge ", []string{"dns"}},
		{"dns purge dns example.com --b", []string{"--below"}},
		{"access ", []string{"list", "allow", "deny", "remove", "check"}},
		{"access remove 19", []string{"192.0.2.0/24"}},
		{"access remove 192.0.2.0/24 ", []string{"2001:db8::/32"}},
		{"access deny 192.0.2.7 --listener in", []string{"internal"}},
		{"clients --sort s", []string{"sessions"}},
		{"sessions --backend b", []string{"b1", "b2"}},
		{"sessions end 8c3f5e00000000", []string{"8c3f5e0000000001", "8c3f5e0000000002"}},
		{"events --kind disc", []string{"discovered"}},
		{"completion ", []string{"bash", "zsh", "fish"}},
		{"example m", []string{"mqtt", "mysql"}},
		{"log-level d", []string{"debug"}},
		{"simulate --algorithm ri", []string{"ring_hash"}},
	}
}

// startNamed starts a fake daemon with a backend that has a colon in its name, as those without a configured name have.
func startNamed(t *testing.T) {
	f := startFake(t)
	f.backends[2].Name = f.backends[2].Address
}

func TestCompleteWords(t *testing.T) {
	startNamed(t)
	for _, test := range completionCases() {
		if got := completions(t, strings.Split(test.line, " ")...); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
	for line, want := range map[string][]string{
		"--ver":                          {"--version"},
		"status --config ":               {filesWanted},
		"--config=x":                     {filesWanted},
		"status --config x --conf":       nil, // already given
		"events --kind drained --ki":     {"--kind"},
		"status -- --out":                nil, // no flag any more
		"access remove --listener main ": {"192.0.2.7/32"},
		"access deny ":                   nil, // only the user knows
		"access deny 192.0.2.7 --f":      {"--for"},
		"backends nonsense ":             nil,
		"backends set redis b1 more ":    nil,
		"status --nonsense=":             nil,
		"status --timeout ":              nil,
		"simulate --output ":             {"table", "json", "csv"},
		"backends add redis --mode=d":    {"--mode=drain"},
		"__comp":                         nil, // hidden
		"backends --pool redis drain re": {"redis"},
	} {
		if got := completions(t, strings.Split(line, " ")...); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestCompleteEverything: every command and flag is offered, and the values of each flag.
func TestCompleteEverything(t *testing.T) {
	startFake(t)
	app := wholeApp(new(bytes.Buffer), new(bytes.Buffer))
	var walk func(words []string, commands []*cli.Command, flags []cli.Flag)
	walk = func(words []string, commands []*cli.Command, flags []cli.Flag) {
		offered := completions(t, append(slices.Clone(words), "--")...)
		for _, f := range flags {
			if !slices.Contains(offered, "--"+f.Names()[0]) {
				t.Errorf("%q: --%s is not offered", words, f.Names()[0])
			}
			// only the user knows the value
			free := []string{"NAME", "N", "TIME", "ADDRESS", "CLIENT", "TEXT", "R", "CHANGE", "NAME=TIME", "RATE"}
			if !takesValue(f) || slices.Contains(free, placeholder(f)) {
				continue
			}
			if got := completions(t, append(slices.Clone(words), "--"+f.Names()[0], "")...); len(got) == 0 {
				t.Errorf("%q: no value is offered for --%s", words, f.Names()[0])
			}
		}
		offered = completions(t, append(slices.Clone(words), "")...)
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			if !slices.Contains(offered, c.Name) {
				t.Errorf("%q: %s is not offered", words, c.Name)
			}
			walk(append(slices.Clone(words), c.Name), c.Subcommands, c.Flags)
		}
	}
	walk(nil, app.Commands, app.Flags)
}

// TestCompleteWithoutDaemon is about a daemon that does not run, one that does not answer, and one with hostile names.
func TestCompleteWithoutDaemon(t *testing.T) {
	f := startFake(t)
	f.backends[0].Name, f.backends[1].Name = "$(reboot)", "x\u202e"
	if got := completions(t, "backends", "set", "redis", ""); !slices.Equal(got, []string{"b3"}) {
		t.Errorf("%q of hostile names", got)
	}
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	begin := time.Now()
	if got := completions(t, "backends", "set", ""); len(got) > 0 || time.Since(begin) < askedWithin {
		t.Errorf("%q after %v", got, time.Since(begin))
	}
	t.Setenv(adminVariable, "unix:/nowhere/admin.sock")
	if got := completions(t, "backends", "set", ""); len(got) > 0 {
		t.Errorf("%q without a daemon", got)
	}
}

// shim puts this program into a folder under its own name and returns the folder. Under the race detector, each run of
// it would otherwise take a second longer.
func shim(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(
		"#!/bin/sh\nGORACE=atexit_sleep_ms=0 LIMELOAD_TEST_PROGRAM=1 exec '%s' -test.run='^TestProgram$' -- \"$@\"\n",
		self)
	if err := os.WriteFile(filepath.Join(folder, "limeload-l4"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// shell runs a script in a shell that finds this program, in a folder with a file "lb.toml" and one with a blank in its
// name.
func shell(t *testing.T, path string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("%v: install it, on Debian with `apt-get install %s`", err, path)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a shell might wait for a key forever
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Dir = t.TempDir()
	for _, name := range []string{"lb.toml", "lb two.toml"} {
		if err := os.WriteFile(filepath.Join(cmd.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(os.Environ(), "PATH="+shim(t)+":"+os.Getenv("PATH"), "HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir,
		"XDG_DATA_HOME="+cmd.Dir, "TERM=dumb")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", path, err, out)
	}
	return string(out)
}

// TestScripts: each shell finds no mistakes in its script, and the script prints nothing.
func TestScripts(t *testing.T) {
	for shellName, check := range map[string][]string{"bash": {"-n"}, "zsh": {"-n"}, "fish": {"--no-execute"}} {
		code, script, _ := command(t, "completion", shellName)
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := shell(t, shellName, append(check, file)...); code != exitDone || out != "" {
			t.Errorf("%s: exit code %d\n%s", shellName, code, out)
		}
	}
}

// bashComplete calls the completion as bash does, which splits the line at spaces and at the characters of
// COMP_WORDBREAKS.
const bashComplete = `
source <(limeload-l4 completion bash)
complete -p limeload-l4
compopt() { :; } # only while bash itself completes
try() {
	COMP_LINE="limeload-l4 $1" COMP_POINT=$((12 + ${#1})) COMPREPLY=()
	COMP_WORDS=() COMP_CWORD=0
	local rest=$COMP_LINE
	while [[ -n $rest ]]; do
		if [[ $rest == [=:]* ]]; then COMP_WORDS+=("${rest:0:1}"); rest=${rest:1}
		elif [[ $rest == ' '* ]]; then rest=${rest:1}; [[ -z $rest ]] && COMP_WORDS+=("")
		else COMP_WORDS+=("${rest%%[ =:]*}"); rest=${rest#"${rest%%[ =:]*}"}; fi
	done
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_limeload_l4
	(IFS=,; echo "$1 > ${COMPREPLY[*]}")
}
`

func TestBash(t *testing.T) {
	startNamed(t)
	script, want := bashComplete, "complete -F _limeload_l4 limeload-l4\n"
	add := func(line string, words ...string) {
		script += fmt.Sprintf("try '%s'\n", line)
		want += line + " > " + strings.Join(words, ",") + "\n"
	}
	for _, test := range completionCases() {
		if before, _, attached := strings.Cut(test.line, "="); attached { // bash only replaces what comes after it
			test.want = []string{strings.TrimPrefix(test.want[0], before[strings.LastIndex(before, " ")+1:]+"=")}
		}
		add(test.line, test.want...)
	}
	add("status --output=", "table", "json")
	add("backends drain redis 10.0.0.13:6", "6379")
	add("backends drain redis 10.0.0.13:", "6379")
	add("status --config l", "lb two.toml", "lb.toml")
	add("status --config=l", "lb two.toml", "lb.toml")
	got := shell(t, "bash", "--norc", "-c", script)
	if sortedFiles(got) != sortedFiles(want) {
		t.Errorf("bash completes\n%swant\n%s", got, want)
	}
}

// sortedFiles returns text with the two files of a line in one order, since compgen has them in the order of the
// folder.
func sortedFiles(text string) string {
	return strings.ReplaceAll(text, "lb.toml,lb two.toml", "lb two.toml,lb.toml")
}

func TestFish(t *testing.T) {
	startNamed(t)
	script, want := "limeload-l4 completion fish | source\n", ""
	add := func(line string, words ...string) {
		script += fmt.Sprintf("echo (complete -C 'limeload-l4 %s' | string replace -r '\\t.*' '')\n", line)
		want += strings.Join(words, " ") + "\n"
	}
	for _, test := range completionCases() {
		slices.Sort(test.want) // fish has its own order
		add(test.line, test.want...)
	}
	add("status --config lb.", "lb.toml")
	add("status --config=lb.", "--config=lb.toml")
	got := shell(t, "fish", "--no-config", "-c", script)
	sorted := ""
	for line := range strings.Lines(got) {
		words := strings.Fields(line)
		slices.Sort(words)
		sorted += strings.Join(words, " ") + "\n"
	}
	if sorted != want {
		t.Errorf("fish completes\n%swant\n%s", sorted, want)
	}
}

// zshComplete types lines into an interactive zsh, with a tab after each. compadd, which zsh calls with words (and with
// -D, for a query), is replaced so that it also prints them to the file found. A key after the tab marks the end of
// each line on the terminal; the terminal also shows the typed text, which must not look like that mark.
const zshComplete = `
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1= PS2= RPS1=; unsetopt beep list_beep; fpath=($PWD $fpath); autoload -U compinit; compinit -u -D'
zpty -w z 'compadd() { local -a words; [[ "$*" == *" -D "* ]] || { builtin compadd -O words "$@"; print -rl -- $words >>found }; builtin compadd "$@" }'
zpty -w z 'ended() { BUFFER=; print -n "\\x3cended>" }; zle -N ended; bindkey "^I" complete-word "^G" ended'
`

func TestZsh(t *testing.T) {
	startNamed(t)
	for name, setUp := range map[string]string{
		"sourced":   "zpty -w z 'source <(limeload-l4 completion zsh)'\n",
		"installed": "", // compinit finds it in a folder of fpath
	} {
		t.Run(name, func(t *testing.T) { testZsh(t, setUp) })
	}
}

func testZsh(t *testing.T, setUp string) {
	script, want := zshComplete+setUp, ""
	if setUp == "" {
		script = "limeload-l4 completion zsh >_limeload-l4\n" + script
	}
	for _, test := range completionCases() {
		script += fmt.Sprintf("zpty -w -n z $'limeload-l4 %s\\t\\C-g'; zpty -r z line '*<ended>'\n", test.line)
		want += strings.Join(test.want, "\n") + "\n"
	}
	script += "zpty -d z; cat found\n"
	if got := shell(t, "zsh", "-f", "-c", script); got != want {
		t.Errorf("zsh completes\n%swant\n%s", got, want)
	}
}
