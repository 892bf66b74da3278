package gate

import (
	"net/netip"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A Reason is why the gate has refused somebody. The zero value is Admitted.
type Reason uint8

// The reasons.
const (
	Admitted      Reason = iota
	ListenerFull         // the listener has all the sessions, or flows, that it may have
	ProcessFull          // the process has all the sessions that it may have
	ClientFull           // the client has all the sessions, flows, or questions in flight, that it may have
	ClientOften          // the client comes more often than it may
	Often                // the listener's clients come more often than they may
	Denied               // the access list or a rule denies the client's address
	QuestionsFull        // as many DNS questions are in flight as may be
	NoDescriptors        // no descriptor or local port is left
	Loop                 // the client is a socket of this process, and has come by this listener before
	reasonCount
)

// Ends returns the reason as the end of a session that was refused.
func (r Reason) Ends() tally.Reason {
	return [reasonCount]tally.Reason{
		ListenerFull: tally.MaxSessions, ProcessFull: tally.MaxSessions, ClientFull: tally.ClientSessions,
		ClientOften: tally.ClientRate, Often: tally.Rate, Denied: tally.Denied,
		NoDescriptors: tally.NoDescriptors, Loop: tally.Loop,
	}[r]
}

// OfClient reports whether a client was refused for what it is or does itself, and not for what all clients do.
func (r Reason) OfClient() bool { return r == Denied || r == ClientFull || r == ClientOften }

// Drops returns the reason as that of a datagram's drop; Admitted is tally.NoDrop.
func (r Reason) Drops() tally.Drop {
	return [reasonCount]tally.Drop{
		ListenerFull: tally.DropTableFull, ClientFull: tally.DropClientLimit, ClientOften: tally.DropClientRate,
		Often: tally.DropRate, Denied: tally.DropDenied, QuestionsFull: tally.DropQueueFull,
		NoDescriptors: tally.DropNoDescriptors, Loop: tally.DropLoop,
	}[r]
}

// A refusals is how many clients a listener has refused for one reason.
type refusals struct {
	note
	all   atomic.Uint64
	noted atomic.Uint64 // how many of all the log has told of
}

// NoteRefusal notes that a client was refused for a limit, and warns of it now and then. The address is the client's; an
// invalid one is of a client without.
func (ls *Listener) NoteRefusal(why Reason, client netip.Addr) { ls.noteRefusal(why, client, false) }

func (ls *Listener) noteRefusal(why Reason, client netip.Addr, dry bool) {
	r := ls.refusalsFor(why, dry)
	r.all.Add(1)
	if r.due(ls.gate) {
		ls.logRefusals(why, client, dry)
	}
}

func (ls *Listener) refusalsFor(why Reason, dry bool) *refusals {
	if why == ProcessFull {
		why = ListenerFull // which are one reason outside
	}
	if dry {
		return &ls.refused[0][why]
	}
	return &ls.refused[1][why]
}

// NoteRefusals logs how many clients were refused for limits since the log told of it last.
func (ls *Listener) NoteRefusals() {
	for why := range reasonCount {
		if why.Ends() == tally.NoReason {
			continue
		}
		ls.logRefusals(why, netip.Addr{}, true)
		ls.logRefusals(why, netip.Addr{}, false)
	}
}

// logRefusals logs the refusals that the log has not told of, if there are any. client is an example.
func (ls *Listener) logRefusals(why Reason, client netip.Addr, dry bool) {
	r := ls.refusalsFor(why, dry)
	all := r.all.Load()
	noted := r.noted.Swap(all)
	if noted >= all {
		return
	}
	g, reason := ls.gate, why.Ends()
	ev := g.log.Warn().Str("listener", ls.Name).Stringer("reason", reason)
	if reason == tally.MaxSessions {
		ev = ev.Int64("listener_sessions", ls.sessions.Load()).Int64("sessions", g.sessions.Load())
	}
	if client.IsValid() {
		ev = ev.Stringer("client", client.Unmap())
	}
	ev = ev.Uint64("refused", all-noted).Uint64("refused_since_start", all)
	if dry {
		ev.Str("event", "clients_would_be_refused").Msg("dry run: clients would be refused at " + reason.String())
		return
	}
	ev.Str("event", "clients_refused").Msg("clients refused at " + reason.String())
}

// WouldRefuse is how many sessions and datagrams dry runs have let in that would have been refused for that reason.
func (ls *Listener) WouldRefuse(why Reason) uint64 { return ls.refused[0][why].all.Load() }

// Reasons returns every reason to refuse somebody.
func Reasons() []Reason {
	var all []Reason
	for r := Admitted + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}
