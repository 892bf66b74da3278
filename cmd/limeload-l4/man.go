package main

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// exitCodes is what the program's exit codes mean.
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

// builtOn is the date of the commit that the program was built from; today for a build that does not know.
func builtOn() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" && len(s.Value) >= len(time.DateOnly) {
				return s.Value[:len(time.DateOnly)]
			}
		}
	}
	return time.Now().UTC().Format(time.DateOnly)
}

// programPage is limeload-l4(8).
func programPage(app *cli.App, date string) []byte {
	p := new(roff)
	p.title(app.Name, 8, date, app.Name)
	p.section("name")
	fmt.Fprintf(&p.text, "%s \\- %s\n", roffEscape(app.Name), roffEscape(app.Usage))
	p.section("synopsis")
	for i, line := range strings.Split(app.UsageText, "\n") {
		if i > 0 {
			p.text.WriteString(".br\n")
		}
		program, rest, _ := strings.Cut(line, " ")
		p.text.WriteString(bold(program) + " " + roffEscape(rest) + "\n")
	}
	p.section("description")
	p.prose(`Without a command it is the balancer itself: it reads the configuration, see lb.toml(5), listens, and sends each client to a backend until a signal ends it.
The commands check and try configurations, or ask the running balancer, the daemon, over its admin socket.

Flags may stand before and behind a command's arguments. Every command has --help.`)
	p.section("options")
	writeFlags(p, app.Flags, "")
	p.section("commands")
	for _, c := range app.Commands {
		writeCommand(p, app.Name, c)
	}
	p.section("options of the commands that ask the daemon")
	writeFlags(p, statusCommand().Flags, daemonFlags)
	p.section("signals")
	p.item(bold("TERM"), "Drain: take no new sessions, end when the last one is gone or global.drain_timeout has passed. A second one ends at once.")
	p.item(bold("INT"), "End at once.")
	p.item(bold("HUP"), "Reload the configuration file, as the command reload does.")
	p.section("exit status")
	for _, e := range exitCodes() {
		p.item(bold(strconv.Itoa(e.code)), e.meaning)
	}
	p.section("environment")
	p.item(bold(adminVariable), "The daemon's admin address where --admin is not given.")
	p.section("files")
	p.item(italic(configFlag().(*cli.StringFlag).Value), "The configuration, if --config names no other.")
	p.item(italic(strings.TrimPrefix(conf.DefaultAdminAddress, "unix:")), "The admin socket, if the configuration names no other.")
	p.section("see also")
	p.text.WriteString(".BR lb.toml (5)\n")
	return p.text.Bytes()
}

// writeCommand writes a part for a command, and one for each of its own.
func writeCommand(p *roff, before string, c *cli.Command) {
	if c.Hidden {
		return
	}
	name := before + " " + c.Name
	p.subsection(strings.TrimSpace(name + " " + c.ArgsUsage))
	p.prose(sentence(c.Usage))
	if c.Description != "" {
		p.text.WriteString(".PP\n")
		p.prose(c.Description)
	}
	writeFlags(p, c.Flags, "")
	for _, sub := range c.Subcommands {
		writeCommand(p, name, sub)
	}
}

// writeFlags writes the flags of a category; "" is those of none.
func writeFlags(p *roff, flags []cli.Flag, category string) {
	for _, f := range flags {
		d, is := f.(cli.DocGenerationFlag)
		if !is || f.Names()[0] == "help" || categoryOf(f) != category {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			text := bold("--" + name)
			if len(name) == 1 {
				text = bold("-" + name)
			}
			if value := placeholder(f); value != "" {
				text += " " + italic(value)
			}
			names = append(names, text)
		}
		p.item(strings.Join(names, ", "), sentence(flagUsage(f)+flagDefault(f, d)))
	}
}

func categoryOf(f cli.Flag) string {
	if c, is := f.(cli.CategorizableFlag); is {
		return c.GetCategory()
	}
	return ""
}

// flagDefault is a flag's default, in words; "" for a switch that is off and for what is empty.
func flagDefault(f cli.Flag, d cli.DocGenerationFlag) string {
	text := d.GetDefaultText()
	if text == "" || !d.TakesValue() && text == "false" {
		return ""
	}
	return " (default: " + text + ")"
}

// sentence is a text that begins with a capital letter and ends with a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}
