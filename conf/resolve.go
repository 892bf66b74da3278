package conf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Lookup finds the addresses of a host name, as net.Resolver.LookupNetIP does; network is
// "ip". Resolve calls it from several goroutines at once.
type Lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// maxLookups bounds concurrent lookups: many names that time out then cost about one timeout, and the resolver is not
// flooded.
const maxLookups = 16

// Resolve fills Listener.Binds and Backend.Addr where the address is a host name: with the first IPv4 address that
// lookup returns, or if there is none, with the first address. Each name is looked up once; literal addresses need no
// lookup. c must not be used otherwise meanwhile.
//
// A backend whose name has no usable address is no error; Unresolved reports it. If before, which may be nil, has an
// address for the name, that one is used; otherwise Backend.Addr stays invalid. A listener without an address is an
// error. The errors are Errors and list all failures; on an error c is unchanged.
func (c *Config) Resolve(ctx context.Context, lookup Lookup, before *Config) error {
	return c.resolve(ctx, lookup, before.addresses(), nil)
}

// ResolveAgain looks up the names in Unresolved again and returns a copy of c with the addresses found. Names that
// still have none stay as in c. Listeners keep their addresses.
func (c *Config) ResolveAgain(ctx context.Context, lookup Lookup) *Config {
	again := *c
	failed := map[string]bool{}
	for _, e := range c.unresolved {
		failed[e.Path] = true
	}
	if err := again.resolve(ctx, lookup, c.addresses(), failed); err != nil {
		panic("conf: a listener has lost its address: " + err.Error())
	}
	again.Listeners = c.Listeners
	return &again
}

// Unresolved lists the host names for which Resolve found no usable address: the name is unknown,
// no DNS server answers, or another backend of the pool has the address. A listener's name is in it
// only if it kept the address it had before.
func (c *Config) Unresolved() Errors { return c.unresolved }

// resolve is Resolve. The paths in again are looked up even if they have an address already; then listeners are not
// checked for conflicts, since they stay where they are.
func (c *Config) resolve(ctx context.Context, lookup Lookup, known map[string]netip.Addr, again map[string]bool) error {
	t := &lookups{byHost: map[string][]*pending{}, known: known}
	listeners := append([]Listener(nil), c.Listeners...)
	for i := range listeners {
		l := &listeners[i]
		l.Binds = append([]Bind(nil), l.Binds...)
		for elem, text := range l.Address {
			path := l.AddressPath(elem)
			b := l.firstBind(elem)
			if again[path] {
				b.Addr = netip.AddrPort{}
			}
			t.add(path, text, false, &b.Addr)
		}
	}
	pools := append([]Pool(nil), c.Pools...)
	for i := range pools {
		p := &pools[i]
		p.Backends = append([]Backend(nil), p.Backends...)
		for k := range p.Backends {
			b := &p.Backends[k]
			path := join(element(Path("pool", p.Name, "backends"), k), "address")
			if again[path] {
				b.Addr = netip.AddrPort{}
			}
			t.add(path, b.Address, true, &b.Addr)
		}
	}
	given := takenAddresses(pools)
	t.lookUp(ctx, lookup)

	stands := true // every listener has an address
	for _, one := range t.all {
		one.fill()
		stands = stands && (one.backend || one.into.IsValid())
	}
	for i := range listeners {
		listeners[i].spreadRanges()
	}
	r, conflicts := newReport(c.parts, c.lines), newReport(c.parts, c.lines)
	for i := range pools {
		dropConflicts(r, &pools[i], given[i])
	}
	for _, one := range t.all {
		one.report(r)
	}
	if again == nil {
		checkListenerConflicts(conflicts, listeners)
		checkLoops(conflicts, listeners, pools)
	}
	if conflicts.errs = append(conflicts.errs, r.errs...); !stands || len(conflicts.errs) > len(r.errs) {
		return conflicts.err()
	}
	c.Listeners, c.Pools, c.unresolved = listeners, pools, r.sorted()
	return nil
}

// addresses returns the addresses of the host names of c; c may be nil.
func (c *Config) addresses() map[string]netip.Addr {
	known := map[string]netip.Addr{}
	note := func(text string, addr netip.AddrPort) {
		if end, e := splitBackend(text, ""); e == nil && !end.ip.IsValid() && end.host != "" && addr.IsValid() {
			known[end.host] = addr.Addr()
		}
	}
	if c == nil {
		return known
	}
	for _, l := range c.Listeners {
		for i, text := range l.Address {
			first, _, _ := cutRange(text)
			note(first, l.firstBind(i).Addr)
		}
	}
	for _, p := range c.Pools {
		for _, b := range p.Backends {
			note(b.Address, b.Addr)
		}
	}
	return known
}

