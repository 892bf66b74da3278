package test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// A galeraWrite is one client's attempt to connect and write.
type galeraWrite struct {
	began, ended time.Time
	node         string // "" = it failed
	err          error
}

// write connects and writes one row.
func (c galeraCluster) write(ctx context.Context, address string, client, n int) (w galeraWrite) {
	w.began = time.Now()
	conn, end, err := openMySQL(ctx, address)
	if w.err = err; err == nil {
		defer end()
		_, w.err = conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO d.written (client, n) VALUES (%d, %d)", client, n))
	}
	if w.err == nil {
		w.ended = time.Now()
		w.err = conn.QueryRowContext(ctx, "SELECT @@wsrep_node_name").Scan(&w.node)
	}
	return w
}

// galeraWriters are clients that connect, write one row and leave, again and again.
type galeraWriters struct {
	stop     context.CancelFunc
	writing  sync.WaitGroup
	writes   [][]galeraWrite // of each client, complete after end
	progress chan string     // the nodes that took writes, of which those that nobody reads in time are dropped
}

// startWriters starts clients of the pool of writers. They go on until end.
func (c galeraCluster) startWriters(t *testing.T, clients int) *galeraWriters {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &galeraWriters{stop: stop, writes: make([][]galeraWrite, clients), progress: make(chan string, clients)}
	t.Cleanup(func() { w.end() })
	address := c.Address(t, "galera")
	for i := range clients {
		w.writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				one := c.write(context.WithoutCancel(ctx), address, i, n)
				w.writes[i] = append(w.writes[i], one)
				select {
				case w.progress <- one.node:
				default:
				}
			}
		})
	}
	return w
}

// until waits until enough writes are done that count.
func (w *galeraWriters) until(t *testing.T, enough int, counts func(node string) bool) {
	t.Helper()
	late := time.After(harness.Patience)
	for enough > 0 {
		select {
		case node := <-w.progress:
			if counts(node) {
				enough--
			}
		case <-late:
			t.Fatal("the clients do not write")
		}
	}
}

// end ends the clients and returns their writes. It may be called again.
func (w *galeraWriters) end() []galeraWrite {
	w.stop()
	w.writing.Wait()
	return slices.Concat(w.writes...)
}
