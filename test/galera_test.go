package test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/limeload/limeload-l4/test/harness"
)

// A galeraCluster is a cluster of three nodes behind the configuration of docs/mysql.md. Its names of backends are
// those of the nodes.
type galeraCluster struct {
	whole *testing.T // nodes that join outlive the part of the test that starts them
	nodes []*harness.GaleraNode
	*harness.Balancer
}

// The reasons of verdicts.
const (
	galeraDonor = "galera: the node is a donor or desynced"
	galeraCut   = "galera: not in the primary component (non-Primary)"
)

// startGalera starts the first two nodes, and a balancer in front of all three.
func startGalera(t *testing.T) galeraCluster {
	t.Helper()
	c := galeraCluster{whole: t, nodes: harness.NewGaleraNodes(t, 3)}
	c.nodes[0].Bootstrap(t)
	c.nodes[0].Do(t, "CREATE DATABASE d; CREATE TABLE d.written (id int AUTO_INCREMENT PRIMARY KEY, client int, n int); "+
		"CREATE USER app; GRANT ALL ON d.* TO app; CREATE USER limeload IDENTIFIED BY 'first'")
	c.nodes[1].Join(t, nil)
	c.nodes[1].Await(t)
	page := string(readFile(t, "../docs/mysql.md"))
	found := regexp.MustCompile("(?s)```toml\n(\\[listener.galera\\].*?)```").FindStringSubmatch(page)
	if found == nil {
		t.Fatal("docs/mysql.md shows no configuration for Galera")
	}
	secret := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(secret, []byte("first\n"), 0o600))
	config := onThisMachine(t, found[1], `":3306"`, fmt.Sprintf("%q", harness.FreeAddress(t)),
		`":3307"`, fmt.Sprintf("%q", harness.FreeAddress(t)), "/etc/limeload/mysql.password", secret,
		"10.0.0.21:3306", c.nodes[0].Address(), "10.0.0.22:3306", c.nodes[1].Address(),
		"10.0.0.23:3306", c.nodes[2].Address())
	config += fmt.Sprintf("\n[listener.donors]\naddress = %q\npool = \"donors\"\n"+
		"[pool.donors]\nbackends = [{ address = %q, name = \"n2\" }]\n[pool.donors.health]\ntype = \"mysql\"\n"+
		"user = \"limeload\"\npassword_file = %q\nallow_donor = true\ninterval = \"200ms\"\n",
		harness.FreeAddress(t), c.nodes[1].Address(), secret)
	c.Balancer = harness.StartBalancer(t, config)
	return c
}

// awaitVerdict waits for a change of the verdict on a node in a pool, after a time.
func (c galeraCluster) awaitVerdict(t *testing.T, pool, node, to string, since time.Time) harness.Line {
	t.Helper()
	return awaitVerdict(t, c.Balancer, pool, node, to, since)
}

// wantReason checks the reason of a line, and that explain says the same.
func (c galeraCluster) wantReason(t *testing.T, line harness.Line, reason string) {
	t.Helper()
	if line.Reason != reason {
		t.Errorf("the verdict's reason is %q", line.Reason)
	}
	stdout, stderr, _ := c.Command(t, "explain", "--pool", line.Pool, "192.0.2.1")
	if !strings.Contains(stdout, reason) {
		t.Errorf("explain does not say %q:\n%s%s", reason, stdout, stderr)
	}
}

// openMySQL opens a session. Its caller ends it, and may be any goroutine.
func openMySQL(ctx context.Context, address string) (conn *sql.Conn, end func(), err error) {
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr, config.Logger = "app", "tcp", address, new(mysql.NopLogger)
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, nil, err
	}
	db := sql.OpenDB(connector)
	if conn, err = db.Conn(ctx); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return conn, func() { _ = conn.Close(); _ = db.Close() }, nil
}

// visit has n sessions at once, and returns how many of them each node got.
func (c galeraCluster) visit(t *testing.T, listener string, n int) map[string]int {
	t.Helper()
	nodes := make(map[string]int)
	for range n {
		conn, end, err := openMySQL(t.Context(), c.Address(t, listener))
		check(t, err)
		defer end()
		nodes[c.nodeOf(t, conn)]++
	}
	return nodes
}

