package gate

import (
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// clientAt is a client with an address.
func clientAt(addr netip.Addr) *Client { return &Client{Addr: netip.AddrPortFrom(addr, 4711)} }

// enter asks for a flow, as package flow does.
func enter(f *Flows, place *FlowPlace, addr netip.Addr, now time.Duration) Reason {
	why := f.Admit(place, clientAt(addr), now)
	if why != Admitted {
		return why
	}
	if why = f.Enter(now); why != Admitted {
		f.Withdraw(place, addr)
	}
	return why
}

// sessionsOf is how many sessions and flows a client has, as far as is known.
func sessionsOf(ls *Listener, addr netip.Addr) int {
	t := ls.clients.Load()
	if t == nil {
		return 0
	}
	id := t.mask.id(addr.As16())
	sh, hash := t.place(&id)
	defer sh.mu.Unlock()
	if c := sh.find(&id, hash); c != nil {
		return int(c.sessions)
	}
	return 0
}

// flowsOf returns a gate with a listener of UDP, and the way in to that.
func flowsOf(t *testing.T, room, ports int64, limits Settings) (*Gate, *Flows) {
	t.Helper()
	s := Sharer{Protocol: sock.UDP}
	g := newGate(t, room, ports, &s)
	s.Listener.Set(limits)
	return g, s.Listener.NewFlows()
}

// TestAdmitFlow holds that flows are admitted up to each limit, that one that is refused counts nowhere, and that one
// that leaves makes room for another.
func TestAdmitFlow(t *testing.T) {
	for _, tt := range []struct {
		name        string
		room, ports int64 // sessions of two descriptors each
		limits      Settings
		answered    bool
		admitted    int
		why         Reason
	}{
		{"of the listener", plenty, plenty, Settings{MaxFlows: 5}, true, 5, ListenerFull},
		{"of one client", plenty, plenty, Settings{MaxFlows: 5, ClientFlows: 3}, true, 3, ClientFull},
		{"of both", plenty, plenty, Settings{MaxFlows: 3, ClientFlows: 3}, true, 3, ClientFull},
		{"descriptors", 5, plenty, Settings{MaxFlows: 100}, true, 10, NoDescriptors},
		{"ports", plenty, 10, Settings{MaxFlows: 100}, true, 10, NoDescriptors},
		{"descriptors, never answered", 5, plenty, Settings{MaxFlows: 100}, false, 5, NoDescriptors},
		{"ports, never answered", plenty, 10, Settings{MaxFlows: 100}, false, 5, NoDescriptors},
		{"one port", plenty, 1, Settings{MaxFlows: 100}, false, 1, NoDescriptors},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, flows := flowsOf(t, tt.room, tt.ports, tt.limits)
			addr := netip.MustParseAddr("192.0.2.1")
			places := make([]FlowPlace, tt.admitted)
			for i := range places {
				if why := enter(flows, &places[i], addr, 0); why != Admitted {
					t.Fatalf("flow %d: reason %d", i, why)
				}
				if tt.answered {
					flows.Answered(&places[i])
				}
			}
			counted := func(n int) {
				t.Helper()
				unanswered := n
				if tt.answered {
					unanswered = 0
				}
				ls := flows.listener
				if ls.Flows() != n || g.Flows() != n || ls.unanswered.Load() != int64(unanswered) {
					t.Fatalf("%d flows of the listener and %d of all, want %d; %d unanswered, want %d",
						ls.Flows(), g.Flows(), n, ls.unanswered.Load(), unanswered)
				}
				if want := 0; tt.limits.ClientFlows > 0 {
					if want = n; sessionsOf(ls, addr) != want {
						t.Fatalf("%d flows of the client, want %d", sessionsOf(ls, addr), want)
					}
				}
			}
			counted(tt.admitted)
			for range 3 {
				if why := enter(flows, new(FlowPlace), addr, 0); why != tt.why {
					t.Errorf("one too many: reason %d, want %d", why, tt.why)
				}
				counted(tt.admitted)
			}
			flows.Leave(&places[0], addr)
			counted(tt.admitted - 1)
			if why := enter(flows, &places[0], addr, 0); why != Admitted {
				t.Errorf("after one has left: reason %d", why)
			}
			if tt.answered {
				flows.Answered(&places[0])
			}
			for i := range places {
				flows.Leave(&places[i], addr)
			}
			counted(0)
		})
	}
}

// TestClientsOfFlows holds who counts as one client: an IPv4 address, or an IPv6 /64.
func TestClientsOfFlows(t *testing.T) {
	_, flows := flowsOf(t, plenty, plenty, Settings{MaxFlows: 100, ClientFlows: 1})
	for _, tt := range []struct {
		addr string
		want Reason
	}{
		{"192.0.2.1", Admitted}, {"192.0.2.2", Admitted}, {"::ffff:192.0.2.1", ClientFull},
		{"2001:db8::1", Admitted}, {"2001:db8::2", ClientFull}, {"2001:db8:0:0:ffff::", ClientFull},
		{"2001:db8:0:1::1", Admitted}, {"::192.0.2.9", Admitted}, {"::192.0.2.10", ClientFull},
	} {
		if why := enter(flows, new(FlowPlace), netip.MustParseAddr(tt.addr), 0); why != tt.want {
			t.Errorf("%s: reason %d, want %d", tt.addr, why, tt.want)
		}
	}
}

