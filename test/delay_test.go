package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestDelayChanges has clients that wait in the kernel's queue while the listener's settings change, or it ends.
func TestDelayChanges(t *testing.T) {
	t.Parallel()
	const waiting = 6
	one := []string{"max_sessions = 1", limitLines(`over_limit = "delay"`)}
	seldom := []string{limitLines(`rate = "1/h burst 1"`, `over_limit = "delay"`)}
	for _, tt := range []struct {
		name     string
		before   []string // the lines of the listener's table that have clients wait
		listener []string // the lines after a reload
		want     string
	}{
		{"a higher limit", one, []string{"max_sessions = 20", limitLines(`over_limit = "delay"`)}, isServed},
		{"no limit", one, nil, isServed},
		{"no delay", one, []string{"max_sessions = 1", limitLines(`over_limit = "reset"`)}, isReset},
		{"no rate", seldom, nil, isServed},
		{"a higher rate", seldom, []string{limitLines(`rate = "100/s burst 1"`, `over_limit = "delay"`)}, isServed},
		{"a rate without delay", seldom, []string{limitLines(`rate = "1/h burst 1"`)}, isReset},
		{"a dry run", seldom, []string{limitLines(`rate = "1/h burst 1"`, `over_limit = "delay"`, "dry_run = true")},
			isServed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := world{Listen: harness.FreeAddress(t), Backends: []string{greet(t)}, Listener: tt.before}
			b := w.start(t)
			first, how := visit(t, "127.0.0.1", w.Listen, "")
			if how != isServed {
				t.Fatalf("the first client is %s", how)
			}
			var queued []*net.TCPConn
			for range waiting {
				queued = append(queued, harness.Dial(t, w.Listen))
			}
			if how := hears(t, queued[0], hearing); how != isSilent {
				t.Errorf("a client that has to wait is %s", how)
			}
			w.Listener = tt.listener
			b.Reload(t, w.config(t))
			for _, c := range queued {
				if how := hears(t, c, harness.Patience); how != tt.want {
					t.Fatalf("a client that has waited is %s, want %s", how, tt.want)
				}
			}
			check(t, harness.PingPong(first, 1, 10))
		})
	}
}

// TestDelayAtTheEnd holds that clients who wait in the kernel's queue do not keep a shutdown waiting.
func TestDelayAtTheEnd(t *testing.T) {
	t.Parallel()
	b := world{Backends: []string{greet(t)}, Listener: []string{"max_sessions = 1", limitLines(`over_limit = "delay"`)},
		Global: []string{`drain_timeout = "500ms"`}}.start(t)
	at := b.Address(t, "main")
	if _, how := visit(t, "127.0.0.1", at, ""); how != isServed {
		t.Fatalf("the first client is %s", how)
	}
	queued := harness.Dial(t, at)
	if how := hears(t, queued, hearing); how != isSilent {
		t.Errorf("a client that has to wait is %s", how)
	}
	b.Signal(t, syscall.SIGTERM)
	endsWithZero(t, b)
	if how := hears(t, queued, harness.Patience); how == isSilent {
		t.Errorf("a client that has waited is %s", how)
	}
}

// TestDelayOfDenied holds that clients who are denied, or over a limit of their own, do not use up what a listener that
// delays lets in.
func TestDelayOfDenied(t *testing.T) {
	t.Parallel()
	b := world{Backends: []string{greet(t)}, Listener: []string{`access = { deny = ["127.0.2.0/24"] }`,
		limitLines(`rate = "1/h burst 6"`, `client_rate = "1/h burst 3"`, `over_limit = "delay"`)}}.start(t)
	at := b.Address(t, "main")
	expectVisits(t, "127.0.2.1", at, "", 20, 0, isReset)
	expectVisits(t, "127.0.0.1", at, "", 20, 3, isReset)
	expectVisits(t, "127.0.0.2", at, "", 3, 3, "")
	c := harness.Dial(t, at)
	if how := hears(t, c, hearing); how != isSilent {
		t.Errorf("a client over the rate is %s", how)
	}
	measured(t, b, map[string]float64{refusedAs("denied"): 20, refusedAs("client_rate"): 17, refusedAs("rate"): 0})
}

// TestLimitsOfUnixSockets holds that clients of a Unix socket, which have no address, are neither denied nor limited by
// themselves, and count for what all clients may have.
func TestLimitsOfUnixSockets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "lb")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, tcp := filepath.Join(dir, "s"), harness.FreeAddress(t)
	b := harness.StartBalancer(t, fmt.Sprintf(`
[listener.main]
address = ["unix:%s", %q]
pool = "all"
access = { allow = ["127.0.0.9"] }
limits = { client_rate = "1/h burst 2", client_sessions = 1, rate = "1/h burst 8" }
[pool.all]
backends = [%q]
`, path, tcp, greet(t)))
	come := func() string {
		c, err := net.DialTimeout("unix", path, harness.Patience)
		check(t, err)
		t.Cleanup(func() { c.Close() })
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		if err := readFull(c, make([]byte, len(greeting))); err != nil {
			return err.Error()
		}
		return isServed
	}
	for range 6 {
		if how := come(); how != isServed {
			t.Errorf("a client of the Unix socket: %s", how)
		}
	}
	expectVisits(t, "127.0.0.1", tcp, "", 1, 0, isReset)
	if _, how := visit(t, "127.0.0.9", tcp, ""); how != isServed {
		t.Errorf("an allowed client is %s", how)
	}
	expectVisits(t, "127.0.0.9", tcp, "", 1, 0, isReset)
	if how := come(); how != isServed {
		t.Errorf("the eighth client: %s", how)
	}
	if how := come(); how == isServed {
		t.Error("a client over the rate is served")
	}
	measured(t, b, map[string]float64{refusedAs("denied"): 1, refusedAs("client_sessions"): 1, refusedAs("rate"): 1})
}
