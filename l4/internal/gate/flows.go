package gate

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A ClientID is the address, or the part of one, that stands for a client. IPv4 addresses are in their form mapped into
// IPv6.
type ClientID [16]byte

// IDOf is who counts as one client for a limit: an IPv4 address, or an IPv6 /64, which is what one customer has.
func IDOf(addr [16]byte) ClientID {
	if !netip.AddrFrom16(addr).Is4In6() {
		clear(addr[8:])
	}
	return addr
}

// A Flows is where the clients of one UDP socket come in, onLoop only. All flows of one client are at one socket while
// there is a limit for each client. See NewFlows.
type Flows struct {
	listener *Listener
	clients  map[ClientID]int // flows of each client, of those that began under a limit
}

// NewFlows makes the way in of a listener's UDP socket.
func (ls *Listener) NewFlows() *Flows { return &Flows{listener: ls, clients: make(map[ClientID]int)} }

// A FlowPlace is what a flow holds of the gate. The zero value holds nothing.
type FlowPlace struct {
	counted  bool // among its client's
	answered bool
}

// Admit asks for one more flow for a client, whose address is addr. With Admitted the flow is counted, until Leave.
// ListenerFull and NoDescriptors may pass when another flow leaves.
func (f *Flows) Admit(place *FlowPlace, c *Client, addr [16]byte, now time.Duration) Reason {
	ls := f.listener
	if why := ls.admit(sock.UDP, c); why != Admitted {
		return why
	}
	limits := ls.settings()
	*place = FlowPlace{counted: limits.ClientFlows > 0}
	id := IDOf(addr)
	if place.counted && f.clients[id] >= limits.ClientFlows {
		return ClientFull
	}
	if why := ls.admitFlow(limits, now); why != Admitted {
		return why
	}
	if place.counted {
		f.clients[id]++
	}
	return Admitted
}

// admitFlow counts a flow, unless that is more than may be of the listener, of those without an answer, of descriptors
// or of local ports.
func (ls *Listener) admitFlow(limits *Settings, now time.Duration) Reason {
	g := ls.gate
	flows, unanswered := ls.flows.Add(1), ls.unanswered.Add(1)
	g.flows.Add(1)
	why := Admitted
	total, ports := 2*g.capacity.Load(), g.ports.Load()
	switch {
	case flows > int64(limits.MaxFlows):
		why = ListenerFull
	case unanswered > max(1, min(total, ports)/unansweredPart),
		!ls.keepsPromises(g.descriptorsLeft(), total, g.shared.Load().all, (*Listener).descriptors),
		!ls.keepsPromises(g.portsLeft(now), ports, g.shared.Load().udp, (*Listener).flowCount):
		why = NoDescriptors
	}
	if why != Admitted {
		ls.leaveFlow(false)
	}
	return why
}

// Answered says that the flow's backend has answered for the first time.
func (f *Flows) Answered(place *FlowPlace) {
	place.answered = true
	f.listener.unanswered.Add(-1)
}

// Leave counts a flow out, whose client has this address.
func (f *Flows) Leave(place *FlowPlace, addr [16]byte) {
	if place.counted {
		id := IDOf(addr)
		if n := f.clients[id]; n > 1 {
			f.clients[id] = n - 1
		} else {
			delete(f.clients, id)
		}
	}
	f.listener.leaveFlow(place.answered)
}

// PortsShort says that the kernel has no local port left: others have more of them than was thought. Flows have to do
// with some less than they have, for a while.
func (f *Flows) PortsShort(now time.Duration) { f.listener.gate.portsShort(now) }

func (ls *Listener) leaveFlow(answered bool) {
	ls.flows.Add(-1)
	if !answered {
		ls.unanswered.Add(-1)
	}
	ls.gate.flows.Add(-1)
	ls.gate.left()
}
