package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func sessionsCommand() *cli.Command {
	list := sessionsListCommand()
	list.Name = "sessions"
	list.Usage = "list sessions, or end some"
	list.Description = `Without a further command it lists them, the oldest first. Several filters mean those to which all of them apply.`
	list.Subcommands = []*cli.Command{sessionsListCommand(), sessionsEndCommand()}
	return list
}

// sessionFlags returns the flags of the filters.
func sessionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "listener", Usage: "of the listener `NAME`"},
		&cli.StringFlag{Name: "pool", Usage: "of the pool `NAME`"},
		&cli.StringFlag{Name: "backend", Usage: "of the backend `BACKEND`, its name or address"},
		&cli.StringFlag{Name: "client", Usage: "of the client `CLIENT`, an address or a prefix such as 192.0.2.0/24"},
		&cli.DurationFlag{Name: "min-age", Usage: "accepted at least this `TIME` ago", DefaultText: "any"},
		&cli.DurationFlag{Name: "min-idle", Usage: "without a byte for at least this `TIME`", DefaultText: "any"},
	}
}

// sessionFilter returns the filter that the flags describe.
func sessionFilter(c *cli.Context) (admin.SessionFilter, error) {
	f := admin.SessionFilter{
		Listener: from(c, "listener").String("listener"),
		Pool:     from(c, "pool").String("pool"),
		Backend:  from(c, "backend").String("backend"),
		Client:   from(c, "client").String("client"),
		MinAge:   from(c, "min-age").Duration("min-age"),
		MinIdle:  from(c, "min-idle").Duration("min-idle"),
	}
	for _, name := range []string{"min-age", "min-idle"} { // 0 looks like a filter, and is none
		if at := from(c, name); at.IsSet(name) && at.Duration(name) <= 0 {
			return f, &usageError{fmt.Errorf("--%s %s: needs a time above 0", name, at.Duration(name))}
		}
	}
	return f, nil
}

func sessionsListCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "list",
		Usage: "list sessions, the oldest first",
		Flags: append(sessionFlags(), &cli.IntFlag{Name: "limit", Value: 1000, Usage: "at most `N` of them"}),
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		f, err := sessionFilter(c)
		if err != nil {
			return err
		}
		if f.Limit = from(c, "limit").Int("limit"); f.Limit < 1 {
			return &usageError{fmt.Errorf("--limit %d: needs a number of 1 or more", f.Limit)}
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		list, err := r.client.Sessions(ctx, f)
		if err == nil && list.Total == 0 {
			err = r.known(c)
		}
		if err != nil {
			return err
		}
		list.Sessions = notNil(list.Sessions)
		return r.print(list, func(w io.Writer) error { return printSessions(w, list, r.screen) })
	})
}

func printSessions(w io.Writer, list admin.SessionList, s screen) error {
	clients := []column{{name: "client"}}
	behindProxies := slices.ContainsFunc(list.Sessions, func(s admin.Session) bool { return s.Via != "" })
	if behindProxies {
		clients = append(clients, column{name: "via"})
	}
	t := newTable(slices.Concat([]column{{name: "session"}, {name: "listener", rank: 4}}, clients, []column{
		{name: "pool", rank: 5}, {name: "backend"}, {name: "phase", usual: "relaying", rank: 1},
		{name: "age", right: true, rank: 1}, {name: "idle", right: true, rank: 3}, {name: "in", right: true, rank: 2},
		{name: "out", right: true, rank: 2}, {name: "retries", right: true, usual: "0", rank: 6},
	})...)
	for _, s := range list.Sessions {
		client := []string{s.Client}
		if behindProxies {
			client = append(client, s.Via)
		}
		t.add(slices.Concat([]string{s.ID, s.Listener}, client, []string{s.Pool, s.Backend, s.Phase, seconds(s.Age),
			seconds(s.Idle), size(s.BytesIn), size(s.BytesOut), strconv.Itoa(s.Retries)})...)
	}
	if err := t.print(w, s); err != nil {
		return err
	}
	if shown := len(list.Sessions); shown < list.Total {
		_, err := fmt.Fprintf(w, "%d of %s; --limit shows more\n", shown, counted(list.Total, "session"))
		return err
	}
	return nil
}

func sessionsEndCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "end",
		Usage:     "end sessions at once, by their ID or a filter, and print how many",
		ArgsUsage: "[ID]",
		Flags: append(sessionFlags(),
			&cli.BoolFlag{Name: "all", Usage: "end every session of the daemon", DisableDefaultText: true}),
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		f, err := sessionFilter(c)
		if err != nil {
			return err
		}
		if len(args) > 0 {
			f.ID = args[0]
		}
		all, some := c.Bool("all"), f != (admin.SessionFilter{})
		switch {
		case !all && !some:
			return &usageError{errors.New("which ones? Needs an ID, a filter such as --pool, or --all")}
		case all && some:
			return &usageError{errors.New("--all is every session: needs no ID and no filter beside it")}
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		end := func() (int, error) { return r.client.EndSessions(ctx, f) }
		if all {
			end = func() (int, error) { return r.client.EndAllSessions(ctx) }
		}
		n, err := end()
		if err == nil && n == 0 {
			err = r.known(c)
		}
		if err != nil {
			return err
		}
		ended := struct {
			Ended int `json:"ended"`
		}{n}
		return r.print(ended, r.say("%s ended", counted(n, "session")))
	})
}
