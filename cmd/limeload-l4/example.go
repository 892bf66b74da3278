package main

import (
	"embed"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// configurations holds the example configurations, one file for each service. Packages install them unchanged.
//
// The first line of each file is the schema for editors, and the second one a comment "NAME: what it is for".
//
//go:embed packaging/configurations/*.toml
var configurations embed.FS

const configurationsFolder = "packaging/configurations"

// everyKey is the name of the reference among the examples.
const everyKey = "all"

// exampleList returns the examples, each with its meaning.
func exampleList() []candidate {
	entries, err := configurations.ReadDir(configurationsFolder)
	if err != nil {
		panic("the examples are not embedded: " + err.Error())
	}
	var list []candidate
	for _, e := range entries { // in the order of their names
		name := strings.TrimSuffix(e.Name(), ".toml")
		list = append(list, candidate{name, exampleMeaning(exampleFile(name))})
	}
	return append(list, candidate{everyKey, "every key, its default and its meaning"})
}

// exampleMeaning returns what the second line of an example says.
func exampleMeaning(text []byte) string {
	_, rest, _ := strings.Cut(string(text), "\n")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSuffix(strings.TrimPrefix(line, "# "), ".")
}

// exampleFile returns the example with that name; nil if there is none.
func exampleFile(name string) []byte {
	if name == everyKey {
		return conf.Reference
	}
	text, err := configurations.ReadFile(path.Join(configurationsFolder, path.Base(name)+".toml"))
	if err != nil {
		return nil
	}
	return text
}

func exampleCommand() *cli.Command {
	return &cli.Command{
		Name:      "example",
		Usage:     "list the example configurations, or print one that is ready to be changed and used",
		ArgsUsage: "[SERVICE]",
		Description: `Without SERVICE it lists the examples. The one called "all" is not for use: it has every key, with its
default and its meaning.

   limeload-l4 example postgres >lb.toml`,
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			if len(args) == 0 {
				return listExamples(c.App.Writer)
			}
			text := exampleFile(args[0])
			if text == nil {
				var names []string
				for _, e := range exampleList() {
					names = append(names, e.word)
				}
				return &usageError{fmt.Errorf("SERVICE %q: there is no such example; there are %s", args[0],
					strings.Join(names, ", "))}
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}

func listExamples(out io.Writer) error {
	s, longest := screenOf(out), 0
	for _, e := range exampleList() {
		longest = max(longest, len(e.word))
	}
	for _, e := range exampleList() {
		if err := s.fact(out, longest+gap, e.word, e.meaning); err != nil {
			return err
		}
	}
	return nil
}
