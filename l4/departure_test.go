package l4_test

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestMovesLoseNobody has a listener move between an address and all addresses, and get another name, again and again
// beside clients that come and go: the address is served all the time, so nobody may be refused or reset.
func TestMovesLoseNobody(t *testing.T) {
	const sessions, clients = 4000, 4
	p := newPool(t, backend(t, echo))
	one := spec(p)
	one.Address = netip.MustParseAddrPort("0.0.0.0:0")
	s := start(t, l4.Options{Loops: 2}, one)
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Listeners()[0].Address.Port())
	var begun atomic.Int64
	var lost atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for begun.Add(1) <= sessions {
				c, err := net.Dial("tcp", address.String())
				if err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Second))
					err = ask(c)
					c.Close()
				}
				if err != nil && lost.Add(1) < 4 {
					t.Error(err)
				}
			}
		})
	}
	moves := 0
	for ; begun.Load() < sessions; moves++ {
		switch moves % 3 {
		case 0:
			one.Address = address
		case 1:
			one.Name += "x"
		case 2:
			one.Address = netip.AddrPortFrom(netip.IPv4Unspecified(), address.Port())
		}
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{one}}); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("%d of %d clients were lost in %d moves", n, sessions, moves)
	}
}
