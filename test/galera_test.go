package test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestGalera takes the nodes of a real cluster through what can happen to them, in front of clients.
func TestGalera(t *testing.T) {
	t.Parallel()
	c := startGalera(t)
	for _, stage := range []struct {
		name string
		run  func(*testing.T, galeraCluster)
	}{
		{"donor", testGaleraDonor}, {"desynced", testGaleraDesynced}, {"password", testGaleraPassword},
		{"cut off", testGaleraCutOff},
		{"writer killed", testGaleraWriterKilled}, {"no majority", testGaleraNoMajority},
		{"back", testGaleraBack},
	} {
		if !t.Run(stage.name, func(t *testing.T) { stage.run(t, c) }) {
			break // the next one begins with what this one leaves
		}
	}
	for _, l := range c.Lines() {
		if t.Failed() && l.Message == harness.MessageVerdict {
			t.Log(l.Text)
		}
		if l.Message == "two backends claim to be the primary" {
			t.Errorf("the nodes of a cluster are rivals: %s", l.Text)
		}
	}
}

// testGaleraDonor has the third node join: the second one sends it its state, and gets no new session meanwhile.
func testGaleraDonor(t *testing.T, c galeraCluster) {
	awaitVerdict(t, c.Balancer, "galera", "n1", "healthy", time.Time{})
	awaitVerdict(t, c.Balancer, "galera", "n2", "wrong_role", time.Time{})
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", time.Time{})
	there := c.stay(t, "galera-read", "n2")
	began := time.Now()
	c.nodes[2].Join(c.whole, c.nodes[1])
	donor := awaitVerdict(t, c.Balancer, "galera-read", "n2", "lagging", began)
	c.wantReason(t, donor, galeraDonor)
	type session struct {
		node        string
		began, open time.Time
	}
	var sessions []session
	synced := func() (at time.Time) {
		for _, l := range c.Lines() {
			if l.Message == harness.MessageVerdict && l.Pool == "galera-read" && l.Backend == "n2" && l.From == "lagging" {
				at = l.Seen
			}
		}
		return at
	}
	for synced().IsZero() {
		s := session{began: time.Now()}
		s.node, s.open = c.visitOnce(t, "galera-read"), time.Now()
		sessions = append(sessions, s)
		time.Sleep(10 * time.Millisecond) // tests beside this one need the processors, too
	}
	n := 0
	for _, s := range sessions {
		if s.open.After(synced()) {
			continue
		}
		if n++; s.node == "n2" {
			t.Errorf("a donor got a session")
		}
	}
	t.Logf("the node was a donor for %v, and got none of %d sessions", synced().Sub(donor.Seen), n)
	check(t, there.PingContext(t.Context()))
	c.nodes[2].Await(t)
	awaitVerdict(t, c.Balancer, "galera-read", "n3", "healthy", began)
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", donor.Seen)
	if got := c.visit(t, "galera-read", 12); len(got) != 3 {
		t.Errorf("readers are with %v", got)
	}
	if got := c.visit(t, "galera", 12); got["n1"] != 12 {
		t.Errorf("writers are with %v", got)
	}
}

// testGaleraDesynced has the operator desync a node: it gets no new session, and those it has go on. A pool that allows
// donors has it as before.
func testGaleraDesynced(t *testing.T, c galeraCluster) {
	there := c.stay(t, "galera-read", "n2")
	began := time.Now()
	c.nodes[1].Do(t, "SET GLOBAL wsrep_desync = ON")
	c.wantReason(t, awaitVerdict(t, c.Balancer, "galera-read", "n2", "lagging", began), galeraDonor)
	if got := c.visit(t, "galera-read", 12); got["n2"] > 0 || len(got) != 2 {
		t.Errorf("readers are with %v", got)
	}
	if got := c.visit(t, "donors", 1); got["n2"] != 1 {
		t.Errorf("a session with a donor that is allowed is with %v", got)
	}
	check(t, there.PingContext(t.Context()))
	c.nodes[1].Do(t, "SET GLOBAL wsrep_desync = OFF")
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", began)
	if got := c.visit(t, "galera-read", 12); len(got) != 3 {
		t.Errorf("readers are with %v", got)
	}
	check(t, there.PingContext(t.Context()))
}

