package farewell_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A world is a server with one listener whose refused clients are told why.
type world struct {
	*l4.Server
	lines *l4test.Capture
}

func start(t *testing.T, p *pool.Pool, change func(*l4.ListenerSpec)) world {
	t.Helper()
	lines, log := l4test.NewCapture()
	spec := l4test.Spec(p)
	spec.Farewell = l4.Redis
	if change != nil {
		change(&spec)
	}
	return world{l4test.Start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec), lines}
}

// dial connects to the listener, and sends what is not "".
func (w world) dial(t *testing.T, sends string) *net.TCPConn {
	t.Helper()
	c := l4test.Dial(t, l4test.Address(w.Server))
	if _, err := c.Write([]byte(sends)); err != nil {
		t.Fatal(err)
	}
	return c
}

// all returns what a client gets until the end, which is no reset.
func all(t *testing.T, c *net.TCPConn) string {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("after %q: %v", got, err)
	}
	return string(got)
}

const (
	tooMany = "-ERR max number of clients reached\r\n"
	get     = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
)

// placed is how many clients have a backend of the pool, or wait for one. The gate counts a client earlier.
func placed(p *pool.Pool) int {
	n := p.Waiting()
	for _, b := range p.Backends() {
		n += int(b.Leases)
	}
	return n
}

// TestCauses holds what clients are told for each cause, and that each refusal is counted once, with its reason, and
// has one line if it had one before.
func TestCauses(t *testing.T) {
	full := func(max int, timeout time.Duration) func(*testing.T) *pool.Pool {
		return func(t *testing.T) *pool.Pool {
			o := pool.Options{QueueMax: max, QueueTimeout: timeout}
			return l4test.NewQueuePool(t, o, l4test.Backend(t, l4test.Echo))
		}
	}
	for _, tc := range []struct {
		name   string
		pool   func(*testing.T) *pool.Pool
		change func(*l4.ListenerSpec)
		before int // clients that are served or wait
		gets   string
		reason l4.Reason
		lines  int
	}{
		{name: "no backend", pool: func(t *testing.T) *pool.Pool { return l4test.NewPool(t) },
			gets: "-LOADING no backend of pool \"pool\" is available\r\n", reason: tally.NoBackend, lines: 1},
		{name: "no connection", pool: func(t *testing.T) *pool.Pool { return l4test.NewPool(t, l4test.Refusing(t)) },
			gets: "-LOADING no backend of pool \"pool\" could be connected to\r\n", reason: tally.ConnectFailed,
			lines: 1},
		{name: "the listener's limit", pool: func(t *testing.T) *pool.Pool {
			return l4test.NewPool(t, l4test.Backend(t, l4test.Echo))
		}, change: func(s *l4.ListenerSpec) { s.MaxSessions = 1 }, before: 1, gets: tooMany, reason: tally.MaxSessions},
		{name: "full", pool: full(0, 0), before: 1, gets: tooMany, reason: tally.BackendsFull, lines: 1},
		{name: "the queue is full", pool: full(1, time.Hour), before: 2, gets: tooMany,
			reason: tally.QueueFull, lines: 1},
		{name: "the queue's timeout", pool: full(1, 50*time.Millisecond), before: 1, gets: tooMany,
			reason: tally.QueueTimeout, lines: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tc.pool(t)
			w := start(t, p, tc.change)
			for i := range tc.before {
				w.dial(t, "x")
				l4test.Eventually(t, "the client has its place", func() bool {
					return w.Sessions() == i+1 && placed(p) == i+1
				})
			}
			c := w.dial(t, get)
			if got := all(t, c); got != tc.gets {
				t.Errorf("the client gets %q, expected %q", got, tc.gets)
			}
			c.Close()
			l4test.Eventually(t, "the refusal is counted", func() bool {
				return l4test.Info(w.Server).Ended[tc.reason] == 1
			})
			if n := w.Sessions(); n != tc.before {
				t.Errorf("%d sessions", n)
			}
			if tc.lines == 0 {
				return
			}
			line := w.lines.Next(t)
			if line.Reason != tc.reason.String() || line.In != uint64(len(get)) || line.Out != uint64(len(tc.gets)) {
				t.Errorf("the line is %+v", line)
			}
		})
	}
}

// TestRefusedDoNotBlock holds that clients which are told why they are refused, and take their time, do not count as
// sessions: others are served.
func TestRefusedDoNotBlock(t *testing.T) {
	w := start(t, l4test.NewPool(t, l4test.Backend(t, l4test.Echo)), func(s *l4.ListenerSpec) { s.MaxSessions = 1 })
	first := w.dial(t, "x")
	l4test.Eventually(t, "a session", func() bool { return w.Sessions() == 1 })
	var silent []*net.TCPConn
	for range 20 {
		silent = append(silent, w.dial(t, ""))
	}
	l4test.Eventually(t, "farewells", func() bool { return farewells(w.Server) == len(silent) })
	first.Close()
	l4test.Eventually(t, "the session ends", func() bool { return w.Sessions() == 0 })
	if err := l4test.Ask(w.dial(t, "")); err != nil {
		t.Error(err)
	}
	for _, c := range silent {
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
		if got := all(t, c); got != tooMany {
			t.Errorf("a silent client gets %q", got)
		}
	}
}

