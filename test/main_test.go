// Package test runs the built balancer as an operator would, with real clients and servers, and observes it from
// outside: its command line, log, sockets and data in /proc. It also has the guards, which check the repository itself.
//
// It checks the bounds on CPU time and memory that the balancer promises; test/bench measures performance.
package test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
	"go.uber.org/goleak"
)

// update makes tests write what they find: what programs print into testdata, and into docs/cli.md.
var update = flag.Bool("update", false, "write what programs print into testdata and docs/cli.md")

func TestMain(m *testing.M) {
	code := harness.Main(m, map[string]harness.Role{
		"clients": clientsRole,
		"echo":    echoRole,
		"remote":  remoteRole,
	})
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A world is a configuration with one listener, "main", and one pool, "all". Only Backends or Discover must be set.
type world struct {
	Listen   string   // "": a free port of 127.0.0.1
	Backends []string // addresses; named b1, b2 and so on
	Keys     []string // further keys of each backend, such as "weight = 2"; fewer than backends leave the rest without
	Listener []string // further lines of the listener's table
	Pool     []string // further lines of the pool's table
	Global   []string // lines of the global table
	Health   []string // lines of the pool's health table, type first unless it is tcp; none: no checks
	Breaker  []string // lines of the pool's breaker table; none: the defaults
	Discover []string // lines of the pool's discovery table; none: only Backends

	Descriptors int  // see harness.BalancerOptions
	Measured    bool // see harness.BalancerOptions
}

func (w world) config(t testing.TB) string {
	if w.Listen == "" {
		w.Listen = harness.FreeAddress(t)
	}
	var b strings.Builder
	table := func(name string, lines ...string) {
		fmt.Fprintf(&b, "[%s]\n%s\n\n", name, strings.Join(lines, "\n"))
	}
	if len(w.Global) > 0 {
		table("global", w.Global...)
	}
	table("listener.main", append([]string{fmt.Sprintf("address = %q", w.Listen), `pool = "all"`}, w.Listener...)...)
	pool := w.Pool
	if len(w.Backends) > 0 {
		pool = append([]string{"backends = " + harness.BackendListWith(w.Keys, w.Backends...)}, pool...)
	}
	table("pool.all", pool...)
	if len(w.Health) > 0 {
		health := w.Health
		if !strings.HasPrefix(health[0], "type") {
			health = append([]string{`type = "tcp"`}, health...)
		}
		table("pool.all.health", health...)
	}
	if len(w.Breaker) > 0 {
		table("pool.all.breaker", w.Breaker...)
	}
	if len(w.Discover) > 0 {
		table("pool.all.discovery", w.Discover...)
	}
	return b.String()
}

func (w world) start(t testing.TB) *harness.Balancer {
	t.Helper()
	return harness.StartBalancerWith(t, harness.BalancerOptions{
		Config: w.config(t), Descriptors: w.Descriptors, Measured: w.Measured,
	})
}

// A service is a listener and its pool, which have the same name. Tests that need several of them use configOf; a
// world has one.
type service struct {
	name     string
	backends []string // addresses; named b1, b2 and so on
	listener []string // further lines of the listener's table
	health   []string // lines of the pool's health table; none: no checks
}

// configOf returns the configuration of these services, each on a free port of 127.0.0.1.
func configOf(t testing.TB, services ...service) string {
	t.Helper()
	var b strings.Builder
	for _, s := range services {
		fmt.Fprintf(&b, "[listener.%s]\naddress = %q\npool = %q\n", s.name, harness.FreeAddress(t), s.name)
		for _, line := range s.listener {
			fmt.Fprintln(&b, line)
		}
		fmt.Fprintf(&b, "[pool.%s]\nbackends = %s\n", s.name, harness.BackendList(s.backends...))
		if len(s.health) > 0 {
			fmt.Fprintf(&b, "[pool.%s.health]\n%s\n", s.name, strings.Join(s.health, "\n"))
		}
	}
	return b.String()
}

// between starts a backend and a balancer in front of it.
func between(t testing.TB, handle harness.Handler, listener ...string) (*harness.Balancer, *harness.Backend) {
	t.Helper()
	backend := harness.Serve(t, handle)
	b := world{Backends: []string{backend.Address()}, Listener: listener}.start(t)
	t.Cleanup(backend.Close) // before the balancer is checked for leaks: a silent backend keeps its sessions
	return b, backend
}

// handOver returns a handler that passes the backend's end of each connection to the test, which may use it freely. It
// is closed at the end of the test.
func handOver(conns chan<- *net.TCPConn) harness.Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		select {
		case conns <- c:
			<-ctx.Done()
		case <-ctx.Done():
		}
	}
}

// connected starts a balancer and returns both ends of one session through it.
func connected(t testing.TB, listener ...string) (b *harness.Balancer, client, backend *net.TCPConn) {
	t.Helper()
	conns := make(chan *net.TCPConn)
	b, _ = between(t, handOver(conns), listener...)
	client = b.Dial(t, "main")
	return b, client, harness.Receive(t, "connection at the backend", conns)
}

// check fails the test at once if err is not nil.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// oneOf fails the test for each session that ended for any other reason than these.
func oneOf(t testing.TB, sessions []harness.Line, reasons ...string) {
	t.Helper()
	allowed := map[string]bool{}
	for _, reason := range reasons {
		allowed[reason] = true
	}
	for _, s := range sessions {
		if !allowed[s.Reason] {
			t.Errorf("session ended with %q, expected one of %v: %s", s.Reason, reasons, s.Text)
		}
	}
}