// TestFlowsBeforeALimit holds that flows which began without a limit of their client's do not count against one that
// comes later, and that the counts stay right when they leave.
func TestFlowsBeforeALimit(t *testing.T) {
	_, flows := flowsOf(t, plenty, plenty, Settings{MaxFlows: 100})
	addr := netip.MustParseAddr("192.0.2.1")
	var before, after FlowPlace
	admit := func(place *FlowPlace, want Reason) {
		t.Helper()
		if why := enter(flows, place, addr, 0); why != want {
			t.Errorf("reason %d, want %d", why, want)
		}
	}
	admit(&before, Admitted)
	flows.listener.Set(Settings{MaxFlows: 100, ClientFlows: 1})
	admit(&after, Admitted)
	admit(new(FlowPlace), ClientFull)
	flows.Leave(&before, addr)
	admit(new(FlowPlace), ClientFull)
	flows.listener.Set(Settings{MaxFlows: 100})
	flows.Leave(&after, addr)
	flows.listener.Set(Settings{MaxFlows: 100, ClientFlows: 1})
	admit(new(FlowPlace), Admitted)
}

// TestUnansweredLeaveRoom holds that flows which were never answered have no more than their part, and that answered
// ones are admitted beside them.
func TestUnansweredLeaveRoom(t *testing.T) {
	_, flows := flowsOf(t, plenty, 10, Settings{MaxFlows: 100})
	places := make([]FlowPlace, 10)
	admit := func(i int, want Reason) {
		t.Helper()
		place := new(FlowPlace)
		if want == Admitted {
			place = &places[i]
		}
		if why := enter(flows, place, netip.IPv4Unspecified(), 0); why != want {
			t.Fatalf("flow %d: reason %d, want %d", i, why, want)
		}
	}
	for i := range 5 {
		admit(i, Admitted)
	}
	admit(5, NoDescriptors)
	for i := 5; i < 10; i++ {
		flows.Answered(&places[i-5])
		admit(i, Admitted)
		if i < 9 {
			admit(i+1, NoDescriptors)
		}
	}
	admit(10, NoDescriptors) // no port is left
}

// TestPortsShort holds that flows have to do with fewer ports than they have when the kernel has none left, and get all
// again after a while.
func TestPortsShort(t *testing.T) {
	const ports, have = 1000, 320
	g, flows := flowsOf(t, plenty, ports, Settings{MaxFlows: plenty})
	places := make([]FlowPlace, ports)
	admit := func(i int, now time.Duration) Reason {
		why := enter(flows, &places[i], netip.IPv4Unspecified(), now)
		if why == Admitted {
			flows.Answered(&places[i])
		}
		return why
	}
	for i := range have {
		if why := admit(i, 0); why != Admitted {
			t.Fatalf("flow %d: reason %d", i, why)
		}
	}
	now := time.Minute
	flows.PortsShort(now)
	less := have - have/hostPortPart
	for i := have; i > less; i-- {
		if why := admit(have, now); why != NoDescriptors {
			t.Fatalf("with %d flows: reason %d", i, why)
		}
		flows.Leave(&places[i-1], netip.IPv4Unspecified())
	}
	if why := admit(less, now+portsShortFor-1); why != NoDescriptors || g.Flows() != less {
		t.Errorf("with %d flows, right before the end: reason %d", g.Flows(), why)
	}
	flows.Leave(&places[less-1], netip.IPv4Unspecified())
	if why := admit(less-1, now+portsShortFor-1); why != Admitted {
		t.Errorf("a flow for one that left: reason %d", why)
	}
	for i := less; i < ports; i++ {
		if why := admit(i, now+portsShortFor); why != Admitted {
			t.Fatalf("afterwards, flow %d: reason %d", i, why)
		}
	}
	if why := admit(0, now+portsShortFor); why != NoDescriptors {
		t.Errorf("more flows than ports: reason %d", why)
	}
}

// TestPortsOfTheHost holds that flows never have all local ports of the host, and one at least.
func TestPortsOfTheHost(t *testing.T) {
	first, last, ok := sock.LocalPorts()
	if !ok {
		t.Fatal("the kernel does not say which local ports there are (ip_local_port_range)")
	}
	all := int64(last-first) + 1
	if n := portsForFlows(); n < 1 || n > all || all >= hostPortPart && n > all-all/hostPortPart {
		t.Errorf("flows may have %d of %d ports", n, all)
	}
}
