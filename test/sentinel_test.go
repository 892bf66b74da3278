package test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// sentinelWorld returns a balancer in front of a cluster of Redis, which sends clients to the master.
func sentinelWorld(t testing.TB, c *sentinelCluster) world {
	t.Helper()
	return world{
		Listen: harness.FreeAddress(t),
		Pool:   []string{`hold = { timeout = "30s" }`},
		Health: []string{
			`type = "redis"`, `role = "primary"`, `interval = "1s"`, `fast_interval = "100ms"`, `timeout = "500ms"`,
			`rise = 1`, `fall = 2`,
		},
		Discover: c.discover(),
	}
}

// endDiscovery takes the discovery from a balancer, and with it the connections to Sentinels, of which the check for
// leaks would find those that have begun after the start.
func endDiscovery(t testing.TB, b *harness.Balancer, w world, backend string) {
	t.Helper()
	w.Discover, w.Backends = nil, []string{backend}
	b.Reload(t, w.config(t))
}

// TestSentinelFailover kills the master of a cluster that three Sentinels watch, under writers, and brings it back;
// then somebody asks for a failover. No client that comes is refused or cut, and no acknowledged write is on an old
// master.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	c := startSentinelCluster(t)
	w := sentinelWorld(t, c)
	b := w.start(t)
	old := c.master(t)
	started := time.Now()
	b.WaitVerdict(t, old, "healthy", started.Add(-time.Minute))

	load := startRedisWriters(t, b.Address(t, "main"), "kill", 8)
	load.awaitWrite(t, started)
	killed := time.Now()
	c.servers[old].Kill(t)
	dead := time.Now()
	first, second := c.awaitSwitch(t, old)
	write := load.awaitWrite(t, dead)
	promoted := second.master
	t.Logf("after the kill: first +switch-master %v, the second %v later, the first write %v after that",
		first.at.Sub(killed).Round(time.Millisecond), second.at.Sub(first.at).Round(time.Millisecond),
		write.end.Sub(second.at).Round(time.Millisecond))
	judgeWrites(t, c, promoted, killed, dead, load.stop())

	// The old master comes back without its data, and as a master until the Sentinels have seen it.
	_, port := splitAddress(t, old)
	n, err := strconv.Atoi(port)
	check(t, err)
	load = startRedisWriters(t, b.Address(t, "main"), "back", 4)
	returned := time.Now()
	c.servers[old] = harness.StartRedisOn(t, n, "--repl-diskless-sync-delay", "0")
	c.awaitSettled(t, promoted)
	for _, w := range load.stop() {
		if w.err != nil {
			t.Errorf("a write failed while the old master came back: %v", w.err)
		}
	}
	for _, l := range b.Sessions() {
		if l.Backend == old && l.Seen.After(returned) {
			t.Errorf("a session went to the old master: %s", l.Text)
		}
	}

	// A failover that somebody asks for.
	load = startRedisWriters(t, b.Address(t, "main"), "asked", 8)
	load.awaitWrite(t, time.Now())
	c.sentinels[1].Do(t, "sentinel", "failover", harness.SentinelMaster)
	first, second = c.awaitSwitch(t, promoted)
	role := b.WaitLine(t, "the new primary", func(l harness.Line) bool {
		return l.Message == "role changed" && l.Backend == second.master && l.To == "primary" && l.Seen.After(returned)
	})
	write = load.awaitWrite(t, role.Seen)
	t.Logf("after a failover that was asked for: the balancer knows it %v after the first +switch-master, and %v after "+
		"the second; then the first write %v later", role.Seen.Sub(first.at).Round(time.Millisecond),
		role.Seen.Sub(second.at).Round(time.Millisecond), write.end.Sub(role.Seen).Round(time.Millisecond))
	c.awaitSettled(t, second.master)
	judgeLater(t, c, second.master, role.Seen, load.stop())
	endDiscovery(t, b, w, second.master)
}

