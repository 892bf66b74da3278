package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// eventTime is the format of an event's time: that of the log, in the local time zone.
const eventTime = "2006-01-02T15:04:05.000Z07:00"

func eventsCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "events",
		Usage: "print what happens as it happens, a line for each event",
		Description: `With --output json each line is a JSON document. It ends when it is interrupted and, with exit code 3, when the daemon
ends or the connection breaks.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "pool", Usage: "only those of the pool `NAME`"},
			&cli.StringSliceFlag{Name: "kind", Usage: "only those of this `KIND`, several times for several: " +
				strings.Join(admin.EventKinds(), ", ")},
			&cli.BoolFlag{Name: "follow", Value: true,
				Usage: "go on until interrupted; --follow=false ends after --timeout, with exit code 0"},
		},
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		kinds := c.StringSlice("kind")
		for _, k := range kinds {
			if !slices.Contains(admin.EventKinds(), k) {
				return &usageError{fmt.Errorf("--kind %q: %sneeds one of %s", k,
					probably(k, admin.EventKinds()), strings.Join(admin.EventKinds(), ", "))}
			}
		}
		if err := r.known(c); errors.Is(err, admin.ErrUnknownPool) { // a reload may bring it
			fmt.Fprintf(c.App.ErrWriter, "note: %s\n", clean(r.naming(c, nil, err).Error()))
		}
		return r.follow(c.Context, c.Bool("follow"), admin.EventFilter{Pool: c.String("pool"), Kinds: kinds})
	})
}

// follow prints events until ctx ends or the daemon does or, if on is false, until the timeout.
func (r *remote) follow(ctx context.Context, on bool, f admin.EventFilter) error {
	if !on {
		var cancel context.CancelFunc
		ctx, cancel = r.bounded(ctx)
		defer cancel()
	}
	err := r.client.Events(ctx, f, r.printEvent)
	switch {
	case !on && errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.Is(err, admin.ErrEnding):
		return fmt.Errorf("%w: %w", admin.ErrUnreachable, err)
	}
	return err
}

func (r *remote) printEvent(e admin.Event) error {
	if !r.json {
		return r.screen.write(r.out, 2, clean(eventLine(&e)))
	}
	text, err := cleanJSON(e, "")
	if err != nil {
		return err
	}
	_, err = r.out.Write(text)
	return err
}

// eventLine returns an event as one line.
func eventLine(e *admin.Event) string {
	words := []string{e.At.Local().Format(eventTime), e.Kind}
	switch {
	case e.Pool != "" && e.Backend != "":
		words = append(words, e.Pool+"/"+e.Backend)
	case e.Pool != "":
		words = append(words, e.Pool)
	}
	if e.Address != "" && e.Address != e.Backend {
		words = append(words, "("+e.Address+")")
	}
	if e.From != "" || e.To != "" {
		words = append(words, cmp.Or(e.From, "-"), "->", cmp.Or(e.To, "-"))
	}
	line := strings.Join(words, " ")
	for _, text := range []string{e.Reason, e.Text} {
		if text != "" {
			line += ": " + text
		}
	}
	if e.Lost > 0 {
		line += fmt.Sprintf(" (%s before this were lost)", counted(e.Lost, "event"))
	}
	return line
}
