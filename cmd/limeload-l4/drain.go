package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// progressEvery is the interval at which --wait asks about a drain, short enough to see it move.
const progressEvery = 250 * time.Millisecond

func backendsDrainCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "drain",
		Usage:     "give a backend no new sessions, and let those it has end",
		ArgsUsage: "POOL BACKEND",
		Description: `The backend's mode becomes drain; "set --mode ready" takes that back. Sessions that are left when the deadline has
passed are ended.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "deadline", Usage: "end the sessions that are left after this `TIME`",
				DefaultText: "never"},
			&cli.BoolFlag{Name: "remove", Usage: "remove the backend from the pool when its last session is gone",
				DisableDefaultText: true},
			localFlag(),
			&cli.BoolFlag{Name: "wait", Usage: "show the progress until the last session is gone",
				DisableDefaultText: true},
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		deadline := c.Duration("deadline")
		if deadline < 0 {
			return &usageError{fmt.Errorf("--deadline %s: needs a time of 0 or more", deadline)}
		}
		d := admin.Drain{Deadline: deadline.Seconds(), Remove: c.Bool("remove"), Local: c.Bool("local")}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		b, err := r.client.DrainBackend(ctx, args[0], args[1], d)
		if err != nil {
			return err
		}
		if c.Bool("wait") {
			if b.Sharing != nil && !b.Sharing.Shared && !r.json {
				if err := r.say("on this node only: %s", b.Sharing.Why)(r.out); err != nil {
					return err
				}
			}
			return r.awaitDrain(c.Context, b, d.Remove, ofNode(b.Sharing))
		}
		return r.print(b, r.say("backend %s of pool %s %s%s", b.Name, b.Pool, drainLeft(&b, ofNode(b.Sharing)),
			sharingText(b.Sharing)))
	})
}

// ofNode says where the sessions are that a drain waits for: in a fleet, other nodes have more of them.
func ofNode(s *admin.Sharing) string {
	if s != nil && s.Shared {
		return " on this node"
	}
	return ""
}

// drainLeft describes what a drain still waits for.
func drainLeft(b *admin.Backend, where string) string {
	if b.Drain != nil {
		return draining(b.Drain, where)
	}
	return fmt.Sprintf("drains: %s left%s", counted(b.Sessions, "session"), where)
}

// awaitDrain follows a drain until the last session is gone. It prints a line whenever fewer sessions are left; for
// JSON, it prints the last state of the backend. where is as ofNode returns it.
func (r *remote) awaitDrain(ctx context.Context, b admin.Backend, remove bool, where string) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	last := int64(-1)
	for {
		left := b.Sessions
		if b.Drain != nil {
			left = b.Drain.Left // includes the sessions at a former address
		}
		done := left == 0
		switch {
		case b.Mode != pool.Drain.String() && !done, remove && b.Drain == nil:
			return fmt.Errorf("backend %s of pool %s drains no longer: its mode is %s", b.Name, b.Pool, b.Mode)
		case done && !remove:
			return r.print(b, r.say("backend %s of pool %s is drained%s", b.Name, b.Pool, where))
		case left != last && !r.json:
			last = left
			if err := r.say("backend %s of pool %s %s", b.Name, b.Pool, drainLeft(&b, where))(r.out); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		backends, err := r.backendsOf(ctx, b.Pool)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(backends, func(other admin.Backend) bool { return other.Name == b.Name })
		if i < 0 {
			return r.gone(b, remove, where)
		}
		b = backends[i]
	}
}

func (r *remote) backendsOf(ctx context.Context, pool string) ([]admin.Backend, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	return r.client.Backends(ctx, pool)
}

// gone describes a drained backend that no longer exists.
func (r *remote) gone(b admin.Backend, asked bool, where string) error {
	text := "is drained" + where + " and removed"
	if !asked {
		text = "was removed meanwhile"
	}
	return r.print(b, func(w io.Writer) error { return r.say("backend %s of pool %s %s", b.Name, b.Pool, text)(w) })
}
