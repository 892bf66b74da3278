package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

const (
	// verifyWait is how long the nodes may differ by default: a change takes a moment to reach all of them.
	verifyWait = 5 * time.Second
	// verifyEvery is how often they are compared until then.
	verifyEvery = 500 * time.Millisecond
)

func fleetCommand() *cli.Command {
	list := fleetListCommand()
	list.Name = "fleet"
	list.Usage = "list the nodes of the fleet and what they share, or compare what they choose"
	list.Description = `Without a further command it lists the nodes. The daemon answers with what it knows, and asks nobody: without
a connection to etcd, with what it knew last. Nodes that have gone are listed for an hour.`
	list.Subcommands = []*cli.Command{fleetListCommand(), fleetVerifyCommand(), fleetChangesCommand()}
	return list
}

func fleetListCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "list",
		Usage: "list the nodes of the fleet, and the connection to etcd",
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		ctx, cancel := r.bounded(c.Context)
		defer cancel()
		f, err := r.client.Fleet(ctx)
		if err != nil {
			return err
		}
		f.Endpoints, f.Nodes = notNil(f.Endpoints), notNil(f.Nodes)
		return r.print(f, func(w io.Writer) error { return printFleet(w, &f, r.screen) })
	})
}

// printFleet prints the connection to etcd, and a table of the nodes.
func printFleet(w io.Writer, f *admin.Fleet, s screen) error {
	facts := [][2]string{
		{"fleet", fmt.Sprintf("%s; this is node %s", f.Name, f.Node)},
		{"etcd", linkText(&f.Link, f.Endpoints)},
	}
	if f.Pending > 0 {
		facts = append(facts, [2]string{"changes", counted(f.Pending, "shared record") + " not in etcd yet"})
	}
	for _, fact := range facts {
		if err := s.fact(w, 9, fact[0], clean(fact[1])); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	return nodeTable(f.Nodes).print(w, s)
}

// fleetText describes a fleet in one line.
func fleetText(f *admin.FleetSummary) string {
	nodes := counted(f.Nodes, "node")
	switch {
	case f.Nodes > 1 && f.Ready == f.Nodes:
		nodes += ", all ready"
	case f.Ready < f.Nodes:
		nodes += fmt.Sprintf(", %d ready", f.Ready)
	}
	notes := []string{fmt.Sprintf("%s, node %s: %s", f.Name, f.Node, nodes)}
	switch {
	case !f.Connected:
		notes = append(notes, strings.TrimSuffix("no connection to etcd: "+f.Error, ": "))
	case f.Error != "":
		notes = append(notes, "etcd refuses what this node writes: "+f.Error)
	}
	if f.OtherConfig {
		notes = append(notes, "most nodes run another configuration")
	}
	if f.Pending > 0 {
		notes = append(notes, counted(f.Pending, "shared record")+" not in etcd yet")
	}
	return strings.Join(notes, "; ")
}

// linkText describes the connection to etcd.
func linkText(l *admin.FleetLink, endpoints []string) string {
	switch {
	case l.Since == nil:
		return "not connected yet to " + strings.Join(endpoints, ", ")
	case l.Connected && l.Error != "":
		return fmt.Sprintf("connected to %s for %s, which refuses what this node writes: %s", l.Endpoint, ago(*l.Since), l.Error)
	case l.Connected:
		return fmt.Sprintf("connected to %s for %s", l.Endpoint, ago(*l.Since))
	}
	return fmt.Sprintf("not connected for %s: %s; the nodes are listed as they were", ago(*l.Since), l.Error)
}

func nodeTable(nodes []admin.FleetNode) *table {
	t := newTable(column{name: "node"}, column{name: "state", tint: nodeTint}, column{name: "since", right: true, rank: 2},
		column{name: "version", rank: 3}, column{name: "config", tint: nodeTint, rank: 1},
		column{name: "sessions", right: true}, column{name: "flows", right: true, usual: "0", rank: 2},
		column{name: "rate", right: true, rank: 2}, column{name: "host", rank: 4}, column{name: "note", text: true})
	for i := range nodes {
		n := &nodes[i]
		since, config := "", ""
		if n.Since != nil {
			since = ago(*n.Since) + " ago"
		}
		if n.Config != "" {
			config = "same"
			if n.OtherConfig {
				config = "other"
			}
		}
		state := nodeState(n)
		version, _, _ := strings.Cut(n.Version, " ")
		if state == "gone" || state == "left" {
			t.add(n.Name, state, since, version, "", "", "", "", n.Host, nodeNote(n))
			continue
		}
		t.add(n.Name, state, since, version, config, strconv.Itoa(n.Sessions), strconv.Itoa(n.Flows), perSecond(n.Rate),
			n.Host, nodeNote(n))
	}
	return t
}

// nodeState returns the state of a node in one word, without spaces.
func nodeState(n *admin.FleetNode) string {
	switch {
	case n.Alone != "":
		return "alone"
	case n.State == "serving" && n.Ready:
		return "ready"
	case n.State == "serving":
		return "not_ready"
	}
	return n.State
}

// nodeNote returns what is remarkable about a node.
func nodeNote(n *admin.FleetNode) string {
	var notes []string
	if n.This {
		notes = append(notes, "this node")
	}
	switch {
	case n.State == "gone":
		notes = append(notes, "its lease has ended: it has died, or has no connection to etcd")
	case n.State == "left":
		notes = append(notes, "it has ended")
	case n.Alone != "":
		notes = append(notes, n.Alone)
	case n.State == "serving" && n.Reason != "":
		notes = append(notes, n.Reason)
	}
	if n.OtherConfig {
		notes = append(notes, "its configuration is "+n.Config)
	}
	return strings.Join(notes, "; ")
}

// nodeTint returns the colour of a node's state, and of whether its configuration is that of the others.
func nodeTint(word string) tint {
	switch word {
	case "ready", "same":
		return good
	case "gone", "alone", "not_ready":
		return bad
	case "left", "other":
		return doubtful
	}
	return stateTint(word)
}

func fleetVerifyCommand() *cli.Command {
	return controlCommand(cli.Command{
		Name:  "verify",
		Usage: "compare what the nodes of the fleet choose, and exit with 1 if they differ",
		Description: `It compares the eligible backends of each pool, their weights and the tables that maglev, ring_hash and
client_hash choose by, as each node says them. Nodes whose pools prefer different zones are compared by zone.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "wait", Value: verifyWait,
				Usage: "a difference counts if it lasts for this `TIME`, since a change takes a moment to reach all"},
		},
	}, answerIn, func(c *cli.Context, r *remote, _ []string) error {
		wait := c.Duration("wait")
		if wait < 0 {
			return &usageError{fmt.Errorf("--wait %s: needs a time, or 0s", wait)}
		}
		v, err := verified(c.Context, r, wait)
		if err != nil {
			return err
		}
		v.Nodes, v.Mute, v.Pools = notNil(v.Nodes), notNil(v.Mute), notNil(v.Pools)
		if err := r.print(v, func(w io.Writer) error { return printComparison(w, &v, r.screen) }); err != nil {
			return err
		}
		if !agree(&v) {
			return errPrinted
		}
		return nil
	})
}

// verified compares the nodes until they agree, or the time has passed.
func verified(ctx context.Context, r *remote, wait time.Duration) (admin.FleetComparison, error) {
	deadline := time.Now().Add(wait)
	for {
		asking, cancel := r.bounded(ctx)
		v, err := r.client.CompareFleet(asking)
		cancel()
		if err != nil || agree(&v) || time.Now().After(deadline) {
			return v, err
		}
		pause := time.NewTimer(verifyEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return v, ctx.Err()
		}
	}
}

// agree reports whether all nodes were compared, as they are now, and choose alike.
func agree(v *admin.FleetComparison) bool { return v.Same && v.Connected && len(v.Mute) == 0 }

// printComparison prints a table of the pools, the differences, and the result in one line.
func printComparison(w io.Writer, v *admin.FleetComparison, s screen) error {
	t := newTable(column{name: "pool"}, column{name: "algorithm", rank: 2}, column{name: "eligible", right: true, rank: 1},
		column{name: "nodes", right: true, rank: 1}, column{name: "choices", tint: nodeTint})
	for _, p := range v.Pools {
		choices := "same"
		if !p.Same {
			choices = "other"
		}
		t.add(p.Name, p.Algorithm, strconv.Itoa(p.Eligible), strconv.Itoa(p.Nodes), choices)
	}
	if err := t.print(w, s); err != nil {
		return err
	}
	fmt.Fprintln(w)
	var lines []string
	for _, p := range v.Pools {
		for _, d := range p.Differences {
			lines = append(lines, fmt.Sprintf("pool %s on node %s: %s", p.Name, d.Node, d.Why))
		}
	}
	for _, node := range v.Mute {
		lines = append(lines, fmt.Sprintf("node %s says nothing about its pools yet", node))
	}
	if !v.Connected {
		lines = append(lines, "this node has no connection to etcd, and compared what it knew last; see `limeload-l4 fleet`")
	}
	if lines == nil {
		lines = append(lines, counted(len(v.Nodes), "node")+" choose alike")
		if len(v.Nodes) == 1 {
			lines[0] = "there is one node, and nothing to compare it with"
		}
	}
	for _, line := range lines {
		if err := s.write(w, 2, clean(line)); err != nil {
			return err
		}
	}
	return nil
}