// A pending is an address of the file whose host must be looked up.
type pending struct {
	path    string
	text    string
	host    string
	backend bool
	port    uint16
	into    *netip.AddrPort
	had     netip.Addr // the earlier address; not valid if there was none

	// lookUp sets these
	found []netip.Addr
	err   error

	wrong string // why found is not usable; fill sets it
}

// lookups is all pending addresses, in the file's order and by host.
type lookups struct {
	all    []*pending
	hosts  []string
	byHost map[string][]*pending
	known  map[string]netip.Addr // earlier addresses of hosts
}

// add adds an address, unless it is known already.
func (t *lookups) add(path, text string, backend bool, into *netip.AddrPort) {
	if into.IsValid() {
		return
	}
	first, _, _ := cutRange(text)
	end, e := splitBackend(first, "") // which a listener's address fits, too
	if e != nil {
		panic("conf: Resolve of a Config that Parse did not make")
	}
	if end.path != "" {
		return
	}
	one := &pending{path: path, text: text, host: end.host, backend: backend, port: end.port, into: into,
		had: t.known[end.host]}
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

// fill sets the address found, or the earlier one, or none.
func (t *pending) fill() {
	var ip netip.Addr
	for _, a := range t.found {
		if a = a.Unmap(); !ip.IsValid() || ip.Is6() && a.Is4() {
			ip = a
		}
	}
	switch {
	case t.err != nil:
		t.wrong = lookupCause(t.err)
	case !ip.IsValid():
		t.wrong = "the name has no address"
	case checkIP(ip, t.backend) != "":
		t.wrong = fmt.Sprintf("its address is %s: %s", printable(ip.String()), checkIP(ip, t.backend))
	}
	if t.wrong != "" {
		ip = t.had
	}
	if ip.IsValid() && checkIP(ip, t.backend) == "" {
		*t.into = netip.AddrPortFrom(ip, t.port)
	}
}

// report says why no address was found, if none was.
func (t *pending) report(r *report) {
	if t.wrong == "" {
		return
	}
	e := Error{Found: quote(t.text), Message: t.wrong, err: t.err}
	if t.into.IsValid() {
		e.Message += fmt.Sprintf("; it keeps the address it had, %s", t.into.Addr())
	}
	r.add(t.path, e)
}

// lookupCause says why a lookup failed, without the parts that the message has already.
func lookupCause(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		text := "cannot be resolved: " + dns.Err
		if dns.Server != "" {
			text += ", says " + dns.Server
		}
		return printable(text)
	}
	return "cannot be resolved: " + cause(err)
}

// takenAddresses maps, for each pool, the addresses that need no lookup to the indexes of their backends.
func takenAddresses(pools []Pool) []map[netip.AddrPort]int {
	all := make([]map[netip.AddrPort]int, len(pools))
	for i, p := range pools {
		all[i] = make(map[netip.AddrPort]int, len(p.Backends))
		for k, b := range p.Backends {
			if b.Addr.IsValid() {
				all[i][b.Addr] = k
			}
		}
	}
	return all
}

// dropConflicts reports each backend whose name resolved to the address of another backend of its pool, and makes its
// address invalid. Backends in taken, which have literal addresses, win; of two names the first in the file wins.
func dropConflicts(r *report, p *Pool, taken map[netip.AddrPort]int) {
	path := Path("pool", p.Name, "backends")
	for i := range p.Backends {
		b := &p.Backends[i]
		first, conflict := taken[b.Addr]
		switch {
		case !b.Addr.IsValid() || conflict && first == i:
		case conflict:
			r.add(join(element(path, i), "address"), Error{
				Found: quote(b.Address),
				Message: fmt.Sprintf("its address is %s; %s",
					printable(address{ip: b.Addr.Addr(), port: b.Addr.Port()}.String()), sameAs(r, path, first, "address")),
			})
			b.Addr = netip.AddrPort{}
		default:
			taken[b.Addr] = i
		}
	}
}

// ResolvedText returns an address as in the file, followed by the resolved address if it has a resolved host name.
func ResolvedText(text string, addr netip.AddrPort) string {
	end, e := splitBackend(text, "")
	switch {
	case e != nil || end.host == "" || end.ip.IsValid() || !addr.IsValid():
		return text
	case addr.Port() == 0:
		return fmt.Sprintf("%s (%s)", text, addr.Addr())
	}
	return fmt.Sprintf("%s (%s)", text, addr)
}
