package l4

import (
	"context"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A listening socket that is closed resets the clients whose handshake is under way, and those who wait to be accepted.
// So it is closed in steps: it gets no new client, the handshakes under way end, who waits is accepted, and then it is
// closed.
const (
	// What the kernel was doing for a SYN when new clients were turned away takes microseconds, or a scheduler's turn.
	handshakesBegin = 10 * time.Millisecond

	// A handshake takes a round trip. A segment of it that is lost is sent again after one second (RFC 6298), so most
	// of those are over, too; and forged ones, which never are, do not hold up a change for longer.
	handshakesMax = 3 * time.Second

	// handshakesUnseen is the wait where the kernel may not be asked which are under way: any round trip on Earth.
	handshakesUnseen = 500 * time.Millisecond
)

// A departure is a listener's sockets that are to be closed.
type departure struct {
	binding *binding // of TCP
	stays   *binding // the sockets that share its address and stay; nil for none
	older   bool     // stays was bound first
}

// departureOf is that of b, beside the listeners that serve; older says that these were bound first.
func departureOf(b *binding, listeners map[string]*listener, older bool) departure {
	d := departure{binding: b, older: older}
	for _, ls := range listeners {
		if other := ls.bound; other != b && other.sharesAddress(b) {
			d.stays = other
		}
	}
	return d
}

// sharesAddress tells whether the kernel spreads clients over the sockets of both bindings.
func (b *binding) sharesAddress(other *binding) bool {
	return b.protocol == other.protocol && b.address == other.address && b.dualStack == other.dualStack &&
		len(b.inherited) == 0 && len(other.inherited) == 0
}

// departTCP has no new client come to the TCP sockets that are to be closed, and returns when the handshakes under way
// there are over, have had handshakesMax, or ctx is done. The loops go on accepting meanwhile. Inherited sockets are
// left alone: whoever opened them has them still.
//
// The kernel does not know of clients in the middle of a handshake with a SYN cookie, which it uses while a queue is
// full: they are reset.
func departTCP(ctx context.Context, all []departure) {
	ports := make(map[uint16]bool)
	for i := range all {
		if b := all[i].binding; len(b.inherited) == 0 {
			all[i].turnAway()
			ports[b.address.Port()] = true
		}
	}
	if len(ports) > 0 {
		awaitHandshakes(ctx, ports)
	}
	for i := range all {
		all[i].closing()
	}
}

// turnAway has new clients come to the sockets that stay, or be refused if there are none. After an error the sockets
// are served until they are closed.
func (d *departure) turnAway() {
	if d.stays == nil {
		d.binding.all(func(fd int) { _ = sock.StopNew(fd) })
		return
	}
	// Among sockets of one address the kernel does not look at what each of them is bound to.
	first := d.binding.size()
	if d.older {
		first = 0
	}
	_ = sock.SteerToSome(d.stays.sockets[0][0], first, d.stays.size())
}

// closing is for when the sockets are about to be closed, one loop after the other. Each that is closed moves the last
// of those of the address to its place, and a number that is none of theirs any more would be any of them: the first of
// those that stay is safe until all are gone.
func (d *departure) closing() {
	if d.stays != nil && !d.older {
		_ = sock.SteerToSome(d.stays.sockets[0][0], d.binding.size(), 1)
	}
}

// gone is for when the sockets are closed.
func (d *departure) gone() {
	if d.stays != nil {
		sock.SteerAsUsual(d.stays.sockets[0][0])
	}
}

// awaitHandshakes waits until the handshakes are over that are under way at these ports.
func awaitHandshakes(ctx context.Context, ports map[uint16]bool) {
	ctx, cancel := context.WithTimeout(ctx, handshakesMax)
	defer cancel()
	rest(ctx, handshakesBegin)
	underWay, err := handshakes(ports)
	if err != nil {
		rest(ctx, handshakesUnseen)
		return
	}
	pause := time.Millisecond
	for len(underWay) > 0 && ctx.Err() == nil {
		rest(ctx, pause)
		began := time.Now()
		now, err := handshakes(ports)
		if err != nil {
			return
		}
		pause = max(min(2*pause, handshakesBegin), 4*time.Since(began)) // in a flood of SYNs the answer is long
		for h := range underWay {                                       // those that have begun since are of other sockets
			if !now[h] {
				delete(underWay, h)
			}
		}
	}
}

func handshakes(ports map[uint16]bool) (map[sock.Handshake]bool, error) {
	found := make(map[sock.Handshake]bool)
	for port := range ports {
		if err := sock.Handshakes(port, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// rest sleeps for d, or until ctx is done.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// A remainder is what a change leaves to be closed.
type remainder struct {
	left       []*binding
	departures []departure // those of left that are of TCP
	services   []*dnsService
}

// close has the loops leave what is left. It returns channels that are closed when all have.
func (s *Server) close(r remainder) (closing []<-chan struct{}) {
	for _, b := range r.left {
		closing = append(closing, s.onLoops(func(l *loop) { l.closeDoors(b) }))
	}
	for _, service := range r.services {
		s.onLoops(func(l *loop) { service.askers[l.index].drain() })
	}
	return closing
}

// retire adds a DNS service that is not needed any more, nil for none.
func (r *remainder) retire(service *dnsService) {
	if service != nil {
		r.services = append(r.services, service)
	}
}
