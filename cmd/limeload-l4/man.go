package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// exitCodes returns the meanings of the exit codes.
func exitCodes() []struct {
	code    int
	meaning string
} {
	return []struct {
		code    int
		meaning string
	}{
		{exitDone, "It is done."},
		{exitFailed, "It failed, or the configuration is wrong."},
		{exitUsage, "The command line is wrong."},
		{exitUnreachable, "The running daemon cannot be reached at its admin address."},
	}
}

func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print a manual page: 8 is limeload-l4(8), 5 is lb.toml(5)",
		ArgsUsage: "SECTION",
		Description: `The pages are made from the program, and so are always those of its version. To read one, or to have it installed:

   limeload-l4 man 8 | man -l -
   limeload-l4 man 5 >/usr/local/share/man/man5/lb.toml.5`,
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			var page []byte
			switch args[0] {
			case "8":
				page = programPage(c.App, builtOn())
			case "5":
				page = configurationPage(conf.Reference, builtOn())
			default:
				return &usageError{fmt.Errorf("SECTION %q: needs 8 or 5", args[0])}
			}
			_, err = c.App.Writer.Write(page)
			return err
		},
	}
}

// builtOn returns the date of SOURCE_DATE_EPOCH, by which a package gets the same page each time it is built
// (reproducible-builds.org/specs/source-date-epoch). Without it, that is the date of the commit that the program was
// built from, or today if the build does not know it.
func builtOn() string {
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" && len(s.Value) >= len(time.DateOnly) {
				return s.Value[:len(time.DateOnly)]
			}
		}
	}
	return time.Now().UTC().Format(time.DateOnly)
}

// programPage returns limeload-l4(8).
func programPage(app *cli.App, date string) []byte {
	p := new(strings.Builder)
	fmt.Fprintf(p, "# %s 8 %s %s\n\n", strings.ToUpper(app.Name), date, app.Name)
	fmt.Fprintf(p, "## NAME\n\n%s - %s\n\n## SYNOPSIS\n\n", app.Name, plain(app.Usage))
	for line := range strings.SplitSeq(app.UsageText, "\n") {
		program, rest, _ := strings.Cut(line, " ")
		fmt.Fprintf(p, "**%s** %s  \n", program, plain(rest)) // two spaces at the end keep the line break
	}
	p.WriteString(`
## DESCRIPTION

Without a command it is the balancer itself: it reads the configuration, see lb.toml(5), listens, and sends each
client to a backend until a signal ends it.
The commands check and try configurations, or ask the running balancer, the daemon, over its admin socket.

Flags may stand before and behind a command's arguments. Every command has --help.

## OPTIONS

`)
	writeFlags(p, app.Flags, "")
	p.WriteString("## COMMANDS\n\n")
	for _, c := range app.Commands {
		writeCommand(p, app.Name, c)
	}
	p.WriteString("## OPTIONS OF THE COMMANDS THAT ASK THE DAEMON\n\n")
	writeFlags(p, statusCommand().Flags, daemonFlags)
	p.WriteString("## SIGNALS\n\n")
	writeItem(p, "**TERM**", "Drain: take no new sessions, end when the last one is gone or global.drain_timeout has "+
		"passed. A second one ends at once.")
	writeItem(p, "**INT**", "End at once.")
	writeItem(p, "**HUP**", "Reload the configuration file, as the command reload does.")
	writeItem(p, "**USR2**", "Start a new process that takes over, as the command upgrade does.")
	p.WriteString("## EXIT STATUS\n\n")
	for _, e := range exitCodes() {
		writeItem(p, fmt.Sprintf("**%d**", e.code), e.meaning)
	}
	p.WriteString("## ENVIRONMENT\n\n")
	writeItem(p, "**"+adminVariable+"**", "The daemon's admin address where --admin is not given.")
	p.WriteString("## FILES\n\n")
	writeItem(p, "*"+configFlag().(*cli.StringFlag).Value+"*", "The configuration, if --config names no other.")
	socket := strings.TrimPrefix(conf.DefaultAdminAddress, "unix:")
	writeItem(p, "*"+socket+"*", "The admin socket, if the configuration names no other.")
	p.WriteString("## SEE ALSO\n\n**lb.toml**(5)\n")
	return manPage(p.String())
}

// writeCommand writes the section of a command, and those of its subcommands.
func writeCommand(p *strings.Builder, before string, c *cli.Command) {
	if c.Hidden {
		return
	}
	name := before + " " + c.Name
	fmt.Fprintf(p, "### %s\n\n%s\n\n", plain(strings.TrimSpace(name+" "+c.ArgsUsage)), plain(sentence(c.Usage)))
	for line := range strings.Lines(c.Description) {
		if strings.HasPrefix(line, "   ") {
			p.WriteString(" " + line) // an example, for which Markdown needs four spaces
		} else {
			p.WriteString(plain(line))
		}
	}
	p.WriteString("\n\n")
	writeFlags(p, c.Flags, "")
	for _, sub := range c.Subcommands {
		writeCommand(p, name, sub)
	}
}

// writeFlags writes the flags of a category; "" for those without one.
func writeFlags(p *strings.Builder, flags []cli.Flag, category string) {
	for _, f := range flags {
		d, is := f.(cli.DocGenerationFlag)
		if !is || f.Names()[0] == "help" || categoryOf(f) != category {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			text := "**--" + name + "**"
			if len(name) == 1 {
				text = "**-" + name + "**"
			}
			if value := placeholder(f); value != "" {
				text += " *" + value + "*"
			}
			names = append(names, text)
		}
		writeItem(p, strings.Join(names, ", "), sentence(flagUsage(f)+flagDefault(f, d)))
	}
}

// writeItem writes an item of a definition list. The term is Markdown, the text is not.
func writeItem(p *strings.Builder, term, text string) {
	fmt.Fprintf(p, "%s\n:   %s\n\n", term, plain(text))
}

// plain returns text as Markdown that shows it unchanged.
func plain(text string) string {
	return regexp.MustCompile("[\\\\`*_{}\\[\\]<>&|~]").ReplaceAllString(text, `\$0`)
}

// manPage renders Markdown as a manual page.
//
// It corrects two things that go-md2man does. Empty lines before its macros double the space between paragraphs. Minus
// signs and quotes become typographic characters, so that an option copied from the page would not work.
func manPage(markdown string) []byte {
	page := string(md2man.Render([]byte(markdown)))
	// .EX starts an example and keeps its empty line
	page = regexp.MustCompile(`\n\n+(\.[^E])`).ReplaceAllString(page, "\n$1")
	title, text, _ := strings.Cut(page, ".SH") // the date in the title has plain hyphens
	ascii := strings.NewReplacer(`\\`, `\e`, `\-`, `\-`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`)
	return []byte(title + ".SH" + ascii.Replace(text))
}

func categoryOf(f cli.Flag) string {
	if c, is := f.(cli.CategorizableFlag); is {
		return c.GetCategory()
	}
	return ""
}

// flagDefault describes a flag's default; "" for a switch that is off, and for an empty value.
func flagDefault(f cli.Flag, d cli.DocGenerationFlag) string {
	text := d.GetDefaultText()
	if text == "" || !d.TakesValue() && text == "false" {
		return ""
	}
	return " (default: " + text + ")"
}

// sentence returns a text with a capital letter at its beginning and a full stop at its end.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}
