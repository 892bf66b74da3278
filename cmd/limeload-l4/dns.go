package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

func dnsCommand() *cli.Command {
	stats := dnsStatsCommand()
	stats.Name = "dns"
	stats.Usage = "print how listeners with DNS settings are, or have their caches forget answers"
	stats.Description = `Without a further command it prints what their caches and their questions to backends have come to. All numbers but those of
now are since the listener's DNS settings were last changed.`
	stats.Subcommands = []*cli.Command{dnsStatsCommand(), dnsPurgeCommand()}
	return stats
}

func dnsStatsCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "stats",
		Usage: "print what DNS caches and questions to backends have come to",
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		all, err := r.client.Listeners(ctx)
		if err != nil {
			return err
		}
		answer := struct {
			Listeners []admin.Listener `json:"listeners"`
		}{[]admin.Listener{}}
		for _, l := range all {
			if l.DNS != nil {
				answer.Listeners = append(answer.Listeners, l)
			}
		}
		return r.print(answer, func(w io.Writer) error { return printDNS(w, answer.Listeners, r.screen) })
	})
}

// printDNS prints a table of the caches and a table of the questions to backends.
func printDNS(w io.Writer, listeners []admin.Listener, s screen) error {
	if len(listeners) == 0 {
		return s.write(w, 0, `no listener has DNS settings; profile = "dns" or a [listener.*.cache] table gives it some`)
	}
	count := func(name string, rank int) column { return column{name: name, right: true, usual: "0", rank: rank} }
	caches := newTable(column{name: "cache of"}, column{name: "from memory", right: true, rank: 1}, count("hit", 2),
		count("miss", 2), count("coalesced", 6), count("stale", 3), count("passed", 7), count("refused", 3),
		count("waiting", 4), count("entries", 2), column{name: "bytes", right: true, rank: 5}, count("evicted", 5),
		count("expired", 8))
	asked := newTable(column{name: "questions of"}, column{name: "pool", rank: 5}, count("in flight", 4),
		count("sockets", 6), count("asked", 1), count("answered", 1), count("timed out", 2), count("unreachable", 2),
		count("failed", 2), count("mismatched", 3))
	for _, l := range listeners {
		if k := l.DNS.Cache; k != nil {
			caches.add(l.Name, fromMemory(k), number(k.Hit), number(k.Miss), number(k.Coalesced), number(k.Stale),
				number(k.Passed), number(k.Refused),
				strconv.Itoa(k.Waiting), strconv.Itoa(k.Entries), size(uint64(k.Bytes)), number(k.Evicted),
				number(k.Expired))
		}
		d := l.DNS
		asked.add(l.Name, l.Pool, strconv.Itoa(d.InFlight), strconv.Itoa(d.Sockets), number(d.Asked),
			number(d.Answered), number(d.TimedOut),
			number(d.Unreachable), number(d.Failed), number(d.Mismatched))
	}
	if len(caches.rows) > 0 {
		if err := caches.print(w, s); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return asked.print(w, s)
}

// fromMemory returns the share of cacheable questions that were answered from the cache; "" before the first question.
func fromMemory(k *admin.DNSCache) string {
	all := k.Hit + k.Miss + k.Coalesced
	if all == 0 {
		return ""
	}
	return strconv.FormatFloat(100*float64(k.Hit)/float64(all), 'f', 1, 64) + "%"
}

func dnsPurgeCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "purge",
		Usage:     "have a listener's DNS cache forget the answers of a name, and print how many",
		ArgsUsage: "LISTENER [NAME]",
		Description: `NAME is a domain name, with or without the final dot, in any case: answers of all types go, stale ones too, and the next client
who asks waits for a backend.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "below", Usage: "those of all names below it, too", DisableDefaultText: true},
			&cli.BoolFlag{Name: "all", Usage: "the answers of every name", DisableDefaultText: true},
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		p := admin.DNSPurge{Below: c.Bool("below"), All: c.Bool("all")}
		what := "all"
		if len(args) > 1 {
			p.Name, what = args[1], args[1]
		}
		switch {
		case p.Name == "" && !p.All:
			return &usageError{errors.New("which ones? Needs a NAME, or --all")}
		case p.All && (p.Name != "" || p.Below):
			return &usageError{errors.New("--all is every answer: needs no NAME and no --below beside it")}
		case p.Below:
			what += " and all below it"
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		n, err := r.client.PurgeDNS(ctx, args[0], p)
		if errors.Is(err, admin.ErrUnknownListener) {
			err = fmt.Errorf("%w; `limeload-l4 dns` lists those with DNS settings", err)
		}
		purged := struct {
			Purged int `json:"purged"`
		}{n}
		return r.changed(purged, err, "listener %s forgot %s: %s", args[0], counted(n, "answer"), what)
	})
}