// testGaleraPassword changes the password of the checks on one node, which that node has to answer for, and then on
// all, which changes no verdict.
func testGaleraPassword(t *testing.T, c galeraCluster) {
	const refused = `limeload_pool_credentials_refused{pool=%q}`
	began := time.Now()
	c.nodes[1].Do(t, "SET SESSION wsrep_on = OFF; ALTER USER limeload IDENTIFIED BY 'second'")
	c.wantReason(t, awaitVerdict(t, c.Balancer, "galera-read", "n2", "unhealthy", began), "authentication refused")
	awaitMetric(t, c.Balancer, fmt.Sprintf(refused, "donors"), 1) // which has no other backend
	measured(t, c.Balancer, map[string]float64{fmt.Sprintf(refused, "galera"): 0,
		fmt.Sprintf(refused, "galera-read"): 0, `limeload_backend_verdict{backend="n2",pool="donors",verdict="healthy"}`: 1})
	c.nodes[1].Do(t, "SET SESSION wsrep_on = OFF; ALTER USER limeload IDENTIFIED BY 'first'")
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", began)
	awaitVerdict(t, c.Balancer, "galera", "n2", "wrong_role", began)
	awaitMetric(t, c.Balancer, fmt.Sprintf(refused, "donors"), 0)

	began = time.Now()
	c.nodes[0].Do(t, "ALTER USER limeload IDENTIFIED BY 'second'")
	for _, pool := range []string{"galera", "galera-read", "donors"} {
		awaitMetric(t, c.Balancer, fmt.Sprintf(refused, pool), 1)
	}
	harness.Eventually(t, "each node refuses more checks than fall", func() error {
		n, all := 0.0, metrics(t, c.Balancer)
		for _, pool := range []string{"galera", "galera-read", "donors"} { // which share their checks
			n += all[fmt.Sprintf(`limeload_checks_total{outcome="refused",pool=%q}`, pool)]
		}
		if n < 15 {
			return fmt.Errorf("%v are refused", n)
		}
		return nil
	})
	if got := c.visit(t, "galera-read", 12); len(got) != 3 {
		t.Errorf("readers are with %v", got)
	}
	if got := c.visit(t, "galera", 12); got["n1"] != 12 {
		t.Errorf("writers are with %v", got)
	}
	_, stderr, code := c.Command(t, "check", "--config", c.File())
	if code != 1 || strings.Count(stderr, "health.password_file: every backend that answers refuses the login") != 3 {
		t.Errorf("check ends with %d: %s", code, stderr)
	}
	c.nodes[0].Do(t, "ALTER USER limeload IDENTIFIED BY 'first'")
	for _, pool := range []string{"galera", "galera-read", "donors"} {
		awaitMetric(t, c.Balancer, fmt.Sprintf(refused, pool), 0)
	}
	if changes := verdictChanges(c.Balancer, began); len(changes) > 0 {
		t.Errorf("verdicts have changed: %s", changes)
	}
}

// testGaleraCutOff cuts a node off from the others, which go on: its sessions are closed, and it comes back.
func testGaleraCutOff(t *testing.T, c galeraCluster) {
	there, writer := c.stay(t, "galera-read", "n2"), c.stay(t, "galera", "n1")
	began := time.Now()
	c.nodes[1].Isolate(t, true)
	line := awaitVerdict(t, c.Balancer, "galera-read", "n2", "unhealthy", began)
	t.Logf("the balancer knows after %v that the node was cut off", line.Seen.Sub(began).Round(time.Millisecond))
	c.wantReason(t, line, galeraCut)
	c.WaitLine(t, "its session is closed", func(l harness.Line) bool {
		return l.IsAccess() && l.Backend == "n2" && l.Listener == "galera-read" && l.Reason == "backend_unhealthy" &&
			l.Seen.After(began)
	})
	if err := there.PingContext(t.Context()); err == nil {
		t.Error("a session of the node goes on")
	}
	if got := c.visit(t, "galera-read", 12); got["n2"] > 0 || len(got) != 2 {
		t.Errorf("readers are with %v", got)
	}
	check(t, writer.PingContext(t.Context()))
	began = time.Now()
	c.nodes[1].Isolate(t, false)
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", began)
	check(t, writer.PingContext(t.Context()))
}

