package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// localFlag is the flag of the commands whose changes a fleet shares.
func localFlag() cli.Flag {
	return &cli.BoolFlag{Name: "local", DisableDefaultText: true,
		Usage: "on this node alone; else the other nodes of its fleet follow"}
}

func backendsCommand() *cli.Command {
	list := backendsListCommand()
	list.Name = "backends"
	list.Usage = "list backends, or add, remove, change or drain one, without touching the file"
	list.Description = `Without a further command it lists them. What is changed so is in force at once, goes over the configuration
file, and survives reloads; with global.state_file it survives a restart, too. "status" lists what differs.`
	list.Subcommands = []*cli.Command{
		backendsListCommand(), backendsAddCommand(), backendsRemoveCommand(), backendsSetCommand(),
		backendsDrainCommand(),
	}
	return list
}

func backendsListCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "list",
		Usage: "list the backends and how they are",
		Flags: []cli.Flag{&cli.StringFlag{Name: "pool", Usage: "only those of the pool `NAME`"}},
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		backends, err := r.client.Backends(ctx, from(c, "pool").String("pool"))
		if err != nil {
			return err
		}
		answer := struct {
			Backends []admin.Backend `json:"backends"`
		}{notNil(backends)}
		return r.print(answer, func(w io.Writer) error { return backendTable(backends).print(w, r.screen) })
	})
}

func backendTable(backends []admin.Backend) *table {
	columns := []column{
		{name: "pool", group: true}, {name: "backend"}, {name: "address"},
		{name: "weight", right: true, usual: "1", rank: 3}, {name: "mode", usual: "ready", tint: stateTint},
		{name: "verdict", tint: stateTint}, {name: "breaker", usual: "closed", tint: stateTint},
		{name: "eligible", usual: "yes", rank: 2, tint: stateTint}, {name: "sessions", right: true, rank: 1},
		{name: "in", right: true, rank: 5}, {name: "out", right: true, rank: 5}, {name: "since", right: true, rank: 4},
		{name: "reason", text: true},
	}
	elsewhere := slices.ContainsFunc(backends, func(b admin.Backend) bool { return checkedAt(b) != "" })
	if elsewhere {
		columns = slices.Insert(columns, 3, column{name: "check"})
	}
	told := slices.ContainsFunc(backends, func(b admin.Backend) bool { return b.Agent != "" })
	if told {
		at := slices.IndexFunc(columns, func(c column) bool { return c.name == "verdict" })
		columns = slices.Insert(columns, at, column{name: "agent", text: true, tint: always(doubtful)})
	}
	t := newTable(columns...)
	for _, b := range backends {
		eligible := "no"
		if b.Eligible {
			eligible = "yes"
		}
		since := ""
		if !b.Since.IsZero() {
			since = ago(b.Since)
		}
		cells := []string{b.Pool, b.Name, b.Address, strconv.Itoa(b.Weight), b.Mode, b.Verdict, b.Breaker,
			eligible, ofLimit(b.Sessions, b.MaxSessions), size(b.BytesIn), size(b.BytesOut), since, whyOf(&b)}
		if told {
			cells = slices.Insert(cells, 5, b.Agent)
		}
		if elsewhere {
			cells = slices.Insert(cells, 3, checkedAt(b))
		}
		t.add(cells...)
	}
	return t
}

// whyOf returns why a backend is as it is: the progress of its drain, or the reason of its verdict.
func whyOf(b *admin.Backend) string {
	if b.Drain != nil {
		return draining(b.Drain, "")
	}
	return b.Reason
}

// checkedAt returns the address of a backend's checks; "" if that is the backend's own, or if it is not checked.
func checkedAt(b admin.Backend) string {
	if b.Check == nil {
		return ""
	}
	return b.Check.Address
}

// draining describes the progress of a drain. where is as ofNode returns it.
func draining(d *admin.DrainProgress, where string) string {
	text := fmt.Sprintf("drains: %d of %s left%s", d.Left, counted(d.Sessions, "session"), where)
	if d.Deadline != nil {
		text += ", ended in " + duration(time.Until(*d.Deadline).Round(time.Second))
	}
	if d.Remove {
		text += ", then removed"
	}
	return text
}

func backendsAddCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "add",
		Usage:     "add a backend to a pool",
		ArgsUsage: "POOL ADDRESS",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "its `NAME`; else the address"},
			&cli.IntFlag{Name: "weight", DefaultText: "1", Usage: "its share relative to the others, `N`, 0 to " +
				strconv.Itoa(pool.MaxWeight)},
			&cli.IntFlag{Name: "max-sessions", Usage: "its limit, `N`; 0 is none"},
			&cli.StringFlag{Name: "max-rate",
				Usage: "new sessions in a time, a `RATE` such as \"500/s burst 50\"; \"\" is no limit"},
			&cli.IntFlag{Name: "tier", Usage: "used when no backend of a lower tier is eligible, `N`"},
			&cli.StringFlag{Name: "zone", Usage: "its zone, a `NAME`"},
			&cli.StringFlag{Name: "mode", Value: pool.Ready.String(), Usage: "`MODE`: ready, drain or maintenance"},
			&cli.StringFlag{Name: "check", Usage: "check it at `ADDRESS`, an IP address and a port; else at its own"},
			localFlag(),
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		if err := knownMode(c); err != nil {
			return err
		}
		b := admin.NewBackend{
			Name: c.String("name"), Address: args[1], MaxSessions: c.Int("max-sessions"), MaxRate: c.String("max-rate"),
			Tier: c.Int("tier"),
			Zone: c.String("zone"), Mode: c.String("mode"), Check: c.String("check"), Local: c.Bool("local"),
		}
		if weight := c.Int("weight"); c.IsSet("weight") {
			b.Weight = &weight
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		added, err := r.client.AddBackend(ctx, args[0], b)
		return r.shared(added, err, added.Sharing, "backend %s is in pool %s", added.Name, args[0])
	})
}

func backendsRemoveCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "remove",
		Usage:     "remove a backend; the pool's on_remove says what becomes of its sessions",
		ArgsUsage: "POOL BACKEND",
		Flags:     []cli.Flag{localFlag()},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		sharing, err := r.client.RemoveBackend(ctx, args[0], args[1], c.Bool("local"))
		removed := struct {
			Pool    string         `json:"pool"`
			Backend string         `json:"removed"`
			Sharing *admin.Sharing `json:"sharing,omitempty"`
		}{args[0], args[1], sharing}
		return r.shared(removed, err, sharing, "backend %s is no longer in pool %s", args[1], args[0])
	})
}

func backendsSetCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:      "set",
		Usage:     "change a backend's weight, limits or mode: all of it or, on a mistake, nothing",
		ArgsUsage: "POOL BACKEND",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "weight", Usage: "its share relative to the others, `N`, 0 to " +
				strconv.Itoa(pool.MaxWeight), DefaultText: "as it is"},
			&cli.IntFlag{Name: "max-sessions", Usage: "its limit, `N`; 0 is none", DefaultText: "as it is"},
			&cli.StringFlag{Name: "max-rate", DefaultText: "as it is",
				Usage: "new sessions in a time, a `RATE` such as \"500/s burst 50\"; \"\" is no limit"},
			&cli.StringFlag{Name: "mode", Usage: "`MODE`: ready, drain or maintenance", DefaultText: "as it is"},
			localFlag(),
		},
	}, answerIn, func(c *cli.Context, r *remote, args []string) error {
		if err := knownMode(c); err != nil {
			return err
		}
		var change admin.BackendChange
		if n := c.Int("weight"); c.IsSet("weight") {
			change.Weight = &n
		}
		if n := c.Int("max-sessions"); c.IsSet("max-sessions") {
			change.MaxSessions = &n
		}
		if rate := c.String("max-rate"); c.IsSet("max-rate") {
			change.MaxRate = &rate
		}
		if mode := c.String("mode"); c.IsSet("mode") {
			change.Mode = &mode
		}
		if change == (admin.BackendChange{}) {
			return &usageError{errors.New("nothing to set: needs --weight, --max-sessions, --max-rate or --mode")}
		}
		change.Local = c.Bool("local")
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		b, err := r.client.ChangeBackend(ctx, args[0], args[1], change)
		rate := ""
		if b.MaxRate != "" {
			rate = " max_rate " + b.MaxRate + ","
		}
		return r.shared(b, err, b.Sharing, "backend %s of pool %s: weight %d, max_sessions %d,%s mode %s", b.Name, b.Pool,
			b.Weight, b.MaxSessions, rate, b.Mode)
	})
}

// modes returns the values of --mode.
func modes() []string {
	var names []string
	for _, m := range pool.Modes() {
		names = append(names, m.String())
	}
	return names
}

// knownMode refuses an unknown mode.
func knownMode(c *cli.Context) error {
	if mode := c.String("mode"); c.IsSet("mode") && !slices.Contains(modes(), mode) {
		return &usageError{fmt.Errorf("--mode %q: needs ready, drain or maintenance", mode)}
	}
	return nil
}

// changed prints the result of a change, or returns its error.
func (r *remote) changed(answer any, err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return r.print(answer, r.say(format, args...))
}

// shared is changed for a change that a fleet shares.
func (r *remote) shared(answer any, err error, s *admin.Sharing, format string, args ...any) error {
	return r.changed(answer, err, "%s%s", fmt.Sprintf(format, args...), sharingText(s))
}

// sharingText says whether the fleet has a change, in words that follow the description of the change.
func sharingText(s *admin.Sharing) string {
	switch {
	case s == nil:
		return ""
	case s.Shared:
		return "; the fleet has it"
	}
	return "; on this node only: " + s.Why
}

// notNil returns an empty list for nil, which JSON then shows as [].
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
