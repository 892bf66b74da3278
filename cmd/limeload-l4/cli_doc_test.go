package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

const cliDoc = "../../docs/cli.md"

// undocumented is which commands, flags and exit codes of an app a page does not name.
func undocumented(app *cli.App, page string) (missing []string) {
	want := func(pattern, what string) {
		if !regexp.MustCompile(pattern).MatchString(page) {
			missing = append(missing, what)
		}
	}
	var walk func(before string, commands []*cli.Command)
	walk = func(before string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			name := before + " " + c.Name
			want("`"+regexp.QuoteMeta(name)+"`", name)
			for _, f := range c.Flags {
				if before == app.Name && c.Name == "simulate" || c.Name == "check" { // their help tells; pages of their own show them
					continue
				}
				want("`--"+regexp.QuoteMeta(f.Names()[0])+"[`=]", name+" --"+f.Names()[0])
			}
			walk(name, c.Subcommands)
		}
	}
	walk(app.Name, app.Commands)
	for _, e := range exitCodes() {
		want(fmt.Sprintf(`(?m)^\| %d \| %s \|$`, e.code, regexp.QuoteMeta(e.meaning)), fmt.Sprintf("exit code %d", e.code))
	}
	return missing
}

// TestDocNamesAll holds docs/cli.md to the commands, flags and exit codes there are, and that it names no command there is not.
func TestDocNamesAll(t *testing.T) {
	text, err := os.ReadFile(cliDoc)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	app := wholeApp(io.Discard, io.Discard)
	for _, gone := range []string{"`limeload-l4 backends set`", "`--min-idle`", "| 3 | The running"} {
		if !strings.Contains(page, gone) || undocumented(app, strings.ReplaceAll(page, gone, "")) == nil {
			t.Fatalf("the guard does not miss %s", gone)
		}
	}
	for _, what := range undocumented(app, page) {
		t.Errorf("docs/cli.md does not tell of %s", what)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `limeload-l4 ([a-z ]+)` \\|").FindAllStringSubmatch(page, -1) {
		words := strings.Fields(m[1])
		c := app.Command(words[0])
		for _, word := range words[1:] {
			if c != nil {
				c = c.Command(word)
			}
		}
		if c == nil {
			t.Errorf("docs/cli.md tells of %s, and there is no such command", m[0])
		}
	}
}

// TestDocOutputs runs what docs/cli.md shows, each against a fake daemon of its own, and compares the output. -update
// writes it anew.
func TestDocOutputs(t *testing.T) {
	text, err := os.ReadFile(cliDoc)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "new.toml"), []byte(goodConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(cliDoc)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	examples := 0
	written := regexp.MustCompile("(?s)```console\n\\$ limeload-l4 ([^\n]*)\n(.*?)```").ReplaceAllFunc(text, func(block []byte) []byte {
		examples++
		line, shown, _ := strings.Cut(strings.TrimPrefix(string(block), "```console\n$ limeload-l4 "), "\n")
		startFake(t)
		code, stdout, stderr := command(t, strings.Fields(line)...)
		if want := map[bool]int{true: exitUnreachable}[line == "events"]; code != want { // the fake daemon ends its stream
			t.Errorf("limeload-l4 %s: exit code %d: %s", line, code, stderr)
		}
		stdout = zoneless(stdout)
		if shown = strings.TrimSuffix(shown, "```"); shown != stdout && !*update {
			t.Errorf("limeload-l4 %s: docs/cli.md shows\n%sit prints\n%s", line, shown, stdout)
		}
		return fmt.Appendf(nil, "```console\n$ limeload-l4 %s\n%s```", line, stdout)
	})
	if examples < 12 {
		t.Fatalf("docs/cli.md has %d examples", examples)
	}
	if *update && !bytes.Equal(written, text) {
		if err := os.WriteFile(here, written, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
