package test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// portlessHosts are addresses of this machine at which servers listen on the ports of a listener.
var portlessHosts = []string{"127.0.0.2", "127.0.0.3"}

func portlessName(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

// portlessConfig has a listener of two ports before the first of the hosts, which is checked at a third port.
func portlessConfig(t *testing.T, protocol string, first int) string {
	t.Helper()
	health := harness.FreePort(t)
	for _, host := range portlessHosts {
		harness.ServeOn(t, portlessName(host, health), harness.Echo)
	}
	return fmt.Sprintf(`
[global]
state_file = %q
[listener.main]
address = "127.0.0.1:%d-%d"
protocol = %q
pool = "all"
[pool.all]
algorithm = "round_robin"
backends = [{ address = %q, name = "a" }]
[pool.all.health]
port = %d
interval = "50ms"
rise = 1
`, filepath.Join(t.TempDir(), "state.json"), first, first+1, protocol, portlessHosts[0], health)
}

// addPortless adds the second host by command.
func addPortless(t *testing.T, b *harness.Balancer) {
	t.Helper()
	added := time.Now()
	if out, stderr, code := b.Command(t, "backends", "add", "all", portlessHosts[1], "--name", "b"); code != 0 {
		t.Fatalf("backends add, exit code %d: %s%s", code, out, stderr)
	}
	b.WaitVerdict(t, "b", "healthy", added)
}

// TestPortlessBackends has Redis servers on two ports of two loopback addresses behind a range of ports. Each client
// reaches the port that it has connected to. A backend that is added by command is still there after a restart.
func TestPortlessBackends(t *testing.T) {
	t.Parallel()
	first := freePorts(t, 2)
	for _, host := range portlessHosts {
		for port := first; port < first+2; port++ {
			harness.StartRedisOn(t, port, "--bind", host)
			redisAt(t, portlessName(host, port), "set", "name", portlessName(host, port))
		}
	}
	config := portlessConfig(t, "tcp", first)
	started := time.Now()
	b := harness.StartBalancer(t, config)
	b.WaitVerdict(t, "a", "healthy", started)
	addPortless(t, b)
	for port := first; port < first+2; port++ {
		got := map[string]bool{}
		for range 4 {
			got[redisAt(t, fmt.Sprintf("127.0.0.1:%d", port), "get", "name")] = true
		}
		if len(got) != 2 || !got[portlessName(portlessHosts[0], port)] || !got[portlessName(portlessHosts[1], port)] {
			t.Errorf("at port %d: %v", port, got)
		}
	}
	for _, line := range b.WaitSessions(t, 8) {
		host := portlessHosts[strings.Index("ab", line.Backend)]
		if at := line.BackendAddress; at != portlessName(host, first) && at != portlessName(host, first+1) {
			t.Errorf("access line %s", line.Text)
		}
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", first+1))
	check(t, err)
	defer c.Close()
	check(t, harness.Ping(c))
	_, list := b.API(t, "GET", "/v1/sessions", nil)
	if want := fmt.Sprintf(":%d\"", first+1); !strings.Contains(string(list), `"backend_address":"127.0.0.`) ||
		!strings.Contains(string(list), want) {
		t.Errorf("sessions: %s", list)
	}
	if out, _, code := b.Command(t, "explain", "--listener", "main", "192.0.2.1"); code != 0 || !strings.Contains(out, "at the client's port") {
		t.Errorf("explain, exit code %d: %s", code, out)
	}
	c.Close()
	restarted := time.Now()
	b.Signal(t, syscall.SIGTERM)
	b.Wait(t)
	b = harness.StartBalancer(t, config)
	b.WaitVerdict(t, "b", "healthy", restarted)
	if out, _, code := b.Command(t, "backends", "list"); code != 0 || !strings.Contains(out, portlessHosts[1]+" ") {
		t.Errorf("backends list, exit code %d:\n%s", code, out)
	}
	if code, text := b.API(t, "POST", "/v1/pools/all/backends",
		fmt.Appendf(nil, `{"name": "c", "address": %q}`, portlessHosts[1])); code != 409 {
		t.Errorf("the same address again: %d %s", code, text)
	}
}

// TestPortlessFlows is the same for UDP.
func TestPortlessFlows(t *testing.T) {
	t.Parallel()
	first := freePorts(t, 2)
	for _, host := range portlessHosts {
		for port := first; port < first+2; port++ {
			harness.ServeUDPOn(t, portlessName(host, port), harness.NameDatagrams(portlessName(host, port)))
		}
	}
	started := time.Now()
	b := harness.StartBalancer(t, portlessConfig(t, "udp", first))
	b.WaitVerdict(t, "a", "healthy", started)
	addPortless(t, b)
	for port := first; port < first+2; port++ {
		got := map[string]bool{}
		for range 4 {
			answer, err := harness.AskUDP(harness.DialUDP(t, fmt.Sprintf("127.0.0.1:%d", port)), []byte("x"))
			check(t, err)
			got[string(answer)] = true
		}
		if len(got) != 2 || !got[portlessName(portlessHosts[0], port)] || !got[portlessName(portlessHosts[1], port)] {
			t.Errorf("at port %d: %v", port, got)
		}
	}
}
