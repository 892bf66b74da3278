package main

import (
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// page prints a manual page through the command, and returns its source.
func page(t *testing.T, section string) string {
	t.Helper()
	code, stdout, stderr := command(t, "man", section)
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	return stdout
}

// rendered returns a page as it is read: one line for each paragraph, without fonts.
func rendered(t *testing.T, source string) string {
	t.Helper()
	text := tool(t, source, "mandoc", "-T", "ascii", "-O", "width=1000")
	return regexp.MustCompile(`.\x08`).ReplaceAllString(text, "")
}

// tool pipes a page through a program and returns its output.
func tool(t *testing.T, source, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: install it, on Debian with `apt-get install %s`", err, name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(source)
	out, _ := cmd.CombinedOutput() // a lint that finds something fails, and prints what
	return string(out)
}

// TestManLint: mandoc and groff find nothing wrong with the pages.
func TestManLint(t *testing.T) {
	bad := ".TH X 8\n.SH NAME\nx\n.XX\n"
	if tool(t, bad, "mandoc", "-T", "lint", "-W", "warning") == "" || tool(t, bad, "groff", "-man", "-ww", "-z") == "" {
		t.Fatal("nothing is found in a bad page: this test cannot fail")
	}
	for _, section := range []string{"8", "5"} {
		source := page(t, section)
		if out := tool(t, source, "mandoc", "-T", "lint", "-W", "warning"); out != "" {
			t.Errorf("mandoc about section %s:\n%s", section, out)
		}
		if out := tool(t, source, "groff", "-man", "-ww", "-z"); out != "" {
			t.Errorf("groff about section %s:\n%s", section, out)
		}
	}
}

// notInPage returns the commands, flags and exit codes that the rendered limeload-l4(8) does not name.
func notInPage(app *cli.App, text string) (missing []string) {
	var walk func(before string, commands []*cli.Command)
	walk = func(before string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			name := before + " " + c.Name
			_, part, found := strings.Cut(text, "\n   "+strings.TrimSpace(name+" "+c.ArgsUsage)+"\n")
			if !found {
				missing = append(missing, name)
			}
			part, _, _ = strings.Cut(part, "\n   "+app.Name)
			for _, f := range c.Flags {
				in := part
				if categoryOf(f) == daemonFlags {
					_, in, _ = strings.Cut(text, "OPTIONS OF THE COMMANDS THAT ASK THE DAEMON")
				}
				if !strings.Contains(in, "--"+f.Names()[0]) || !strings.Contains(in, flagUsage(f)[1:]) {
					missing = append(missing, name+" --"+f.Names()[0])
				}
			}
			walk(name, c.Subcommands)
		}
	}
	walk(app.Name, app.Commands)
	_, codes, _ := strings.Cut(text, "EXIT STATUS")
	for _, e := range exitCodes() {
		if !regexp.MustCompile(`\n\s+` + strconv.Itoa(e.code) + `\s+` + regexp.QuoteMeta(e.meaning)).
			MatchString(codes) {
			missing = append(missing, "exit code "+strconv.Itoa(e.code))
		}
	}
	return missing
}

func TestProgramPage(t *testing.T) {
	app := wholeApp(io.Discard, io.Discard)
	text := rendered(t, page(t, "8"))
	for _, gone := range []string{"backends drain", "--deadline", "--admin", "cannot be reached"} {
		if len(notInPage(app, strings.ReplaceAll(text, gone, ""))) == 0 {
			t.Fatalf("nobody misses %q: this test cannot fail", gone)
		}
	}
	for _, what := range notInPage(app, text) {
		t.Errorf("limeload-l4(8) does not tell of %s", what)
	}
	if strings.Contains(text, completeName) {
		t.Error("limeload-l4(8) tells of a hidden command")
	}
}

// keys returns the names of all keys in a configuration, except those that users choose.
func keys(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, sub := range v {
			if path != "listener" && path != "pool" {
				into[key] = true
			}
			keys(sub, key, into)
		}
	case []map[string]any:
		for _, sub := range v {
			keys(sub, "", into)
		}
	case []any:
		for _, sub := range v {
			keys(sub, "", into)
		}
	}
}

