package session_test

import (
	"fmt"
	"io"
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
				ls := spec(newPool(t, backend(t, func(c *net.TCPConn) {
					go send(c)
					_, _ = io.Copy(io.Discard, c)
				})))
				ls.Limits.ClientBandwidth = rate
				s := start(t, l4.Options{Loops: loops}, ls)
				var clients []net.Conn
				var senders sync.WaitGroup
				for range sessions {
					c := dial(t, address(s))
					clients = append(clients, c)
					senders.Go(func() { send(c) })
				}
				var m meter
				m.read(clients)
				time.Sleep(2 * time.Second) // until their parts are even
				info := l4test.Info(s)
				each, took, keptUp := m.over(long)
				_ = info
				got := float64(sum(each)) / took.Seconds() / rate
				if got > 1.05 || got < 0.95 && keptUp || got < 0.6 {
					t.Errorf("%.3f of the limit; the machine has kept up: %v", got, keptUp)
				}
				least, most := slices.Min(each), slices.Max(each)
				if sessions == 10 && keptUp && float64(most) > 1.3*float64(least) {
					t.Errorf("one session gets %d bytes, another one %d", least, most)
				}
				t.Logf("%.3f of the limit, %d to %d, kept up %v, pause %v", got, least, most, keptUp, time.Duration(m.pause.Load()))
				for _, c := range clients {
					c.Close()
				}
				m.ends.Wait()
				senders.Wait()
			})
		}
	}
}

var _ = session.HeldBack
