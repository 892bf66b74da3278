package main

import (
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print the JSON Schema of lb.toml, with which editors complete, explain and check its keys",
		Description: `Write it beside the configuration, and begin the configuration with the comment that names it:

   limeload-l4 schema >lb.schema.json
   #:schema ./lb.schema.json

The schema knows each key, but not the rules between keys: only "limeload-l4 check" finds every mistake.`,
		Action: func(c *cli.Context) error {
			_, err := c.App.Writer.Write(conf.Schema())
			return err
		},
	}
}
