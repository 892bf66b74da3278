package session_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestPrefaceChaos lets clients send two prefaces whole, in part or wrong, in pieces of any size, and then do whatever
// TCP allows. It holds that at the end nothing is left: no session, no preface, no lease; and that every client has its
// reason.
func TestPrefaceChaos(t *testing.T) {
	const clients, rounds = 16, 15
	x := startPrefaced(t, func(ls *l4.ListenerSpec) {
		ls.IdleTimeout, ls.HalfCloseTimeout = 500*time.Millisecond, 200*time.Millisecond
	})
	x.use(t, named(t), routing(t, x.two, 300*time.Millisecond))
	var running sync.WaitGroup
	for i := range uint64(clients) {
		running.Go(func() {
			r := rand.New(rand.NewPCG(7, i))
			for range rounds {
				c, err := net.Dial("tcp", address(x.Server))
				if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
					continue // the end came before Dial had looked
				}
				if err != nil {
					t.Error(err)
					return
				}
				talk := []string{"I am 7one!", "I am 7two!", "I am 7six!", "I am 7two!hello"}[r.IntN(4)]
				for r.IntN(8) > 0 && talk != "" {
					n := 1 + r.IntN(len(talk))
					c.Write([]byte(talk[:n]))
					talk = talk[n:]
				}
				misbehave(c.(*net.TCPConn), r)
				c.Close()
			}
		})
	}
	running.Wait()
	eventually(t, "every client has its reason", func() bool {
		n := uint64(0)
		for _, count := range x.Listeners()[0].Ended {
			n += count
		}
		return n == clients*rounds && x.Sessions() == 0
	})
	for _, b := range append(x.one.Backends(), x.two.Backends()...) {
		if b.Leases != 0 {
			t.Errorf("%s still has %d leases", b.ID, b.Leases)
		}
	}
	t.Log(x.Listeners()[0].Ended)
}
