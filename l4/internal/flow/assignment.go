package flow

import (
	"errors"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// An assignment is where datagrams go: a lease, of one flow or, ByClientIP, of all flows of an address.
type assignment struct {
	lease    pool.Lease
	assigned bool          // there is a lease
	inUse    bool          // the lease's backend was, when last looked at: one that its breaker tries is not
	answered bool          // the lease's backend has answered
	failed   *pool.Backend // the next lease is on another one, if there is any; nil for none
	moves    uint32        // how many leases there were before
	lookedAt time.Duration // when another backend was looked for in vain

	shared bool
	client gate.ClientID // of a shared one
	flows  int           // that share it
}

// lookAgain is how soon a flow whose backend is not eligible looks again for another when there was none.
const lookAgain = 100 * time.Millisecond

// assignmentFor returns the assignment of a new flow.
func (l *Loop) assignmentFor(f *Flow) *assignment {
	if f.settings.Key != ByClientIP {
		return &f.own
	}
	client := gate.ClientID(f.identity.client)
	a := f.socket.assignments[client]
	if a == nil {
		a = l.freeAssignments.Take()
		a.shared, a.client = true, client
		f.socket.assignments[client] = a
	}
	a.flows++
	return a
}

// unassign gives up a flow's assignment.
func (l *Loop) unassign(f *Flow) {
	a := f.to
	if a.shared {
		if a.flows--; a.flows > 0 {
			return
		}
		delete(f.socket.assignments, a.client)
	}
	a.release()
	if a.shared {
		*a = assignment{}
		l.freeAssignments.Give(a)
	}
}

// release gives the lease back if there is one.
func (a *assignment) release() {
	if !a.assigned {
		return
	}
	a.assigned = false
	if a.answered {
		a.lease.Release(pool.Served)
	} else {
		a.lease.Release(pool.Neutral)
	}
}

// fail gives the lease back with what has failed.
func (a *assignment) fail(o pool.Outcome) {
	if a.assigned {
		a.assigned = false
		a.failed = a.lease.Backend()
		a.lease.Release(o)
	}
}

// ready reports whether the flow can send at once.
func (f *Flow) ready() bool {
	return f.open && f.to.assigned && f.moves == f.to.moves && f.to.fit()
}

// fit reports whether the flow may stay with the lease's backend: while the backend is in use, and also while it drains
// if it has answered, since QUIC, DTLS or a VPN would have to begin anew elsewhere. A backend that has not answered has
// begun nothing that could break.
func (a *assignment) fit() bool {
	b := a.lease.Backend()
	switch {
	case b.InUse():
		a.inUse = true
		return true
	case b.Revoked():
		return false
	case b.Drains():
		return a.answered
	}
	return !a.inUse && b.Departed() == 0 // a trial of its breaker
}

// makeReady gives a flow a socket to a backend that is eligible, or says why there is none. The datagram that waits has
// been sent nowhere yet, so another try is always safe.
func (l *Loop) makeReady(f *Flow) tally.Drop {
	if f.ready() {
		return tally.NoDrop
	}
	a := f.to
	if a.assigned && !a.fit() && !l.reassign(f) {
		return tally.DropNoBackend
	}
	l.tried = l.tried[:0]
	for {
		if !a.assigned {
			drop := l.assign(f)
			if drop == tally.DropNoBackend && len(l.tried) > 0 {
				drop = f.noneConnects()
			}
			if drop != tally.NoDrop {
				return drop
			}
		}
		if f.open && f.moves == a.moves {
			return tally.NoDrop
		}
		e := l.connectFlow(f)
		if e == 0 {
			return tally.NoDrop
		}
		f.cause = e
		if e != sock.NoSource && sock.CauseOf(e) == sock.OurWant {
			return tally.DropNoDescriptors
		}
		a.fail(dial.Outcome(e))
		l.tried = append(l.tried, a.failed)
		if len(l.tried) > f.pool.Retries() {
			return f.noneConnects()
		}
	}
}

// noneConnects is why a datagram is dropped when none of the backends tried could be connected to.
func (f *Flow) noneConnects() tally.Drop {
	if f.cause == sock.NoSource {
		return tally.DropNoSource
	}
	return tally.DropBackendRefused
}

// assign picks a backend for an assignment that has none.
func (l *Loop) assign(f *Flow) tally.Drop {
	a := f.to
	first := len(l.tried) == 0
	if first && a.failed != nil {
		l.tried = append(l.tried, a.failed)
	}
	lease, err := f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort(), Tried: l.tried})
	if first {
		l.tried = l.tried[:0]
		if errors.Is(err, pool.ErrNoBackend) && a.failed != nil { // it is the only one
			lease, err = f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort()})
		}
	}
	if err != nil {
		return dropOf(err)
	}
	a.move(lease)
	return tally.NoDrop
}

