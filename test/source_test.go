package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// redisVia is a redis-cli that asks through a balancer's listener, and returns its output.
func redisVia(t *testing.T, b *harness.Balancer, args ...string) (output string, ok bool) {
	t.Helper()
	_, port, _ := strings.Cut(b.Address(t, "main"), ":")
	out, stderr, code := harness.Run(t, harness.Command{
		Path: harness.Tool(t, "redis-cli"), Args: append([]string{"-p", port}, args...),
	})
	return out + stderr, code == 0 && !strings.Contains(out+stderr, "Could not connect") &&
		!strings.Contains(out+stderr, "Error")
}

// TestSource has Redis say where its clients come from, changes the addresses by reloads, and at last has only one that
// this host does not have.
func TestSource(t *testing.T) {
	t.Parallel()
	redis := harness.StartRedisOn(t, harness.FreePort(t), "--protected-mode", "no") // it would let 127.0.0.1 in alone
	w := world{
		Backends: []string{redis.Address}, Pool: []string{`source = ["127.0.0.21", "127.0.0.22"]`},
		Health: []string{`type = "redis"`, `interval = "50ms"`, `fast_interval = "50ms"`}, Breaker: []string{"failures = 1"},
		Listen: harness.FreeAddress(t),
	}
	b := w.start(t)
	wantFrom := func(addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			list, ok := redisVia(t, b, "client", "list")
			if !ok || !strings.Contains(list, " addr="+a+":") {
				t.Errorf("a client does not come from %s: %s", a, list)
			}
		}
	}
	wantFrom("127.0.0.21", "127.0.0.22", "127.0.0.21")
	w.Pool = []string{`source = ["127.0.0.23"]`}
	b.Configure(t, w.config(t))
	plan, _, code := b.Command(t, "plan")
	if code != 0 || !strings.Contains(plan, `source`) || !strings.Contains(plan, `127.0.0.23`) {
		t.Errorf("plan, exit code %d: %s", code, plan)
	}
	b.Reload(t, w.config(t))
	wantFrom("127.0.0.23", "127.0.0.23")

	w.Pool = []string{`source = ["192.0.2.1"]`}
	b.Configure(t, w.config(t))
	const warning = "pool.all.source[0]: 192.0.2.1 is not an address of this host now"
	for _, args := range [][]string{{"plan"}, {"check", "--config", b.File()}} {
		if out, stderr, code := b.Command(t, args...); code != 0 || !strings.Contains(out, warning) {
			t.Errorf("%v does not warn, exit code %d: %s%s", args, code, out, stderr)
		}
	}
	b.Reload(t, w.config(t))
	c, from, err := harness.DialFrom(b.Address(t, "main"))
	if !errors.Is(err, syscall.ECONNRESET) { // as connect says if the reset is very quick
		check(t, err)
		defer c.Close()
		expectReset(t, c)
	}
	line := b.WaitSession(t, net.TCPAddrFromAddrPort(from))
	oneOf(t, []harness.Line{line}, "no_source")
	awaitMetric(t, b, `limeload_listener_refused_total{listener="main",reason="no_source"}`, 1)
	if out, _, _ := b.Command(t, "status"); !strings.Contains(out, warning) {
		t.Errorf("status does not warn: %s", out)
	}
	// The checks find nothing out, and the sessions say nothing.
	values := metrics(t, b)
	for _, state := range []string{`limeload_backend_verdict{backend="b1",pool="all",verdict="healthy"}`,
		`limeload_backend_breaker{backend="b1",breaker="closed",pool="all"}`} {
		if values[state] != 1 {
			t.Errorf("%s is %v", state, values[state])
		}
	}

	w.Pool = nil
	b.Reload(t, w.config(t))
	wantFrom("127.0.0.1")
}

