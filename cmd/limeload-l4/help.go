package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const (
	helpColumns = 80 // the width of a page of help
	helpIndent  = 2
	helpFlags   = 26 // the widest column of flags; the text of a wider flag begins on the next line
)

// execute runs a command line, or prints the help that it asks for.
func execute(ctx context.Context, app *cli.App, args []string) error {
	if path, asked := helpAsked(app, args[1:]); asked {
		return writeHelp(app.Writer, app, path)
	}
	return app.RunContext(ctx, args)
}

// helpAsked reports whether a command line asks for help, and for which command. One with a mistake before that does
// not ask.
func helpAsked(app *cli.App, words []string) (path []*cli.Command, asked bool) {
	commands, flags, arguments := app.Commands, app.Flags, 0
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word == "--":
			return nil, false
		case len(word) < 2 || word[0] != '-':
			next := named(commands, word)
			if arguments > 0 || next == nil {
				arguments++
				if len(path) == 0 {
					return nil, false // a command that does not exist
				}
				continue
			}
			if next.SkipFlagParsing {
				return nil, false
			}
			path = append(path, next)
			commands, flags = next.Subcommands, next.Flags
		case word == "--help" || word == "-h" || word == "-help":
			return path, true
		default:
			name, _, attached := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
			f := flagNamed(flags, name)
			if f == nil {
				return nil, false
			}
			if takesValue(f) && !attached {
				i++
			}
		}
	}
	return nil, false
}

// named returns the command with a name; nil if there is none.
func named(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:            "help",
		Usage:           "print this list, or how a command is used",
		ArgsUsage:       "[COMMAND...]",
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			path, err := commandPath(c.App, args)
			if err != nil {
				return err
			}
			return writeHelp(c.App.Writer, c.App, path)
		},
	}
}

// commandPath returns the commands that the words name, each below the one before.
func commandPath(app *cli.App, words []string) (path []*cli.Command, err error) {
	commands := app.Commands
	for _, word := range words {
		c := named(commands, word)
		if c == nil || c.Hidden {
			return nil, unknownCommand(word, commands)
		}
		path = append(path, c)
		commands = c.Subcommands
	}
	return path, nil
}

// helpAbout returns the command line that prints the help about the command of another one.
func helpAbout(app *cli.App, words []string) string {
	line, commands := app.Name+" help", app.Commands
	if len(words) > 0 && words[0] == "help" {
		words = words[1:]
	}
	for _, word := range words {
		c := named(commands, word)
		if c == nil || c.Hidden {
			break
		}
		line += " " + c.Name
		commands = c.Subcommands
	}
	return line
}

