package l4

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// answersTo answers datagrams that say so, and no others.
func answersTo(wanted string) func(*udpBackend, netip.AddrPort, []byte) {
	return func(b *udpBackend, from netip.AddrPort, d []byte) {
		if string(d) == wanted {
			echoUDP(b, from, d)
		}
	}
}

// A forger sends a datagram from each of many addresses, as one whose sources are forged seems to.
type forger struct {
	to   netip.AddrPort
	sent int
}

// send sends n more, and waits until the server has taken them: those of one batch do not give way to each other.
func (g *forger) send(t *testing.T, s *Server, n int) {
	t.Helper()
	for range n {
		before := s.info().DatagramsIn
		g.sent++
		from := net.IPv4(127, 3, byte(g.sent>>8), byte(g.sent))
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from, Port: 5000}, net.UDPAddrFromAddrPort(g.to))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("forged")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		eventually(t, "it is taken", func() bool { return s.info().DatagramsIn > before })
		s.onFirstLoop(func(l *loop) { // it is refused, or answered, or will not be
			l.flows.store.all(func(f *flow) { f.began -= answerTime })
		})
	}
}

// ids are those of the flows there are, by client.
func (s *Server) ids(t *testing.T) map[netip.AddrPort]SessionID {
	t.Helper()
	list, err := s.List(t.Context(), SessionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[netip.AddrPort]SessionID)
	for _, f := range list.Sessions {
		ids[f.Client] = f.ID
	}
	return ids
}

func sourceOf(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// TestFlowsThatWereAnsweredStay holds that flows whose backend has answered survive a flood of new ones, whatever runs
// short, and that the new ones are served, too: those without an answer give way, the oldest first.
func TestFlowsThatWereAnsweredStay(t *testing.T) {
	const flood, answered = 200, 5
	for _, tt := range []struct {
		name   string
		short  func(s *Server, settings *FlowSettings)
		remain int // of the flood
	}{
		{"table", func(_ *Server, f *FlowSettings) { f.Max = 15 }, 10},
		{"descriptors", func(s *Server, _ *FlowSettings) { s.capacity.Store(10) }, 10},
		{"ports", func(s *Server, _ *FlowSettings) { s.ports.Store(20) }, 10},
		{"most descriptors have answers", func(s *Server, _ *FlowSettings) { s.capacity.Store(4) }, 3},
	} {
		for _, key := range []FlowKey{ByClient, ByClientIP, ByPacket} {
			t.Run(fmt.Sprint(tt.name, " ", key), func(t *testing.T) {
				b := startUDP(t, answersTo("asked"))
				spec := flowSpec(newPool(t, b.address()))
				spec.Flows.Key, spec.Flows.Timeout = key, time.Hour
				s := start(t, Options{Loops: 1}, spec)
				var clients []*net.UDPConn
				for range answered {
					c := dialUDP(t, s.address())
					askUDP(t, c, "asked")
					clients = append(clients, c)
				}
				before := s.ids(t)
				tt.short(s, &spec.Flows)
				if err := s.Apply(Plan{Listeners: []ListenerSpec{spec}}); err != nil {
					t.Fatal(err)
				}
				tt.short(s, &spec.Flows) // Apply has measured anew
				g := &forger{to: s.info().Address}
				g.send(t, s, flood)
				eventually(t, "the backend has all", func() bool { return b.got.Load() == answered+flood })
				after := s.ids(t)
				for _, c := range clients {
					if id := before[sourceOf(c)]; after[sourceOf(c)] != id {
						t.Errorf("flow %v is %v now", id, after[sourceOf(c)])
					}
					if got := askUDP(t, c, "asked"); got != "asked" {
						t.Error(got)
					}
				}
				for i := flood - tt.remain; i < flood; i++ { // the youngest
					from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 3, byte((i + 1) >> 8), byte(i + 1)}), 5000)
					if after[from] == 0 {
						t.Errorf("flow %d of the flood is gone", i)
					}
				}
				info := s.info()
				if info.Sessions != answered+tt.remain || info.Ended[Evicted] != uint64(flood-tt.remain) || len(info.Dropped) != 0 {
					t.Errorf("%d flows, ended %v, dropped %v", info.Sessions, info.Ended, info.Dropped)
				}
				if n := s.listeners["test"].unanswered.Load(); n != int64(tt.remain) {
					t.Errorf("%d count as without an answer", n)
				}
			})
		}
	}
}

