package flow_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// answersTo answers the datagrams that say what is wanted, and no others.
func answersTo(wanted string) func(*l4test.UDPBackend, netip.AddrPort, []byte) {
	return func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		if string(d) == wanted {
			echoUDP(b, from, d)
		}
	}
}

// forger returns a forger of datagrams to the first listener. With each one, flows that were not answered may give way.
func forger(s *l4.Server) *l4test.Forger {
	return &l4test.Forger{To: info(s).Address.AddrPort, Age: flow.AnswerTime}
}

// leaveRoom makes the server believe that it has descriptors for so many sessions, of two each.
func leaveRoom(s *l4.Server, sessions int64) {
	capacity, _ := l4test.FlowBudget(s)
	capacity.Store(sessions)
}

// leavePorts makes the server believe that flows may have so many local ports.
func leavePorts(s *l4.Server, n int64) {
	_, ports := l4test.FlowBudget(s)
	ports.Store(n)
}

// TestFlowsThatWereAnsweredStay holds that flows whose backend has answered survive a flood of new ones, whatever
// runs short, and that the new ones are served, too: those without an answer give way, the oldest first.
func TestFlowsThatWereAnsweredStay(t *testing.T) {
	const flood, answered = 200, 5
	for _, tt := range []struct {
		name   string
		short  func(s *l4.Server, settings *l4.FlowSettings)
		remain int // of the flood
	}{
		{"table", func(_ *l4.Server, f *l4.FlowSettings) { f.Max = 15 }, 10},
		{"descriptors", func(s *l4.Server, _ *l4.FlowSettings) { leaveRoom(s, 10) }, 10},
		{"ports", func(s *l4.Server, _ *l4.FlowSettings) { leavePorts(s, 20) }, 10},
		{"most descriptors have answers", func(s *l4.Server, _ *l4.FlowSettings) { leaveRoom(s, 4) }, 3},
	} {
		for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
			t.Run(fmt.Sprint(tt.name, " ", key), func(t *testing.T) {
				b := startUDP(t, answersTo("asked"))
				spec := flowSpec(newPool(t, b.Address()))
				spec.Flows.Key, spec.Flows.Timeout = key, time.Hour
				s := start(t, l4.Options{Loops: 1}, spec)
				var clients []*net.UDPConn
				for range answered {
					c := dialUDP(t, address(s))
					askUDP(t, c, "asked")
					clients = append(clients, c)
				}
				before := l4test.FlowIDs(t, s)
				ls, _ := l4test.ListenerOf(s, "test")
				tt.short(s, &spec.Flows)
				if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
					t.Fatal(err)
				}
				tt.short(s, &spec.Flows) // Apply has measured anew
				g := forger(s)
				g.Send(t, s, flood)
				eventually(t, "the backend has all", func() bool { return b.Got.Load() == answered+flood })
				after := l4test.FlowIDs(t, s)
				for _, c := range clients {
					if id := before[l4test.SourceOf(c)]; after[l4test.SourceOf(c)] != id {
						t.Errorf("flow %v is %v now", id, after[l4test.SourceOf(c)])
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
				info := info(s)
				evicted := info.Ended[tally.Evicted]
				if info.Sessions != answered+tt.remain || evicted != uint64(flood-tt.remain) || len(info.Dropped) != 0 {
					t.Errorf("%d flows, ended %v, dropped %v", info.Sessions, info.Ended, info.Dropped)
				}
				if n := l4test.Unanswered(ls); n != tt.remain {
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
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Timeout, spec.Flows.Max = time.Hour, 10
	s := start(t, l4.Options{Loops: 1}, spec)
	g := forger(s)
	c := dialUDP(t, address(s))
	send := func() {
		t.Helper()
		before := info(s).DatagramsIn
		if _, err := c.Write([]byte("a line of a log")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is taken", func() bool { return info(s).DatagramsIn > before })
	}
	send()
	send()
	id := l4test.FlowIDs(t, s)[l4test.SourceOf(c)]
	for range 20 {
		g.Send(t, s, 5)
		send()
	}
	if now := l4test.FlowIDs(t, s)[l4test.SourceOf(c)]; now != id {
		t.Errorf("flow %v is %v now", id, now)
	}
	g.Send(t, s, 50)
	if now := l4test.FlowIDs(t, s)[l4test.SourceOf(c)]; now != 0 {
		t.Errorf("flow %v is still there", now)
	}
	send()
	eventually(t, "the backend has all", func() bool { return b.Got.Load() == int64(23+g.Sent) })
}

// TestFlowsThatFillTheTable holds that a new client is refused when the table is full of flows that have had an answer.
func TestFlowsThatFillTheTable(t *testing.T) {
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Max = 5
	s := start(t, l4.Options{Loops: 1}, spec)
	var clients []*net.UDPConn
	for range 5 {
		c := dialUDP(t, address(s))
		askUDP(t, c, "x")
		clients = append(clients, c)
	}
	forger(s).Send(t, s, 20)
	awaitDropped(t, s, tally.DropTableFull, 20)
	for _, c := range clients {
		askUDP(t, c, "y")
	}
	if info := info(s); info.Accepted != 5 || len(info.Ended) != 0 {
		t.Errorf("%d accepted, ended %v", info.Accepted, info.Ended)
	}
}

// TestFlowMovesWhileShort holds that a flow which has had an answer moves to another backend in a flood, and that it
// does not give way to itself.
func TestFlowMovesWhileShort(t *testing.T) {
	p, a, _ := movePool(t, pool.Options{})
	spec := flowSpec(p)
	spec.Flows.Timeout = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	askUDP(t, c, "x")
	if err := p.SetVerdict(a.Address(), pool.Unhealthy, "test"); err != nil {
		t.Fatal(err)
	}
	onFirstLoop(s, func(l *flow.Loop) { flow.PausePorts(l, time.Hour) }) // as after a search in vain
	if got := askUDP(t, c, "x"); got != "b" {
		t.Errorf("%q answers", got)
	}
	if _, err := dialUDP(t, address(s)).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitDropped(t, s, tally.DropNoDescriptors, 1) // without another search
	onFirstLoop(s, func(l *flow.Loop) {
		flow.ResumePorts(l)
		if flow.Evict(l) {
			t.Error("a flow that has had an answer gave way")
		}
	})
}

// TestNewcomersInACrowd holds that a loop which falls behind begins few new flows in a turn if it serves others, and
// all if it does not.
func TestNewcomersInACrowd(t *testing.T) {
	const flood = 100
	for _, serves := range []bool{true, false} {
		b := startUDP(t, answersTo("asked"))
		spec := flowSpec(newPool(t, b.Address()))
		spec.Flows.Timeout = time.Hour
		s := start(t, l4.Options{Loops: 1}, spec)
		c := dialUDP(t, address(s))
		askUDP(t, c, "asked")
		onFirstLoop(s, func(l *flow.Loop) { flow.Crowd(l, serves) })
		release := hold(t, s, 0)
		to := net.UDPAddrFromAddrPort(info(s).Address.AddrPort)
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
		eventually(t, "all are taken", func() bool { return info(s).DatagramsIn == flood+1 })
		want := uint64(1 + flow.NewcomersInTurn)
		if !serves {
			want = 1 + flood
		}
		eventually(t, "they have flows or have not", func() bool {
			info := info(s)
			return info.Accepted == want && info.Accepted+info.Dropped[tally.DropOverload] == 1+flood
		})
		if got := askUDP(t, c, "asked"); got != "asked" {
			t.Error(got)
		}
	}
}
