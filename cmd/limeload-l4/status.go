package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// answerIn bounds a call whose answer needs no work.
const answerIn = 10 * time.Second

func statusCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "status",
		Usage: "print how the running daemon is: listeners, pools, reloads, and what differs from its file",
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		s, err := r.client.Status(ctx)
		if err != nil {
			return err
		}
		return r.print(s, func(w io.Writer) error { return printStatus(w, &s, r.screen) })
	})
}

// printStatus prints the status as a page.
func printStatus(w io.Writer, s *admin.Status, sc screen) error {
	facts := [][2]string{
		{"version", s.Version},
		{"process", fmt.Sprintf("%d, %s, started %s ago", s.PID, s.State, ago(s.Started))},
		{"configuration", s.Config},
		{"last reload", lastReload(&s.Reloads)},
		{"state file", stateFile(s)},
		{"sessions", ofAtMost(s.Sessions, s.MaxSessions)},
		{"loops", loops(s.Loops)},
		{"log level", s.LogLevel},
	}
	if s.Fleet != nil {
		facts = append(facts, [2]string{"fleet", fleetText(s.Fleet)})
	}
	for _, f := range facts {
		if err := sc.fact(w, 15, f[0], clean(f[1])); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	if err := listenerTable(s.Listeners).print(w, sc); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := poolTable(s.Pools).print(w, sc); err != nil {
		return err
	}
	if len(s.Differences) > 0 {
		fmt.Fprintln(w, "\nset at run time, and not in the file:")
		if err := differenceTable(s.Differences).print(w, sc); err != nil {
			return err
		}
	}
	if len(s.NeedsRestart) > 0 || len(s.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	return printNotes(w, sc, s.NeedsRestart, s.Warnings)
}

func lastReload(r *admin.Reloads) string {
	if r.Last == nil {
		return "none since the start"
	}
	text := ago(*r.Last) + " ago, done in " + seconds(r.Took)
	if r.Error != "" {
		text = ago(*r.Last) + " ago, failed: " + r.Error
	}
	return fmt.Sprintf("%s (%d done, %d failed)", text, r.Done, r.Failed)
}

func stateFile(s *admin.Status) string {
	switch {
	case s.StateError != "":
		return s.StateFile + ": " + s.StateError
	case s.StateFile == "":
		return "none; changes at run time end with the process"
	}
	return s.StateFile
}

// ofAtMost returns a number and its limit; 0 is no limit.
func ofAtMost(n, limit int) string {
	if limit == 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of at most %d", n, limit)
}

func loops(all []admin.Loop) string {
	var sessions []string
	for _, l := range all {
		sessions = append(sessions, strconv.Itoa(l.Sessions))
	}
	return fmt.Sprintf("%d, sessions %s", len(all), strings.Join(sessions, " "))
}

func listenerTable(listeners []admin.Listener) *table {
	t := newTable(column{name: "listener"}, column{name: "protocol", usual: "tcp", rank: 3},
		column{name: "address", text: true}, column{name: "pool", text: true, rank: 2},
		column{name: "sessions", right: true, rank: 1}, column{name: "accepted", right: true, rank: 4},
		column{name: "retries", right: true, usual: "0", rank: 4}, column{name: "in", right: true, rank: 5},
		column{name: "out", right: true, rank: 5})
	for _, l := range listeners {
		t.add(l.Name, l.Protocol, addressList(l.Addresses), strings.Join(l.Pools, " "),
			strconv.Itoa(l.Sessions), number(l.Accepted), number(l.Retries), size(l.BytesIn), size(l.BytesOut))
	}
	return t
}

func poolTable(pools []admin.Pool) *table {
	t := newTable(column{name: "pool"}, column{name: "algorithm", rank: 4}, column{name: "backends", right: true, rank: 1},
		column{name: "healthy", right: true, rank: 1}, column{name: "eligible", right: true, rank: 1},
		column{name: "sessions", right: true, rank: 1}, column{name: "waiting", right: true, usual: "0", rank: 2},
		column{name: "check", rank: 5}, column{name: "discovery", rank: 5},
		column{name: "listeners", text: true, rank: 6}, column{name: "note", text: true, tint: always(doubtful)})
	for _, p := range pools {
		t.add(p.Name, p.Algorithm, strconv.Itoa(p.Backends), strconv.Itoa(p.Healthy), strconv.Itoa(p.Eligible),
			strconv.Itoa(p.Sessions),
			waiting(&p), p.Check, p.Discovery, strings.Join(p.Listeners, " "), poolNote(&p))
	}
	return t
}

// poolNote returns what is remarkable about a pool.
func poolNote(p *admin.Pool) string {
	var notes []string
	if p.TriesAll {
		notes = append(notes, "none is healthy, all are tried")
	}
	if p.FallsBack {
		notes = append(notes, "no replica is eligible, the primary serves")
	}
	if p.Rivalries > 0 {
		note := fmt.Sprintf("two primaries at once: %d times", p.Rivalries)
		if p.LastRivalry != nil {
			note += ", last " + ago(*p.LastRivalry) + " ago"
		}
		notes = append(notes, note)
	}
	return strings.Join(notes, "; ")
}

// waiting returns how many sessions wait for a backend of a pool, and how many may.
func waiting(p *admin.Pool) string {
	bound := p.QueueMax
	if p.Eligible == 0 && p.HoldMax > 0 {
		bound = p.HoldMax
	}
	return ofLimit(int64(p.Waiting), bound)
}

// ofLimit returns a number and its limit, such as "7/100"; 0 is no limit.
func ofLimit(n int64, limit int) string {
	text := strconv.FormatInt(n, 10)
	if limit > 0 {
		text += "/" + strconv.Itoa(limit)
	}
	return text
}

func differenceTable(differences []admin.Difference) *table {
	columns := []column{{name: "pool", group: true}, {name: "backend"}, {name: "what"},
		{name: "in the file", text: true}, {name: "running", text: true}}
	if slices.ContainsFunc(differences, func(d admin.Difference) bool { return d.Fleet }) {
		columns = append(columns, column{name: "set by"})
	}
	t := newTable(columns...)
	for _, d := range differences {
		by := "this node"
		if d.Fleet {
			by = "the fleet"
		}
		t.add(d.Pool, d.Backend, d.What, d.File, d.Running, by)
	}
	return t
}

// printNotes prints the keys that need a restart, and the warnings.
func printNotes(w io.Writer, s screen, needsRestart, warnings []string) error {
	for _, key := range needsRestart {
		if err := s.write(w, 2, "needs a restart: "+clean(key)); err != nil {
			return err
		}
	}
	for _, warning := range warnings {
		if err := s.write(w, 2, "warning: "+clean(warning)); err != nil {
			return err
		}
	}
	return nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