func (c galeraCluster) visitOnce(t *testing.T, listener string) (node string) {
	t.Helper()
	conn, end, err := openMySQL(t.Context(), c.Address(t, listener))
	check(t, err)
	defer end()
	return c.nodeOf(t, conn)
}

func (c galeraCluster) nodeOf(t *testing.T, conn *sql.Conn) string {
	t.Helper()
	var name string
	check(t, conn.QueryRowContext(t.Context(), "SELECT @@wsrep_node_name").Scan(&name))
	return name
}

// stay opens a session with a node, which is there until the end of the test.
func (c galeraCluster) stay(t *testing.T, listener, node string) *sql.Conn {
	t.Helper()
	var conn *sql.Conn
	harness.Eventually(t, "a session with "+node, func() error {
		if conn = mysqlClient(t, c.Address(t, listener)); c.nodeOf(t, conn) != node {
			check(t, conn.Close())
			return fmt.Errorf("it is with another node")
		}
		return nil
	})
	return conn
}

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
	c.awaitVerdict(t, "galera", "n1", "healthy", time.Time{})
	c.awaitVerdict(t, "galera", "n2", "wrong_role", time.Time{})
	c.awaitVerdict(t, "galera-read", "n2", "healthy", time.Time{})
	there := c.stay(t, "galera-read", "n2")
	began := time.Now()
	c.nodes[2].Join(c.whole, c.nodes[1])
	donor := c.awaitVerdict(t, "galera-read", "n2", "lagging", began)
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
	c.awaitVerdict(t, "galera-read", "n3", "healthy", began)
	c.awaitVerdict(t, "galera-read", "n2", "healthy", donor.Seen)
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
	c.wantReason(t, c.awaitVerdict(t, "galera-read", "n2", "lagging", began), galeraDonor)
	if got := c.visit(t, "galera-read", 12); got["n2"] > 0 || len(got) != 2 {
		t.Errorf("readers are with %v", got)
	}
	if got := c.visit(t, "donors", 1); got["n2"] != 1 {
		t.Errorf("a session with a donor that is allowed is with %v", got)
	}
	check(t, there.PingContext(t.Context()))
	c.nodes[1].Do(t, "SET GLOBAL wsrep_desync = OFF")
	c.awaitVerdict(t, "galera-read", "n2", "healthy", began)
	if got := c.visit(t, "galera-read", 12); len(got) != 3 {
		t.Errorf("readers are with %v", got)
	}
	check(t, there.PingContext(t.Context()))
}

