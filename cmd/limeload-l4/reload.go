package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"
)

// reloadIn bounds a reload or a plan, for which names are looked up.
const reloadIn = time.Minute

func reloadCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "reload",
		Usage: "have the daemon take up its configuration file, wait for that, and print what was changed",
		Description: `A file with a mistake changes nothing: the mistakes are printed as "check" prints them, and the exit code is 1. The
daemon reads its own file; --config says only where the daemon is.`,
	}, reloadIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		done, err := r.client.Reload(ctx)
		if err != nil {
			return err
		}
		return r.print(done, func(w io.Writer) error {
			line := fmt.Sprintf("%s: taken up in %s", clean(done.Plan.Config), seconds(done.Took))
			if err := r.screen.write(w, 2, line); err != nil {
				return err
			}
			return printPlan(w, &done.Plan, r.screen)
		})
	})
}
