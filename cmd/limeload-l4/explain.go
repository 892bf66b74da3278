package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func explainCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:        "explain",
		Usage:       "tell where a client would be sent now, and why; nothing is changed by asking",
		ArgsUsage:   "CLIENT",
		Description: `CLIENT is an address, or an address and port. Without --listener and --pool the daemon's only listener is meant.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listener", Usage: "who comes to the listener `NAME`"},
			&cli.StringFlag{Name: "pool", Usage: "who is sent to the pool `NAME`"},
			&cli.StringFlag{Name: "sni", Usage: "who asks for the server `NAME` in its TLS ClientHello"},
			&cli.StringSliceFlag{Name: "alpn", Usage: "and offers the protocol `NAME` there; may be given again"},
			&cli.StringFlag{Name: "mqtt-client-id", Usage: "who names itself `ID` in its MQTT CONNECT"},
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		q := admin.ExplainQuery{Listener: c.String("listener"), Pool: c.String("pool"), Client: args[0],
			SNI: c.String("sni"), ALPN: c.StringSlice("alpn"), MQTTClientID: c.String("mqtt-client-id")}
		if q.Listener != "" && q.Pool != "" {
			return &usageError{errors.New("--listener or --pool: needs one of them")}
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		if q.Listener == "" && q.Pool == "" {
			listeners, err := r.client.Listeners(ctx)
			if err != nil {
				return err
			}
			if len(listeners) != 1 {
				return &usageError{
					fmt.Errorf("there are %s: needs --listener or --pool", counted(len(listeners), "listener"))}
			}
			q.Listener = listeners[0].Name
		}
		e, err := r.client.Explain(ctx, q)
		if err != nil {
			return err
		}
		return r.print(e, func(w io.Writer) error { return printExplanation(w, &e, r.screen) })
	})
}

func printExplanation(w io.Writer, e *admin.Explanation, s screen) error {
	for line := range strings.SplitSeq(cleanLines(e.Text), "\n") {
		if err := s.write(w, 0, line); err != nil {
			return err
		}
	}
	if len(e.Candidates) > 0 {
		fmt.Fprintln(w)
		t := newTable(column{name: "candidate"}, column{name: "weight", right: true, usual: "1", rank: 2},
			column{name: "of its weight", right: true, usual: "100%", rank: 3},
			column{name: "sessions", right: true, rank: 1}, column{name: "picked", tint: always(good)})
		for _, b := range e.Candidates {
			picked := ""
			switch {
			case b.Backend != e.Backend:
			case e.Deterministic:
				picked = "yes"
			default:
				picked = "this time"
			}
			t.add(b.Backend, strconv.Itoa(b.Weight), strconv.FormatFloat(100*b.Share, 'f', 0, 64)+"%",
				strconv.FormatInt(b.Sessions, 10), picked)
		}
		if err := t.print(w, s); err != nil {
			return err
		}
	}
	if len(e.Others) > 0 {
		fmt.Fprintln(w)
		t := newTable(column{name: "not picked"}, column{name: "why", tint: stateTint}, column{name: "reason", text: true})
		for _, b := range e.Others {
			t.add(b.Backend, b.Why, b.Reason)
		}
		return t.print(w, s)
	}
	return nil
}