// testGaleraPassword changes the password of the checks on one node, which that node has to answer for, and then on all,
// which changes no verdict.
func testGaleraPassword(t *testing.T, c galeraCluster) {
	const refused = `limeload_pool_credentials_refused{pool=%q}`
	began := time.Now()
	c.nodes[1].Do(t, "SET SESSION wsrep_on = OFF; ALTER USER limeload IDENTIFIED BY 'second'")
	c.wantReason(t, c.awaitVerdict(t, "galera-read", "n2", "unhealthy", began), "authentication refused")
	awaitMetric(t, c.Balancer, fmt.Sprintf(refused, "donors"), 1) // which has no other backend
	measured(t, c.Balancer, map[string]float64{fmt.Sprintf(refused, "galera"): 0,
		fmt.Sprintf(refused, "galera-read"): 0, `limeload_backend_verdict{backend="n2",pool="donors",verdict="healthy"}`: 1})
	c.nodes[1].Do(t, "SET SESSION wsrep_on = OFF; ALTER USER limeload IDENTIFIED BY 'first'")
	c.awaitVerdict(t, "galera-read", "n2", "healthy", began)
	c.awaitVerdict(t, "galera", "n2", "wrong_role", began)
	awaitMetric(t, c.Balancer, fmt.Sprintf(refused, "donors"), 0)

	began = time.Now()
	c.nodes[0].Do(t, "ALTER USER limeload IDENTIFIED BY 'second'")
	for _, pool := range []string{"galera", "galera-read", "donors"} {
		awaitMetric(t, c.Balancer, fmt.Sprintf(refused, pool), 1)
	}
	harness.Eventually(t, "each node refuses more checks than fall", func() error {
		if n := metrics(t, c.Balancer)[`limeload_checks_total{outcome="refused",pool="galera-read"}`]; n < 15 {
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
	line := c.awaitVerdict(t, "galera-read", "n2", "unhealthy", began)
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
	c.awaitVerdict(t, "galera-read", "n2", "healthy", began)
	check(t, writer.PingContext(t.Context()))
}

// A galeraWrite is one client's attempt to connect and write.
type galeraWrite struct {
	began, ended time.Time
	node         string // "" = it failed
	connected    bool
	err          error
}

// write connects and writes one row.
func (c galeraCluster) write(ctx context.Context, address string, client, n int) (w galeraWrite) {
	w.began = time.Now()
	conn, end, err := openMySQL(ctx, address)
	if w.err = err; err == nil {
		defer end()
		w.connected = true
		_, w.err = conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO d.written (client, n) VALUES (%d, %d)", client, n))
	}
	if w.err == nil {
		w.ended = time.Now()
		w.err = conn.QueryRowContext(ctx, "SELECT @@wsrep_node_name").Scan(&w.node)
	}
	return w
}

// testGaleraWriterKilled kills the node that has the writers, under clients that connect, write and leave: no client
// that comes from then on is refused, one other node gets all writes, and no write that was acknowledged is lost.
func testGaleraWriterKilled(t *testing.T, c galeraCluster) {
	const clients = 8
	address := c.Address(t, "galera")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	writes := make([][]galeraWrite, clients)
	var writing sync.WaitGroup
	progress := make(chan string, clients) // nodes that took a write; more than anybody reads are dropped
	for i := range clients {
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w := c.write(t.Context(), address, i, n)
				writes[i] = append(writes[i], w)
				select {
				case progress <- w.node:
				default:
				}
			}
		})
	}
	until := func(enough int, counts func(node string) bool) {
		t.Helper()
		late := time.After(harness.Patience)
		for enough > 0 {
			select {
			case node := <-progress:
				if counts(node) {
					enough--
				}
			case <-late:
				t.Fatal("the clients do not write")
			}
		}
	}
	until(10*clients, func(node string) bool { return node == "n1" })
	killed := time.Now()
	c.nodes[0].Kill(t)
	dead := time.Now()
	until(10*clients, func(node string) bool { return node != "" && node != "n1" })
	stop()
	writing.Wait()

	var first time.Time
	nodes, cut, acknowledged := map[string]int{}, 0, 0
	for _, w := range flatten(writes) {
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
			known := c.awaitVerdict(t, "galera", node, "healthy", killed).Seen.Sub(killed)
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

func flatten(writes [][]galeraWrite) (all []galeraWrite) {
	for _, w := range writes {
		all = append(all, w...)
	}
	return all
}

// testGaleraNoMajority cuts the last two nodes off from each other: neither takes writes, and clients wait until they
// are one cluster again.
func testGaleraNoMajority(t *testing.T, c galeraCluster) {
	began := time.Now()
	c.nodes[2].Isolate(t, true)
	c.wantReason(t, c.awaitVerdict(t, "galera", "n2", "unhealthy", began), galeraCut)
	c.awaitVerdict(t, "galera-read", "n3", "unhealthy", began)
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
	c.awaitVerdict(t, "galera-read", "n2", "healthy", began)
	c.awaitVerdict(t, "galera-read", "n3", "healthy", began)
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
	c.awaitVerdict(t, "galera-read", "n1", "healthy", began)
	line := c.awaitVerdict(t, "galera", "n1", "wrong_role", began)
	c.wantReason(t, line, "another member of its cluster gets the writes: galera/"+writer)
	if got := c.visit(t, "galera", 12); got[writer] != 12 {
		t.Errorf("writers are with %v", got)
	}
	check(t, there.PingContext(t.Context()))
}
