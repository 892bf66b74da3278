package test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// awaitBreaker waits for the first change of a backend's breaker to a state that was logged after since.
func awaitBreaker(t *testing.T, b *harness.Balancer, backend, to string, since time.Time) harness.Line {
	t.Helper()
	return b.WaitLine(t, "the breaker of "+backend+" is "+to, func(l harness.Line) bool {
		return l.Message == harness.MessageBreaker && l.Backend == backend && l.To == to && l.Seen.After(since)
	})
}

// TestBreaker has one of three backends fail in each way that traffic shows, while clients go on: its breaker opens, is tried
// again, and closes when it works. No client notices what a retry can help.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		handle harness.Handler // what the backend does while it is ill; nil: it does not listen at all
		seen   bool            // by the client: a session that was connected cannot be moved
	}{
		{"refuses", nil, false},
		{"accepts and closes at once", harness.CloseAtOnce, true},
		{"accepts and resets at once", harness.ResetAtOnce, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ill := make(chan struct{})
			sick := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
				select {
				case <-ill:
					harness.SpeakFirst("b1")(ctx, c) // well again
				default:
					if tc.handle != nil {
						tc.handle(ctx, c)
					}
				}
			})
			address := sick.Address()
			if tc.handle == nil {
				sick.Close()
			}
			well := namedBackends(t, 3)[1:]
			started := time.Now()
			b := world{
				Backends: append([]string{address}, addressesOf(well)...),
				Pool:     []string{`algorithm = "round_robin"`},
				Breaker:  []string{`failures = 3`, `open_for = "500ms"`, `max_open_for = "2s"`},
			}.start(t)
			c := newCaller(t, b)
			failed := 0
			for range 30 {
				if err := tryGreeting(b.Address(t, "main")); err != nil {
					failed++
				}
			}
			opened := awaitBreaker(t, b, "b1", "open", started)
			if tc.seen != (failed > 0) || failed > 6 {
				t.Errorf("%d of 30 clients noticed; the breaker opens after 3 failures", failed)
			}
			_ = tryGreeting(b.Address(t, "main"))
			half := awaitBreaker(t, b, "b1", "half-open", opened.Seen)
			if waited := half.Seen.Sub(opened.Seen); waited < 400*time.Millisecond {
				t.Errorf("half-open %v after it opened, expected about 500ms", waited)
			}
			_ = tryGreeting(b.Address(t, "main")) // the trial
			again := awaitBreaker(t, b, "b1", "open", half.Seen)

			close(ill)
			if tc.handle == nil {
				harness.ServeOn(t, address, harness.SpeakFirst("b1"))
			}
			half = awaitBreaker(t, b, "b1", "half-open", again.Seen)
			if waited := half.Seen.Sub(again.Seen); waited < 800*time.Millisecond {
				t.Errorf("half-open %v after it opened again, expected about twice 500ms", waited)
			}
			c.calls(t, 3, false)
			awaitBreaker(t, b, "b1", "closed", half.Seen)
			if got := c.calls(t, 30, false); got["b1"] != 10 {
				t.Errorf("closed again, sessions went to %v", got)
			}
		})
	}
}

// tryGreeting connects and reads a backend's greeting.
func tryGreeting(address string) error {
	conn, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 2))
	return err
}

// TestBreakerSometimes has a backend close two of three sessions at once: in a row there are never enough failures, and the
// ratio sees it.
func TestBreakerSometimes(t *testing.T) {
	t.Parallel()
	var sessions atomic.Int64
	flaky := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		if sessions.Add(1)%3 == 0 {
			harness.SpeakFirst("b1")(ctx, c)
		}
	})
	well := namedBackends(t, 3)[1:]
	started := time.Now()
	b := world{
		Backends: append([]string{flaky.Address()}, addressesOf(well)...),
		Pool:     []string{`algorithm = "round_robin"`},
		Breaker:  []string{`failures = 3`, `failure_ratio = 0.5`, `min_samples = 12`, `window = "1m"`, `open_for = "1m"`},
	}.start(t)
	for range 60 {
		_ = tryGreeting(b.Address(t, "main"))
	}
	if line := awaitBreaker(t, b, "b1", "open", started); line.Reason != "too many failures within 1m0s" {
		t.Errorf("opened since %q", line.Reason)
	}
	if got := newCaller(t, b).calls(t, 20, false); got["b1"] != 0 {
		t.Errorf("with the breaker open sessions went to %v", got)
	}
}

// TestBreakerOfASilentBackend has a backend that accepts and says nothing, until its clients leave: what the traffic shows of it
// is nothing, and that is left to the checks, of which one that asks sees it.
func TestBreakerOfASilentBackend(t *testing.T) {
	t.Parallel()
	silent, well := harness.Serve(t, harness.Silent), harness.StartRedis(t)
	started := time.Now()
	b := world{
		Backends: []string{silent.Address(), well.Address}, Pool: []string{`algorithm = "round_robin"`},
		Breaker: []string{`failures = 2`},
		Health:  []string{`type = "redis"`, `interval = "200ms"`, `fast_interval = "100ms"`, `timeout = "200ms"`, `rise = 1`, `fall = 2`},
	}.start(t)
	t.Cleanup(silent.Close)
	if line := b.WaitVerdict(t, "b1", "unhealthy", started); !strings.Contains(line.Reason, "timed out") {
		t.Errorf("unhealthy since %q", line.Reason)
	}
	b.WaitVerdict(t, "b2", "healthy", started)
	for range 20 {
		c := b.Dial(t, "main")
		check(t, harness.Ping(c))
		check(t, c.Close())
	}
}

// TestBreakerIsNotTheClients has clients of every rude kind: none of what they do opens a breaker.
func TestBreakerIsNotTheClients(t *testing.T) {
	t.Parallel()
	silent, well := harness.Serve(t, harness.Silent), harness.Serve(t, harness.SpeakFirst("b2"))
	b := world{
		Backends: []string{silent.Address(), well.Address()}, Pool: []string{`algorithm = "round_robin"`},
		Breaker: []string{`failures = 2`, `open_for = "1m"`},
	}.start(t)
	t.Cleanup(silent.Close) // before the balancer is checked for leaks: a silent backend keeps its sessions
	for i := range 40 {
		c := b.Dial(t, "main")
		switch i / 2 % 3 {
		case 0:
			check(t, c.Close()) // without a word
		case 1:
			harness.Reset(c)
		case 2:
			_, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			check(t, err)
			check(t, c.CloseWrite())
			check(t, c.Close())
		}
	}
	b.WaitSessions(t, 20) // those that end by themselves
	for _, l := range b.Lines() {
		if l.Message == harness.MessageBreaker {
			t.Errorf("clients have changed a breaker: %s", l.Text)
		}
	}
}
