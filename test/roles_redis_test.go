package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// hostPort is an address as redis's commands take it.
func hostPort(t *testing.T, address string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	return host, port
}

// redisRole returns a balancer in front of Redis servers of which only the master is wanted.
func redisRole(t *testing.T, servers ...*harness.Redis) *harness.Balancer {
	t.Helper()
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.Address)
	}
	return world{
		Backends: addresses,
		Health: []string{
			`type = "redis"`, `role = "primary"`, `interval = "500ms"`, `fast_interval = "100ms"`, `timeout = "400ms"`,
			`rise = 2`, `fall = 2`,
		},
	}.start(t)
}

// TestRedisRoles makes a replica the master by hand while the old master stays one, and then makes the old one its
// replica: all sessions are on one of them at any time, and never on the one without replicas.
func TestRedisRoles(t *testing.T) {
	t.Parallel()
	master, replica := harness.StartRedis(t), harness.StartRedis(t)
	host, port := hostPort(t, master.Address)
	replica.Do(t, "replicaof", host, port)
	started := time.Now()
	b := redisRole(t, master, replica)
	b.WaitVerdict(t, "b1", "healthy", started)
	if line := b.WaitVerdict(t, "b2", "wrong_role", started); !strings.Contains(line.Reason, "replica") {
		t.Errorf("the replica has the wrong role since %q", line.Reason)
	}
	session := b.Dial(t, "main")
	check(t, harness.Ping(session))

	// Two masters, and nobody follows either: the one that was it before stays.
	replica.Do(t, "replicaof", "no", "one")
	b.WaitLine(t, "two claim to be the primary", func(l harness.Line) bool {
		return l.Message == "two backends claim to be the primary" && l.Backend == "b2" && l.Level == "error"
	})
	check(t, harness.Ping(session))

	// The old one follows the new one, which is now the only one.
	switched := time.Now()
	host, port = hostPort(t, replica.Address)
	master.Do(t, "replicaof", host, port)
	b.WaitVerdict(t, "b2", "healthy", switched)
	if line := b.WaitSession(t, session.LocalAddr()); line.Reason != "backend_unhealthy" || line.Backend != "b1" {
		t.Errorf("the old master's session ended with %s", line.Text)
	}
	check(t, harness.Ping(b.Dial(t, "main")))
}

// TestRedisReasons has Redis servers that are not ready, in every way: each is unhealthy for its own reason.
func TestRedisReasons(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		start  func(t *testing.T) *harness.Redis
		health []string
		then   func(t *testing.T, r *harness.Redis) // called once it is healthy; nil: it never is
		reason string                               // is in the verdict's
	}{
		{"loading", startLoading, nil, nil, "loading"},
		{"link to its master is down", func(t *testing.T) *harness.Redis {
			r := harness.StartRedis(t)
			r.Do(t, "replicaof", "127.0.0.1", "1")
			return r
		}, []string{`role = "replica"`}, nil, "link to its primary is down"},
		{"hung", func(t *testing.T) *harness.Redis {
			return harness.StartRedisOn(t, harness.FreePort(t), "--enable-debug-command", "yes")
		}, nil, func(t *testing.T, r *harness.Redis) {
			_, err := harness.Dial(t, r.Address).Write([]byte("DEBUG SLEEP 5\r\n"))
			check(t, err)
		}, "timed out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := tc.start(t)
			started := time.Now()
			b := world{
				Backends: []string{server.Address},
				Health: append([]string{
					`type = "redis"`, `interval = "300ms"`, `fast_interval = "100ms"`, `timeout = "300ms"`, `rise = 1`,
					`fall = 2`,
				}, tc.health...),
			}.start(t)
			if tc.then != nil {
				b.WaitVerdict(t, "b1", "healthy", started)
				check(t, harness.Ping(b.Dial(t, "main")))
				tc.then(t, server)
			}
			if line := b.WaitVerdict(t, "b1", "unhealthy", started); !strings.Contains(line.Reason, tc.reason) {
				t.Errorf("unhealthy for %q, expected %q in it", line.Reason, tc.reason)
			}
		})
	}
}

// passwordFile writes a password into a file and returns its path as TOML writes it.
func passwordFile(t *testing.T, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	return "\"" + file + "\""
}

