//go:build soak

package test

import (
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// failovers is how many times TestSoakPatroni loses the primary, and how many times it has it switched over.
var failovers = flag.Int("failovers", 20, "how many failovers of each kind TestSoakPatroni has")

// TestSoakPatroni compares the balancer with HAProxy, which asks Patroni's REST API as Patroni's own documentation has
// it: both stand before the same cluster with as many clients, and the primary is lost and switched over again and
// again.
func TestSoakPatroni(t *testing.T) {
	c := startPatroni(t)
	config := c.config(t)
	b := harness.StartBalancer(t, config)
	address := harness.FreeAddress(t)
	harness.StartHAProxy(t, c.haproxy(t, address), address)
	ledgers := []*ledger{
		startLedger(t, "limeload-l4", b.Address(t, "postgres"), 8), startLedger(t, "haproxy", address, 8),
	}
	for _, l := range ledgers {
		l.everyone(t, time.Now())
	}
	for _, way := range []struct {
		name  string
		times int
		round func(t *testing.T) []failover
	}{
		{"lost hosts", *failovers, func(sub *testing.T) []failover { return c.loseHost(sub, t, ledgers...) }},
		{"switchovers", *failovers, func(sub *testing.T) []failover { return c.switchOver(sub, ledgers...) }},
		{"frozen hosts", 1, func(sub *testing.T) []failover { return c.freezeHost(sub, ledgers...) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			began := time.Now()
			found := make([][]failover, len(ledgers))
			for n := range way.times {
				for i, f := range way.round(t) {
					t.Logf("%d, %s: %v", n+1, ledgers[i].name, f)
					for _, failed := range f.failed[:min(len(f.failed), 5)] {
						t.Logf("a connect that began %v after the loss failed %v", failed.began.Sub(f.began), failed)
					}
					found[i] = append(found[i], f)
				}
			}
			for i, l := range ledgers {
				after := 0
				for _, f := range found[i] {
					after += len(f.failed)
				}
				t.Logf("%d %s, %s: %d failed connects, and %d that were under way when the primary was lost; %d failed "+
					"writes; %d writes on a standby; %s", way.times, way.name, l.name, after,
					len(l.since(&l.failedConnects, began))-after, len(l.since(&l.failedWrites, began)),
					len(l.since(&l.onStandby, began)), summary(found[i]))
			}
		})
	}
	t.Run("etcd stopped for a minute", func(t *testing.T) {
		began := time.Now()
		c.etcd.Signal(t, syscall.SIGSTOP)
		<-time.After(time.Minute)
		c.etcd.Signal(t, syscall.SIGCONT)
		c.WaitWhole(t)
		for _, l := range ledgers {
			l.everyone(t, time.Now())
			t.Logf("%s: %d failed connects, %d failed writes, longest outage of a client %v", l.name,
				len(l.since(&l.failedConnects, began)), len(l.since(&l.failedWrites, began)), l.outage(began))
		}
	})
	leader, _ := c.WaitWhole(t)
	for _, l := range ledgers {
		l.stop()
		lost := l.lost(t, leader)
		t.Logf("%v; %d acknowledged rows lost: %v", l, len(lost), lost)
	}
	if l := ledgers[0]; len(l.onStandby) > 0 || len(l.lost(t, leader)) > 0 {
		t.Error("writes went to a standby, or are lost")
	}
	endPatroni(t, b, config)
}

// freezeHost stops the primary's machine without a word to anybody, and lets it go on when all clients of the ledgers
// write elsewhere: it then believes for a moment that it is still the primary.
func (c *patroniCluster) freezeHost(t *testing.T, ledgers ...*ledger) []failover {
	t.Helper()
	from, _ := c.WaitWhole(t)
	from.Freeze(t)
	found := c.observe(t, from, time.Now(), ledgers)
	from.Thaw(t)
	c.WaitWhole(t)
	return found
}

// haproxy returns the section of HAProxy from Patroni's documentation, with checks every two seconds.
func (c *patroniCluster) haproxy(t *testing.T, address string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `listen postgres
  bind %s
  mode tcp
  retries 2
  timeout connect 4s
  timeout check 5s
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 2s fall 3 rise 2 on-marked-down shutdown-sessions
`, address)
	for _, m := range c.Members {
		_, port, err := net.SplitHostPort(m.REST)
		check(t, err)
		fmt.Fprintf(&b, "  server %s %s maxconn 100 check port %s\n", m.Name, m.Postgres, port)
	}
	return b.String()
}

// summary returns the median and the longest of the times of several failovers.
func summary(all []failover) string {
	var parts []string
	for _, part := range []struct {
		name string
		of   func(failover) time.Duration
	}{
		{"outage", func(f failover) time.Duration { return f.outage }},
		{"leader key to promotion", func(f failover) time.Duration { return f.promoted.Sub(f.key) }},
		{"promotion to first write", func(f failover) time.Duration { return f.first.Sub(f.promoted) }},
		{"leader key to first write", func(f failover) time.Duration { return f.first.Sub(f.key) }},
	} {
		var times []time.Duration
		for _, f := range all {
			times = append(times, part.of(f).Round(time.Millisecond))
		}
		slices.Sort(times)
		parts = append(parts, fmt.Sprintf("%s %v, longest %v", part.name, times[len(times)/2], times[len(times)-1]))
	}
	return strings.Join(parts, "; ")
}
