package gate

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A Flows is where the clients of one UDP socket come in, onLoop only. See NewFlows.
type Flows struct{ listener *Listener }

// NewFlows makes the way in of a listener's UDP socket.
func (ls *Listener) NewFlows() *Flows { return &Flows{listener: ls} }

// A FlowPlace is what a flow holds of the gate. The zero value holds nothing.
type FlowPlace struct {
	client   Place
	answered bool
}

// Admit asks for one more flow for a client. With Admitted the flow has its place at the client, and Enter is next.
func (f *Flows) Admit(place *FlowPlace, c *Client, now time.Duration) Reason {
	ls := f.listener
	*place = FlowPlace{}
	if why := ls.admit(sock.UDP, c); why != Admitted {
		return why
	}
	s := ls.settings()
	if ls.isOpen(s) {
		return Admitted
	}
	if why := ls.admitClient(s, c.Addr.Addr(), &place.client, s.ClientFlows, now); why != Admitted {
		return why
	}
	return ls.admitOften(s, c.Addr.Addr(), &place.client, now)
}

// Enter asks for the room for a flow of a client that Admit has let in. With Admitted the flow is counted, until Leave.
// Otherwise another flow may leave, so that there is room, and Enter be asked again; or else Withdraw is called.
func (f *Flows) Enter(now time.Duration) Reason {
	return f.listener.admitFlow(f.listener.settings(), now)
}

// Withdraw gives back the place at its client of a flow that was not counted.
func (f *Flows) Withdraw(place *FlowPlace, client netip.Addr) {
	f.listener.leaveClient(place.client, client)
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

// Leave counts a flow out.
func (f *Flows) Leave(place *FlowPlace, client netip.Addr) {
	f.listener.leaveClient(place.client, client)
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