// TestSourceOfChecks holds that checks come from the source, and from another one after a reload.
func TestSourceOfChecks(t *testing.T) {
	t.Parallel()
	checks := make(chan string, 1)
	backend := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		select {
		case checks <- host:
		default:
		}
	})
	w := world{
		Backends: []string{backend.Address()}, Pool: []string{`source = ["192.0.2.1", "127.0.0.21"]`},
		Health: []string{`interval = "50ms"`, `fast_interval = "50ms"`}, Listen: harness.FreeAddress(t),
	}
	started := time.Now()
	b := w.start(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	if from := harness.Receive(t, "a check", checks); from != "127.0.0.21" {
		t.Errorf("a check comes from %s", from)
	}
	w.Pool = []string{`source = ["127.0.0.22"]`}
	b.Reload(t, w.config(t))
	harness.Eventually(t, "the checks come from the new source", func() error {
		if from := harness.Receive(t, "a check", checks); from != "127.0.0.22" {
			return fmt.Errorf("one comes from %s", from)
		}
		return nil
	})
}

// TestCongestionControl sets an algorithm on either side, takes both back, and has one that there is not refused with a
// list of those that there are.
func TestCongestionControl(t *testing.T) {
	t.Parallel()
	system, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	check(t, err)
	usual, other := strings.TrimSpace(string(system)), "reno" // which every kernel has and allows
	if usual == other {
		t.Skip("reno is this host's default: there is no other one to be sure of")
	}
	if strings.HasPrefix(usual, "bbr") { // then connections over loopback have reno by default
		usual, other = other, usual
	}
	backend := harness.Serve(t, harness.Echo)
	set := []string{fmt.Sprintf("congestion_control = %q", other)}
	w := world{Backends: []string{backend.Address()}, Listen: harness.FreeAddress(t), Listener: set, Pool: set}
	b := w.start(t)
	want := func(clients, backends string) {
		t.Helper()
		c := b.Dial(t, "main")
		check(t, harness.PingPong(c, 1, 1))
		_, port, _ := strings.Cut(c.LocalAddr().String(), ":")
		ours := harness.MustRun(t, harness.Command{Path: harness.Tool(t, "ss"),
			Args: []string{"-tinH", "sport = :" + portOf(t, b.Address(t, "main")), "and", "dport = :" + port}})
		theirs := harness.MustRun(t, harness.Command{Path: harness.Tool(t, "ss"),
			Args: []string{"-tinH", "dport = :" + portOf(t, backend.Address())}})
		if !strings.Contains(ours, " "+clients+" ") && !strings.Contains(ours, "\t"+clients+" ") {
			t.Errorf("the client's connection has not %s: %s", clients, ours)
		}
		if !strings.Contains(theirs, " "+backends+" ") && !strings.Contains(theirs, "\t"+backends+" ") {
			t.Errorf("the backend's connection has not %s: %s", backends, theirs)
		}
		check(t, c.Close())
		harness.Eventually(t, "the session is over", func() error {
			if n := backend.Open(); n != 0 {
				return fmt.Errorf("%d are open", n)
			}
			return nil
		})
	}
	want(other, other)

	w.Listener, w.Pool = nil, nil
	b.Reload(t, w.config(t))
	want(usual, usual)

	w.Listener, w.Pool = []string{`congestion_control = "nonsense"`}, []string{`congestion_control = "nonsense"`}
	b.Configure(t, w.config(t))
	for _, args := range [][]string{{"plan"}, {"reload"}, {"check", "--config", b.File()}} {
		_, stderr, code := b.Command(t, args...)
		for _, key := range []string{"listener.main.congestion_control", "pool.all.congestion_control"} {
			if code == 0 || !strings.Contains(stderr, key+`: congestion control "nonsense": `) ||
				!strings.Contains(stderr, "net.ipv4.tcp_available_congestion_control allows ") {
				t.Errorf("%v, exit code %d: %s", args, code, stderr)
			}
		}
	}
	if _, stderr, code := b.Command(t, "check", "--syntax", "--config", b.File()); code != 0 {
		t.Errorf("check --syntax looks at the host: %s", stderr)
	}
	file := filepath.Join(t.TempDir(), "lb.toml")
	check(t, os.WriteFile(file, []byte(b.Complete(w.config(t))), 0o600))
	if _, stderr, code := b.Command(t, "--config", file); code != 1 || !strings.Contains(stderr, "nonsense") {
		t.Errorf("a start, exit code %d: %s", code, stderr)
	}
	want(usual, usual)
}
