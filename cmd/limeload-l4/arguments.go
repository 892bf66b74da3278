package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// commandsWithArguments is the commands that take care of their arguments and usage errors themselves: those that speak with
// the running daemon, and those about the program.
func commandsWithArguments() []*cli.Command {
	return []*cli.Command{
		statusCommand(), backendsCommand(), sessionsCommand(), dnsCommand(), explainCommand(), reloadCommand(), planCommand(), eventsCommand(),
		completionCommand(), completeCommand(), manCommand(),
	}
}

// arguments is what stands on the command line besides the flags, one for each word of the command's ArgsUsage; a word in
// brackets is one that may be left out. Flags may stand before, between and behind them: the library stops at the first
// word that is none, so what follows is set here. Behind "--" nothing is a flag.
//
// With --help behind an argument it prints the help and returns no error, and asked is true: there is nothing left to do.
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
			return nil, true, cli.ShowSubcommandHelp(c)
		}
		f := flagNamed(c.Command.Flags, name)
		switch {
		case f == nil:
			return nil, false, &usageError{fmt.Errorf("flag provided but not defined: -%s", name)}
		case attached:
		case !takesValue(f):
			value = "true"
		case len(rest) == 0:
			return nil, false, &usageError{fmt.Errorf("flag needs an argument: -%s", name)}
		default:
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(f.Names()[0], value); err != nil {
			return nil, false, &usageError{fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)}
		}
	}
	return args, false, countArguments(c, args)
}

// countArguments holds args to what the command's ArgsUsage promises.
func countArguments(c *cli.Context, args []string) error {
	names := strings.Fields(c.Command.ArgsUsage)
	if len(args) > len(names) {
		return &usageError{fmt.Errorf("unknown command or argument %q", args[len(names)])}
	}
	for _, name := range names[len(args):] {
		if !strings.HasPrefix(name, "[") {
			return &usageError{fmt.Errorf("%s is missing: the command is `%s %s`", name, c.Command.HelpName, c.Command.ArgsUsage)}
		}
	}
	for i, arg := range args {
		if arg == "" {
			return &usageError{fmt.Errorf("%s is empty", names[i])}
		}
	}
	return nil
}

// flagNamed is the flag of that name or alias; nil if there is none.
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

// takesValue tells whether the word behind a flag belongs to it.
func takesValue(f cli.Flag) bool {
	d, is := f.(cli.DocGenerationFlag)
	return is && d.TakesValue()
}

// from is where a flag was set: in the command itself or, as in `backends --pool redis list`, in one before it; c if
// nowhere, for its default.
func from(c *cli.Context, name string) *cli.Context {
	for _, at := range c.Lineage() {
		if at.Command != nil && at.IsSet(name) {
			return at
		}
	}
	return c
}