// judgeWrites holds that each write which began after the old master's death was acknowledged, and that the promoted
// server has it.
func judgeWrites(t *testing.T, c *sentinelCluster, promoted string, killed, dead time.Time, writes []redisWrite) {
	t.Helper()
	var cut, held int
	for _, w := range writes {
		switch {
		// One that began before the kill is reset like a session, perhaps before its connect returns.
		case w.err != nil && (w.began.After(dead) || !errors.Is(w.err, syscall.ECONNRESET)) &&
			strings.HasPrefix(w.err.Error(), "connect"):
			t.Errorf("a connect failed: %v", w.err)
		case w.err != nil && w.began.After(dead):
			t.Errorf("a write that began %v after the kill failed: %v", w.began.Sub(killed), w.err)
		case w.err != nil:
			cut++
		case w.end.After(dead):
			held++
		}
	}
	t.Logf("%d writes, %d of them cut by the kill, %d after it", len(writes), cut, held)
	judgeLater(t, c, promoted, dead, writes)
}

// judgeLater holds that the master has every write that was acknowledged after since.
func judgeLater(t *testing.T, c *sentinelCluster, master string, since time.Time, writes []redisWrite) {
	t.Helper()
	args := []string{"exists"}
	for _, w := range writes {
		if w.err == nil && w.began.After(since) {
			args = append(args, w.key)
		}
	}
	if len(args) == 1 {
		t.Errorf("no write after the switch to %s", master)
		return
	}
	if got := strings.TrimSpace(c.servers[master].Do(t, args...)); got != fmt.Sprint(len(args)-1) {
		t.Errorf("the master has %s of %d writes that were acknowledged after the switch", got, len(args)-1)
	}
}

// TestSentinelsThatFail stops, one after the other, all Sentinels of a cluster: the log says so, and clients notice
// nothing. A configuration with another name of the master then finds no backend, and says what the Sentinels watch.
func TestSentinelsThatFail(t *testing.T) {
	t.Parallel()
	c := startSentinelCluster(t)
	w := sentinelWorld(t, c)
	w.Discover = append(w.Discover, `refresh = "500ms"`)
	config := w.config(t)
	b := harness.StartBalancer(t, config)
	master := c.master(t)
	b.WaitVerdict(t, master, "healthy", time.Time{})
	session := b.Dial(t, "main")
	check(t, harness.Ping(session))

	c.sentinels[0].Signal(t, syscall.SIGSTOP)
	b.WaitLine(t, "one Sentinel hangs", func(l harness.Line) bool {
		return l.Err == "Sentinel "+c.sentinels[0].Address+": no answer: timed out"
	})
	c.sentinels[1].Kill(t)
	b.WaitLine(t, "no majority", func(l harness.Line) bool {
		return l.Message == harness.MessageNoAnswer && strings.Contains(l.Err, "no majority of 3 endpoints") &&
			strings.Contains(l.Err, c.sentinels[2].Address+" names "+master)
	})
	check(t, harness.Ping(session))
	check(t, harness.Ping(b.Dial(t, "main")))
	c.sentinels[0].Signal(t, syscall.SIGCONT)
	b.WaitLine(t, "the master is the primary again", func(l harness.Line) bool {
		return l.Message == "role changed" && l.Backend == master && l.From == "unknown" && l.To == "primary"
	})
	check(t, harness.Ping(session))

	changed := time.Now()
	b.Reload(t, strings.Replace(config, `master = "mymaster"`, `master = "other"`, 1))
	b.WaitLine(t, "no such master", func(l harness.Line) bool {
		return l.Message == harness.MessageNoAnswer && l.Seen.After(changed) &&
			strings.Contains(l.Err, `no such master: it watches "mymaster"`)
	})
	check(t, harness.Ping(session))
	check(t, harness.Ping(b.Dial(t, "main"))) // the last known backends stay
	endDiscovery(t, b, w, master)
}
