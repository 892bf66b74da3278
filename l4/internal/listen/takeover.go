package listen

import (
	"fmt"
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TakeOver makes the Binding of a spec out of sockets that another process has opened for such a spec. They are as good
// as opened here, but until Own is called they are elsewhere. inherited says that the other process has inherited them
// itself. The descriptors stay the caller's until the loops have them; Close leaves them open. The rest is as for Open.
func TakeOver(spec *Spec, loops int, fds []int, inherited bool, onEmpty func(*Binding)) (*Binding, error) {
	b := &Binding{Protocol: spec.Protocol, Address: spec.Address, Sockets: make([][]int, loops), lent: fds}
	b.Ending.prepare(loops, func() { onEmpty(b) })
	b.elsewhere.Store(true)
	if inherited {
		b.Inherited = fds
	}
	err := b.takeOver(spec, fds)
	if err == nil {
		err = b.spread(fds)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// takeOver checks sockets that were opened for a spec.
func (b *Binding) takeOver(spec *Spec, fds []int) error {
	if spec.Unix.Path != "" {
		b.Unix = spec.Unix
		file, err := sock.InheritUnix(fds[0], spec.Unix)
		b.file = file
		return err
	}
	look := sock.Inherit
	if b.Protocol == sock.UDP {
		look = sock.InheritDatagram
	}
	for i, fd := range fds {
		at, err := look(fd)
		if err != nil {
			return fmt.Errorf("a socket that was handed over: %w", err)
		}
		if i == 0 {
			// Only the port is news: the address would come without its zone.
			b.Address = netip.AddrPortFrom(b.Address.Addr(), at.Port())
			if spec.DualStack && at.Addr().Is4() { // without IPv6 in this kernel
				b.Address = at
			}
		}
	}
	b.DualStack = sock.TakesBoth(fds[0])
	return nil
}

// Elsewhere reports whether another process has the sockets, too, and serves or is about to serve their clients. Here
// they are closed without a word: they are the same sockets there, so nothing may be changed about them, no client be
// taken, and no file removed.
func (b *Binding) Elsewhere() bool { return b.elsewhere.Load() }

// GiveAway says that the sockets are elsewhere.
func (b *Binding) GiveAway() { b.elsewhere.Store(true) }

// Own says that the sockets are this process's from now on, and gives them the options of a spec, which must have been
// tried as for Tune. The error is that of the permissions of a Unix socket.
func (b *Binding) Own(spec *Spec) error {
	b.elsewhere.Store(false)
	b.Tune(spec)
	if b.file != nil {
		return b.file.Permit(spec.Unix)
	}
	return nil
}
