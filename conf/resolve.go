package conf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Lookup finds the addresses of a host name, as net.Resolver.LookupNetIP does; network is
// "ip". Resolve calls it from several goroutines at once.
type Lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// maxLookups bounds the lookups at a time: names that time out cost one timeout and not one
// each, and a resolver is not flooded.
const maxLookups = 16

// Resolve fills Listener.Bind and Backend.Addr where the address is a host name: with the
// first IPv4 address that lookup gives, or if there is none with the first. Each name is
// looked up once; literal addresses need no lookup. The errors are Errors, and name all that
// went wrong; then c is as before. Nobody else may use c meanwhile.
func (c *Config) Resolve(ctx context.Context, lookup Lookup) error {
	t := &lookups{byHost: map[string][]*pending{}}
	listeners := append([]Listener(nil), c.Listeners...)
	for i := range listeners {
		l := &listeners[i]
		t.add(Path("listener", l.Name, "address"), l.Address, false, &l.Bind)
	}
	pools := append([]Pool(nil), c.Pools...)
	for i := range pools {
		p := &pools[i]
		p.Backends = append([]Backend(nil), p.Backends...)
		for k := range p.Backends {
			b := &p.Backends[k]
			path := join(element(Path("pool", p.Name, "backends"), k), "address")
			t.add(path, b.Address, true, &b.Addr)
		}
	}
	t.lookUp(ctx, lookup)

	r := newReport(c.File, c.lines)
	for _, one := range t.all {
		one.fill(r)
	}
	checkListenerConflicts(r, listeners)
	for i := range pools {
		checkBackendConflicts(r, &pools[i])
	}
	checkLoops(r, listeners, pools)
	if err := r.err(); err != nil {
		return err
	}
	c.Listeners, c.Pools = listeners, pools
	return nil
}

// A pending address of the file is one whose host is to be looked up.
type pending struct {
	path    string
	text    string
	host    string
	backend bool
	port    uint16
	into    *netip.AddrPort

	// lookUp sets these
	found []netip.Addr
	err   error
}

// lookups is all pending addresses, in the file's order and by host.
type lookups struct {
	all    []*pending
	hosts  []string
	byHost map[string][]*pending
}

// add notes an address, unless it is there already.
func (t *lookups) add(path, text string, backend bool, into *netip.AddrPort) {
	if into.IsValid() {
		return
	}
	end, e := splitAddress(text, "")
	if e != nil {
		panic("conf: Resolve of a Config that Parse did not make")
	}
	one := &pending{path: path, text: text, host: end.host, backend: backend, port: end.port, into: into}
	t.all = append(t.all, one)
	if t.byHost[end.host] == nil {
		t.hosts = append(t.hosts, end.host)
	}
	t.byHost[end.host] = append(t.byHost[end.host], one)
}

// lookUp returns when every host has been looked up.
func (t *lookups) lookUp(ctx context.Context, lookup Lookup) {
	hosts := make(chan string, len(t.hosts)) // holds all; lookUp closes it
	for _, h := range t.hosts {
		hosts <- h
	}
	close(hosts)
	var wg sync.WaitGroup
	for range min(len(t.hosts), maxLookups) {
		wg.Go(func() { t.lookUpHosts(ctx, lookup, hosts) })
	}
	wg.Wait()
}

// lookUpHosts writes only to the addresses of the hosts that it took.
func (t *lookups) lookUpHosts(ctx context.Context, lookup Lookup, hosts <-chan string) {
	for host := range hosts {
		found, err := lookup(ctx, "ip", host)
		for _, one := range t.byHost[host] {
			one.found, one.err = found, err
		}
	}
}

// fill sets the address, or reports why there is none.
func (t *pending) fill(r *report) {
	var ip netip.Addr
	for _, a := range t.found {
		if a = a.Unmap(); !ip.IsValid() || ip.Is6() && a.Is4() {
			ip = a
		}
	}
	switch {
	case t.err != nil:
		r.add(t.path, Error{Found: quote(t.text), Message: cause(t.err), err: t.err})
	case !ip.IsValid():
		r.add(t.path, Error{Found: quote(t.text), Message: "the name has no address"})
	case checkIP(ip, t.backend) != "":
		r.add(t.path, Error{Found: quote(t.text), Message: fmt.Sprintf("its address is %s: %s", printable(ip.String()), checkIP(ip, t.backend))})
	default:
		*t.into = netip.AddrPortFrom(ip, t.port)
	}
}

// checkBackendConflicts reports backends of a pool that have one address under two names.
func checkBackendConflicts(r *report, p *Pool) {
	path := Path("pool", p.Name, "backends")
	taken := map[netip.AddrPort]int{}
	for i, b := range p.Backends {
		first, conflict := taken[b.Addr]
		switch {
		case !b.Addr.IsValid():
		case conflict:
			r.add(join(element(path, i), "address"), Error{
				Found:   quote(b.Address),
				Message: fmt.Sprintf("its address is %s; %s", printable(b.Addr.String()), sameAs(r, path, first, "address")),
			})
		default:
			taken[b.Addr] = i
		}
	}
}

// ResolvedText is an address as the file has it, and behind a host name what that came to, if it has been resolved.
func ResolvedText(text string, addr netip.AddrPort) string {
	host, _, err := net.SplitHostPort(text)
	if err != nil || host == "" || !addr.IsValid() {
		return text
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return text
	}
	return fmt.Sprintf("%s (%s)", text, addr)
}
