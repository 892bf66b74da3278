package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

const (
	// topInterval is how often top asks, if not said otherwise: as often as a person can read.
	topInterval = time.Second
	// onceInterval is how long --once measures: as long as it takes to see the bytes of running sessions evenly.
	onceInterval = bytesWindow
	// leastInterval bounds what top costs the daemon, and how inexact its rates are.
	leastInterval = 100 * time.Millisecond
)

func topCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "top",
		Usage: "show what the daemon does now, and set modes and weights of backends by a key",
		Description: `It is for a terminal; ? shows the keys. Rates of bytes are means of ten seconds, since the daemon
counts the bytes of running sessions every five.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "print one snapshot and end", DisableDefaultText: true},
			&cli.DurationFlag{Name: "interval", Usage: "how often to ask, or how long --once measures, a `TIME`",
				DefaultText: fmt.Sprintf("%s; %s for --once", topInterval, onceInterval)},
			&cli.StringFlag{Name: "pool", Usage: "begin with the backends of the pool `NAME`"},
		},
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		interval := topInterval
		if c.Bool("once") {
			interval = onceInterval
		}
		if c.IsSet("interval") {
			interval = c.Duration("interval")
		}
		if interval < leastInterval {
			return &usageError{fmt.Errorf("--interval %s: needs %s or more", interval, leastInterval)}
		}
		if c.Bool("once") {
			if c.IsSet("pool") {
				return &usageError{errors.New("--once prints all pools: needs no --pool beside it")}
			}
			return r.once(c.Context, interval)
		}
		if r.json {
			return &usageError{errors.New("--output json: needs --once beside it")}
		}
		out, is := r.out.(*os.File)
		if !is || !term.IsTerminal(int(out.Fd())) || !term.IsTerminal(int(os.Stdin.Fd())) {
			return &usageError{errors.New("this is no terminal: needs --once, for one snapshot")}
		}
		return r.top(c.Context, out, interval, c.String("pool"))
	})
}

// top shows the daemon until the user ends it. A daemon that cannot be reached at the start is an error, as it is for
// every command; later, top waits for it.
func (r *remote) top(ctx context.Context, out *os.File, interval time.Duration, pool string) error {
	first, err := r.sample(ctx)
	if err != nil {
		return err
	}
	m := newTopModel(ctx, r, interval, pool)
	m.take(first, nil)
	if pool != "" && m.poolNamed(pool) == nil {
		return &usageError{fmt.Errorf("--pool %q: there is no such pool", pool)}
	}
	profile := colorprofile.ASCII
	if r.screen.colours {
		profile = colorprofile.ANSI
	}
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(os.Stdin), tea.WithOutput(out),
		tea.WithColorProfile(profile)).Run()
	if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil
	}
	return err
}
