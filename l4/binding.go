package l4

import (
	"fmt"
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A binding is the sockets of a listener. It is never modified: a listener that moves gets another. Each loop closes its own doors
// of it, but for what ending has.
type binding struct {
	address   netip.AddrPort // as bound: a port 0 in the spec is the port it came to be
	sockets   [][]int        // for each loop, what it is to accept from
	inherited []int          // those of sockets that somebody else opened
	shared    bool           // loops share sockets, by descriptors of their own
	dualStack bool           // of IPv6, and take IPv4 clients too

	protocol Protocol
	offload  sock.Offload
	ending   ending // what is for UDP instead of closing at once
}

// bindFor opens the sockets for a spec, or takes those it inherits. The error is a *ListenError.
func bindFor(spec *ListenerSpec, loops int, offload sock.Offload, shared bool) (*binding, error) {
	b := &binding{
		address: spec.Address, sockets: make([][]int, loops), inherited: spec.Inherited,
		protocol: spec.Protocol, offload: offload,
	}
	b.ending.begin(loops)
	var err error
	if len(spec.Inherited) > 0 {
		err = b.inherit()
	} else {
		err = b.open(spec, shared)
	}
	if err != nil {
		b.close()
		return nil, spec.failed(err)
	}
	return b, nil
}

// open binds a socket for each loop. shared says that another listener of this process holds the port, for an
// address that includes this one or is part of it; else nobody may.
func (b *binding) open(spec *ListenerSpec, shared bool) error {
	dualStack := spec.DualStack
	if dualStack && !sock.HasIPv6() {
		dualStack = false
		b.address = netip.AddrPortFrom(netip.IPv4Unspecified(), spec.Address.Port())
	}
	b.dualStack = dualStack
	for i := range b.sockets {
		fd, err := b.bind(spec, dualStack, i == 0 && !shared)
		if err != nil {
			return err
		}
		b.sockets[i] = []int{fd}
		local, err := sock.LocalAddr(fd)
		if err != nil {
			return err
		}
		// Only the port is news: the address would come without its zone.
		b.address = netip.AddrPortFrom(b.address.Addr(), local.Port())
	}
	return b.steer(spec)
}

// bind opens one socket of the binding.
func (b *binding) bind(spec *ListenerSpec, dualStack, first bool) (int, error) {
	if b.protocol == UDP {
		options := b.datagramOptions(spec)
		options.DualStack = dualStack
		return sock.ListenDatagram(b.address, options, first)
	}
	options := spec.listenOptions()
	options.DualStack = dualStack
	return sock.Listen(b.address, options, first)
}

func (b *binding) datagramOptions(spec *ListenerSpec) sock.DatagramOptions {
	options := spec.datagramOptions(b.offload)
	options.Named = b.address.Addr().IsUnspecified()
	return options
}

// steer has the kernel spread the clients over the UDP sockets as a spec wants it. Of inherited ones that was up to whoever bound
// them.
func (b *binding) steer(spec *ListenerSpec) error {
	if b.protocol != UDP || len(b.sockets) == 1 || len(b.inherited) > 0 {
		return nil
	}
	if spec.Flows.steered() {
		return sock.SteerBySource(b.sockets[0][0], len(b.sockets))
	}
	sock.SteerAsUsual(b.sockets[0][0])
	return nil
}

// inherit spreads the inherited sockets over the loops. Where there are fewer sockets than loops, several loops have one: each its
// own descriptor of it, and all one queue of clients. But a UDP socket is one loop's, since a flow's datagrams must come to one loop.
func (b *binding) inherit() error {
	for i, fd := range b.inherited {
		look := sock.Inherit
		if b.protocol == UDP {
			look = sock.InheritDatagram
		}
		at, err := look(fd)
		if err != nil {
			return fmt.Errorf("inherited descriptor %d: %w", fd, err)
		}
		if i > 0 && at != b.address {
			return fmt.Errorf("inherited descriptor %d listens on %s, and another of the same listener on %s", fd, at, b.address)
		}
		b.address = at
	}
	for i := range max(len(b.inherited), len(b.sockets)) {
		fd := b.inherited[i%len(b.inherited)]
		if i >= len(b.inherited) {
			if b.protocol == UDP {
				break
			}
			var err error
			if fd, err = sock.Duplicate(fd); err != nil {
				return err
			}
			b.shared = true
		}
		of := i % len(b.sockets)
		b.sockets[of] = append(b.sockets[of], fd)
	}
	return nil
}

// own calls f for every descriptor that bindFor has opened.
func (b *binding) own(f func(fd int)) {
	b.all(func(fd int) {
		for _, theirs := range b.inherited {
			if fd == theirs {
				return
			}
		}
		f(fd)
	})
}

func (b *binding) all(f func(fd int)) {
	for _, fds := range b.sockets {
		for _, fd := range fds {
			f(fd)
		}
	}
}

// size is how many sockets there are, those counted twice that two loops share.
func (b *binding) size() (n int) {
	b.all(func(int) { n++ })
	return n
}

// close closes what bindFor has opened, before the loops have it.
func (b *binding) close() { b.own(sock.Close) }

// tune gives the sockets a spec's options, which Prepare has tried.
func (b *binding) tune(spec *ListenerSpec) {
	if err := b.steer(spec); err != nil {
		panic(fmt.Sprintf("l4: sockets are not steered as others were: %v", err))
	}
	b.all(func(fd int) {
		err := error(nil)
		if b.protocol == UDP {
			err = sock.TuneDatagram(fd, b.datagramOptions(spec))
		} else {
			err = sock.Tune(fd, spec.listenOptions())
		}
		if err != nil {
			panic(fmt.Sprintf("l4: a listening socket does not take options that another has taken: %v", err))
		}
	})
}
