package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/algo"
)

func algorithmsCommand() *cli.Command {
	return &cli.Command{
		Name:  "algorithms",
		Usage: "list the algorithms that choose a backend, and when to use each",
		Action: func(c *cli.Context) error {
			w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
			for _, k := range algo.Kinds() {
				fmt.Fprintf(w, "%s\t%s\n", k.Name, k.Use)
			}
			return w.Flush()
		},
	}
}
