package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// redisAt is a redis-cli at an address, and returns its output.
func redisAt(t *testing.T, address string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	out, stderr, _ := harness.Run(t, harness.Command{
		Path: harness.Tool(t, "redis-cli"), Args: append([]string{"-h", host, "-p", port}, args...),
	})
	return strings.TrimSpace(out + stderr)
}

// TestSeveralAddresses serves Redis at addresses of both families by one listener, adds and removes some by reloads
// while a session goes on, and has a reload fail at one of them.
func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	redis := harness.StartRedis(t)
	v4, v6 := harness.FreeAddress(t), fmt.Sprintf("[::1]:%d", harness.FreePort(t))
	other := fmt.Sprintf("127.0.0.2:%d", harness.FreePort(t))
	config := func(addresses ...string) string {
		quoted := make([]string, len(addresses))
		for i, a := range addresses {
			quoted[i] = fmt.Sprintf("%q", a)
		}
		return fmt.Sprintf("[listener.main]\naddress = [\n%s,\n]\npool = \"all\"\n[pool.all]\nbackends = [%q]\n",
			strings.Join(quoted, ",\n"), redis.Address)
	}
	b := harness.StartBalancer(t, config(v4, v6))
	for _, a := range []string{v4, v6} {
		if got := redisAt(t, a, "ping"); got != "PONG" {
			t.Errorf("at %s: %s", a, got)
		}
	}
	kept, err := net.Dial("tcp", v6)
	check(t, err)
	defer kept.Close()
	check(t, harness.Ping(kept))

	b.Configure(t, config(v4, other, v6))
	plan, _, code := b.Command(t, "plan")
	if code != 0 || !strings.Contains(plan, "rebound") || !strings.Contains(plan, other) ||
		!strings.Contains(plan, "sessions: 0 drain, 0 end") {
		t.Errorf("plan, exit code %d: %s", code, plan)
	}
	b.ListenersMoved()
	b.Reload(t, config(v4, other, v6))
	for _, a := range []string{v4, v6, other} {
		if got := redisAt(t, a, "ping"); got != "PONG" {
			t.Errorf("at %s: %s", a, got)
		}
	}
	status, _, _ := b.Command(t, "status")
	if want := v4 + " " + other + " " + v6; !strings.Contains(status, want) {
		t.Errorf("status does not have %s:\n%s", want, status)
	}
	var list struct {
		Listeners []struct {
			Address   string
			Addresses []string
			Accepted  int
		}
	}
	b.Ask(t, "GET", "/v1/listeners", nil, &list)
	if listeners := list.Listeners; len(listeners) != 1 || listeners[0].Address != v4 || len(listeners[0].Addresses) != 3 || listeners[0].Accepted != 6 {
		t.Errorf("listeners %+v", listeners)
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	b.Configure(t, config(v4, v6, taken.Addr().String()))
	answer, text := b.API(t, "POST", "/v1/reload", nil)
	if want := "lb.toml:5: listener.main.address[2]"; answer != http.StatusUnprocessableEntity && answer/100 != 4 ||
		!strings.Contains(string(text), want) {
		t.Errorf("reload with an address that is taken: %d %s", answer, text)
	}
	check(t, harness.Ping(kept))
	if got := redisAt(t, other, "ping"); got != "PONG" {
		t.Errorf("after a reload that failed: %s", got)
	}
	b.Reload(t, config(v6, v4))
	check(t, harness.Ping(kept))
	if got := redisAt(t, other, "ping"); !strings.Contains(got, "Connection refused") {
		t.Errorf("at an address that is gone: %s", got)
	}
}

// dig asks for a name, and returns what dig prints of the answer's code and addresses.
func dig(t *testing.T, address string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	return harness.MustRun(t, harness.Command{
		Path: harness.Tool(t, "dig"), Args: append([]string{"@" + host, "-p", port, "+tries=1"}, args...),
	})
}

