package flow

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A State is a flow on its way to another process, without its descriptor. It is written as JSON. Moments are ages in
// nanoseconds, and -1 for a moment that has not come.
type State struct {
	ID       tally.ID     `json:"id"`
	Listener string       `json:"listener"`
	Socket   uint64       `json:"socket"` // that its client's datagrams come to; see sock.Cookie
	Pool     string       `json:"pool"`
	Backend  string       `json:"backend,omitempty"` // the id of the one that it has, or had last; "" for none
	At       pool.Address `json:"at,omitzero"`       // the backend's address

	Client netip.Addr `json:"client"` // in its form of IPv6
	Scope  uint32     `json:"scope,omitempty"`
	Port   uint16     `json:"port"`
	Local  netip.Addr `json:"local,omitzero"` // where it has sent to
	Link   uint32     `json:"link,omitempty"`

	Assigned           bool `json:"assigned,omitempty"` // it has a lease, perhaps with others
	AssignmentAnswered bool `json:"assignment_answered,omitempty"`
	Current            bool `json:"current,omitempty"` // its socket leads to the lease's backend
	Answered           bool `json:"answered,omitempty"`
	Expects            bool `json:"expects,omitempty"`
	Singly             bool `json:"singly,omitempty"`

	In          Way    `json:"in"`
	Out         Way    `json:"out"`
	SentIn      uint64 `json:"sent_in"`
	Connections int    `json:"connections"`
	Lost        uint32 `json:"lost,omitempty"`

	Began       int64 `json:"began"`
	Connected   int64 `json:"connected"`
	FirstAnswer int64 `json:"first_answer"`
	Active      int64 `json:"active"`
}

// A Way is one direction of a State.
type Way struct {
	Datagrams uint64 `json:"datagrams"`
	Bytes     uint64 `json:"bytes"`
}

func (l *Loop) ageOf(moment time.Duration) int64 {
	if moment == 0 {
		return -1
	}
	return int64(max(l.Now-moment, 0))
}

func (l *Loop) momentOf(age int64) time.Duration {
	if age < 0 {
		return 0
	}
	return max(l.Now-time.Duration(age), 1)
}

// stateOf describes a flow.
func (l *Loop) stateOf(f *Flow) State {
	a, local := f.to, f.local
	st := State{
		ID: f.id, Listener: f.socket.listener.Name, Socket: sock.Cookie(f.socket.fd), Pool: f.pool.Name(),
		Client: netip.AddrFrom16(f.identity.client), Scope: f.identity.scope, Port: uint16(f.identity.port),
		Local: netip.AddrFrom16(local.Addr16()), Link: local.Link(),
		Assigned: a.assigned, AssignmentAnswered: a.answered, Current: f.moves == a.moves,
		Answered: f.answered, Expects: f.expects, Singly: f.singly,
		In: Way{f.in.datagrams, f.in.bytes}, Out: Way{f.out.datagrams, f.out.bytes}, SentIn: f.sentIn,
		Connections: f.connections, Lost: f.lost,
		Began: l.ageOf(f.began), Connected: l.ageOf(f.connected), FirstAnswer: l.ageOf(f.firstAnswer),
		Active: l.ageOf(f.active),
	}
	if b := f.destination(); b != nil {
		st.Backend, st.At = b.ID(), b.Addr()
	}
	return st
}

// fill makes a flow of an Adoption.
func (l *Loop) fill(f *Flow, a *Adoption, d *Socket) {
	st := a.State
	settings := d.listener.settings.Load()
	f.socket, f.settings, f.pool, f.id = d, settings, a.Pool, st.ID
	local := st.Local.As16()
	f.local = sock.LocalAt(local, st.Link)
	f.identity = identity{client: st.Client.As16(), local: local, scope: st.Scope, port: uint32(st.Port)}
	f.peer = sock.PeerOf(f.identity.client, st.Scope, st.Port, d.binding.Address.Addr().Is6())
	f.in = traffic{st.In.Datagrams, st.In.Bytes, st.In.Bytes}
	f.out = traffic{st.Out.Datagrams, st.Out.Bytes, st.Out.Bytes}
	f.sentIn, f.connections, f.lost = st.SentIn, st.Connections, st.Lost
	f.answered, f.expects, f.singly, f.batch = st.Answered, st.Expects, st.Singly, leastBatch
	f.began, f.connected = l.momentOf(st.Began), l.momentOf(st.Connected)
	f.firstAnswer, f.active = l.momentOf(st.FirstAnswer), l.momentOf(st.Active)
	if a.FD >= 0 {
		f.fd, f.open = int32(a.FD), true
	}
	l.adoptAssignment(f, a)
	if st.Backend != "" {
		f.backend = a.Backend
	}
}
