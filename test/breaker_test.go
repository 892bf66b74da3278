package test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// awaitBreaker waits for the first log line after since in which a backend's breaker changes to a state.
func awaitBreaker(t *testing.T, b *harness.Balancer, backend, to string, since time.Time) harness.Line {
	t.Helper()
	return b.WaitLine(t, "the breaker of "+backend+" is "+to, func(l harness.Line) bool {
		return l.Message == harness.MessageBreaker && l.Backend == backend && l.To == to && l.Seen.After(since)
	})
}

// TestBreaker makes one of three backends fail in every way that traffic shows, under load: its breaker opens, becomes
// half-open, and closes when the backend works. No client notices a failure that a retry can hide.
func TestBreaker(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		handle harness.Handler // the failing backend's handler; nil: it does not listen at all
	}{
		{"refuses", nil},
		{"accepts and closes at once", harness.CloseAtOnce},
		{"accepts and resets at once", harness.ResetAtOnce},
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
			retried, cut, noticed := 0, 0, 0
			for calls := 0; retried+cut < 3; calls++ { // one after the other, so that it is exact
				l, err := callOnce(t, b)
				if err != nil {
					noticed++
				}
				if retried += l.Retries; l.Backend == "b1" {
					cut++
				}
				if calls > 30 {
					t.Fatalf("30 sessions, and b1 has failed %d times", retried+cut)
				}
			}
			opened := awaitBreaker(t, b, "b1", "open", started)
			if noticed > 0 || cut > 0 { // no byte has moved, so each was tried elsewhere
				t.Errorf("%d clients noticed; %d sessions were cut, and %d tried elsewhere", noticed, cut, retried)
			}
			_ = tryGreeting(b.Address(t, "main"))
			half := awaitBreaker(t, b, "b1", "half-open", opened.Seen)
			if waited := logged(t, half).Sub(logged(t, opened)); waited < 400*time.Millisecond {
				t.Errorf("half-open %v after it opened, expected about 500ms", waited)
			}
			_ = tryGreeting(b.Address(t, "main")) // the trial
			again := awaitBreaker(t, b, "b1", "open", half.Seen)

			close(ill)
			if tc.handle == nil {
				harness.ServeOn(t, address, harness.SpeakFirst("b1"))
			}
			half = awaitBreaker(t, b, "b1", "half-open", again.Seen)
			if waited := logged(t, half).Sub(logged(t, again)); waited < 800*time.Millisecond {
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

// callOnce connects, reads a backend's greeting and closes, and returns the session's access line. The error is a
// failure that the client noticed.
func callOnce(t *testing.T, b *harness.Balancer) (harness.Line, error) {
	t.Helper()
	c, from, err := harness.DialFrom(b.Address(t, "main"))
	if err == nil {
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		_, err = c.Read(make([]byte, 2))
		check(t, c.Close())
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return b.WaitSession(t, net.TCPAddrFromAddrPort(from)), err
}

// logged returns the time in a line, since the harness may read the line later.
func logged(t *testing.T, l harness.Line) time.Time {
	t.Helper()
	var line struct {
		Time time.Time `json:"time"`
	}
	check(t, json.Unmarshal([]byte(l.Text), &line))
	return line.Time
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

// TestBreakerSometimes has a backend that closes two of three sessions at once: there are never enough failures in a
// row, but the ratio opens the breaker.
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
		Breaker: []string{`failures = 3`, `failure_ratio = 0.5`, `min_samples = 12`, `window = "1m"`,
			`open_for = "1m"`},
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

// TestBreakerOfASilentBackend has a backend that accepts and sends nothing until its clients leave. Traffic proves
// nothing about it, so its breaker stays closed; a check that asks for an answer finds it.
func TestBreakerOfASilentBackend(t *testing.T) {
	t.Parallel()
	silent, well := harness.Serve(t, harness.Silent), harness.StartRedis(t)
	started := time.Now()
	b := world{
		Backends: []string{silent.Address(), well.Address}, Pool: []string{`algorithm = "round_robin"`},
		Breaker: []string{`failures = 2`},
		Health: []string{`type = "redis"`, `interval = "200ms"`, `fast_interval = "100ms"`, `timeout = "200ms"`,
			`rise = 1`, `fall = 2`},
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

// TestBreakerIsNotTheClients has misbehaving clients of every kind: none of them opens a breaker.
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

// A moody backend keeps its port but listens only at times; otherwise the kernel answers each SYN with a reset. Only
// the test's goroutine calls its methods.
type moody struct {
	address string
	open    *harness.Backend // nil while it refuses
}

// startMoody returns a moody backend that refuses. A second socket, which does not listen, keeps its port until the
// test ends.
func startMoody(t *testing.T) *moody {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { check(t, syscall.Close(fd)) })
	// as net.Listen does: then both may bind
	check(t, syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	check(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(fd)
	check(t, err)
	return &moody{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))}
}

// listen makes the backend accept and greet.
func (m *moody) listen(t *testing.T) {
	t.Helper()
	m.open = harness.ServeOn(t, m.address, harness.SpeakFirst("b1"))
}

// refuse makes the backend refuse connections.
func (m *moody) refuse() {
	m.open.Close()
	m.open = nil
}

// TestBreakerOfOneThatRefusesTwoOfThree has a backend whose kernel refuses two of three connects, never three in a row,
// and no client notices. Its breaker opens at the failure at which the ratio has enough samples, and then the backend
// gets nothing. If no more breakers may open, the backend stays in use, and clients still notice nothing.
func TestBreakerOfOneThatRefusesTwoOfThree(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		refuses bool // b2 always refuses, and its breaker is the only one that may open
		tries   int  // connects to b1 until the end
	}{
		// Four rounds of two refusals and a session are twelve samples, and the thirteenth outcome is a failure.
		{"alone", false, 13},
		{"beside one that is open", true, 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b1, second := startMoody(t), startMoody(t)
			b2 := second.address
			if !tc.refuses {
				b2 = harness.Serve(t, harness.SpeakFirst("b2")).Address()
			}
			well := harness.Serve(t, harness.SpeakFirst("b3"))
			started := time.Now()
			b := world{
				Backends: []string{b1.address, b2, well.Address()},
				Pool:     []string{`algorithm = "round_robin"`},
				Breaker: []string{
					`failures = 3`, `failure_ratio = 0.5`, `min_samples = 12`, `window = "10m"`, `open_for = "10m"`,
					`max_open_for = "10m"`,
					`max_open_share = 0.34`,
				},
			}.start(t)
			call := func() harness.Line {
				t.Helper()
				l, err := callOnce(t, b)
				if err != nil {
					t.Fatalf("a client notices: %v", err)
				}
				return l
			}
			if tc.refuses {
				b1.listen(t)
				for refused := 0; refused < 3; {
					refused += call().Retries
				}
				awaitBreaker(t, b, "b2", "open", started)
				b1.refuse()
			}

			// The clients run one after the other: the access line of each says whether b1 was tried, which decides its
			// next behaviour.
			refused, accepted := 0, 0
			for calls := 0; refused+accepted < tc.tries; calls++ {
				switch l := call(); {
				case l.Retries == 1:
					if refused++; refused%2 == 0 {
						b1.listen(t)
					}
				case l.Backend == "b1":
					accepted++
					b1.refuse()
				case l.Retries > 1 || calls > 10*tc.tries:
					t.Fatalf("b1 refused %d and served %d of %d sessions, the last one: %s",
						refused, accepted, calls, l.Text)
				}
			}
			if accepted != tc.tries/3 {
				t.Errorf("b1 served %d of %d, expected a third", accepted, tc.tries)
			}
			if !tc.refuses {
				if line := awaitBreaker(t, b, "b1", "open", started); line.Reason != "too many failures within 10m0s" {
					t.Errorf("opened since %q", line.Reason)
				}
				b1.listen(t) // and well it is, if anybody asked
			}
			for range 30 {
				if l := call(); !tc.refuses && (l.Backend == "b1" || l.Retries > 0) {
					t.Errorf("with the breaker open a session went there: %s", l.Text)
				}
			}
			for _, l := range b.Lines() {
				if l.Message == harness.MessageBreaker && l.To == "open" && (l.Backend == "b1") == tc.refuses {
					t.Errorf("the breaker of %s opens: %s", l.Backend, l.Text)
				}
			}
		})
	}
}
