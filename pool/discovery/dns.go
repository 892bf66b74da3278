package discovery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/pool"
)

// DNS finds backends in the A and AAAA records of a name, each of weight 1 and in tier 0; a backend's id is its address
// and port. It is a plain value and safe for concurrent use.
//
// A name with addresses of one family only is a complete answer. If the question for one family fails, the answer for
// the other is not used: a server's failure would otherwise remove half of the backends.
type DNS struct {
	Name     string
	Port     uint16
	Resolver string // "IP:PORT", asked for exactly Name; "" = the servers and search domains of /etc/resolv.conf
	Family   Family
	// AllowLoopback accepts addresses of this machine and link-local ones. Without it, an answer with such an address
	// is an error.
	AllowLoopback bool
}

// Find asks for the addresses of the name. Its errors are *LookupError.
func (d DNS) Find(ctx context.Context) (Found, error) {
	r, err := newResolvers(d.Resolver)
	if err != nil {
		return Found{}, badResolver(d.Name, d.Family.types(), err)
	}
	return d.find(ctx, r)
}

func (d DNS) find(ctx context.Context, r resolvers) (Found, error) {
	found, err := search(r, d.Name, d.Family.types(), func(name string) (addresses, error) {
		return r.addresses(ctx, name, d.Family, nil)
	})
	if err != nil {
		return Found{}, err
	}
	f := Found{TTL: lifetime(found.ttl), Asked: r.asked()}
	for _, ip := range found.ips {
		addr := netip.AddrPortFrom(ip, d.Port)
		f.Backends = append(f.Backends, pool.Spec{ID: addr.String(), Addr: pool.At(addr), Weight: 1})
	}
	if e := checkBackends(f.Backends, d.AllowLoopback); e != nil {
		e.Name, e.Type = found.name, d.Family.types()
		return Found{}, e
	}
	return f, nil
}

// lifetime returns how long an answer is valid whose least TTL is given, in seconds.
func lifetime(ttl uint32) time.Duration { return max(time.Duration(ttl)*time.Second, minTTL) }

// addresses has all addresses of one name.
type addresses struct {
	name string
	ips  []netip.Addr // at least one; each once, in order, IPv4 first
	ttl  uint32       // seconds; the least of all records used
}

// addresses asks for the addresses of a name, for all wanted families concurrently. It does not ask for a family that
// is among the known records. It asks for the other one even then: a server omits records that do not fit (RFC 2181,
// 9).
func (r resolvers) addresses(ctx context.Context, name string, f Family, known []dns.RR) (addresses, error) {
	types := f.questions()
	answers, errs := make([]records, len(types)), make([]error, len(types))
	var lookups sync.WaitGroup
	for i, qtype := range types {
		lookups.Go(func() { answers[i], errs[i] = r.family(ctx, name, qtype, known) })
	}
	lookups.Wait()
	var nothing error
	for _, err := range errs {
		switch {
		case err == nil:
		case !empty(err):
			return addresses{}, err
		// the answer for the other family may say that the name exists
		case nothing == nil || errors.Is(nothing, ErrNoSuchName):
			nothing = err
		}
	}
	found := addresses{name: name, ttl: maxTTL}
	for _, family := range answers {
		for _, rr := range family.found {
			found.ttl = min(found.ttl, family.ttl)
			found.ips = append(found.ips, addressOf(rr))
		}
	}
	if len(found.ips) == 0 {
		if e, ok := errors.AsType[*LookupError](nothing); ok {
			e.Type = f.types()
		}
		return addresses{}, nothing
	}
	slices.SortFunc(found.ips, netip.Addr.Compare)
	found.ips = slices.Compact(found.ips)
	return found, nil
}

// family returns the known records of a type, or asks for them if there are none.
func (r resolvers) family(ctx context.Context, name string, qtype uint16, known []dns.RR) (records, error) {
	if found := ofOwner(known, name, qtype); len(found.found) > 0 {
		return found, nil
	}
	return r.lookup(ctx, name, qtype)
}

// addressOf returns the address in a record of type A or AAAA; never an IPv4-mapped IPv6 address.
func addressOf(rr dns.RR) netip.Addr {
	var ip netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		ip, _ = netip.AddrFromSlice(rr.A) // accept has checked the length
	case *dns.AAAA:
		ip, _ = netip.AddrFromSlice(rr.AAAA)
	}
	return ip.Unmap()
}

// checkBackends returns an error if the answer has unusable or forbidden backends. The error lacks its name.
func checkBackends(backends []pool.Spec, allowLoopback bool) *LookupError {
	if err := checkUsable(backends); err != nil {
		return &LookupError{Kind: ErrBadBackend, Detail: err.Error()}
	}
	if allowLoopback {
		return nil
	}
	if err := checkElsewhere(backends); err != nil {
		return &LookupError{Kind: ErrOwnAddress, Detail: err.Error()}
	}
	return nil
}

// checkUsable returns an error that names the backends whose addresses or ports nothing can listen on.
func checkUsable(backends []pool.Spec) error {
	var unusable []string
	for _, b := range backends {
		if ip := b.Addr.Addr(); b.Addr.Port() == 0 || !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() ||
			ip == broadcast() {
			unusable = append(unusable, b.Addr.AddrPort.String()) // with a port of 0
		}
	}
	if len(unusable) == 0 {
		return nil
	}
	return errors.New(someOf(unusable))
}

// broadcast returns the limited broadcast address (RFC 919).
func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// badResolver returns the error of a lookup without a usable server.
func badResolver(name, qtype string, err error) error {
	return &LookupError{Name: name, Type: qtype, Kind: ErrBadResolver, Detail: err.Error(), Cause: err}
}
