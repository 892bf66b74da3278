package postgres_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestCancels holds that each of many cancels goes to the backend of its session, with keys of all sizes, and to no
// other, and that it is no session of the pool's.
func TestCancels(t *testing.T) {
	for _, size := range []int{4, 32, 256} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			x := start(t, nil, serve(t, size), serve(t, size), serve(t, size))
			want := make(map[string]int)
			var running sync.WaitGroup
			for range 90 {
				c := x.login(t)
				for i, b := range x.pool.Backends() {
					if b.Leases != 0 && b.Outcomes != [len(b.Outcomes)]uint64{} {
						t.Errorf("backend %d has outcomes of cancels: %v", i, b.Outcomes)
					}
				}
				want[c.key]++
				running.Go(func() { x.cancel(t, c.key) })
			}
			running.Wait()
			for i, keys := range x.cancelled() {
				for _, key := range keys {
					if want[key]--; !strings.Contains(x.servers[i].key(1)[4:]+key, key[4:]) {
						t.Errorf("server %d got %q", i, key)
					}
				}
			}
			for key, n := range want {
				if n != 0 {
					t.Errorf("%q: %d cancels too few", key, n)
				}
			}
			x.wantCounts(t, 90, 0, 0, 0)
			for _, b := range x.pool.Backends() {
				if b.Leases != 30 || b.Outcomes != [len(b.Outcomes)]uint64{} {
					t.Errorf("backend %s has %d leases, outcomes %v", b.ID, b.Leases, b.Outcomes)
				}
			}
			line := x.line(t, tally.Cancel)
			if line.Backend != "" || line.In == 0 || line.Out != 0 {
				t.Errorf("the line of a cancel: %+v", line)
			}
		})
	}
}

// TestCancelWherever holds that a cancel goes to its session's backend when that takes no new sessions: it is full,
// unhealthy, drained, or removed.
func TestCancelWherever(t *testing.T) {
	for name, change := range map[string]func(p *pool.Pool, id string) error{
		"full":      func(p *pool.Pool, id string) error { return p.SetMaxSessions(id, 1) },
		"unhealthy": func(p *pool.Pool, id string) error { return p.SetVerdict(id, pool.Unhealthy, "a test") },
		"draining":  func(p *pool.Pool, id string) error { return p.SetMode(id, pool.Drain) },
		"maintenance": func(p *pool.Pool, id string) error {
			return p.SetMode(id, pool.Maintenance)
		},
		"removed": func(p *pool.Pool, id string) error { return p.Remove(id) },
	} {
		t.Run(name, func(t *testing.T) {
			x := start(t, nil, serve(t, 4))
			c := x.login(t)
			if err := change(x.pool, x.servers[0].address); err != nil {
				t.Fatal(err)
			}
			x.cancel(t, c.key)
			x.wantCancels(t, []string{c.key})
			x.wantCounts(t, 1, 0, 0, 0)
		})
	}
}

// TestUnknownKey holds that a cancel with a key that nobody knows goes to all backends that have sessions, once to
// each, and to none if there are none.
func TestUnknownKey(t *testing.T) {
	x := start(t, nil, serve(t, 4), serve(t, 4), serve(t, 4))
	x.cancel(t, "forgedkey")
	x.wantCancels(t, nil, nil, nil)
	first, second := x.login(t), x.login(t)
	x.cancel(t, "forgedkey")
	x.wantCancels(t, []string{"forgedkey"}, []string{"forgedkey"}, nil)
	x.wantCounts(t, 0, 2, 0, 0)

	// A key is forgotten with its session.
	first.Close()
	x.line(t, tally.ClientClosed)
	x.cancel(t, first.key)
	x.wantCancels(t, nil, []string{first.key}, nil)
	x.cancel(t, second.key)
	x.wantCancels(t, nil, []string{second.key}, nil)
	x.wantCounts(t, 1, 3, 0, 0)
}

