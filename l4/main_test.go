package l4

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPool makes a pool of healthy backends with these addresses.
func newPool(t testing.TB, addrs ...string) *pool.Pool {
	t.Helper()
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.Add(pool.Spec{ID: a, Addr: netip.MustParseAddrPort(a), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// spec is a listener on a free port of 127.0.0.1.
func spec(p *pool.Pool) ListenerSpec {
	return ListenerSpec{Name: "test", Address: netip.MustParseAddrPort("127.0.0.1:0"), Pool: p}
}

// start runs a server with these listeners until the test ends.
func start(t testing.TB, o Options, specs ...ListenerSpec) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Shutdown(done(t))
	})
	if err := s.Apply(Plan{Listeners: specs}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// address is where the server's first listener came to stand.
func (s *Server) address() string { return s.Listeners()[0].Address.String() }

// any tells whether f holds for a session of the first loop.
func (s *Server) any(f func(*session) bool) bool {
	found := make(chan bool, 1)
	l := s.loops[0]
	l.mailbox.post(message{do: func() {
		yes := false
		l.sessions.all(func(s *session) { yes = yes || f(s) })
		found <- yes
	}})
	return <-found
}

func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// backend serves each connection with handle until the test ends, and returns its address. With a nil handle
// it says nothing and holds on to its connections.
func backend(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ended := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				if handle == nil {
					<-ended
					return
				}
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		close(ended)
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// echo sends back what it reads, and its FIN after the client's.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// done returns a context that has ended.
func done(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// allocations is how many there are while f runs so many times. testing.AllocsPerRun would leave a loop and the rest of the process a single
// P. Elsewhere in the process something may be allocated now and then.
func allocations(times int, f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		f()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// refusing is an address nobody listens on.
func refusing(t testing.TB) string {
	t.Helper()
	return harness.FreeAddress(t)
}

// A capture is a log that tests read as lines.
type capture struct{ lines chan []byte }

func newCapture() (*capture, zerolog.Logger) {
	c := &capture{make(chan []byte, 1000)}
	return c, zerolog.New(c)
}

func (c *capture) Write(p []byte) (int, error) {
	select {
	case c.lines <- append([]byte(nil), p...):
	default:
	}
	return len(p), nil
}
