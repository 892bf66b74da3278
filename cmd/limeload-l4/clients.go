package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

func clientsCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "clients",
		Usage: "list the clients that are heaviest now",
		Description: `A client is a prefix of addresses, as the listener's limits say. Listeners without a limit that
needs to know their clients are named below the table.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listener", Usage: "of the listener `NAME`; else of all"},
			&cli.StringFlag{Name: "sort", Value: admin.ClientOrders()[0],
				Usage: "`ORDER`: rate (who comes most often), sessions, or bytes"},
			&cli.IntFlag{Name: "limit", Value: admin.DefaultClients, Usage: "at most `N` of them"},
		},
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		q := admin.ClientQuery{Listener: c.String("listener"), Sort: c.String("sort"), Limit: c.Int("limit")}
		if !slices.Contains(admin.ClientOrders(), q.Sort) {
			return &usageError{fmt.Errorf("--sort %q: needs rate, sessions or bytes", q.Sort)}
		}
		if q.Limit < 1 || q.Limit > admin.MaxClients {
			return &usageError{fmt.Errorf("--limit %d: needs a number of 1 to %d", q.Limit, admin.MaxClients)}
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		list, err := r.client.Clients(ctx, q)
		if err != nil {
			return err
		}
		list.Clients, list.Tables = notNil(list.Clients), notNil(list.Tables)
		return r.print(list, func(w io.Writer) error { return printClients(w, list, r.screen) })
	})
}

// printClients prints a table of the clients, and a line for each listener that does not track its clients.
func printClients(w io.Writer, list admin.ClientList, s screen) error {
	t := newTable(column{name: "listener", group: true}, column{name: "client"},
		column{name: "sessions", right: true, rank: 1}, column{name: "rate", right: true, rank: 1},
		column{name: "in", right: true, rank: 2}, column{name: "out", right: true, rank: 2},
		column{name: "refused", right: true, usual: "0", rank: 1}, column{name: "seen", right: true, rank: 3})
	for _, k := range list.Clients {
		listener := k.Listener
		if ofBothProtocols(list.Tables, listener) {
			listener += " (" + k.Protocol + ")"
		}
		t.add(listener, k.Client, strconv.Itoa(k.Sessions), perSecond(k.Rate), size(k.BytesIn), size(k.BytesOut),
			number(k.Refused), ago(k.Seen)+" ago")
	}
	if err := t.print(w, s); err != nil {
		return err
	}
	var untracked []string
	for _, l := range list.Tables {
		if !l.Tracked && !slices.Contains(untracked, l.Listener) {
			untracked = append(untracked, l.Listener)
		}
	}
	for _, name := range untracked {
		if err := s.write(w, 2, clean(fmt.Sprintf("listener %q does not track clients: "+
			"give it a [%s] table with a client limit or tracked_clients", name,
			conf.Path("listener", name, "limits")))); err != nil {
			return err
		}
	}
	return nil
}

// ofBothProtocols reports whether a listener has tables for both protocols.
func ofBothProtocols(tables []admin.ClientTable, listener string) bool {
	n := 0
	for _, t := range tables {
		if t.Listener == listener {
			n++
		}
	}
	return n > 1
}

// perSecond formats a rate.
func perSecond(rate float64) string {
	text := strconv.FormatFloat(rate, 'f', 1, 64)
	if rate >= 100 {
		text = strconv.FormatFloat(rate, 'f', 0, 64)
	}
	return strings.TrimSuffix(text, ".0") + "/s"
}
