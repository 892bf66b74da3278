package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func logLevelCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "log-level",
		Usage:     "print the level of the daemon's log, or change it, without touching the file",
		ArgsUsage: "[LEVEL]",
		Description: `LEVEL is trace, debug, info, warn or error. It is in force at once. A reload, or the end of the time that --for
gives, puts the level of the configuration file in force again.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Usage: "for this `TIME`", DefaultText: "until the next change or reload"},
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		if len(args) == 0 {
			if c.IsSet("for") {
				return &usageError{fmt.Errorf("--for needs a LEVEL: %s", strings.Join(admin.LogLevels(), ", "))}
			}
			level, err := r.client.LogLevel(ctx)
			if err != nil {
				return err
			}
			return r.print(level, func(w io.Writer) error { return r.say("%s", levelText(&level))(w) })
		}
		if levels := admin.LogLevels(); !slices.Contains(levels, args[0]) {
			return &usageError{fmt.Errorf("LEVEL %q: %sneeds one of %s", args[0], probably(args[0], levels),
				strings.Join(levels, ", "))}
		}
		lasts := c.Duration("for")
		if c.IsSet("for") && (lasts < admin.MinLogTime || lasts > admin.MaxLogTime) {
			return &usageError{fmt.Errorf("--for %s: needs %s to %s", lasts, admin.MinLogTime, duration(admin.MaxLogTime))}
		}
		level, err := r.client.SetLogLevel(ctx, args[0], lasts)
		return r.changed(level, err, "the log level is %s", levelText(&level))
	})
}

// levelText describes a level, and how long it lasts.
func levelText(l *admin.LogLevel) string {
	if l.Until == nil {
		return l.Level
	}
	return fmt.Sprintf("%s, for %s more", l.Level, duration(time.Until(*l.Until).Round(time.Second)))
}
