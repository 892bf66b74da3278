package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// unknownCommand returns the error of a word that is neither a command nor an argument.
func unknownCommand(word string, commands []*cli.Command) error {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	text := fmt.Sprintf("unknown command or argument %q", word)
	near := conf.Nearest(word, names)
	if near == "" {
		near = longerCommand(word, commands)
	}
	if near != "" {
		text += fmt.Sprintf(", did you mean %q?", near)
	}
	return &usageError{errors.New(text)}
}

// longerCommand returns the command that begins with word, or that is called word below another command; "" if there is
// none, or more than one.
func longerCommand(word string, commands []*cli.Command) string {
	var longer []string
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		if len(word) > 1 && strings.HasPrefix(c.Name, word) {
			longer = append(longer, c.Name)
		}
		if named(c.Subcommands, word) != nil {
			longer = append(longer, c.Name+" "+word)
		}
	}
	if len(longer) == 1 {
		return longer[0]
	}
	return ""
}

// unknownFlag returns the error of a flag that does not exist.
func unknownFlag(name string, flags []cli.Flag) error {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	text := fmt.Sprintf("unknown flag %q", dashed(name))
	if near := conf.Nearest(name, append(names, "help")); near != "" {
		text += fmt.Sprintf(", did you mean %q?", dashed(near))
	}
	return &usageError{errors.New(text)}
}

// dashed returns a flag as one writes it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// wrongValue returns the error of a flag with a value that it cannot have.
func wrongValue(f cli.Flag, value string) error {
	needs := "another value"
	switch f.(type) {
	case *cli.IntFlag, *cli.Uint64Flag:
		needs = "a whole number"
	case *cli.Float64Flag:
		needs = "a number"
	case *cli.DurationFlag:
		needs = "a time with a unit, such as 30s or 5m"
	case *cli.BoolFlag:
		needs = "no value"
	}
	return &usageError{fmt.Errorf("%s %q: needs %s", dashed(f.Names()[0]), value, needs)}
}

// noValue returns the error of a flag without the value that it needs.
func noValue(f cli.Flag) error {
	what := placeholder(f)
	if what == "" {
		what = "a value"
	}
	return &usageError{fmt.Errorf("%s needs %s", dashed(f.Names()[0]), what)}
}

// asUsageError converts an error of the library's parser of flags, which names flags with one dash and Go's functions.
func asUsageError(c *cli.Context, err error, _ bool) error {
	flags := c.App.Flags
	if c.Command != nil && c.Command.Name != c.App.Name {
		flags = c.Command.Flags
	}
	text := err.Error()
	if m := regexp.MustCompile(`^flag provided but not defined: -(.*)$`).FindStringSubmatch(text); m != nil {
		return unknownFlag(strings.TrimPrefix(m[1], "-"), flags)
	}
	if m := regexp.MustCompile(`^flag needs an argument: -(.*)$`).FindStringSubmatch(text); m != nil {
		if f := flagNamed(flags, m[1]); f != nil {
			return noValue(f)
		}
	}
	if m := regexp.MustCompile(`(?s)^(?:could not parse|invalid boolean value|invalid value) "(.*)" .*?for (?:flag )?-?([A-Za-z0-9-]+)`).
		FindStringSubmatch(text); m != nil {
		if f := flagNamed(flags, strings.TrimPrefix(m[2], "-")); f != nil {
			return wrongValue(f, m[1])
		}
	}
	if m := regexp.MustCompile(`(?s)^bad flag syntax: (.*)$`).FindStringSubmatch(text); m != nil {
		return &usageError{fmt.Errorf("%q is no flag", m[1])}
	}
	return &usageError{err}
}
