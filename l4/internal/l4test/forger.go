package l4test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
)

// A Forger sends a datagram from each of many addresses, as a client that forges its address seems to.
type Forger struct {
	To   netip.AddrPort
	Age  time.Duration // by which the flows of the first loop get older with each datagram
	Sent int           // datagrams so far
}

// Send sends n more, and waits until the server has taken them: those of one batch do not give way to each other.
func (g *Forger) Send(t testing.TB, s *l4.Server, n int) {
	t.Helper()
	for range n {
		before := Info(s).DatagramsIn
		g.Sent++
		from := net.IPv4(127, 3, byte(g.Sent>>8), byte(g.Sent))
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from, Port: 5000}, net.UDPAddrFromAddrPort(g.To))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("forged")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		Eventually(t, "it is taken", func() bool { return Info(s).DatagramsIn > before })
		age(s, g.Age) // the client is refused by now, or answered, or never will be
	}
}

// age makes the flows of the first loop older.
func age(s *l4.Server, by time.Duration) {
	flows := RoomsOf(s).Flows[0]
	OnLoop(s, 0, func() {
		for next := 0; next >= 0; {
			next = flows.Some(next, func(f *flow.Flow) { *field[time.Duration](f, "began") -= by })
		}
	})
}

// FlowIDs returns the ids of the flows there are, by client.
func FlowIDs(t testing.TB, s *l4.Server) map[netip.AddrPort]l4.SessionID {
	t.Helper()
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[netip.AddrPort]l4.SessionID)
	for _, f := range list.Sessions {
		ids[f.Client] = f.ID
	}
	return ids
}

// SourceOf returns the address that a client of UDP sends from.
func SourceOf(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
