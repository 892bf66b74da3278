package main

import (
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/algo"
)

func algorithmsCommand() *cli.Command {
	return &cli.Command{
		Name:  "algorithms",
		Usage: "list the algorithms that choose a backend, and when to use each",
		Action: func(c *cli.Context) error {
			s, longest := screenOf(c.App.Writer), 0
			for _, k := range algo.Kinds() {
				longest = max(longest, len(k.Name))
			}
			for _, k := range algo.Kinds() {
				if err := s.fact(c.App.Writer, longest+gap, k.Name, k.Use); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
