// Package listen holds the sockets of listeners: how they are opened or inherited, given their options, and left
// without losing a client. It serves nobody; the loops do.
package listen

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A Spec says what sockets a listener has. Address, Unix or Inherited is required.
type Spec struct {
	Protocol  sock.Protocol
	Address   netip.AddrPort
	DualStack bool            // Address is [::]: IPv4 clients too, and they alone where the kernel has no IPv6
	Inherited []int           // descriptors of sockets of one address, TCP ones that listen already or bound UDP ones
	Unix      sock.UnixSocket // for TCP, instead of Address

	Stream   sock.ListenOptions   // for TCP
	Datagram sock.DatagramOptions // for UDP
	Steered  bool                 // for UDP: the datagrams of one address all come to one loop
}

// A Binding is the sockets of a listener. It is never modified, but for its Ending: a listener that moves gets another
// one. Each loop closes its own sockets of it.
type Binding struct {
	Protocol  sock.Protocol
	Address   netip.AddrPort // as bound: a port 0 in the spec is the port it came to be
	Sockets   [][]int        // the sockets of each loop
	Inherited []int          // those that somebody else opened
	Shared    bool           // loops share sockets, by descriptors of their own
	DualStack bool           // of IPv6, and takes IPv4 clients too
	Ending    Ending         // for UDP, instead of closing at once

	Unix sock.UnixSocket // instead of Address; see IsUnix
	file *sock.UnixFile  // nil but for a Unix socket

	distinct  int         // sockets, however many descriptors loops have of one
	lent      []int       // descriptors that Close leaves open
	elsewhere atomic.Bool // see Elsewhere
}

// Open opens the sockets of a spec for so many loops, or takes those it inherits. beside says that another listener of
// this process has the port, for an address that includes this one or is part of it; else nobody may have it. onEmpty
// is called when a UDP listener was left and has no flow any more: it makes every loop close its sockets.
func Open(spec *Spec, loops int, beside bool, onEmpty func(*Binding)) (*Binding, error) {
	b := &Binding{
		Protocol: spec.Protocol, Address: spec.Address, Sockets: make([][]int, loops), Inherited: spec.Inherited,
	}
	b.Ending.prepare(loops, func() { onEmpty(b) })
	b.lent = b.Inherited
	var err error
	switch {
	case len(spec.Inherited) > 0:
		err = b.inherit()
	case spec.Unix.Path != "":
		err = b.openUnix(spec, beside)
	default:
		err = b.open(spec, beside)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// open binds a socket for each loop.
func (b *Binding) open(spec *Spec, beside bool) error {
	b.DualStack = spec.DualStack
	if b.DualStack && !sock.HasIPv6() {
		b.DualStack = false
		b.Address = netip.AddrPortFrom(netip.IPv4Unspecified(), spec.Address.Port())
	}
	b.distinct = len(b.Sockets)
	for i := range b.Sockets {
		fd, err := b.bind(spec, i == 0 && !beside)
		if err != nil {
			return err
		}
		b.Sockets[i] = []int{fd}
		local, err := sock.LocalAddr(fd)
		if err != nil {
			return err
		}
		// Only the port is news: the address would come without its zone.
		b.Address = netip.AddrPortFrom(b.Address.Addr(), local.Port())
	}
	return b.steer(spec)
}

// bind opens one socket of the binding. first says that nobody else may have the address.
func (b *Binding) bind(spec *Spec, first bool) (int, error) {
	if b.Protocol == sock.UDP {
		options := b.datagramOptions(spec)
		options.DualStack = b.DualStack
		return sock.ListenDatagram(b.Address, options, first)
	}
	options := spec.Stream
	options.DualStack = b.DualStack
	return sock.Listen(b.Address, options, first)
}

func (b *Binding) datagramOptions(spec *Spec) sock.DatagramOptions {
	options := spec.Datagram
	options.Named = b.Address.Addr().IsUnspecified()
	return options
}

// steer makes the kernel spread the clients over the UDP sockets as a spec wants it. Of inherited ones that was up to
// whoever bound them.
func (b *Binding) steer(spec *Spec) error {
	if b.Protocol != sock.UDP || b.distinct == 1 || len(b.Inherited) > 0 {
		return nil
	}
	if spec.Steered {
		return sock.SteerBySource(b.Sockets[0][0], b.distinct)
	}
	sock.SteerAsUsual(b.Sockets[0][0])
	return nil
}

// inherit spreads the inherited sockets over the loops. Where there are fewer sockets than loops, several loops have
// one: each its own descriptor of it, and all one queue of clients. But a UDP socket is one loop's, since a flow's
// datagrams must come to one loop.
func (b *Binding) inherit() error {
	for i, fd := range b.Inherited {
		look := sock.Inherit
		if b.Protocol == sock.UDP {
			look = sock.InheritDatagram
		}
		at, err := look(fd)
		if err != nil {
			return fmt.Errorf("inherited descriptor %d: %w", fd, err)
		}
		if i > 0 && at != b.Address {
			return fmt.Errorf("inherited descriptor %d listens on %s, and another of the same listener on %s",
				fd, at, b.Address)
		}
		b.Address = at
	}
	return b.spread(b.Inherited)
}

// spread spreads sockets over the loops. If they are fewer, further loops get duplicates of TCP sockets.
func (b *Binding) spread(fds []int) error {
	b.distinct = len(fds)
	for i := range max(len(fds), len(b.Sockets)) {
		fd := fds[i%len(fds)]
		if i >= len(fds) {
			if b.Protocol == sock.UDP {
				break
			}
			var err error
			if fd, err = sock.Duplicate(fd); err != nil {
				return err
			}
			b.Shared = true
		}
		of := i % len(b.Sockets)
		b.Sockets[of] = append(b.Sockets[of], fd)
	}
	return nil
}

// Close closes what Open has opened, before the loops have it. Sockets that were inherited or taken over stay open.
func (b *Binding) Close() {
	b.Withdraw()
	b.Each(func(fd int) {
		if !slices.Contains(b.lent, fd) {
			sock.Close(fd)
		}
	})
}

// Each calls f for every socket.
func (b *Binding) Each(f func(fd int)) {
	for _, fds := range b.Sockets {
		for _, fd := range fds {
			f(fd)
		}
	}
}

// Distinct is how many sockets there are, each counted once.
func (b *Binding) Distinct() int { return b.distinct }

// Size is how many sockets there are. One that two loops share counts twice.
func (b *Binding) Size() (n int) {
	b.Each(func(int) { n++ })
	return n
}

// Tune gives the sockets the options of another spec. They must have been tried, on a socket of this process, with
// sock.CheckListenOptions or by opening one.
func (b *Binding) Tune(spec *Spec) {
	if err := b.steer(spec); err != nil {
		panic(fmt.Sprintf("l4: sockets are not steered as others were: %v", err))
	}
	b.Each(func(fd int) {
		err := error(nil)
		switch {
		case b.Protocol == sock.UDP:
			err = sock.TuneDatagram(fd, b.datagramOptions(spec))
		case b.IsUnix():
			err = sock.TuneUnix(fd, spec.Stream.Backlog)
		default:
			err = sock.Tune(fd, spec.Stream)
		}
		if err != nil {
			panic(fmt.Sprintf("l4: a listening socket does not take options that another has taken: %v", err))
		}
	})
}