// move gives the assignment a lease.
func (a *assignment) move(lease pool.Lease) {
	a.lease, a.assigned, a.inUse, a.answered, a.failed = lease, true, lease.Backend().InUse(), false, nil
	a.moves++
}

// reassign looks for another backend, since the flow's is not fit any more. When there is none, the old one serves on,
// unless the pool wants its leases back or has removed it; then reassign reports false.
func (l *Loop) reassign(f *Flow) bool {
	a := f.to
	b := a.lease.Backend()
	over := b.Revoked() || b.Departed() != 0
	if !over && a.lookedAt != 0 && l.Now < a.lookedAt+lookAgain {
		return true
	}
	lease, err := f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort()})
	switch {
	case err == nil:
		a.release()
		a.move(lease)
		a.lookedAt = 0
	case over:
		a.release()
		return false
	default:
		a.lookedAt = l.Now
	}
	return true
}

// dropOf is why a datagram is dropped when Pick has that error.
func dropOf(err error) tally.Drop {
	if errors.Is(err, pool.ErrBusy) {
		return tally.DropBackendsFull
	}
	return tally.DropNoBackend
}

// connectFlow gives a flow a socket that is connected to its assignment's backend.
func (l *Loop) connectFlow(f *Flow) sock.Errno {
	l.closeFlow(f)
	a := f.to
	b := a.lease.Backend()
	fd, e := l.openSocket(f, b)
	if e != 0 {
		return e
	}
	if e := l.backends.AddDatagram(fd, f.Index(), f.Generation()); e != 0 {
		sock.Close(fd)
		return e
	}
	f.fd, f.open = int32(fd), true
	f.backend, f.moves = b, a.moves
	f.batch, f.expects, f.singly, f.blocked, f.answered = leastBatch, false, false, false, false
	f.connected, f.cause, f.lost = l.Now, 0, 0
	f.connections++
	a.lease.Opened()
	return 0
}

// backendFailed handles a report that a flow's backend cannot be reached. The flow gets another backend at its next
// datagram. The datagram that was lost is counted.
func (l *Loop) backendFailed(f *Flow, r sock.Report) {
	f.cause = r.Errno
	l.closeFlow(f)
	if f.moves == f.to.moves { // no other flow of the assignment has reported it before
		f.to.fail(dial.DatagramOutcome(r))
	}
	l.Drop(f.socket.listener, tally.DropBackendRefused, 1)
}

// backendFailedWith is backendFailed after an error of a call, which does not say where the error comes from. If no
// ICMP error is queued, this host itself has no way for the socket, whose own address may be gone: another socket is
// tried, and its connect says more.
func (l *Loop) backendFailedWith(f *Flow, e sock.Errno) {
	if r := sock.DatagramError(int(f.fd)); r.Errno != 0 {
		l.backendFailed(f, r)
		return
	}
	f.cause = e
	l.closeFlow(f)
	if f.connected == l.Now && f.moves == f.to.moves { // the flow has just had another one
		f.to.fail(pool.Neutral)
	}
}

// leaveUnsendable gives up the backend of a flow that was never answered, if this host itself forbids to send there.
// The flow goes on with another backend.
func (l *Loop) leaveUnsendable(f *Flow, e sock.Errno) {
	if f.answered || !sock.Forbidden(e) {
		return
	}
	f.cause = e
	l.closeFlow(f)
	if f.moves == f.to.moves {
		f.to.fail(pool.Neutral)
	}
}
