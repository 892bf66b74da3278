package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// commandsWithArguments returns the commands that check their arguments and usage errors themselves: those that call
// the running daemon, and those about the program.
func commandsWithArguments() []*cli.Command {
	return []*cli.Command{
		checkCommand(), statusCommand(), backendsCommand(), sessionsCommand(), clientsCommand(), accessCommand(),
		dnsCommand(), fleetCommand(), explainCommand(), reloadCommand(), upgradeCommand(), planCommand(), logLevelCommand(),
		eventsCommand(), topCommand(), exampleCommand(), convertCommand(), completionCommand(), completeCommand(),
		manCommand(), helpCommand(),
	}
}

// arguments returns the words of the command line that are not flags, one for each word of the command's ArgsUsage;
// words in brackets are optional, and the last word may end in dots, for one or more. Flags may stand before, between
// and after them. The library stops at the first word that is no flag, so the flags after it are set here. After "--",
// no word is a flag.
//
// If --help follows an argument, it prints the help and returns no error, and asked is true: nothing is left to do.
func arguments(c *cli.Context) (args []string, asked bool, err error) {
	for rest := c.Args().Slice(); len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if word == "--" {
			args = append(args, rest...)
			break
		}
		if len(word) < 2 || word[0] != '-' {
			args = append(args, word)
			continue
		}
		name, value, attached := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
		if name == "help" || name == "h" {
			words := strings.Fields(c.Command.HelpName)
			path, err := commandPath(c.App, words[min(1, len(words)):])
			if err == nil {
				err = writeHelp(c.App.Writer, c.App, path)
			}
			return nil, true, err
		}
		f := flagNamed(c.Command.Flags, name)
		switch {
		case f == nil:
			return nil, false, unknownFlag(name, c.Command.Flags)
		case attached:
		case !takesValue(f):
			value = "true"
		case len(rest) == 0:
			return nil, false, noValue(f)
		default:
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(f.Names()[0], value); err != nil {
			return nil, false, wrongValue(f, value)
		}
	}
	return args, false, countArguments(c, args)
}

// countArguments checks the number of args against the command's ArgsUsage.
func countArguments(c *cli.Context, args []string) error {
	names := strings.Fields(c.Command.ArgsUsage)
	if len(args) > len(names) && !(len(names) > 0 && repeats(names[len(names)-1])) {
		return unknownCommand(args[len(names)], c.Command.Subcommands)
	}
	for _, name := range names[min(len(args), len(names)):] {
		if !strings.HasPrefix(name, "[") {
			return &usageError{fmt.Errorf("%s is missing: the command is `%s %s`", strings.TrimSuffix(name, "..."),
				c.Command.HelpName, c.Command.ArgsUsage)}
		}
	}
	for i, arg := range args {
		if arg == "" {
			return &usageError{fmt.Errorf("%s is empty", bareName(names[min(i, len(names)-1)]))}
		}
	}
	return nil
}

// repeats reports whether a word of ArgsUsage is for one argument or more, as in "PREFIX..." and "[COMMAND...]".
func repeats(name string) bool { return strings.HasSuffix(strings.TrimSuffix(name, "]"), "...") }

// bareName returns a word of ArgsUsage without its brackets and dots.
func bareName(name string) string { return strings.TrimSuffix(strings.Trim(name, "[]"), "...") }

// flagNamed returns the flag with a name or alias; nil if there is none.
func flagNamed(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

// takesValue reports whether the word after a flag is its value.
func takesValue(f cli.Flag) bool {
	d, is := f.(cli.DocGenerationFlag)
	return is && d.TakesValue()
}

// from returns the context in which a flag was set: that of the command or, as in `backends --pool redis list`, that of
// a command before it. It returns c if the flag was not set.
func from(c *cli.Context, name string) *cli.Context {
	for _, at := range c.Lineage() {
		if at.Command != nil && at.IsSet(name) {
			return at
		}
	}
	return c
}
