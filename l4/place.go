package l4

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// MaxPlaces is how many places a listener may have. Each has a socket for each loop.
const MaxPlaces = 1024

// A Place is an address to listen on, a Unix socket, or the inherited sockets of one address. One of them is required.
type Place struct {
	Address   netip.AddrPort
	DualStack bool       // Address is [::]: IPv4 clients too, and they alone where the kernel has no IPv6
	Unix      UnixSocket // for TCP, instead of Address

	// Inherited are descriptors of sockets of one address, TCP ones that listen already or bound UDP ones (systemd
	// socket activation); Address and DualStack mean nothing then. They become the server's with Commit, which gives
	// them its options, and are closed when the listener leaves the place. A later Plan names the same numbers, and
	// keeps them.
	Inherited []int
}

// same reports whether the sockets of one place serve the other, too.
func (p *Place) same(other *Place) bool {
	if len(p.Inherited) > 0 || len(other.Inherited) > 0 {
		return slices.Equal(p.Inherited, other.Inherited)
	}
	return p.Address == other.Address && p.DualStack == other.DualStack && p.Unix == other.Unix
}

// address is where the place is.
func (p *Place) address() pool.Address {
	if len(p.Inherited) == 0 {
		return pool.Address{AddrPort: p.Address, Path: p.Unix.Path}
	}
	at, _ := sock.LocalAddr(p.Inherited[0]) // an error comes when it is bound
	return pool.At(at)
}

// places returns where the spec's listener is to listen, in its order.
func (spec *ListenerSpec) places() []Place {
	places := make([]Place, 0, 1+len(spec.More))
	places = append(places, Place{spec.Address, spec.DualStack, spec.Unix, spec.Inherited})
	return append(places, spec.More...)
}

// clonePlaces gives the spec copies of the lists that say where it listens.
func (spec *ListenerSpec) clonePlaces() {
	spec.Inherited, spec.More = slices.Clone(spec.Inherited), slices.Clone(spec.More)
	for i := range spec.More {
		spec.More[i].Inherited = slices.Clone(spec.More[i].Inherited)
	}
}

// validatePlaces returns what is wrong with where the spec's listener is to listen.
func (spec *ListenerSpec) validatePlaces() error {
	if n := 1 + len(spec.More); n > MaxPlaces {
		return fmt.Errorf("listener %q has %d addresses; %d are allowed", spec.Name, n, MaxPlaces)
	}
	for _, p := range spec.places() {
		switch {
		case p.Unix.Path != "":
			if err := spec.validateUnix(&p); err != nil {
				return fmt.Errorf("listener %q: %w", spec.Name, err)
			}
		case !p.Address.IsValid() && len(p.Inherited) == 0:
			return fmt.Errorf("listener %q has no address", spec.Name)
		}
	}
	return nil
}

// sameSockets reports whether the sockets of one spec serve the other too. The order of the places means nothing.
func (spec *ListenerSpec) sameSockets(other *ListenerSpec) bool {
	return spec.Protocol == other.Protocol && len(spec.More) == len(other.More) &&
		!slices.Contains(matchPlaces(other.places(), spec.places()), -1)
}

// matchPlaces returns for each wanted place the index of the old place whose sockets serve it too; -1 for none. No old
// place serves two.
func matchPlaces(old, wanted []Place) []int {
	byAddress := make(map[pool.Address][]int, len(old))
	for i := range old {
		at := old[i].key()
		byAddress[at] = append(byAddress[at], i)
	}
	matches := make([]int, len(wanted))
	for i := range wanted {
		p := &wanted[i]
		at := p.key()
		there := byAddress[at]
		k := slices.IndexFunc(there, func(o int) bool { return old[o].same(p) })
		if matches[i] = -1; k >= 0 {
			matches[i] = there[k]
			byAddress[at] = slices.Delete(there, k, k+1)
		}
	}
	return matches
}

// key is equal for places that are the same; the others of an equal key are few. An inherited place has no address of
// its own.
func (p *Place) key() pool.Address {
	if len(p.Inherited) > 0 {
		return pool.Address{}
	}
	return p.address()
}

// sockets are what the spec says of the sockets of one of its places.
func (spec *ListenerSpec) sockets(p *Place, o sock.Offload) *listen.Spec {
	stream := spec.listenOptions()
	stream.DualStack = p.DualStack
	return &listen.Spec{
		Protocol: spec.Protocol, Address: p.Address, DualStack: p.DualStack, Inherited: p.Inherited,
		Unix:   p.Unix,
		Stream: stream, Datagram: spec.Flows.SocketOptions(o), Steered: spec.Flows.Steered(),
	}
}

// failed is an error of opening one of the spec's places.
func (spec *ListenerSpec) failed(place int, err error) error {
	e := &ListenError{Listener: spec.Name, Protocol: spec.Protocol, Place: place, Err: err}
	if p := spec.places()[place]; len(p.Inherited) == 0 {
		e.Address = p.address()
	}
	return e
}

// A listenerKey tells listeners apart.
type listenerKey struct {
	name     string
	protocol Protocol
}

func (spec *ListenerSpec) key() listenerKey { return listenerKey{spec.Name, spec.Protocol} }

// otherProtocol is the key of the listener of the same name and the other protocol.
func (k listenerKey) otherProtocol() listenerKey { return listenerKey{k.name, TCP + UDP - k.protocol} }

// addressOf is where sockets listen.
func addressOf(b *listen.Binding) pool.Address {
	return pool.Address{AddrPort: b.Address, Path: b.Unix.Path}
}

// addressesOf is where these sockets listen.
func addressesOf(bound []*listen.Binding) []pool.Address {
	all := make([]pool.Address, len(bound))
	for i, b := range bound {
		all[i] = addressOf(b)
	}
	return all
}
