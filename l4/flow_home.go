package l4

import (
	"errors"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A home is where datagrams go: a lease, of one flow or, ByClientIP, of all flows of an address.
type home struct {
	lease    pool.Lease
	housed   bool          // lease is one
	inUse    bool          // the lease's backend was, when last looked at: one that is tried at its breaker's wish is not
	answered bool          // the lease's backend has
	failed   *pool.Backend // which the next lease is not to be on, if another is to be had; nil for none
	moves    uint32        // how many leases there were before
	lookedAt time.Duration // when another backend was looked for in vain

	shared bool
	client clientID // of a shared one
	flows  int      // that share it
}

// lookAgain is how soon a flow whose backend is not eligible looks again for another when there was none.
const lookAgain = 100 * time.Millisecond

// homeFor returns the home of a new flow.
func (l *loop) homeFor(f *flow) *home {
	if f.settings.Flows.Key != ByClientIP {
		return &f.own
	}
	client := clientID(f.id.client)
	h := f.door.homes[client]
	if h == nil {
		h = l.flows.freeHomes.take()
		h.shared, h.client = true, client
		f.door.homes[client] = h
	}
	h.flows++
	return h
}

// leaveHome gives a flow's home up.
func (l *loop) leaveHome(f *flow) {
	h := f.home
	if h.shared {
		if h.flows--; h.flows > 0 {
			return
		}
		delete(f.door.homes, h.client)
	}
	h.release()
	if h.shared {
		*h = home{}
		l.flows.freeHomes.give(h)
	}
}

// release gives the lease back if there is one.
func (h *home) release() {
	if !h.housed {
		return
	}
	h.housed = false
	if h.answered {
		h.lease.Release(pool.Served)
	} else {
		h.lease.Release(pool.Neutral)
	}
}

// fail gives the lease back with what has failed.
func (h *home) fail(o pool.Outcome) {
	if h.housed {
		h.housed = false
		h.failed = h.lease.Backend()
		h.lease.Release(o)
	}
}

// ready tells whether the flow can send at once.
func (f *flow) ready() bool {
	return f.open && f.home.housed && f.moves == f.home.moves && f.home.fit()
}

// fit tells whether the lease's backend may go on being used: while it is in use, and while it drains if it has
// answered, since QUIC, DTLS or a VPN would have to begin anew elsewhere. One that has not answered has begun nothing
// that could break.
func (h *home) fit() bool {
	b := h.lease.Backend()
	switch {
	case b.InUse():
		h.inUse = true
		return true
	case b.Revoked():
		return false
	case b.Drains():
		return h.answered
	}
	return !h.inUse && b.Departed() == 0 // a trial of its breaker
}

// makeReady sees to it that a flow has a socket to a backend that is eligible, or says why it has not. A datagram that
// is to be sent has been nowhere yet, so another try is always safe.
func (l *loop) makeReady(f *flow) Drop {
	if f.ready() {
		return dropNone
	}
	h := f.home
	if h.housed && !h.fit() && !l.moveHome(f) {
		return DropNoBackend
	}
	w := &l.flows
	w.tried = w.tried[:0]
	for {
		if !h.housed {
			drop := l.house(f)
			if drop == DropNoBackend && len(w.tried) > 0 {
				drop = DropBackendRefused
			}
			if drop != dropNone {
				return drop
			}
		}
		if f.open && f.moves == h.moves {
			return dropNone
		}
		e := l.connectFlow(f)
		if e == 0 {
			return dropNone
		}
		f.cause = e
		if sock.CauseOf(e) == sock.OurWant {
			return DropNoDescriptors
		}
		h.fail(connectOutcome(e))
		w.tried = append(w.tried, h.failed)
		if len(w.tried) > f.pool.Retries() {
			return DropBackendRefused
		}
	}
}

// house picks a backend for a home that has none.
func (l *loop) house(f *flow) Drop {
	h, w := f.home, &l.flows
	first := len(w.tried) == 0
	if first && h.failed != nil {
		w.tried = append(w.tried, h.failed)
	}
	lease, err := f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort(), Tried: w.tried})
	if first {
		w.tried = w.tried[:0]
		if errors.Is(err, pool.ErrNoBackend) && h.failed != nil { // it is the only one
			lease, err = f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort()})
		}
	}
	if err != nil {
		return dropOf(err)
	}
	h.move(lease)
	return dropNone
}

