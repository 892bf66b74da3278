package flow

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// Flows are handed over to another process while nobody reads their clients' datagrams: after Suspend here, and before
// Admit there. A flow is detached first, which means that nobody serves it. In the end it has gone, or is served again.

// Suspend makes the loop read no datagrams of clients until Admit: they wait in the kernel. Answers are sent. Sockets of
// a binding that was left before are served on, since no other process has them.
func (l *Loop) Suspend() {
	l.suspended = true
	for _, d := range l.sockets {
		if d != nil {
			l.watch(d)
		}
	}
}

// reads reports whether datagrams of clients are read at a socket. One that was left at the end of a hand-over is read
// by the other process alone, and only sends answers here.
func (l *Loop) reads(d *Socket) bool { return !l.suspended || d.draining && !d.binding.Elsewhere() }

// Admit ends a Suspend.
func (l *Loop) Admit() {
	if !l.suspended {
		return
	}
	l.suspended = false
	for _, d := range l.sockets {
		if d != nil {
			if d.adopted {
				d.adopted, d.lost = false, sock.Dropped(d.fd) // before now, and counted there
			}
			l.watch(d)
		}
	}
}

// NoteLost counts the datagrams that the kernel has dropped at the sockets of clients up to now.
func (l *Loop) NoteLost() {
	for _, d := range l.sockets {
		if d != nil {
			d.listener.Counters[l.Index].NoteLost(&d.lost, sock.Dropped(d.fd))
		}
	}
}

// A Detached is a flow that Detach has detached.
type Detached struct {
	Ref   Ref
	State State
	FD    int // of the socket to its backend, which stays the loop's; negative for none
}

// A Ref is a flow that may have ended meanwhile.
type Ref = ref

// Detach looks at a slice of the flows, as Some does, and detaches up to most of them, unless spare reports true. It
// returns where the next slice begins, from again if there are more here than most. It is called after Suspend. Gone or
// Back follows for each.
func (l *Loop) Detach(from, most int, spare func(tally.ID) bool) (all []Detached, next int) {
	more := false
	next = l.store.Some(from, func(f *Flow) {
		switch {
		case f.detached, f.socket.draining, spare(f.id):
		case len(all) == most:
			more = true
		default:
			all = append(all, l.detach(f))
		}
	})
	if more {
		next = from
	}
	return all, next
}

// Left adds what keeps each flow of a slice here to counts, as Some does.
func (l *Loop) Left(from int, spare func(tally.ID) bool, counts map[string]int) (next int) {
	return l.store.Some(from, func(f *Flow) {
		switch {
		case spare(f.id):
			counts["refused"]++
		case f.socket.draining:
			counts["draining"]++
		default:
			counts["flows"]++
		}
	})
}

// detach detaches a flow. What it keeps for its backend is sent, or else dropped.
func (l *Loop) detach(f *Flow) Detached {
	f.blocked = false
	l.sendKept(f)
	l.dropKept(f, tally.DropQueueFull)
	if f.socket.outbox.last == f {
		f.socket.outbox.last = nil
	}
	l.flush(f)
	d := Detached{Ref: loop.RefTo(f), State: l.stateOf(f), FD: -1}
	if f.open {
		d.FD = int(f.fd)
		l.backends.Remove(d.FD)
	}
	l.wheel.Stop(&f.timer)
	f.socket.unanswered.Remove(&f.age)
	f.detached = true
	f.open, f.opens = false, f.open
	return d
}

// Gone forgets a detached flow: another process has it.
func (l *Loop) Gone(r Ref) {
	f, alive := r.Get()
	if !alive || !f.detached {
		return
	}
	if f.opens {
		l.dialer.Forget(f.link)
		sock.Close(int(f.fd))
	}
	f.socket.remove(f)
	l.handOver(f)
	l.forget(f)
}

// handOver gives up the assignment of a flow that another process has.
func (l *Loop) handOver(f *Flow) {
	a := f.to
	if a.shared && a.flows > 1 {
		a.flows--
		return
	}
	if a.assigned {
		a.assigned = false
		a.lease.HandOver()
	}
	l.unassign(f)
}

// Back serves a detached flow again.
func (l *Loop) Back(r Ref) {
	f, alive := r.Get()
	if !alive || !f.detached {
		return
	}
	why := f.left
	f.detached, f.left = false, tally.NoReason
	f.open, f.opens = f.opens, false
	f.inLine, f.blocked = false, false
	if f.firstAnswer == 0 {
		f.socket.unanswered.Add(&f.age, f)
	}
	if f.open && l.backends.AddDatagram(int(f.fd), f.Index(), f.Generation()) != 0 {
		l.closeFlow(f) // and it gets another at its next datagram
	}
	l.arm(f)
	if why != tally.NoReason {
		l.End(f, why)
	}
}

// SocketOf returns the loop's socket that has that cookie, see sock.Cookie; nil if there is none.
func (l *Loop) SocketOf(cookie uint64) *Socket {
	for _, d := range l.sockets {
		if d != nil && !d.draining && sock.Cookie(d.fd) == cookie {
			return d
		}
	}
	return nil
}

// An Adoption is a flow of another process that is to be served here.
type Adoption struct {
	State *State
	FD    int // negative for none
	Pool  *pool.Pool
	// Backend is State.Backend, and Lease is for State.Assigned; else they are zero.
	Backend *pool.Backend
	Lease   pool.Lease
}

// Adopt serves a flow of another process, by the socket that its clients' datagrams come to. It is called onLoop, and
// cannot fail.
func (l *Loop) Adopt(a *Adoption, d *Socket) {
	f := l.store.Take()
	l.fill(f, a, d)
	f.sibling = d.flows[f.identity]
	d.flows[f.identity] = f
	client := netip.AddrFrom16(f.identity.client)
	d.gate.Adopt(&f.place, client, f.firstAnswer > 0, l.Now)
	d.binding.Ending.Hold()
	if f.firstAnswer == 0 {
		d.unanswered.Add(&f.age, f)
	}
	if f.settings.SendProxy {
		f.header = wire.AppendProxyV2(f.header[:0], f.peer.AddrPort(), f.sentTo())
	}
	l.limit(f)
	l.arm(f)
	if f.open && l.backends.AddDatagram(int(f.fd), f.Index(), f.Generation()) != 0 {
		l.closeFlow(f)
	}
	if f.to.assigned && f.to.lease.Backend().Revoked() {
		l.Revoke(f.to.lease.Backend(), tally.BackendUnhealthy)
	}
}

// adoptAssignment gives a flow of another process its assignment. Those of one client share one, ByClientIP: the first lease
// is kept, and the others are given up.
func (l *Loop) adoptAssignment(f *Flow, a *Adoption) {
	st := a.State
	to := l.assignmentFor(f)
	f.to = to
	switch {
	case !st.Assigned:
	case to.assigned:
		a.Lease.HandOver()
	default:
		to.move(a.Lease)
		to.answered = st.AssignmentAnswered
	}
	f.moves = to.moves
	if !st.Current || to.assigned && to.lease.Backend() != a.Lease.Backend() {
		f.moves-- // its socket leads to another backend than its assignment
	}
}

// Drop gives up an Adoption that no loop has got.
func (a *Adoption) Drop() {
	if a.State.Assigned {
		a.Lease.HandOver()
	}
	if a.FD >= 0 {
		sock.Close(a.FD)
	}
}

// Flush adds to the counters what all flows have moved so far.
func (l *Loop) Flush() { l.store.All(l.flush) }
