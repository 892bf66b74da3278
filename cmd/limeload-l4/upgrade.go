package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// upgradeGrace is how long the answer about an upgrade may take beyond its deadline, within which the new process is
// ready: for as long as very many sessions go over.
const upgradeGrace = 30 * time.Second

func upgradeCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "upgrade",
		Usage: "replace the daemon by a new process, which takes over its sessions and flows",
		Description: `The daemon starts the program at its own path again. The new process reads the configuration file, checks the
backends, and then takes over the listening sockets, the flows, and the sessions at rest. The old one keeps sessions
that it cannot hand over, such as those with TLS, until they end or global.drain_timeout has passed. A package runs this
command when it is upgraded.
If the new process does not take over, nothing changes: the old one goes on with everything, and the exit code is 1.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "deadline", Value: admin.DefaultUpgradeDeadline,
				Usage: "give the new process up if it is not ready to take over after this `TIME`"},
		},
	}, reloadIn, func(c *cli.Context, r *remote, _ []string) error {
		deadline := c.Duration("deadline")
		u := admin.Upgrade{Deadline: deadline.Seconds()}
		if _, err := u.Time(); err != nil || deadline <= 0 {
			return &usageError{fmt.Errorf("--deadline %s: needs 1s to 10m", deadline)}
		}
		if !from(c, "timeout").IsSet("timeout") {
			r.timeout = deadline + upgradeGrace
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		done, err := r.client.Upgrade(ctx, u)
		if err != nil {
			return err
		}
		return r.print(done, func(w io.Writer) error { return printUpgrade(w, &done, r.screen) })
	})
}

// printUpgrade says what went over, and what did not.
func printUpgrade(w io.Writer, u *admin.Upgraded, on screen) error {
	err := on.write(w, 2, fmt.Sprintf("upgraded from %s (pid %d) to %s (pid %d) in %s: %s and %s went over",
		clean(u.OldVersion), u.OldPID, clean(u.NewVersion), u.NewPID, seconds(u.Took),
		counted(int64(u.Sessions), "session"), counted(int64(u.Flows), "flow")))
	total := 0
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(u.Left)) {
		if n := u.Left[why]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, clean(why)))
		}
	}
	if total > 0 && err == nil {
		stay, they := "stay", "they end"
		if total == 1 {
			stay, they = "stays", "it ends"
		}
		err = on.write(w, 2, fmt.Sprintf("%d %s with pid %d (%s) until %s or can go over, for %s at most",
			total, stay, u.OldPID, strings.Join(parts, ", "), they, seconds(u.Until)))
	}
	return err
}