// farewells is how many sessions of a server are in that phase.
func farewells(s *l4.Server) (n int) {
	for i := range 2 {
		l4test.EachSession(s, i, func(one *session.Session) {
			if p := one.Preface(); p != nil && p.Phase() == "refusing" {
				n++
			}
		})
	}
	return n
}

// TestSilentClient holds that a client which never says anything is reset after a while, and counted as refused.
func TestSilentClient(t *testing.T) {
	t.Parallel()
	w := start(t, l4test.NewPool(t), nil)
	c := w.dial(t, "*1\r\n")
	began := time.Now()
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the end is orderly")
	}
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("it took %v", took)
	}
	if line := w.lines.Next(t); line.Reason != tally.NoBackend.String() {
		t.Errorf("the line is %+v", line)
	}
}

// TestForeignClient holds that a client of another protocol is reset.
func TestForeignClient(t *testing.T) {
	for _, tc := range []struct {
		language l4.Language
		sends    string
	}{
		{l4.Postgres, "GET / HTTP/1.1\r\n\r\n"},
		{l4.Redis, "*1\r\n:1\r\n"},                                   // a reply
		{l4.DNS, "\x00\x0c\x12\x34\x80" + strings.Repeat("\x00", 9)}, // an answer
	} {
		w := start(t, l4test.NewPool(t), func(s *l4.ListenerSpec) { s.Farewell = tc.language })
		c := l4test.Dial(t, l4test.Address(w.Server))
		_, _ = c.Write([]byte(tc.sends)) // it may be reset meanwhile
		if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
			t.Errorf("%v: %q, %v", tc.language, got, err)
		}
		if line := w.lines.Next(t); line.Reason != tally.NoBackend.String() {
			t.Errorf("%v: the line is %+v", tc.language, line)
		}
	}
}

// TestNoPoolYet holds that a client is told why also at a listener that has no pool before its routes have chosen one.
func TestNoPoolYet(t *testing.T) {
	p := l4test.NewPool(t)
	w := start(t, nil, func(ls *l4.ListenerSpec) {
		ls.Routes, ls.InspectTimeout = []l4.Route{{ServerNames: []string{"a"}, Pool: p}}, time.Minute
		ls.MaxSessions = 1
	})
	w.dial(t, "\x16\x03\x01")
	l4test.Eventually(t, "the first client is inspected", func() bool { return w.Sessions() == 1 })
	if got := all(t, w.dial(t, get)); got != tooMany {
		t.Errorf("got %q", got)
	}
}

// TestEndlessCommand holds that a client whose command never ends is not heard for ever: it is reset, perhaps after its
// answer.
func TestEndlessCommand(t *testing.T) {
	w := start(t, l4test.NewPool(t), func(s *l4.ListenerSpec) { s.Farewell = l4.Redis })
	c := l4test.Dial(t, l4test.Address(w.Server))
	for {
		if _, err := c.Write([]byte(strings.Repeat("x", 16<<10))); err != nil {
			break
		}
	}
	if line := w.lines.Next(t); line.Reason != tally.NoBackend.String() {
		t.Errorf("the line is %+v", line)
	}
}

// TestPrefilled holds that a farewell answers what an earlier preface has read: a DNS question that is to be passed on.
func TestPrefilled(t *testing.T) {
	p := l4test.NewPool(t)
	w := start(t, p, func(s *l4.ListenerSpec) {
		*s = l4test.DNSOverTCPSpec(p)
		s.Farewell = l4.DNS
	})
	query := l4test.DNSQuery(t, 7, "example.com.", dns.TypeAXFR)
	c := w.dial(t, string(append(wire.AppendDNSLength(nil, query), query...)))
	got := all(t, c)
	if len(got) < 2 {
		t.Fatalf("the client gets %q", got)
	}
	l4test.WantCode(t, l4test.DNSUnpack(t, []byte(got[2:])), 7, dns.RcodeServerFailure)
	if line := w.lines.Next(t); line.Reason != tally.NoBackend.String() || line.In != uint64(len(query))+2 {
		t.Errorf("the line is %+v", line)
	}
}

// TestDrainTells holds that sessions in a queue are told of a shutdown that has no more time for them, and that
// farewells of silent clients do not hold it up for long.
func TestDrainTells(t *testing.T) {
	p := l4test.NewQueuePool(t, pool.Options{QueueMax: 10, QueueTimeout: time.Hour}, l4test.Backend(t, l4test.Echo))
	w := start(t, p, nil)
	w.dial(t, "x")
	l4test.Eventually(t, "a session", func() bool { return placed(p) == 1 })
	asks, silent := w.dial(t, get), w.dial(t, "")
	l4test.Eventually(t, "two that wait", func() bool { return placed(p) == 3 })
	began := time.Now()
	_ = w.Shutdown(l4test.Done(t))
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
	if got := all(t, asks); got != "-LOADING listener \"test\" is shutting down\r\n" {
		t.Errorf("a client that waits gets %q", got)
	}
	if _, err := io.ReadAll(silent); err == nil {
		t.Error("the silent client sees an orderly end")
	}
	if n := l4test.Info(w.Server).Ended[tally.Drained]; n != 3 {
		t.Errorf("%d are drained", n)
	}
}
