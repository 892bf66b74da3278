package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// A handover is one change of a cluster's primary, as the test sees it.
type handover struct {
	to       *harness.PatroniMember // the new primary
	key      time.Time              // etcd has the new leader key
	promoted time.Time              // the new primary has left recovery
}

// A patroniCluster is a cluster of three with its etcd, whose handovers are watched.
type patroniCluster struct {
	*harness.Patroni
	etcd *harness.Etcd

	mu        sync.Mutex
	handovers []handover // complete ones; mu guards it
}

// startPatroni starts a cluster, makes the ledgers' table and watches the leader key.
func startPatroni(t *testing.T) *patroniCluster {
	t.Helper()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	c := &patroniCluster{
		Patroni: harness.StartPatroni(t, harness.PatroniOptions{Etcd: []*harness.Etcd{etcd}}), etcd: etcd,
	}
	leader, _ := c.WaitWhole(t)
	makeLedgers(t, leader)
	direct(t, leader, "CREATE ROLE limeload LOGIN")
	c.watch(t)
	return c
}

// watch notes handovers from now on, until the test ends or etcd does.
func (c *patroniCluster) watch(t *testing.T) {
	t.Helper()
	var asking sync.WaitGroup
	t.Cleanup(asking.Wait)
	c.etcd.Watch(t, "/service/"+c.Scope+"/leader", func(k harness.KeyChange) {
		if !k.Deleted {
			asking.Go(func() { c.ask(handover{to: c.Member(k.Value), key: k.Seen}) })
		}
	})
}

// ask asks a new leader again and again whether it is promoted.
func (c *patroniCluster) ask(h handover) {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, directURL(h.to))
	if err != nil {
		return // the test then waits for it in vain
	}
	defer conn.Close(ctx)
	for recovering := true; recovering; {
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err != nil {
			return
		}
	}
	h.promoted = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handovers = append(c.handovers, h)
}

// handover waits for the first handover after a moment to another member than the primary so far.
func (c *patroniCluster) handover(t *testing.T, from *harness.PatroniMember, after time.Time) (found handover) {
	t.Helper()
	harness.Eventually(t, "there is a new primary", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, h := range c.handovers {
			if h.to != from && h.key.After(after) {
				found = h
				return nil
			}
		}
		return fmt.Errorf("%v", c.handovers)
	})
	return found
}

// A failover is what one of them looked like from the clients of a ledger.
type failover struct {
	handover
	began  time.Time     // the old primary is dead, or was asked to hand over
	first  time.Time     // the first row that was written to the new primary
	outage time.Duration // the longest time in which one of the clients wrote no row

	failed []failure // connects that began since then
}

// String returns the times from one step to the next.
func (f failover) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("leader key after %v, promoted %v later, first write %v later; longest outage of a client %v",
		round(f.key.Sub(f.began)), round(f.promoted.Sub(f.key)), round(f.first.Sub(f.promoted)), round(f.outage))
}

// loseHost kills the primary's whole machine, and starts it again when all clients of the ledgers write elsewhere. It
// returns when the cluster is whole again. all is the test that the cluster belongs to.
func (c *patroniCluster) loseHost(t, all *testing.T, ledgers ...*ledger) []failover {
	t.Helper()
	from, _ := c.WaitWhole(t)
	from.Kill(t)
	found := c.observe(t, from, time.Now(), ledgers)
	from.Launch(all)
	c.WaitWhole(t)
	return found
}

// switchOver has Patroni make the synchronous standby the primary.
func (c *patroniCluster) switchOver(t *testing.T, ledgers ...*ledger) []failover {
	t.Helper()
	from, to := c.WaitWhole(t)
	began := time.Now()
	c.Switchover(t, from, to)
	found := c.observe(t, from, began, ledgers)
	c.WaitWhole(t)
	return found
}

func (c *patroniCluster) observe(
	t *testing.T, from *harness.PatroniMember, began time.Time, ledgers []*ledger,
) (found []failover) {
	t.Helper()
	h := c.handover(t, from, began)
	for _, l := range ledgers {
		f := failover{handover: h, began: began, first: l.first(t, h.to, began)}
		l.everyone(t, f.first)
		f.outage, f.failed = l.outage(began), l.since(&l.failedConnects, began)
		found = append(found, f)
	}
	return found
}

// The places in the configuration of docs/patroni.md that a test replaces.
const (
	patroniListener  = "address = \":5432\""
	patroniReaders   = "address = \":5433\""
	patroniEndpoints = `["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"]`
	patroniPassword  = "/etc/limeload/postgres.password"
)