// TestFlowsOfOneWayProtocols holds that a client which goes on sending to a backend that never answers outlives those
// who have sent once, and that it is served when it does not.
func TestFlowsOfOneWayProtocols(t *testing.T) {
	b := startUDP(t, nil)
	spec := flowSpec(newPool(t, b.address()))
	spec.Flows.Timeout, spec.Flows.Max = time.Hour, 10
	s := start(t, Options{Loops: 1}, spec)
	g := &forger{to: s.info().Address}
	c := dialUDP(t, s.address())
	send := func() {
		t.Helper()
		before := s.info().DatagramsIn
		if _, err := c.Write([]byte("a line of a log")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is taken", func() bool { return s.info().DatagramsIn > before })
	}
	send()
	send()
	id := s.ids(t)[sourceOf(c)]
	for range 20 {
		g.send(t, s, 5)
		send()
	}
	if now := s.ids(t)[sourceOf(c)]; now != id {
		t.Errorf("flow %v is %v now", id, now)
	}
	g.send(t, s, 50)
	if now := s.ids(t)[sourceOf(c)]; now != 0 {
		t.Errorf("flow %v is still there", now)
	}
	send()
	eventually(t, "the backend has all", func() bool { return b.got.Load() == int64(23+g.sent) })
}

// TestFlowsThatFillTheTable holds that a new client is refused where only flows are that have had an answer.
func TestFlowsThatFillTheTable(t *testing.T) {
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.address()))
	spec.Flows.Max = 5
	s := start(t, Options{Loops: 1}, spec)
	var clients []*net.UDPConn
	for range 5 {
		c := dialUDP(t, s.address())
		askUDP(t, c, "x")
		clients = append(clients, c)
	}
	(&forger{to: s.info().Address}).send(t, s, 20)
	s.awaitDropped(t, DropTableFull, 20)
	for _, c := range clients {
		askUDP(t, c, "y")
	}
	if info := s.info(); info.Accepted != 5 || len(info.Ended) != 0 {
		t.Errorf("%d accepted, ended %v", info.Accepted, info.Ended)
	}
}

// TestFlowMovesWhileShort holds that a flow which has had an answer moves to another backend in a flood, and that it
// does not give way to itself.
func TestFlowMovesWhileShort(t *testing.T) {
	p, a, _ := movePool(t, pool.Options{})
	spec := flowSpec(p)
	spec.Flows.Timeout = time.Hour
	s := start(t, Options{Loops: 1}, spec)
	c := dialUDP(t, s.address())
	askUDP(t, c, "x")
	if err := p.SetVerdict(a.address(), pool.Unhealthy, "test"); err != nil {
		t.Fatal(err)
	}
	s.onFirstLoop(func(l *loop) { l.flows.portPause[0] = l.now + time.Hour }) // as after a search in vain
	if got := askUDP(t, c, "x"); got != "b" {
		t.Errorf("%q answers", got)
	}
	if _, err := dialUDP(t, s.address()).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s.awaitDropped(t, DropNoDescriptors, 1) // without another search
	s.onFirstLoop(func(l *loop) {
		l.flows.portPause[0] = 0
		if l.evict(l.flows.doors[0], nil) {
			t.Error("a flow that has had an answer gave way")
		}
	})
}

// TestNewcomersInACrowd holds that a loop which falls behind begins few new flows in a turn where it serves others, and
// all where it does not.
func TestNewcomersInACrowd(t *testing.T) {
	const flood = 100
	for _, serves := range []bool{true, false} {
		b := startUDP(t, answersTo("asked"))
		spec := flowSpec(newPool(t, b.address()))
		spec.Flows.Timeout = time.Hour
		s := start(t, Options{Loops: 1}, spec)
		c := dialUDP(t, s.address())
		askUDP(t, c, "asked")
		s.onFirstLoop(func(l *loop) {
			d := l.flows.doors[0]
			d.behind, d.regularAt = crowdedAfter, 0
			if serves {
				d.regularAt = l.now + time.Hour // the test may be slow
			}
		})
		release := s.hold(t, 0)
		to := net.UDPAddrFromAddrPort(s.info().Address)
		for i := range flood {
			f, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 3, 0, byte(i+1)), Port: 5000}, to)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte("forged")); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		release()
		eventually(t, "all are taken", func() bool { return s.info().DatagramsIn == flood+1 })
		want := uint64(1 + newcomersInTurn)
		if !serves {
			want = 1 + flood
		}
		eventually(t, "they have flows or have not", func() bool {
			info := s.info()
			return info.Accepted == want && info.Accepted+info.Dropped[DropOverload] == 1+flood
		})
		if got := askUDP(t, c, "asked"); got != "asked" {
			t.Error(got)
		}
	}
}