// TestConfigurationPage: lb.toml(5) has every key of the reference, and each key with a line of its own has its default
// and its whole comment.
func TestConfigurationPage(t *testing.T) {
	text := rendered(t, page(t, "5"))
	var reference map[string]any
	if _, err := toml.Decode(string(conf.Reference), &reference); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	keys(reference, "", all)
	if len(all) < 80 {
		t.Fatalf("only %d keys are found", len(all))
	}
	for key := range all {
		if !regexp.MustCompile(`(?m)\b` + key + `( +=|\.|])`).MatchString(text) {
			t.Errorf("lb.toml(5) does not tell of %s", key)
		}
	}
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	squeezed := squeeze(regexp.MustCompile(`\n +# `).ReplaceAllString(text, " ")) // comments may be wrapped
	for line := range strings.Lines(string(conf.Reference)) {
		code, comment, _ := splitComment(strings.TrimSuffix(line, "\n"))
		if comment == "" || strings.HasPrefix(comment, "---") {
			continue
		}
		code = strings.TrimSuffix(strings.TrimSuffix(code, ","), "[") // the elements of a longer list are below
		for _, part := range []string{squeeze(code), squeeze(comment)} {
			if !strings.Contains(squeezed, part) {
				t.Errorf("lb.toml(5) lacks %q", part)
			}
		}
	}
}

// TestManWidth: the pages fit into a terminal of 80 columns, except for lines of code that cannot be wrapped.
func TestManWidth(t *testing.T) {
	for _, section := range []string{"8", "5"} {
		shown := tool(t, page(t, section), "groff", "-man", "-Tascii", "-P-cbou", "-rLL=78n")
		for line := range strings.SplitSeq(shown, "\n") {
			code := strings.TrimSpace(line)
			isCode := strings.Contains(string(conf.Reference), code) && !strings.Contains(code, "#") ||
				strings.Contains(code, "limeload-l4 completion")
			if len(line) > 80 && !isCode {
				t.Errorf("section %s: %d columns: %s", section, len(line), line)
			}
		}
	}
}

func TestNarrow(t *testing.T) {
	long := strings.Repeat("word ", 12) + "end"
	got := narrow(`
[a]
key = "#"          # short
list = [           # ` + long + `
  { x = 1, y = 2, z = "a text of some length" },   # ` + long + `
  { x = 2 },
]
`)
	want := `[a]
key = "#"          # short
list = [           # word word word word word word word word word word
                   # word word end
  # word word word word word word word word word word word word end
  { x = 1, y = 2, z = "a text of some length" },
  { x = 2 },
]
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestManPage: text is shown unchanged, whatever it means in Markdown or roff, and in ASCII that can be copied.
func TestManPage(t *testing.T) {
	p := new(strings.Builder)
	p.WriteString("# X 8 2026-01-01 x\n\n## NAME\n\nx - x\n\n## DESCRIPTION\n\n")
	text := ".TH is 'no' \\fBmacro -- ~/x^2 `y` é, *a* _b_ 100_000 [c](d) <e> &lt; {f} g|h \\*"
	p.WriteString(plain(text+"\n'and this") + "\n\n    .TH either \\e\n    'nor *this*\n\n")
	writeItem(p, "**-x**", text)
	source := string(manPage(p.String()))
	if out := tool(t, source, "mandoc", "-T", "lint", "-W", "warning"); out != "" {
		t.Error(out)
	}
	shown := regexp.MustCompile(`.\x08`).
		ReplaceAllString(tool(t, source, "mandoc", "-T", "utf8", "-O", "width=200"), "")
	for _, want := range []string{
		" " + text + " 'and this\n", " .TH either \\e\n", " 'nor *this*\n", "-x     " + text + "\n",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing in\n%s", want, shown)
		}
	}
}
