package gate

import (
	"net/netip"
	"time"
)

// Adopt counts a session that another process hands over, until LeaveSession. It is not refused: that process has let
// it in.
func (ls *Listener) Adopt(client netip.Addr, place *Place, now time.Duration) {
	*place = ls.adoptClient(client, now)
	ls.sessions.Add(1)
	ls.gate.sessions.Add(1)
}

// adoptClient counts one more of a client, which is not refused, until leaveClient.
func (ls *Listener) adoptClient(client netip.Addr, now time.Duration) Place {
	t := ls.clients.Load()
	if t == nil || !client.IsValid() {
		return 0
	}
	id := t.mask.id(client.As16())
	sh, hash := t.place(&id)
	c := t.know(sh, &id, hash, now)
	c.seen = max(c.seen, now, 1)
	c.sessions++
	sh.mu.Unlock()
	return t.epoch
}

// Adopt counts a flow that another process hands over, until Leave. It is not refused.
func (f *Flows) Adopt(place *FlowPlace, client netip.Addr, answered bool, now time.Duration) {
	ls := f.listener
	*place = FlowPlace{client: ls.adoptClient(client, now), answered: answered}
	ls.flows.Add(1)
	ls.gate.flows.Add(1)
	if !answered {
		ls.unanswered.Add(1)
	}
}

// AddWouldRefuse adds to what WouldRefuse returns.
func (ls *Listener) AddWouldRefuse(why Reason, n uint64) {
	ls.refused[0][why].all.Add(n)
	ls.refused[0][why].noted.Add(n) // the log has told of them there
}

var reasonNames = [reasonCount]string{
	Admitted: "admitted", ListenerFull: "listener_full", ProcessFull: "process_full", ClientFull: "client_full",
	ClientOften: "client_often", Often: "often", Denied: "denied", QuestionsFull: "questions_full",
	NoDescriptors: "no_descriptors", Loop: "loop",
}

// Name is the reason's name in another process, perhaps of another version.
func (r Reason) Name() string { return reasonNames[r] }