// move gives the home a lease.
func (h *home) move(lease pool.Lease) {
	h.lease, h.housed, h.inUse, h.answered, h.failed = lease, true, lease.Backend().InUse(), false, nil
	h.moves++
}

// moveHome looks for another backend than the one that is not fit any more. When there is none the old one serves on,
// unless the pool wants its leases back or has it no more; then it reports false.
func (l *loop) moveHome(f *flow) bool {
	h := f.home
	b := h.lease.Backend()
	over := b.Revoked() || b.Departed() != 0
	if !over && h.lookedAt != 0 && l.now < h.lookedAt+lookAgain {
		return true
	}
	lease, err := f.pool.Pick(pool.PickContext{Client: f.peer.AddrPort()})
	switch {
	case err == nil:
		h.release()
		h.move(lease)
		h.lookedAt = 0
	case over:
		h.release()
		return false
	default:
		h.lookedAt = l.now
	}
	return true
}

// dropOf is why a datagram is dropped when Pick has that error.
func dropOf(err error) Drop {
	if errors.Is(err, pool.ErrBusy) {
		return DropBackendsFull
	}
	return DropNoBackend
}

// connectFlow gives a flow a socket that is connected to its home's backend.
func (l *loop) connectFlow(f *flow) sock.Errno {
	l.closeFlowSocket(f)
	h := f.home
	b := h.lease.Backend()
	fd, e := l.openFlowSocket(f, b.Addr())
	if e != 0 {
		return e
	}
	if e := l.poller.AddDatagram(fd, keyOf(f), f.generation); e != 0 {
		sock.Close(fd)
		return e
	}
	f.fd, f.open = int32(fd), true
	f.backend, f.moves = b, h.moves
	f.batch, f.expects, f.singly, f.blocked, f.answered = leastBatch, false, false, false, false
	f.connected, f.cause, f.lost = l.now, 0, 0
	f.connections++
	h.lease.Opened()
	return 0
}

// backendFailed takes it that a flow's backend cannot be reached, as a call on the flow's socket or its queue of errors says: the flow gets
// another at its next datagram. The one that came to nothing is counted.
func (l *loop) backendFailed(f *flow, r sock.Report) {
	f.cause = r.Errno
	l.closeFlowSocket(f)
	if f.moves == f.home.moves { // no other of its flows has found out before
		f.home.fail(datagramOutcome(r))
	}
	l.drop(f.listener, DropBackendRefused, 1)
}

// backendFailedWith is backendFailed after an error of a call, which does not say where it comes from. If nobody has
// sent one, this host has no way for the socket, whose own address may be gone: another socket is tried, and its
// connect says more.
func (l *loop) backendFailedWith(f *flow, e sock.Errno) {
	if r := sock.DatagramError(int(f.fd)); r.Errno != 0 {
		l.backendFailed(f, r)
		return
	}
	f.cause = e
	l.closeFlowSocket(f)
	if f.connected == l.now && f.moves == f.home.moves { // it has just had another
		f.home.fail(pool.Neutral)
	}
}

// leaveUnsendable has a flow that was never answered, and whose datagrams this host itself does not let go, go on with another backend.
func (l *loop) leaveUnsendable(f *flow, e sock.Errno) {
	if f.answered || !sock.Forbidden(e) {
		return
	}
	f.cause = e
	l.closeFlowSocket(f)
	if f.moves == f.home.moves {
		f.home.fail(pool.Neutral)
	}
}
