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
			fmt.Fprintf(w, "%s: %s\n", clean(p.Config), what)
			return printPlan(w, &p, r.width)
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
func printPlan(w io.Writer, p *admin.Plan, width int) error {
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
		planLine(w, "", "listener", name, l.What, addressList(l.Addresses), l.Changes, int64(l.Sessions))
	}
	for _, pool := range p.Pools {
		if pool.What == "kept" && len(pool.Backends) == 0 {
			kept[1]++
			continue
		}
		planLine(w, "", "pool", pool.Name, pool.What, "", pool.Changes, 0)
		for _, b := range pool.Backends {
			planLine(w, "  ", "backend", b.Name, b.What, b.Address, b.Changes, b.Sessions)
		}
		if pool.KeysMoved != nil {
			fmt.Fprintf(w, "  %s of the hash keys move\n", percent(*pool.KeysMoved))
		}
	}
	for _, c := range p.Settings {
		fmt.Fprintf(w, "setting %s\n", change(c))
	}
	fmt.Fprintf(w, "kept: %s, %s\n", counted(kept[0], "listener"), counted(kept[1], "pool"))
	fmt.Fprintf(w, "sessions: %d drain, %d end\n", p.Drained, p.Ended)
	if len(p.Differences) > 0 {
		fmt.Fprintln(w, "set at run time, and stays in force over the file:")
		if err := differenceTable(p.Differences).print(w, width); err != nil {
			return err
		}
	}
	if len(p.Dropped) > 0 {
		fmt.Fprintln(w, "set at run time, and dropped:")
		t := newTable("pool", "backend", "what", "running", "in the file", "why")
		for _, d := range p.Dropped {
			t.add(d.Pool, d.Backend, d.What, d.Running, d.File, d.Why)
		}
		if err := t.print(w, width); err != nil {
			return err
		}
	}
	return printNotes(w, p.NeedsRestart, p.Warnings)
}

// planLine prints one change.
func planLine(w io.Writer, indent, kind, name, what, address string, changes []admin.Change, sessions int64) {
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
	fmt.Fprintf(w, "%s%s %s: %s\n", indent, kind, clean(name), clean(strings.Join(facts, ", ")))
}

func change(c admin.Change) string {
	return clean(fmt.Sprintf("%s: %s -> %s", c.Key, c.From, c.To))
}
