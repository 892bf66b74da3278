// Fleetsim simulates a fleet of balancers (go run ./test/fleetsim): how evenly its nodes spread sessions, whom a change
// moves to another backend, and what the fleet costs etcd.
//
// Choices are made by package pool with its real algorithms. Nodes have the backends in different orders, and get the
// sessions that ECMP would give them, by a hash modulo the number of nodes. Sessions last until the end; nothing is
// connected.
//
// The load of etcd is measured with a real etcd of one member and the engine of package fleet, once for each node. Each
// node says its own state every few seconds, and what its checks find. Figures of etcd come from its metrics. All nodes
// share this machine with etcd, so the times are those of a slow etcd.
//
// It is a program for Linux, run by hand, and measures no time of the data path.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// options are the flags of a run. It is a plain value.
type options struct {
	nodes, backends, sessions int
	judges                    int           // how many nodes check each backend
	few                       int           // the backends of client_hash, which is for some hundred
	rest                      time.Duration // how long the fleet is measured while nothing happens
	only                      string        // choices or etcd; "" for both
	json                      string        // a file for the figures; "" for none
}

// A result has all figures. It is a plain value; its fields are those of the JSON output.
type result struct {
	Nodes    int       `json:"nodes"`
	Backends int       `json:"backends"`
	Sessions int       `json:"sessions"`
	Judges   int       `json:"judges"`
	Choices  []choices `json:"choices,omitempty"`
	Etcd     *etcdLoad `json:"etcd,omitempty"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	}
	r, err := simulate(ctx, o, stderr)
	if err == nil {
		err = r.print(stdout)
	}
	if err == nil && o.json != "" {
		err = r.save(o.json)
	}
	if err != nil {
		fmt.Fprintf(stderr, "fleetsim: %v\n", err)
		return exitFailed
	}
	return exitDone
}

// parseOptions reads the command line. It prints mistakes to stderr before it returns an error; flag.ErrHelp needs no
// further message.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("fleetsim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.nodes, "nodes", 100, "how many balancers, 3 to 1000")
	fs.IntVar(&o.backends, "backends", 10_000, "how many backends, 10 to 100,000")
	fs.IntVar(&o.sessions, "sessions", 10_000_000, "how many sessions in all, each of a client of its own")
	fs.IntVar(&o.judges, "judges", 2, "how many nodes check each backend")
	fs.IntVar(&o.few, "few", 200, "how many backends with client_hash, which is for some hundred")
	fs.DurationVar(&o.rest, "rest", 20*time.Second, "how long to measure the fleet at rest")
	fs.StringVar(&o.only, "only", "", "choices or etcd: only this `part`")
	fs.StringVar(&o.json, "json", "", "a `file` for the figures as JSON")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	err := o.check(fs.Args())
	if err != nil {
		fmt.Fprintf(stderr, "fleetsim: %v\n", err)
	}
	return o, err
}

func (o options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.nodes < 3 || o.nodes > 1000:
		return fmt.Errorf("-nodes %d: needs 3 to 1000", o.nodes)
	case o.backends < 10 || o.backends > 100_000 || o.few < 2 || o.few > o.backends:
		return fmt.Errorf("-backends %d, -few %d: needs 10 to 100,000, and 2 to as many", o.backends, o.few)
	case o.sessions < o.backends || o.sessions > maxSessions:
		return fmt.Errorf("-sessions %d: needs %d (one for each backend) to %d", o.sessions, o.backends, maxSessions)
	case o.judges < 1 || o.judges > o.nodes:
		return fmt.Errorf("-judges %d: needs 1 to %d, the number of nodes", o.judges, o.nodes)
	case o.only != "" && o.only != "choices" && o.only != "etcd":
		return fmt.Errorf("-only %q: needs choices or etcd", o.only)
	case o.rest <= 0:
		return fmt.Errorf("-rest %v: needs a time", o.rest)
	}
	return nil
}

// simulate runs all simulations, and says on progress what it does.
func simulate(ctx context.Context, o options, progress io.Writer) (*result, error) {
	r := &result{Nodes: o.nodes, Backends: o.backends, Sessions: o.sessions, Judges: o.judges}
	if o.only != "etcd" {
		if err := r.measureAllChoices(ctx, o, progress); err != nil {
			return nil, err
		}
	}
	if o.only != "choices" {
		var err error
		if r.Etcd, err = measureEtcd(ctx, o, progress); err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	return r, nil
}

// measureAllChoices adds the choices of several algorithms.
func (r *result) measureAllChoices(ctx context.Context, o options, progress io.Writer) error {
	var maglev *choices
	for _, a := range []algorithm{
		{"random", 0, o.backends}, {"maglev", 0, o.backends}, {"maglev", 1.25, o.backends},
		{"ring_hash", 0, o.backends}, {"client_hash", 0, o.few},
	} {
		fmt.Fprintf(progress, "choices: %s\n", a)
		c, err := measureChoices(ctx, o, a)
		if err != nil {
			return fmt.Errorf("choices of %s: %w", a, err)
		}
		switch {
		case a.kind == "maglev" && a.bound == 0:
			maglev = c
		case a.bound > 0:
			c.Bounded = c.different(maglev)
		}
		r.Choices = append(r.Choices, *c)
	}
	return nil
}

// save writes the figures as JSON.
func (r *result) save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
