package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool"
	"github.com/miekg/dns"
)

// DNS finds backends in the A and AAAA records of a name, each of weight 1 and in tier 0; a backend's id is its address and
// port. It is a plain value and safe for concurrent use.
//
// A name of one family alone is complete. When the question for one family fails, the answer for the other is not taken:
// half of the backends would be dropped for the failure of a server.
type DNS struct {
	Name     string
	Port     uint16
	Resolver string // "IP:PORT", which is asked for Name as it is; "" = the servers and domains of /etc/resolv.conf
}

// bothFamilies is the Type of a LookupError that is not of A or AAAA alone.
const bothFamilies = "A/AAAA"

// Find asks for the addresses of the name. Its errors are *LookupError.
func (d DNS) Find(ctx context.Context) (Found, error) {
	r, err := newResolvers(d.Resolver)
	if err != nil {
		return Found{}, badResolver(d.Name, bothFamilies, err)
	}
	return d.find(ctx, r)
}

func (d DNS) find(ctx context.Context, r resolvers) (Found, error) {
	found, err := search(r, d.Name, bothFamilies, func(name string) (addresses, error) {
		return r.addresses(ctx, name, nil)
	})
	if err != nil {
		return Found{}, err
	}
	f := Found{TTL: lifetime(found.ttl)}
	for _, ip := range found.ips {
		addr := netip.AddrPortFrom(ip, d.Port)
		f.Backends = append(f.Backends, pool.Spec{ID: addr.String(), Addr: addr, Weight: 1})
	}
	if err := checkUsable(f.Backends); err != nil {
		return Found{}, &LookupError{Name: found.name, Type: bothFamilies, Kind: ErrBadBackend, Detail: err.Error()}
	}
	return f, nil
}

// lifetime is how long an answer holds whose records have at least the given TTL in seconds.
func lifetime(ttl uint32) time.Duration { return max(time.Duration(ttl)*time.Second, minTTL) }

// addresses are all those of one name.
type addresses struct {
	name string
	ips  []netip.Addr // at least one; each once, in order, IPv4 first
	ttl  uint32       // seconds; the least of all records used
}

// addresses asks for the addresses of a name, for both families at once, except for one that is among the known records.
// That there is but one is no sign that there is no other: a server leaves out what does not fit (RFC 2181, 9).
func (r resolvers) addresses(ctx context.Context, name string, known []dns.RR) (addresses, error) {
	var v4, v6 records
	var err4, err6 error
	var asking sync.WaitGroup
	asking.Go(func() { v4, err4 = r.family(ctx, name, dns.TypeA, known) })
	asking.Go(func() { v6, err6 = r.family(ctx, name, dns.TypeAAAA, known) })
	asking.Wait()
	switch {
	case err4 != nil && !empty(err4):
		return addresses{}, err4
	case err6 != nil && !empty(err6):
		return addresses{}, err6
	case err4 != nil && err6 != nil:
		if errors.Is(err4, ErrNoSuchName) {
			err4 = err6 // whose server may say that the name exists
		}
		if e, ok := errors.AsType[*LookupError](err4); ok {
			e.Type = bothFamilies
		}
		return addresses{}, err4
	}
	found := addresses{name: name, ttl: maxTTL}
	for _, family := range []records{v4, v6} {
		for _, rr := range family.found {
			found.ttl = min(found.ttl, family.ttl)
			found.ips = append(found.ips, addressOf(rr))
		}
	}
	slices.SortFunc(found.ips, netip.Addr.Compare)
	found.ips = slices.Compact(found.ips)
	return found, nil
}

// family returns the records of a type that are known, or else asks for them.
func (r resolvers) family(ctx context.Context, name string, qtype uint16, known []dns.RR) (records, error) {
	if found := ofOwner(known, name, qtype); len(found.found) > 0 {
		return found, nil
	}
	return r.lookup(ctx, name, qtype)
}

// addressOf is the address in a record of type A or AAAA; an IPv4 address is never in its form mapped into IPv6.
func addressOf(rr dns.RR) netip.Addr {
	var ip netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		ip, _ = netip.AddrFromSlice(rr.A) // that it has the right length was checked by accept
	case *dns.AAAA:
		ip, _ = netip.AddrFromSlice(rr.AAAA)
	}
	return ip.Unmap()
}

// checkUsable names the backends that nothing can listen on.
func checkUsable(backends []pool.Spec) error {
	const shown = 5 // of possibly thousands
	var unusable []string
	for _, b := range backends {
		if ip := b.Addr.Addr(); b.Addr.Port() == 0 || !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() {
			unusable = append(unusable, b.Addr.String())
		}
	}
	switch {
	case len(unusable) == 0:
		return nil
	case len(unusable) > shown:
		return fmt.Errorf("%s and %d more", strings.Join(unusable[:shown], ", "), len(unusable)-shown)
	}
	return errors.New(strings.Join(unusable, ", "))
}

// badResolver is the error of a lookup that no server could be found for.
func badResolver(name, qtype string, err error) error {
	return &LookupError{Name: name, Type: qtype, Kind: ErrBadResolver, Detail: err.Error(), Cause: err}
}
