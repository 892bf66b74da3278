package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// SentinelMaster is the name by which Sentinels of StartSentinels watch their master.
const SentinelMaster = "mymaster"

// A Sentinel is a running redis-server in Sentinel mode.
type Sentinel struct {
	*Redis
}

// SentinelConfig returns the configuration of a Sentinel that watches a master, whose failover needs two Sentinels. A
// master that is silent for two seconds is down. More lines follow.
func SentinelConfig(t testing.TB, master string, more ...string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(master)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{
		fmt.Sprintf("sentinel monitor %s %s %s 2", SentinelMaster, host, port),
		// Sentinels ping every second. With less than two, one that has just learned of a new master may call that down.
		"sentinel down-after-milliseconds " + SentinelMaster + " 2000",
		"sentinel failover-timeout " + SentinelMaster + " 2000", // two failovers are at least twice that apart
		"sentinel parallel-syncs " + SentinelMaster + " 10",
	}, more...)
}

// StartSentinel starts a Sentinel on a free port, and waits until it runs.
func StartSentinel(t testing.TB, config []string) *Sentinel {
	t.Helper()
	port := FreePort(t)
	return startSentinel(t, port, append(config, fmt.Sprintf("port %d", port)))
}

// StartSecureSentinel is StartSentinel for one that speaks only TLS, with a certificate and its key in files.
func StartSecureSentinel(t testing.TB, config []string, certificate, key string) *Sentinel {
	t.Helper()
	port := FreePort(t)
	return startSentinel(t, port, append(config, "port 0", fmt.Sprintf("tls-port %d", port), "tls-auth-clients no",
		fmt.Sprintf("tls-cert-file %q", certificate), fmt.Sprintf("tls-key-file %q", key)))
}

func startSentinel(t testing.TB, port int, config []string) *Sentinel {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf") // which the Sentinel rewrites
	text := strings.Join(append([]string{"bind 127.0.0.1", fmt.Sprintf("dir %q", dir)}, config...), "\n")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Start(t, Command{Path: Tool(t, "redis-server"), Args: []string{file, "--sentinel"}})
	p.WaitStdout(t, "Sentinel ID is")
	return &Sentinel{&Redis{Process: p, Address: fmt.Sprintf("127.0.0.1:%d", port)}}
}

// StartSentinels starts three Sentinels, and waits until each knows the others and the master's replicas.
func StartSentinels(t testing.TB, master *Redis, replicas int) []*Sentinel {
	t.Helper()
	var all []*Sentinel
	for range 3 {
		all = append(all, StartSentinel(t, SentinelConfig(t, master.Address)))
	}
	for _, s := range all {
		s.WaitFor(t, replicas)
	}
	return all
}

// WaitFor waits until the Sentinel knows two others, and so many replicas that are well.
func (s *Sentinel) WaitFor(t testing.TB, replicas int) {
	t.Helper()
	Eventually(t, "a Sentinel knows the others and the replicas", func() error {
		master := s.Do(t, "sentinel", "master", SentinelMaster)
		known := s.Do(t, "sentinel", "replicas", SentinelMaster)
		if !strings.Contains(master, "num-other-sentinels\n2\n") {
			return errors.New(master)
		}
		if strings.Count(known, "master-link-status\nok\n") != replicas || strings.Contains(known, "_down") {
			return errors.New(known)
		}
		return nil
	})
}

// StartReplicated starts a server with replicas, and waits until they follow it.
func StartReplicated(t testing.TB, replicas int) (master *Redis, followers []*Redis) {
	t.Helper()
	master = StartRedisOn(t, FreePort(t), "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(master.Address)
	if err != nil {
		t.Fatal(err)
	}
	for range replicas {
		followers = append(followers, StartRedisOn(t, FreePort(t), "--repl-diskless-sync-delay", "0", "--replicaof",
			host+" "+port))
	}
	for _, r := range followers {
		Eventually(t, "the replica follows", func() error {
			if info := r.Do(t, "info", "replication"); !strings.Contains(info, "master_link_status:up") {
				return errors.New(info)
			}
			return nil
		})
	}
	return master, followers
}
