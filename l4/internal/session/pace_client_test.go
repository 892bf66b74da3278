package session_test

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
)

// A meter counts what each of some connections brings.
type meter struct {
	counts []atomic.Int64
	last   atomic.Int64 // when something came last, in nanoseconds of time.Time
	pause  atomic.Int64 // the longest time in which nothing came
	ends   sync.WaitGroup
}

// read reads from the connections until they are closed.
func (m *meter) read(conns []net.Conn) {
	m.counts = make([]atomic.Int64, len(conns))
	m.last.Store(time.Now().UnixNano())
	for i, c := range conns {
		m.ends.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				m.counts[i].Add(int64(n))
				now := time.Now().UnixNano()
				if pause := now - m.last.Swap(now); pause > m.pause.Load() {
					m.pause.Store(pause)
				}
			}
		})
	}
}

// over returns what each connection brings within a time, the time that it was, and whether the machine has kept up.
func (m *meter) over(long time.Duration) (each []int64, took time.Duration, keptUp bool) {
	m.pause.Store(0)
	before, began := make([]int64, len(m.counts)), time.Now()
	for i := range m.counts {
		before[i] = m.counts[i].Load()
	}
	time.Sleep(long)
	for i := range m.counts {
		each = append(each, m.counts[i].Load()-before[i])
	}
	return each, time.Since(began), m.pause.Load() < int64(time.Second/10)
}

func sum(each []int64) (sum int64) {
	for _, n := range each {
		sum += n
	}
	return sum
}

// TestClientBandwidth holds that the sessions of a client share its bandwidth evenly, each way, on one loop and on two,
// and that they get all of it and no more.
func TestClientBandwidth(t *testing.T) {
	const rate, long = 2_000_000, 3 * time.Second
	for _, loops := range []int{1, 2} {
		for _, sessions := range []int{1, 10, 100} {
			t.Run(fmt.Sprintf("%d sessions on %d loops", sessions, loops), func(t *testing.T) {
				t.Parallel()
				var senders sync.WaitGroup
				accepted := make(chan net.Conn, sessions)
				ls := spec(newPool(t, backend(t, func(c *net.TCPConn) { accepted <- c; send(c) })))
				ls.Limits.ClientBandwidth = rate
				s := start(t, l4.Options{Loops: loops}, ls)
				var clients, backends []net.Conn
				for range sessions {
					c := dial(t, address(s))
					senders.Go(func() { send(c) })
					clients, backends = append(clients, c), append(backends, <-accepted)
				}
				var in, out meter
				in.read(backends)
				out.read(clients)
				time.Sleep(2 * time.Second) // until their parts are even
				senders.Go(func() { in.holds(t, rate, long) })
				out.holds(t, rate, long)
				_ = s.Shutdown(done(t))
				senders.Wait()
				in.ends.Wait()
				out.ends.Wait()
			})
		}
	}
}

// holds checks the rate of all connections together, and that each has the same part, of a few.
func (m *meter) holds(t *testing.T, rate int, long time.Duration) {
	t.Helper()
	each, took, keptUp := m.over(long)
	got := float64(sum(each)) / took.Seconds() / float64(rate)
	if got > 1.05 || got < 0.95 && keptUp || got < 0.6 {
		t.Errorf("%.3f of the limit; the machine has kept up: %v", got, keptUp)
	}
	least, most := slices.Min(each), slices.Max(each)
	if len(each) <= 10 && keptUp && float64(most) > 1.3*float64(least) {
		t.Errorf("one connection brings %d bytes, another one %d", least, most)
	}
	t.Logf("%.3f of the limit, %d to %d; the machine has kept up: %v", got, least, most, keptUp)
}

// TestClientBandwidthOfQuestions holds that a session takes no more of its client's bandwidth than it moves.
func TestClientBandwidthOfQuestions(t *testing.T) {
	const rate, questions = 1_000_000, 1000
	ls := spec(newPool(t, backend(t, echo)))
	ls.Limits.ClientBandwidth = rate
	s := start(t, l4.Options{Loops: 1}, ls)
	c, began := dial(t, address(s)), time.Now()
	for range questions {
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("%d questions took %v", questions, took)
	}
}

// TestClientBandwidthComesBack holds that sessions that end while they wait leave the bandwidth to others.
func TestClientBandwidthComesBack(t *testing.T) {
	const rate, sessions = 10_000, 100
	ls := spec(newPool(t, backend(t, echo)))
	ls.Limits.ClientBandwidth = rate
	s := start(t, l4.Options{Loops: 1}, ls)
	for range sessions { // in line for a quarter of a minute
		if _, err := dial(t, address(s)).Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "they wait", func() bool { return waiting(s) > sessions*9/10 })
	if _, err := s.End(t.Context(), l4.SessionFilter{Listener: ls.Name}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they have ended", func() bool { return s.Sessions() == 0 })
	c, began := dial(t, address(s)), time.Now()
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a question took %v", took)
	}
}

// waiting is how many sessions are held back.
func waiting(s *l4.Server) (n int) {
	l4test.EachSession(s, 0, func(one *session.Session) {
		if session.HeldBack(one) {
			n++
		}
	})
	return n
}

// TestBothBandwidths holds that a session keeps to its own limit and to its client's.
func TestBothBandwidths(t *testing.T) {
	for _, test := range []struct {
		session, client int64
		sessions, want  int
	}{
		{300_000, 1_000_000, 2, 600_000},
		{300_000, 1_000_000, 8, 1_000_000},
		{1_000_000, 300_000, 1, 300_000},
	} {
		t.Run(fmt.Sprintf("%d and %d bytes", test.session, test.client), func(t *testing.T) {
			t.Parallel()
			ls := spec(newPool(t, backend(t, func(c *net.TCPConn) { send(c) })))
			ls.Limits.SessionBandwidth, ls.Limits.ClientBandwidth = test.session, test.client
			s := start(t, l4.Options{Loops: 1}, ls)
			var clients []net.Conn
			for range test.sessions {
				clients = append(clients, dial(t, address(s)))
			}
			var m meter
			m.read(clients)
			time.Sleep(time.Second)
			m.holds(t, test.want, 2*time.Second)
			_ = s.Shutdown(done(t))
			m.ends.Wait()
		})
	}
}