// config returns the configuration of docs/patroni.md for the cluster, after these replacements: pairs of an old and a
// new text.
func (c *patroniCluster) config(t *testing.T, replacements ...string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/patroni.md")
	check(t, err)
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(page)
	if config == nil {
		t.Fatal("docs/patroni.md shows no configuration")
	}
	password := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(password, []byte("not asked for\n"), 0o600))
	replacements = append(replacements,
		patroniListener, fmt.Sprintf("address = %q", harness.FreeAddress(t)),
		patroniReaders, fmt.Sprintf("address = %q", harness.FreeAddress(t)),
		patroniEndpoints, fmt.Sprintf("[%q]", c.etcd.Endpoint), patroniPassword, password,
	)
	text := string(config[1])
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("the configuration of docs/patroni.md has no %s", replacements[i])
		}
		text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
	}
	return text
}

// TestPatroni has clients write through a balancer to the primary of a real Patroni cluster, which changes in all the
// ways in which it can: none of them is refused while there is no primary, no write goes to a standby, and no row whose
// commit was acknowledged is lost.
func TestPatroni(t *testing.T) {
	t.Parallel()
	c := startPatroni(t)
	config := c.config(t)
	b := harness.StartBalancer(t, config)
	l := startLedger(t, "limeload", b.Address(t, "postgres"), 8)
	l.everyone(t, time.Now())

	t.Run("readers", func(sub *testing.T) {
		conn, err := pgx.Connect(sub.Context(), "postgres://postgres@"+b.Address(sub, "postgres_ro")+
			"/postgres?sslmode=disable")
		check(sub, err)
		defer conn.Close(context.Background())
		var standby bool
		check(sub, conn.QueryRow(sub.Context(), "SELECT pg_is_in_recovery()").Scan(&standby))
		if !standby {
			sub.Error("a reader is on the primary")
		}
	})
	t.Run("lost host", func(sub *testing.T) {
		f := c.loseHost(sub, t, l)[0]
		sub.Log(f)
		for _, failed := range f.failed {
			sub.Error(failed)
		}
	})
	t.Run("switchover", func(sub *testing.T) {
		f := c.switchOver(sub, l)[0]
		sub.Log(f)
		for _, failed := range f.failed {
			sub.Error(failed)
		}
	})
	t.Run("etcd does not answer", func(sub *testing.T) {
		began := time.Now()
		c.etcd.Signal(sub, syscall.SIGSTOP)
		<-time.After(awayFor)
		l.everyone(sub, time.Now())
		c.etcd.Signal(sub, syscall.SIGCONT)
		c.noticeNothing(sub, l, began)
	})
	t.Run("etcd is restarted", func(sub *testing.T) {
		began := time.Now()
		c.etcd.Kill(sub)
		<-time.After(awayFor / 2) // Patroni has noticed, and the lease is still there afterwards
		l.everyone(sub, time.Now())
		c.etcd.Restart(t)
		c.watch(t)
		c.noticeNothing(sub, l, began)
	})
	l.stop()
	for _, refused := range l.onStandby {
		t.Error("on a standby: ", refused)
	}
	leader, _ := c.WaitWhole(t)
	for _, row := range l.lost(t, leader) {
		t.Error("lost: ", row)
	}
	t.Log(l)
	endPatroni(t, b, config)
}

// endPatroni takes the discovery from a balancer with the configuration of docs/patroni.md, and with it the connections
// to etcd, of which the check for leaks would find those that have begun after the start.
func endPatroni(t *testing.T, b *harness.Balancer, config string) {
	t.Helper()
	config = regexp.MustCompile(`(?m)^\[pool\.\w+\.discovery\]\n(.+\n)+`).ReplaceAllString(config, "")
	config = regexp.MustCompile(`(?m)^\[pool\.\w+\]$`).ReplaceAllString(config, "$0\nbackends = [\"127.0.0.1:1\"]")
	b.Reload(t, config)
}

// awayFor is how long etcd stays away: longer than the leader's lease, so that a Patroni without a failsafe mode would
// have given up its primary.
const awayFor = 12 * time.Second

// noticeNothing waits until the members have found etcd again, and fails the test if the clients had any trouble since
// began.
func (c *patroniCluster) noticeNothing(t *testing.T, l *ledger, began time.Time) {
	t.Helper()
	c.WaitWhole(t)
	<-time.After(2 * time.Second) // two rounds of Patroni: what it still thinks is perhaps from before
	c.WaitWhole(t)
	l.everyone(t, time.Now())
	t.Logf("longest outage of a client: %v", l.outage(began).Round(time.Millisecond))
	for _, list := range []*[]failure{&l.failedConnects, &l.failedWrites} {
		for _, failed := range l.since(list, began) {
			t.Error(failed)
		}
	}
}
