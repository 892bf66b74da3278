package main

import (
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

// undocumented returns the commands, flags and exit codes of an app that a page does not name.
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
				// their own help and pages show these
				if before == app.Name && c.Name == "simulate" || c.Name == "check" {
					continue
				}
				want("`--"+regexp.QuoteMeta(f.Names()[0])+"[`=]", name+" --"+f.Names()[0])
			}
			walk(name, c.Subcommands)
		}
	}
	walk(app.Name, app.Commands)
	for _, e := range exitCodes() {
		want(fmt.Sprintf(`(?m)^\| %d \| %s \|$`, e.code, regexp.QuoteMeta(e.meaning)),
			fmt.Sprintf("exit code %d", e.code))
	}
	return missing
}

// TestDocNamesAll: docs/cli.md names all commands, flags and exit codes, and no command that does not exist.
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

// docCommands returns the arguments of all commands of the program in a page, in blocks and in the text, without
// comments of the shell.
func docCommands(page string) (commands [][]string) {
	inline := regexp.MustCompile("`(?:build/)?limeload-l4 ([^`]+)`")
	inBlock, block := regexp.MustCompile(`^(?:\$ )?(?:build/)?limeload-l4 (.*)`), false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			block = !block
		}
		var found [][]string
		if !block {
			found = inline.FindAllStringSubmatch(line, -1)
		} else if m := inBlock.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			found = [][]string{m}
		}
		for _, m := range found {
			text, _, _ := strings.Cut(m[1], " #")
			text, _, _ = strings.Cut(text, " | ")
			text, _, _ = strings.Cut(text, " > ")
			words := regexp.MustCompile(`'[^']*'|\S+`).FindAllString(text, -1)
			for i := range words {
				words[i] = strings.Trim(words[i], "'")
			}
			if !strings.ContainsAny(text, "<>()…") && words[0] == strings.ToLower(words[0]) {
				commands = append(commands, words)
			}
		}
	}
	return commands
}

// TestDocCommands: every command in the documents is valid, and has only flags that exist.
func TestDocCommands(t *testing.T) {
	for _, bad := range []string{"`limeload-l4 sesions end`",
		"```sh\nlimeload-l4 backends drain redis b1 --dead 5m   # for long\n```\n"} {
		if c := docCommands(bad); len(c) != 1 || parses(t, c[0]) == nil {
			t.Fatalf("the guard does not miss %s", bad)
		}
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range append(pages, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, args := range docCommands(string(text)) {
			n++
			if err := parses(t, args); err != nil {
				t.Errorf("%s: limeload-l4 %s: %v", filepath.Base(file), strings.Join(args, " "), err)
			}
		}
	}
	if n < 60 {
		t.Errorf("the documents show %d commands", n)
	}
}

// parses returns the error of a command line, if it has one other than missing arguments. With --help nothing is done.
func parses(t *testing.T, args []string) error {
	t.Helper()
	if code, stdout, stderr := command(t, append(args, "--help")...); code != 0 || !strings.Contains(stdout, "Usage: ") {
		return fmt.Errorf("it ends with %d: %s", code, stderr)
	}
	return nil
}
