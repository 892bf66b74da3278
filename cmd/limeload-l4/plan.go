package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

func planCommand() *cli.Command {
	config := *configFlag().(*cli.StringFlag)
	config.Usage = "the new configuration, a `FILE`"
	config.DefaultText = "the daemon's own file as it is now"
	return controlCommand(cli.Command{
		Name:  "plan",
		Usage: "print what a reload would do to the running daemon, before anything happens",
		Description: `It ends with 0 whether or not something would change. A file named with --config is read here and sent to the daemon,
which is looked for where that file says, too; name it with --admin if the new file moves the admin socket.`,
		Flags: []cli.Flag{&config},
	}, reloadIn, func(c *cli.Context, r *remote, _ []string) error {
		var proposed *admin.Configuration
		if from(c, "config").IsSet("config") {
			var err error
			if proposed, err = readProposed(c); err != nil {
				return err
			}
		}
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		p, err := r.client.Plan(ctx, proposed)
		if err != nil {
			return err
		}
		return r.print(p, func(w io.Writer) error {
			what := "this would change"
			if p.Same {
				what = "nothing would change"
			}
			if err := r.screen.write(w, 2, clean(p.Config)+": "+what); err != nil {
				return err
			}
			return printPlan(w, &p, r.screen)
		})
	})
}

// readProposed reads the file that --config names. It reports mistakes before it calls the daemon, but for variables
// that the environment lacks: the daemon's counts.
func readProposed(c *cli.Context) (*admin.Configuration, error) {
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	_, text, err := conf.LoadText(file)
	if mistakes, is := errors.AsType[conf.Errors](err); is && (text == nil || !mistakes.OnlyEnvironment()) {
		return nil, err
	}
	return &admin.Configuration{Name: file, Text: text}, nil
}

// hasBoth reports whether a listener of that name has both protocols, before the change or after it.
func hasBoth(listeners []admin.ListenerChange, name string) bool {
	n := 0
	for _, l := range listeners {
		if l.Name == name {
			n++
		}
	}
	return n > 1
}

// printPlan prints the changes of listeners, pools, backends and sessions, one per line, and how many are kept.
func printPlan(w io.Writer, p *admin.Plan, s screen) error {
	var kept [2]int // number of listeners and pools
	for _, l := range p.Listeners {
		if l.What == "kept" {
			kept[0]++
			continue
		}
		name := l.Name
		if hasBoth(p.Listeners, l.Name) {
			name += " (" + l.Protocol + ")"
		}
		if err := planLine(w, s, "", "listener", name, l.What, addressList(l.Addresses), l.Changes,
			int64(l.Sessions)); err != nil {
			return err
		}
	}
	for _, pool := range p.Pools {
		if pool.What == "kept" && len(pool.Backends) == 0 {
			kept[1]++
			continue
		}
		if err := printPoolPlan(w, s, pool); err != nil {
			return err
		}
	}
	for _, c := range p.Settings {
		if err := s.write(w, 4, "setting "+change(c)); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "kept: %s, %s\n", counted(kept[0], "listener"), counted(kept[1], "pool"))
	fmt.Fprintf(w, "sessions: %d drain, %d end\n", p.Drained, p.Ended)
	if len(p.Differences) > 0 {
		fmt.Fprintln(w, "set at run time, and stays in force over the file:")
		if err := differenceTable(p.Differences).print(w, s); err != nil {
			return err
		}
	}
	if len(p.Dropped) > 0 {
		fmt.Fprintln(w, "set at run time, and dropped:")
		t := newTable(column{name: "pool", group: true}, column{name: "backend"}, column{name: "what"},
			column{name: "running", text: true}, column{name: "in the file", text: true},
			column{name: "why", text: true})
		for _, d := range p.Dropped {
			t.add(d.Pool, d.Backend, d.What, d.Running, d.File, d.Why)
		}
		if err := t.print(w, s); err != nil {
			return err
		}
	}
	return printNotes(w, s, p.NeedsRestart, p.Warnings)
}

// printPoolPlan prints the changes of a pool and its backends.
func printPoolPlan(w io.Writer, s screen, pool admin.PoolChange) error {
	if err := planLine(w, s, "", "pool", pool.Name, pool.What, "", pool.Changes, 0); err != nil {
		return err
	}
	for _, b := range pool.Backends {
		if err := planLine(w, s, "  ", "backend", b.Name, b.What, b.Address, b.Changes, b.Sessions); err != nil {
			return err
		}
	}
	if pool.KeysMoved != nil {
		fmt.Fprintf(w, "  %s of the hash keys move\n", percent(*pool.KeysMoved))
	}
	return nil
}

// planLine prints one change.
func planLine(w io.Writer, s screen, indent, kind, name, what, address string, changes []admin.Change, sessions int64,
) error {
	facts := []string{what}
	if address != "" {
		facts = append(facts, address)
	}
	for _, c := range changes {
		facts = append(facts, change(c))
	}
	if sessions > 0 {
		facts = append(facts, "has "+counted(sessions, "session"))
	}
	return s.write(w, len(indent)+4, fmt.Sprintf("%s%s %s: %s", indent, kind, clean(name),
		clean(strings.Join(facts, ", "))))
}

func change(c admin.Change) string {
	return clean(fmt.Sprintf("%s: %s -> %s", c.Key, c.From, c.To))
}
