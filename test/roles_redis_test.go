package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
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

// redisRole is a balancer in front of Redis servers of which only the master is wanted.
func redisRole(t *testing.T, servers ...*harness.Redis) *harness.Balancer {
	t.Helper()
	var addresses []string
	for _, s := range servers {
		addresses = append(addresses, s.Address)
	}
	return world{
		Backends: addresses,
		Health: []string{
			`type = "redis"`, `role = "primary"`, `interval = "500ms"`, `fast_interval = "100ms"`, `timeout = "400ms"`, `rise = 2`, `fall = 2`,
		},
	}.start(t)
}

// TestRedisRoles has a replica made the master by hand while the old master still believes that it is one, and then the old
// one made its replica: sessions are with one of them at any time, and never with the one that nobody follows.
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

// TestRedisReasons has servers that are not ready in each way Redis knows: each is unhealthy for its own reason.
func TestRedisReasons(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		start  func(t *testing.T) *harness.Redis
		health []string
		then   func(t *testing.T, r *harness.Redis) // once it was healthy; nil: it never is
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
		{"wants another password", func(t *testing.T) *harness.Redis {
			return harness.StartRedisOn(t, harness.FreePort(t), "--requirepass", "right")
		}, []string{"password_file = " + passwordFile(t, "wrong")}, nil, "authentication refused"},
		{"wants a password", func(t *testing.T) *harness.Redis {
			return harness.StartRedisOn(t, harness.FreePort(t), "--requirepass", "right")
		}, nil, nil, "wants a password"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := tc.start(t)
			started := time.Now()
			b := world{
				Backends: []string{server.Address},
				Health: append([]string{
					`type = "redis"`, `interval = "300ms"`, `fast_interval = "100ms"`, `timeout = "300ms"`, `rise = 1`, `fall = 2`,
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
