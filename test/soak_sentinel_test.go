//go:build soak

package test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// sentinelRounds is how many failovers of each kind TestSoakSentinel makes.
const sentinelRounds = 20

// haproxyRedis is how HAProxy finds the master of Redis, in a section for each interval of its checks.
const haproxyRedis = `
listen redis%d
  mode tcp
  bind %s
  option tcp-check
  tcp-check connect
  tcp-check send "PING\r\n"
  tcp-check expect string +PONG
  tcp-check send "info replication\r\n"
  tcp-check expect string role:master
  tcp-check send "QUIT\r\n"
  tcp-check expect string +OK
  default-server inter %ds fall 3 rise 2 on-marked-down shutdown-sessions
`

// A sentinelRace is what came of the failovers for one balancer.
type sentinelRace struct {
	name, address   string
	outages, delays []time.Duration // without an acknowledged write; from the second +switch-master to the next one
	refused, failed int             // connects, and writes that began after the master had gone
	lost            int             // acknowledged after the switch, and not there
}

// TestSoakSentinel kills the master of a cluster twenty times, and twenty times asks for a failover, and reports how
// long no write succeeds through the balancer and through HAProxy, in the same run.
func TestSoakSentinel(t *testing.T) {
	c := startSentinelCluster(t)
	w := sentinelWorld(t, c)
	b := w.start(t)
	races := []*sentinelRace{{name: "limeload-l4", address: b.Address(t, "main")}}
	var sections strings.Builder
	for _, seconds := range []int{1, 2} {
		r := &sentinelRace{name: fmt.Sprintf("HAProxy, inter %ds", seconds), address: harness.FreeAddress(t)}
		races = append(races, r)
		fmt.Fprintf(&sections, haproxyRedis, seconds, r.address, seconds)
		for address := range c.servers {
			fmt.Fprintf(&sections, "  server s%s %s check\n", strings.ReplaceAll(address, ":", "-"), address)
		}
	}
	harness.StartHAProxy(t, sections.String(), races[1].address, races[2].address)

	for _, kind := range []string{"kill -9 of the master", "SENTINEL FAILOVER"} {
		for _, r := range races {
			*r = sentinelRace{name: r.name, address: r.address}
		}
		for round := range sentinelRounds {
			c.failover(t, fmt.Sprintf("%s %d", strings.Fields(kind)[0], round), kind == "SENTINEL FAILOVER", races)
		}
		for _, r := range races {
			t.Logf("%s, %s: no write for %s; from the second +switch-master to the next write %s; %d connects and %d "+
				"writes of clients that came afterwards failed, %d acknowledged writes lost", kind, r.name,
				spread(r.outages), spread(r.delays), r.refused, r.failed, r.lost)
		}
		// A master that is asked to hand over takes writes until it is told, and clients come to it until then: that is how
		// Redis does it. The sooner they are sent away, the fewer writes are lost.
		if kind == "SENTINEL FAILOVER" {
			if races[0].lost > races[1].lost {
				t.Errorf("%s: %d acknowledged writes are lost, beside HAProxy's %d", kind, races[0].lost, races[1].lost)
			}
			continue
		}
		if ours := races[0]; ours.refused > 0 || ours.failed > 0 || ours.lost > 0 {
			t.Errorf("%s: %d connects and %d writes failed, %d are lost", kind, ours.refused, ours.failed, ours.lost)
		}
	}
	endDiscovery(t, b, w, c.master(t))
}

// failover makes one failover under writers of all races, and waits until all is well again.
func (c *sentinelCluster) failover(t *testing.T, name string, asked bool, races []*sentinelRace) {
	t.Helper()
	old := c.master(t)
	c.awaitSettled(t, old)
	var loads []*redisWriters
	for i, r := range races {
		prefix := strings.ReplaceAll(fmt.Sprintf("%s %d", name, i), " ", "-")
		loads = append(loads, startRedisWriters(t, r.address, prefix, 4))
	}
	for _, l := range loads {
		awaitSteady(t, l)
	}
	began := time.Now()
	if asked {
		c.sentinels[0].Do(t, "sentinel", "failover", harness.SentinelMaster)
	} else {
		c.servers[old].Kill(t)
	}
	gone := time.Now()
	_, second := c.awaitSwitch(t, old)
	if !asked { // it comes back as the Sentinels would have it a moment later
		host, port := splitAddress(t, second.master)
		_, own := splitAddress(t, old)
		n, err := strconv.Atoi(own)
		check(t, err)
		c.servers[old] = harness.StartRedisOn(t, n, "--repl-diskless-sync-delay", "0", "--replicaof", host+" "+port)
	}
	for i, l := range loads {
		next := l.awaitWrite(t, second.at)
		if asked { // the old master may have taken this one
			awaitSteady(t, l)
		}
		writes := l.stop()
		races[i].note(t, c, writes, began, gone, second, next.end, asked)
	}
}

// awaitSteady waits until a hundred writes in a row have succeeded.
func awaitSteady(t *testing.T, l *redisWriters) {
	t.Helper()
	harness.Eventually(t, "writes succeed", func() error {
		writes := l.soFar()
		last := writes[max(0, len(writes)-100):]
		if len(last) < 100 || slices.ContainsFunc(last, func(w redisWrite) bool { return w.err != nil }) {
			return fmt.Errorf("%d writes, or one of the last ones failed", len(writes))
		}
		return nil
	})
}

func (r *sentinelRace) note(
	t *testing.T, c *sentinelCluster, writes []redisWrite, began, gone time.Time, s sentinelSwitch, next time.Time,
	asked bool,
) {
	t.Helper()
	r.outages = append(r.outages, longestPause(writes, began))
	r.delays = append(r.delays, next.Sub(s.at))
	args := []string{"exists"}
	for _, w := range writes {
		switch {
		case w.err != nil && w.began.Before(gone) && errors.Is(w.err, syscall.ECONNRESET): // cut, as a session is
		case w.err != nil && strings.HasPrefix(w.err.Error(), "connect"):
			r.refused++
		case w.err != nil && !asked && w.began.After(gone):
			r.failed++
		case w.err == nil && w.began.After(s.at):
			args = append(args, w.key)
		}
	}
	t.Logf("%s: no write for %v", r.name, r.outages[len(r.outages)-1].Round(time.Millisecond))
	if len(args) == 1 {
		return
	}
	found, err := strconv.Atoi(strings.TrimSpace(c.servers[s.master].Do(t, args...)))
	check(t, err)
	r.lost += len(args) - 1 - found
}

// longestPause returns the longest time between two acknowledged writes of which the later one ended after since.
func longestPause(writes []redisWrite, since time.Time) (longest time.Duration) {
	var before time.Time
	for _, w := range writes {
		if w.err != nil {
			continue
		}
		if !before.IsZero() && w.end.After(since) {
			longest = max(longest, w.end.Sub(before))
		}
		before = w.end
	}
	return longest
}

// spread returns the median, the least and the most.
func spread(all []time.Duration) string {
	slices.Sort(all)
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("%v (%v to %v)", round(all[len(all)/2]), round(all[0]), round(all[len(all)-1]))
}