// TestOneKeyTwice holds that two backends which have chosen the same key both get its cancel, and one of them once the
// other's session is over.
func TestOneKeyTwice(t *testing.T) {
	one, two := serve(t, 4), serve(t, 4)
	one.key = func(int) string { return "thesame!" }
	two.key = one.key
	x := start(t, nil, one, two)
	sessions := []login{x.login(t), x.login(t), x.login(t), x.login(t)}
	x.cancel(t, "thesame!")
	x.wantCancels(t, []string{"thesame!"}, []string{"thesame!"})
	for i, want := range [][2][]string{
		{{"thesame!"}, {"thesame!"}}, // one and two have one session each
		{nil, {"thesame!"}},
		{nil, nil},
	} {
		for _, c := range [][]login{{sessions[0], sessions[3]}, {sessions[2]}, {sessions[1]}}[i] {
			c.Close()
			x.line(t, tally.ClientClosed)
		}
		x.cancel(t, "thesame!")
		x.wantCancels(t, want[0], want[1])
	}
	x.wantCounts(t, 3, 1, 0, 0)
}

// TestCancelOfPassedTLS holds that a session whose TLS goes through to its backend has no known key, so that its cancel
// goes to all backends in use; and that one whose backend declines TLS has.
func TestCancelOfPassedTLS(t *testing.T) {
	one, two := serve(t, 4), serve(t, 4)
	one.refuses = "S"
	x := start(t, nil, one, two)
	c := x.dial(t, sslRequest)
	gets(t, c, "S")
	d := x.dial(t, sslRequest)
	gets(t, d, "N")
	io.WriteString(d, startup)
	key := readKey(t, d)
	x.cancel(t, key)
	x.wantCancels(t, nil, []string{key})
	x.cancel(t, "unseenkey")
	x.wantCancels(t, []string{"unseenkey"}, []string{"unseenkey"})
	x.wantCounts(t, 1, 1, 0, 0)
}

// TestKeyInPieces holds that a key is learned from an answer that comes byte by byte.
func TestKeyInPieces(t *testing.T) {
	b := serve(t, 256)
	answer := b.greeting(7)
	address := l4test.Backend(t, func(c *net.TCPConn) {
		if b.sessions.Load() > 0 {
			b.handle(c)
			return
		}
		for i := range answer {
			io.WriteString(c, answer[i:i+1])
			time.Sleep(10 * time.Microsecond)
		}
		io.Copy(io.Discard, c)
	})
	x := startWith(t, l4test.NewPool(t, address), nil, b)
	c := x.dial(t, startup)
	key := readKey(t, c)
	b.sessions.Store(1)
	x.cancel(t, key)
	x.wantCancels(t, []string{b.key(7)})
	x.wantCounts(t, 1, 0, 0, 0)
}

// TestLargeAnswer holds that what follows the login is relayed as ever, a large result too.
func TestLargeAnswer(t *testing.T) {
	result := strings.Repeat("a result ", 1<<20)
	b := serve(t, 4)
	address := l4test.Backend(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, len(startup)))
		io.WriteString(c, b.greeting(1)+result)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	x := startWith(t, l4test.NewPool(t, address), nil, b)
	getsAll(t, x.dial(t, startup), b.greeting(1)+result)
}

// TestCancelFails holds what becomes of a cancel whose backend is gone: the client's connection ends all the same, in
// order, and nothing of it speaks against the backend. One that the backend takes and resets was sent.
func TestCancelFails(t *testing.T) {
	b := serve(t, 4)
	b.onCancel = func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		for range 2 {
			c, err := listener.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			serving.Go(func() {
				defer c.Close()
				b.handle(c)
			})
		}
		listener.Close()
	})
	x := startWith(t, l4test.NewPool(t, listener.Addr().String()), nil, b)
	c := x.login(t)
	x.cancel(t, c.key)
	x.wantCounts(t, 1, 0, 0, 0)
	x.cancel(t, c.key)
	x.wantCounts(t, 1, 0, 1, 0)
	x.wantCancels(t, []string{c.key})
	c.Close()
	x.line(t, tally.ClientClosed)
	if o := x.pool.Backends()[0].Outcomes; o[pool.Served] != 1 {
		t.Errorf("outcomes %v", o)
	}
}