// testGaleraWriterKilled kills the node that has the writers, under clients that connect, write and leave: no client
// that comes from then on is refused, one other node gets all writes, and no write that was acknowledged is lost.
func testGaleraWriterKilled(t *testing.T, c galeraCluster) {
	const clients = 8
	w := c.startWriters(t, clients)
	w.until(t, 10*clients, func(node string) bool { return node == "n1" })
	killed := time.Now()
	c.nodes[0].Kill(t)
	dead := time.Now()
	w.until(t, 10*clients, func(node string) bool { return node != "" && node != "n1" })

	first, nodes, cut, acknowledged := time.Time{}, map[string]int{}, 0, 0
	for _, w := range w.end() {
		switch {
		case w.err != nil && w.began.After(dead):
			t.Errorf("a client that came %v after the node's end failed: %v", w.began.Sub(dead), w.err)
		case w.err != nil:
			cut++
		}
		if w.ended.IsZero() {
			continue
		}
		acknowledged++
		if w.node == "n1" && w.ended.After(dead) {
			t.Error("a dead node took a write")
		}
		if w.node != "" && w.node != "n1" && (first.IsZero() || w.ended.Before(first)) {
			first = w.ended
		}
		nodes[w.node]++
	}
	delete(nodes, "")
	if len(nodes) != 2 {
		t.Errorf("the nodes that took writes are %v", nodes)
	}
	for node := range nodes {
		if node != "n1" {
			known := awaitVerdict(t, c.Balancer, "galera", node, "healthy", killed).Seen.Sub(killed)
			t.Logf("%d clients at a time: %s got them %v after the kill and took the first write after %v, "+
				"%d sessions were cut at the kill, writes %v", clients, node, known.Round(time.Millisecond),
				first.Sub(killed).Round(time.Millisecond), cut, nodes)
		}
	}
	rows, err := strconv.Atoi(c.nodes[1].Do(t,
		"SET SESSION wsrep_sync_wait = 1; SELECT COUNT(DISTINCT client, n) FROM d.written"))
	if check(t, err); rows < acknowledged {
		t.Errorf("%d of %d writes are there", rows, acknowledged)
	}
}

// testGaleraNoMajority cuts the last two nodes off from each other: neither takes writes, and clients wait until they
// are one cluster again.
func testGaleraNoMajority(t *testing.T, c galeraCluster) {
	began := time.Now()
	c.nodes[2].Isolate(t, true)
	c.wantReason(t, awaitVerdict(t, c.Balancer, "galera", "n2", "unhealthy", began), galeraCut)
	awaitVerdict(t, c.Balancer, "galera-read", "n3", "unhealthy", began)
	stdout, _, _ := c.Command(t, "explain", "--pool", "galera", "192.0.2.1")
	if want := "would wait for a backend: none is eligible"; !strings.Contains(stdout, want) {
		t.Errorf("explain does not say %q:\n%s", want, stdout)
	}
	waited := make(chan galeraWrite, 1)
	go func() { waited <- c.write(context.WithoutCancel(t.Context()), c.Address(t, "galera"), 100, 0) }()
	awaitMetric(t, c.Balancer, `limeload_pool_queue_sessions{pool="galera"}`, 1)
	c.nodes[2].Isolate(t, false)
	w := <-waited
	check(t, w.err)
	t.Logf("a client waited %v", w.ended.Sub(w.began).Round(time.Millisecond))
	awaitVerdict(t, c.Balancer, "galera-read", "n2", "healthy", began)
	awaitVerdict(t, c.Balancer, "galera-read", "n3", "healthy", began)
}

// testGaleraBack starts the killed node again: it is one of the nodes for readers, and the writers stay where they are.
func testGaleraBack(t *testing.T, c galeraCluster) {
	writer := c.visitOnce(t, "galera")
	there := c.stay(t, "galera", writer)
	began := time.Now()
	donor := c.nodes[1] // not the writer: a donor gets no new sessions
	if donor.Name == writer {
		donor = c.nodes[2]
	}
	c.nodes[0].Join(c.whole, donor)
	awaitVerdict(t, c.Balancer, "galera-read", "n1", "healthy", began)
	line := awaitVerdict(t, c.Balancer, "galera", "n1", "wrong_role", began)
	c.wantReason(t, line, "another member of its cluster gets the writes: galera/"+writer)
	if got := c.visit(t, "galera", 12); got[writer] != 12 {
		t.Errorf("writers are with %v", got)
	}
	check(t, there.PingContext(t.Context()))
}