// startLoading starts a server that loads a dump slowly: some thousand keys, with a pause after each.
func startLoading(t *testing.T) *harness.Redis {
	t.Helper()
	dir := t.TempDir()
	maker := harness.StartRedisOn(t, harness.FreePort(t), "--dir", dir, "--enable-debug-command", "yes")
	maker.Do(t, "debug", "populate", "20000")
	maker.Do(t, "save")
	maker.Kill(t)
	// "Ready to accept connections" comes after the dump is loaded; this one is ready to say that it is not.
	return harness.StartRedisLoading(t, dir)
}

// primaryOf returns the backend that a balancer of redisRole's takes for the primary; "" for none.
func primaryOf(t *testing.T, b *harness.Balancer) string {
	t.Helper()
	var all struct {
		Backends []struct{ Address, Verdict string }
	}
	b.Ask(t, "GET", "/v1/backends", nil, &all)
	for _, s := range all.Backends {
		if s.Verdict == "healthy" {
			return s.Address
		}
	}
	return ""
}

// awaitPrimary waits until each of the balancers has that primary, and has judged everybody else.
func awaitPrimary(t *testing.T, want string, balancers ...*harness.Balancer) {
	t.Helper()
	for i, b := range balancers {
		harness.Eventually(t, fmt.Sprintf("balancer %d has its primary", i+1), func() error {
			if got := primaryOf(t, b); got != want {
				return fmt.Errorf("it has %q, want %q", got, want)
			}
			return nil
		})
		awaitChecks(t, b, "wrong_role", 4)
		if got := primaryOf(t, b); got != want {
			t.Errorf("balancer %d has the primary %q afterwards, want %q", i+1, got, want)
		}
	}
}

// TestRedisTwoMasters has two masters without replicas, as after a restart of both. The primary is the one that has
// written more; if they are equal, the earlier primary in the state file, or else the one with the lower address. Two
// balancers with another order of backends choose the same.
func TestRedisTwoMasters(t *testing.T) {
	t.Parallel()
	servers := []*harness.Redis{harness.StartRedis(t), harness.StartRedis(t)}
	_, first := hostPort(t, servers[0].Address)
	_, second := hostPort(t, servers[1].Address)
	if len(second) < len(first) || len(second) == len(first) && second < first {
		servers[0], servers[1] = servers[1], servers[0]
	}
	low, high := servers[0], servers[1]
	state := filepath.Join(t.TempDir(), "state.json")
	start := func(global []string, servers ...*harness.Redis) *harness.Balancer {
		return world{
			Backends: []string{servers[0].Address, servers[1].Address}, Global: global,
			Health: []string{`type = "redis"`, `role = "primary"`, `interval = "200ms"`, `fast_interval = "100ms"`,
				`timeout = "2s"`, `rise = 1`, `fall = 2`},
		}.start(t)
	}
	awaitPrimary(t, low.Address, start(nil, low, high), start(nil, high, low))

	// One of them has had a replica, and has written.
	replica := harness.StartRedis(t)
	host, port := hostPort(t, high.Address)
	replica.Do(t, "replicaof", host, port)
	harness.Eventually(t, "it has a replica", func() error {
		if info := high.Do(t, "info", "replication"); !strings.Contains(info, "connected_slaves:1") {
			return errors.New(info)
		}
		return nil
	})
	high.Do(t, "set", "a", "b")
	replica.Do(t, "replicaof", "no", "one")
	harness.Eventually(t, "it has none", func() error {
		if info := high.Do(t, "info", "replication"); !strings.Contains(info, "connected_slaves:0") {
			return errors.New(info)
		}
		return nil
	})
	keep := []string{fmt.Sprintf("state_file = %q", state)}
	keeper := start(keep, low, high)
	awaitPrimary(t, high.Address, keeper, start(nil, high, low))

	// All are restarted, and nothing has been written.
	keeper.Signal(t, syscall.SIGTERM)
	keeper.Wait(t)
	for i, s := range []*harness.Redis{low, high} {
		_, port := hostPort(t, s.Address)
		n, err := strconv.Atoi(port)
		check(t, err)
		s.Kill(t)
		servers[i] = harness.StartRedisOn(t, n)
	}
	known, err := os.ReadFile(state)
	check(t, err)
	check(t, os.WriteFile(state+".copy", known, 0o600))
	awaitPrimary(t, high.Address, start(keep, low, high), start([]string{fmt.Sprintf("state_file = %q", state+".copy")},
		low, high))
	awaitPrimary(t, low.Address, start(nil, low, high))
}