// TestKindsApart holds that cancels with an unknown key are sent while as many others hang as may be under way, and
// that all of them are sent in the end.
func TestKindsApart(t *testing.T) {
	hung := make(chan struct{})
	silent, b := serve(t, 4), serve(t, 4)
	release := sync.OnceFunc(func() { close(hung) })
	t.Cleanup(release)
	silent.onCancel = func(net.Conn) { <-hung }
	x := start(t, nil, silent, b)
	c := x.login(t)
	x.login(t)
	var cancels []*net.TCPConn
	for range 50 {
		cancels = append(cancels, x.dial(t, cancelRequest(c.key)))
	}
	l4test.Eventually(t, "they hang", func() bool { return len(silent.cancels) == 32 })
	cancels = append(cancels, x.dial(t, cancelRequest("forgedkey")))
	l4test.Eventually(t, "another one is sent", func() bool { return len(b.cancels) == 1 })
	release()
	for _, c := range cancels {
		getsAll(t, c, "")
	}
	x.wantCounts(t, 50, 1, 0, 0)
}

// TestCancelFloods holds that cancels which hang, because their backend takes them and says nothing, do not hold up
// those of others, that they end, and that a server which is told to end does.
func TestCancelFloods(t *testing.T) {
	hung := make(chan struct{})
	silent, b := serve(t, 4), serve(t, 4)
	t.Cleanup(func() { close(hung) })
	silent.cancels = make(chan string, 10_000)
	silent.onCancel = func(net.Conn) { <-hung }
	x := start(t, nil, silent, b)
	x.login(t)
	c := x.login(t)
	var forged []*net.TCPConn
	for range 1500 {
		forged = append(forged, x.dial(t, cancelRequest("forgedkey")))
	}
	l4test.Eventually(t, "all are read", func() bool {
		return l4test.Info(x.Server).Accepted == 1502 && x.Sessions() <= 1502 && len(silent.cancels) > 0
	})
	began := time.Now()
	for range 50 {
		x.cancel(t, c.key)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("50 cancels took %v", took)
	}
	if n := len(silent.cancels); n > 16 {
		t.Errorf("%d forged cancels at once", n)
	}
	info := l4test.Info(x.Server)
	for _, r := range l4.CancelResults() {
		t.Logf("%s: %d", r, info.Cancels[r])
	}
	for _, c := range forged {
		c.Close()
	}
}

// TestCancelThroughChain holds that a cancel gets through a backend that is another listener of this process, once, and
// that its sockets are forgotten.
func TestCancelThroughChain(t *testing.T) {
	b := serve(t, 4)
	inner := l4test.Spec(l4test.NewPool(t, b.address))
	inner.Name, inner.Postgres.Timeout = "inner", patience
	x := start(t, nil, b)
	outer := l4test.Spec(x.pool)
	outer.Postgres.Timeout = patience
	if err := x.Apply(l4.Plan{Listeners: []l4.ListenerSpec{outer, inner}}); err != nil {
		t.Fatal(err)
	}
	if err := x.pool.Remove(b.address); err != nil {
		t.Fatal(err)
	}
	// in the order of their names
	at := x.Listeners()[0].Address
	if err := x.pool.Add(pool.Spec{ID: "inner", Addr: at, Weight: 1}); err != nil {
		t.Fatal(err)
	}
	c := l4test.Dial(t, x.Listeners()[1].Address.String())
	io.WriteString(c, startup)
	key := readKey(t, c)
	before := l4test.KnownSockets(x.Server)
	for _, sent := range []string{key, "forgedkey"} {
		d := l4test.Dial(t, x.Listeners()[1].Address.String())
		io.WriteString(d, cancelRequest(sent))
		getsAll(t, d, "")
		x.wantCancels(t, []string{sent})
	}
	for i, want := range []uint64{1, 1} {
		if got := x.Listeners()[i].Cancels; got[l4.CancelResults()[0]] != want || got[l4.CancelResults()[1]] != want {
			t.Errorf("listener %d: %v", i, got)
		}
	}
	l4test.Eventually(t, "the sockets are forgotten", func() bool { return l4test.KnownSockets(x.Server) == before })
}
