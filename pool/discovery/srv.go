package discovery

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/pool"
)

// Limits of the questions that one SRV answer can cause.
const (
	// maxTargets bounds the targets of an answer. Each costs one or two questions. A service of a thousand hosts is
	// large, and a message has room for more than two thousand.
	maxTargets = 1000
	// targetConcurrency is how many targets are looked up at once: a resolver can answer hundreds in a round trip, but
	// should not get them in one burst.
	targetConcurrency = 16
	// targetPause is the least time between the starts of two lookups once so many are running; it allows 1,000
	// questions a second.
	targetPause = 2 * time.Millisecond
)

// SRV finds backends in the SRV records of a name (RFC 2782); a backend's id is its address and port. It is a plain
// value and safe for concurrent use.
//
// The priority of a record is the tier of its backends. Weights are relative to the other records of the same priority.
// They are used as they are if none is above 256, and else scaled so that the largest is 256. A record of weight 0
// should be chosen seldom, and gets weight 1. Each address of a target gets the whole weight. If an address and port is
// found twice, the lower priority wins, and within a priority the larger weight.
//
// If one target cannot be looked up, the whole answer is an error, since its backends may work.
type SRV struct {
	Name     string // of the records: "_postgresql._tcp.example.com"
	Port     uint16 // of all backends; 0 = those of the records
	Resolver string // "IP:PORT", asked for exactly Name; "" = the servers and search domains of /etc/resolv.conf
	Family   Family // of the targets' addresses
	// AllowLoopback accepts addresses of this machine and link-local ones. Without it, an answer with such an address
	// is an error.
	AllowLoopback bool
}

// Find asks for the records of the name, and for those addresses of the targets that the answer does not include. Its
// errors wrap *LookupError or ErrTooMany.
func (s SRV) Find(ctx context.Context) (Found, error) {
	r, err := newResolvers(s.Resolver)
	if err != nil {
		return Found{}, badResolver(s.Name, "SRV", err)
	}
	return s.find(ctx, r)
}

func (s SRV) find(ctx context.Context, r resolvers) (Found, error) {
	answer, err := search(r, s.Name, "SRV", func(name string) (records, error) {
		return r.lookup(ctx, name, dns.TypeSRV)
	})
	if err != nil {
		return Found{}, err
	}
	services := servicesOf(answer.found)
	if len(services) == 0 {
		return Found{}, &LookupError{Name: answer.name, Type: "SRV", Kind: ErrNoService}
	}
	for i := range services {
		services[i].port = cmp.Or(s.Port, services[i].port)
	}
	targets, err := r.targets(ctx, services, s.Family, answer.extra)
	if err != nil {
		return Found{}, fmt.Errorf("look up SRV of %s: target: %w", answer.name, err)
	}
	backends, err := backendsOf(services, targets)
	if err != nil {
		return Found{}, fmt.Errorf("look up SRV of %s: %w", answer.name, err)
	}
	if e := checkBackends(backends, s.AllowLoopback); e != nil {
		e.Name, e.Type = answer.name, "SRV"
		return Found{}, e
	}
	ttl := answer.ttl
	for _, a := range targets {
		ttl = min(ttl, a.ttl)
	}
	return Found{Backends: backends, TTL: lifetime(ttl), Asked: r.asked()}, nil
}

// A service is one SRV record, with its weight scaled to that of a backend.
type service struct {
	target string // lower case
	port   uint16
	tier   int
	weight uint32 // 1 to 256
}

// servicesOf returns the services of SRV records; none for the target ".".
func servicesOf(rrs []dns.RR) []service {
	largest := make(map[uint16]uint16) // weight, by priority
	for _, rr := range rrs {
		if s, ok := rr.(*dns.SRV); ok && s.Target != "." {
			largest[s.Priority] = max(largest[s.Priority], s.Weight)
		}
	}
	var services []service
	for _, rr := range rrs {
		if s, ok := rr.(*dns.SRV); ok && s.Target != "." {
			services = append(services, service{
				target: strings.ToLower(s.Target), port: s.Port, tier: int(s.Priority),
				weight: scale(s.Weight, largest[s.Priority]),
			})
		}
	}
	return services
}

// scale maps a weight from 0 to largest to one from 1 to 256.
func scale(weight, largest uint16) uint32 {
	w := uint32(weight)
	if l := uint32(largest); l > pool.MaxWeight {
		w = (w*pool.MaxWeight + l/2) / l
	}
	return max(w, 1)
}

// targets returns the addresses of all targets. It uses those among extra and asks for the others.
func (r resolvers) targets(
	ctx context.Context, services []service, f Family, extra []dns.RR,
) (map[string]addresses, error) {
	known := make(map[string][]dns.RR)
	for _, rr := range extra {
		owner := strings.ToLower(rr.Header().Name)
		known[owner] = append(known[owner], rr)
	}
	var names []string
	for _, s := range services {
		names = append(names, s.target)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxTargets {
		return nil, fmt.Errorf("%w: more than %d targets", ErrTooMany, maxTargets)
	}
	return inTurn(names, func(name string) (addresses, error) { return r.addresses(ctx, name, f, known[name]) })
}

// inTurn looks names up in their order, targetConcurrency at once, and starts none after one has failed: otherwise an
// answer with a thousand unknown targets would cost a thousand lookups at each attempt. Of several errors it returns
// that of the first name. Since all names before a failed one have been started, the same failure is reported each
// time.
func inTurn(names []string, lookUp func(name string) (addresses, error)) (map[string]addresses, error) {
	found, errs := make([]addresses, len(names)), make([]error, len(names))
	var failed atomic.Bool
	slots := make(chan struct{}, targetConcurrency)
	pace := time.NewTicker(targetPause)
	defer pace.Stop()
	var lookups sync.WaitGroup
	for i, name := range names {
		if i >= targetConcurrency {
			<-pace.C
		}
		slots <- struct{}{}
		if failed.Load() {
			break
		}
		lookups.Go(func() {
			defer func() { <-slots }()
			if found[i], errs[i] = lookUp(name); errs[i] != nil {
				failed.Store(true)
			}
		})
	}
	lookups.Wait()
	all := make(map[string]addresses, len(names))
	for i, name := range names {
		if errs[i] != nil {
			return nil, errs[i]
		}
		all[name] = found[i]
	}
	return all, nil
}

// backendsOf returns the backends for services and the addresses of their targets.
func backendsOf(services []service, targets map[string]addresses) ([]pool.Spec, error) {
	best := make(map[netip.AddrPort]pool.Spec)
	for _, s := range services {
		for _, ip := range targets[s.target].ips {
			addr := netip.AddrPortFrom(ip, s.port)
			old, known := best[addr]
			if !known || s.tier < old.Tier || s.tier == old.Tier && s.weight > old.Weight {
				best[addr] = pool.Spec{ID: addr.String(), Addr: pool.At(addr), Weight: s.weight, Tier: s.tier}
			}
			if err := checkNumber(len(best)); err != nil {
				return nil, err
			}
		}
	}
	backends := make([]pool.Spec, 0, len(best))
	for _, b := range best {
		backends = append(backends, b)
	}
	slices.SortFunc(backends, func(a, b pool.Spec) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), a.Addr.Compare(b.Addr))
	})
	return backends, nil
}
