package session_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// misbehave does to a connection what peers do: talks, listens, closes a half, lingers, resets, in any order.
func misbehave(c *net.TCPConn, r *rand.Rand) {
	c.SetDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 256<<10)
	for range r.IntN(6) {
		switch r.IntN(7) {
		case 0, 1:
			c.Write(buf[:1+r.IntN(1<<r.IntN(18))])
		case 2:
			c.Read(buf[:1+r.IntN(1<<r.IntN(18))])
		case 3:
			c.CloseWrite()
		case 4:
			c.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(3)) * time.Millisecond))
			io.Copy(io.Discard, c)
			c.SetReadDeadline(time.Now().Add(time.Second))
		case 5:
			c.SetLinger(0)
			return
		case 6:
			c.SetReadBuffer(4 << 10)
		}
	}
}

// TestChaos lets clients and backends do to each other whatever l4.TCP allows, beside a backend that refuses, and
// holds that at the end nothing is left: no session, no lease, no descriptor, and every client has its reason.
func TestChaos(t *testing.T) {
	const clients, rounds = 32, 40
	good := func(seed uint64) string {
		var n uint64
		var mu sync.Mutex
		return backend(t, func(c *net.TCPConn) {
			mu.Lock()
			n++
			r := rand.New(rand.NewPCG(seed, n))
			mu.Unlock()
			misbehave(c, r)
		})
	}
	p := newPool(t, good(1), refusing(t), good(2))
	ls := spec(p)
	ls.IdleTimeout, ls.HalfCloseTimeout = 500*time.Millisecond, 200*time.Millisecond
	before := descriptors(t)
	s := start(t, l4.Options{Loops: 3}, ls)
	seen := openDescriptors(t) > before
	held, err := sock.OpenDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	address := address(s)
	var running sync.WaitGroup
	for i := range uint64(clients) {
		running.Go(func() {
			r := rand.New(rand.NewPCG(3, i))
			for range rounds {
				c, err := net.Dial("tcp", address)
				if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
					continue // a backend's reset, or its FIN and then a reset, was passed on before Dial had looked
				}
				if err != nil {
					t.Error(err)
					return
				}
				misbehave(c.(*net.TCPConn), r)
				c.Close()
			}
		})
	}
	running.Wait()
	ended := func() (n uint64) {
		for _, count := range s.Listeners()[0].Ended {
			n += count
		}
		return n
	}
	// The last clients may have left before they were accepted.
	eventually(t, "every client has its reason", func() bool { return ended() == clients*rounds })
	eventually(t, "no session is left", func() bool { return s.Sessions() == 0 })
	for _, b := range p.Backends() {
		if b.Leases != 0 {
			t.Errorf("%s still has %d leases", b.ID, b.Leases)
		}
	}
	t.Log(s.Listeners()[0].Ended)
	loops := l4test.RoomsOf(s).Loops
	pipes := 2 * loops[0].Pipes.Limit * len(loops)
	eventually(t, "descriptors are back", func() bool {
		now, err := sock.OpenDescriptors()
		return err == nil && now <= held+pipes
	})
	if !seen {
		t.Error("the server has no descriptors: this test sees nothing")
	}
}