// writeHelp writes the help about a command, or without one about the program: a line with the usage, a paragraph, its
// commands and flags, and an example.
func writeHelp(w io.Writer, app *cli.App, path []*cli.Command) error {
	var b strings.Builder
	if len(path) == 0 {
		for i, line := range strings.Split(app.UsageText, "\n") {
			b.WriteString([]string{"Usage: ", "       "}[min(i, 1)] + line + "\n")
		}
		b.WriteString("\n" + wrappedAt(sentence(app.Usage), 0))
		writeCommands(&b, app.Commands)
		writeFlagHelp(&b, "Flags", app.Flags, "")
		b.WriteString("\nExample:\n  limeload-l4 example redis >lb.toml\n  limeload-l4 check lb.toml\n" +
			"  limeload-l4 --config lb.toml\n\n" + wrappedAt("`limeload-l4 help COMMAND` says more about a command, and "+
			"`limeload-l4 man 8` has all of it on one page.", 0))
		_, err := io.WriteString(w, b.String())
		return err
	}
	name := app.Name
	for _, c := range path {
		name += " " + c.Name
	}
	c := path[len(path)-1]
	usage := name
	if len(c.Subcommands) > 0 {
		usage += " [COMMAND]"
	}
	if slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return f.Names()[0] != "help" }) {
		usage += " [FLAGS]"
	}
	if c.ArgsUsage != "" {
		usage += " " + c.ArgsUsage
	}
	fmt.Fprintf(&b, "Usage: %s\n\n", usage)
	writeDescription(&b, c)
	writeCommands(&b, c.Subcommands)
	writeFlagHelp(&b, "Flags", c.Flags, "")
	writeFlagHelp(&b, strings.TrimSuffix(daemonFlags, ":"), c.Flags, daemonFlags)
	if example := helpExamples()[strings.TrimPrefix(name, app.Name+" ")]; example != "" {
		b.WriteString("\nExample:\n")
		for line := range strings.SplitSeq(example, "\n") {
			b.WriteString("  " + line + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeDescription writes what a command does. Lines of the description that are indented stay as they are.
func writeDescription(b *strings.Builder, c *cli.Command) {
	text := sentence(c.Usage)
	flush := func() {
		if text != "" {
			b.WriteString(wrappedAt(text, 0))
			text = ""
		}
	}
	for line := range strings.Lines(c.Description) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			flush()
			b.WriteString("\n")
		case strings.HasPrefix(line, "   "):
			flush()
			b.WriteString(line[1:] + "\n")
		default:
			text = strings.TrimSpace(text + " " + line)
		}
	}
	flush()
}

// writeCommands writes a list of commands; those that ask the daemon stand apart.
func writeCommands(b *strings.Builder, commands []*cli.Command) {
	for _, asks := range []bool{false, true} {
		title := "\nCommands:\n"
		if asks && len(commands) > 10 {
			title = "\nCommands that ask the daemon:\n"
		} else if asks {
			title = ""
		}
		width := 0
		for _, c := range commands {
			width = max(width, len(c.Name))
		}
		for _, c := range commands {
			if c.Hidden || len(commands) > 10 && (flagNamed(c.Flags, "admin") != nil) != asks ||
				len(commands) <= 10 && asks {
				continue
			}
			b.WriteString(title)
			title = ""
			writeTerm(b, c.Name, c.Usage, width)
		}
	}
}

// writeFlagHelp writes the flags of a category; "" for those without one.
func writeFlagHelp(b *strings.Builder, title string, flags []cli.Flag, category string) {
	var terms, texts []string
	width := 0
	for _, f := range flags {
		d, is := f.(cli.DocGenerationFlag)
		if !is || categoryOf(f) != category || f.Names()[0] == "help" {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			names = append(names, "-"+strings.Repeat("-", min(len(name)-1, 1))+name)
		}
		term := strings.Join(names, ", ")
		if value := placeholder(f); value != "" {
			term += " " + value
		}
		terms, texts = append(terms, term), append(texts, flagUsage(f)+flagDefault(f, d))
		width = max(width, min(len(term), helpFlags))
	}
	if category == "" {
		terms, texts = append(terms, "--help, -h"), append(texts, "print this")
		width = max(width, len("--help, -h"))
	}
	if len(terms) == 0 {
		return
	}
	b.WriteString("\n" + title + ":\n")
	for i, term := range terms {
		writeTerm(b, term, texts[i], width)
	}
}

// writeTerm writes a word, and beside it what it means.
func writeTerm(b *strings.Builder, term, text string, width int) {
	at := helpIndent + width + 2
	lines := wrappedAt(text, at)
	if len(term) > width {
		fmt.Fprintf(b, "%*s%s\n%s", helpIndent, "", term, lines)
		return
	}
	fmt.Fprintf(b, "%*s%-*s%s", helpIndent, "", at-helpIndent, term, lines[min(at, len(lines)):])
}

// wrappedAt returns a text in lines that begin in a column.
func wrappedAt(text string, column int) string {
	var b strings.Builder
	indent := strings.Repeat(" ", column)
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > column && len(line)+1+len(word) > helpColumns {
			b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > column {
			line += " "
		}
		line += word
	}
	return b.String() + line + "\n"
}
