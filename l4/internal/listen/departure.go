package listen

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

	// handshakesPorts is for how many ports the kernel is asked: each answer has it look through all its sockets.
	handshakesPorts = 16
)

// A Departure is a listener's sockets of TCP that are to be closed. See DepartureOf.
type Departure struct {
	Binding *Binding
	stays   *Binding // the sockets that share its address and stay; nil for none
	older   bool     // stays was bound first
}

// DepartureOf returns the departure of b, beside the bindings that serve. older says that these were bound first.
func DepartureOf(b *Binding, serving []*Binding, older bool) Departure {
	d := Departure{Binding: b, older: older}
	for _, other := range serving {
		if other != b && other.sharesAddress(b) {
			d.stays = other
		}
	}
	return d
}

// sharesAddress reports whether the kernel spreads clients over the sockets of both bindings.
func (b *Binding) sharesAddress(other *Binding) bool {
	return b.Protocol == other.Protocol && b.Address == other.Address && b.DualStack == other.DualStack &&
		len(b.Inherited) == 0 && len(other.Inherited) == 0 && !b.IsUnix() && !b.Elsewhere()
}

// Depart keeps new clients away from the sockets that are to be closed, and returns when the handshakes under way there
// are over, have had handshakesMax, or ctx is done. The loops go on accepting meanwhile. Inherited sockets are left
// alone: whoever opened them has them still. So are those that are elsewhere, and Unix sockets, which have no handshake;
// see Withdraw.
//
// The kernel does not know of clients in the middle of a handshake with a SYN cookie, which it uses while a queue is
// full: they are reset.
func Depart(ctx context.Context, all []Departure) {
	ports := make(map[uint16]bool)
	for i := range all {
		if b := all[i].Binding; len(b.Inherited) == 0 && !b.IsUnix() && !b.Elsewhere() {
			all[i].turnAway()
			ports[b.Address.Port()] = true
		}
	}
	if len(ports) > 0 {
		awaitHandshakes(ctx, ports)
	}
	for i := range all {
		all[i].closing()
	}
}

// turnAway leads new clients to the sockets that stay, or refuses them if there are none. After an error the sockets
// are served until they are closed.
func (d *Departure) turnAway() {
	if d.stays == nil {
		d.Binding.Each(func(fd int) { _ = sock.StopNew(fd) })
		return
	}
	// Among sockets of one address the kernel does not look at what each of them is bound to.
	first := d.Binding.Distinct()
	if d.older {
		first = 0
	}
	_ = sock.SteerToSome(d.stays.Sockets[0][0], first, d.stays.Distinct())
}

// closing is called when the sockets are about to be closed, one loop after the other. When the kernel closes a socket,
// it moves the last one of the address to its place; and a number that is none of theirs any more stands for any of
// them. The number of the first socket that stays is safe until all are gone.
func (d *Departure) closing() {
	if d.stays != nil && !d.older {
		_ = sock.SteerToSome(d.stays.Sockets[0][0], d.Binding.Distinct(), 1)
	}
}

// Gone is called when the sockets are closed.
func (d *Departure) Gone() {
	if d.stays != nil {
		sock.SteerAsUsual(d.stays.Sockets[0][0])
	}
}

// awaitHandshakes waits until the handshakes are over that are under way at these ports.
func awaitHandshakes(ctx context.Context, ports map[uint16]bool) {
	ctx, cancel := context.WithTimeout(ctx, handshakesMax)
	defer cancel()
	rest(ctx, handshakesBegin)
	if len(ports) > handshakesPorts {
		rest(ctx, handshakesUnseen)
		return
	}
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