// TestNameServiceOfBothProtocols asks a listener of both protocols by dig, before an NSD: one cache answers both, a
// large answer is cut by UDP and whole by TCP, and each protocol has its own numbers. A reload fails if one of the two
// cannot be had.
func TestNameServiceOfBothProtocols(t *testing.T) {
	t.Parallel()
	names := harness.StartDNS(t)
	names.TTL = 300
	var zone strings.Builder
	zone.WriteString("www A 10.0.0.7\n")
	for i := range 200 {
		fmt.Fprintf(&zone, "many A 10.1.0.%d\n", i)
	}
	names.SetZone(t, zone.String())
	address := harness.FreeAddress(t)
	config := func(address, protocol string) string {
		return fmt.Sprintf("[listener.names]\naddress = %q\nprotocol = %q\nprofile = \"dns\"\npool = \"all\"\n"+
			"[listener.names.cache]\nmax_entries = 100\n[pool.all]\nbackends = [%q]\n", address, protocol, names.Address)
	}
	b := harness.StartBalancer(t, config(address, "tcp+udp"))
	for _, args := range [][]string{{"+notcp"}, {"+tcp"}} {
		out := dig(t, address, append(args, "+short", "www."+harness.DNSZone, "A")...)
		if strings.TrimSpace(out) != "10.0.0.7" {
			t.Errorf("dig %s: %s", args, out)
		}
	}
	if out := dig(t, address, "+notcp", "+ignore", "many."+harness.DNSZone, "A"); !strings.Contains(out, "flags: qr aa tc") &&
		!strings.Contains(out, " tc ") {
		t.Errorf("a large answer by UDP: %s", out)
	}
	if out := dig(t, address, "+short", "many."+harness.DNSZone, "A"); strings.Count(out, "10.1.0.") != 200 {
		t.Errorf("a large answer, by UDP and then by TCP: %d addresses", strings.Count(out, "10.1.0."))
	}
	_, metrics := b.API(t, "GET", "/metrics", nil)
	for _, want := range []string{
		`limeload_listener_info{listener="names",pool="all",protocol="tcp"} 1`,
		`limeload_listener_info{listener="names",pool="all",protocol="udp"} 1`,
		`limeload_listener_accepted_total{listener="names",protocol="tcp"} 2`,
		`limeload_listener_datagrams_total{direction="in",listener="names",protocol="udp"} 3`,
		`limeload_dns_questions_total{listener="names",result="hit"} 1`,
	} {
		if !strings.Contains(string(metrics), want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	if out, stderr, code := b.Command(t, "dns", "purge", "names", "--all"); code != 0 {
		t.Errorf("purge, exit code %d: %s%s", code, out, stderr)
	}

	next := harness.FreeAddress(t)
	taken, err := net.ListenPacket("udp", next)
	check(t, err)
	b.Configure(t, config(next, "tcp+udp"))
	if code, text := b.API(t, "POST", "/v1/reload", nil); code/100 != 4 ||
		!strings.Contains(string(text), "listener.names.address") || !strings.Contains(string(text), "udp: ") {
		t.Errorf("reload with an address that is taken: %d %s", code, text)
	}
	if c, err := net.Dial("tcp", next); err == nil {
		c.Close()
		t.Error("the other protocol of the address is served")
	}
	taken.Close()
	if out := dig(t, address, "+tcp", "+short", "www."+harness.DNSZone, "A"); strings.TrimSpace(out) != "10.0.0.7" {
		t.Errorf("after a reload that failed: %s", out)
	}
	b.ListenersMoved()
	b.Reload(t, config(next, "tcp+udp"))
	for _, args := range []string{"+notcp", "+tcp"} {
		if out := dig(t, next, args, "+short", "www."+harness.DNSZone, "A"); strings.TrimSpace(out) != "10.0.0.7" {
			t.Errorf("at the new address, dig %s: %s", args, out)
		}
	}
}

// TestRangeOfPorts serves Redis at all ports of a range by one listener, and has a start fail at one of them.
func TestRangeOfPorts(t *testing.T) {
	t.Parallel()
	redis := harness.StartRedis(t)
	first := freePorts(t, 4)
	config := func(first int) string {
		return fmt.Sprintf("[listener.main]\naddress = \"127.0.0.1:%d-%d\"\npool = \"all\"\n[pool.all]\nbackends = [%q]\n",
			first, first+3, redis.Address)
	}
	b := harness.StartBalancer(t, config(first))
	for port := first; port < first+4; port++ {
		if got := redisAt(t, fmt.Sprintf("127.0.0.1:%d", port), "ping"); got != "PONG" {
			t.Errorf("at port %d: %s", port, got)
		}
	}
	status, _, _ := b.Command(t, "status")
	if want := fmt.Sprintf("127.0.0.1:%d-%d ", first, first+3); !strings.Contains(status, want) {
		t.Errorf("status does not have %s:\n%s", want, status)
	}
	other := freePorts(t, 4)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", other+2))
	check(t, err)
	defer taken.Close()
	b.Configure(t, config(other))
	code, text := b.API(t, "POST", "/v1/reload", nil)
	if code/100 != 4 || !strings.Contains(string(text), fmt.Sprintf("port %d: ", other+2)) {
		t.Errorf("reload with a port that is taken: %d %s", code, text)
	}
	if got := redisAt(t, fmt.Sprintf("127.0.0.1:%d", first+3), "ping"); got != "PONG" {
		t.Errorf("after a reload that failed: %s", got)
	}
}

// freePorts returns the first of n free ports in a row.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		first := harness.FreePort(t)
		free := true
		for port := first; port < first+n && free; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatal("there are no free ports in a row")
	return 0
}

// TestRangeWithoutDescriptors has a start fail, with an error that says why, because the limit of open files leaves too
// few for the sockets of a range.
func TestRangeWithoutDescriptors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lb.toml")
	check(t, os.WriteFile(file, []byte("[global]\nworkers = 2\n[listener.main]\naddress = \"127.0.0.1:21000-21499\"\n"+
		"pool = \"all\"\n[pool.all]\nbackends = [\"127.0.0.1:9\"]\n[admin]\naddress = \"\"\n"), 0o600))
	_, stderr, code := harness.Run(t, harness.Command{
		Path: harness.Binary(t, false), Args: []string{"--config", file}, Descriptors: 600,
	})
	for _, want := range []string{"listener.main.address", "its 500 addresses need a socket for each of 2 loops"} {
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, without %q: %s", code, want, stderr)
		}
	}
}
