package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/algo"
)

// maxNameBytes keeps names readable in logs and short in metrics, where each series repeats them.
const maxNameBytes = 64

const nameNeeds = "needs 1 to 64 letters, digits, '_', '-' or '.'"

// validName reports whether name is valid for a listener, pool, backend or zone. bareKeyChars are the letters, digits,
// '_' and '-'.
func validName(name string) bool {
	return name != "" && len(name) <= maxNameBytes &&
		bare(strings.ReplaceAll(name, ".", ""))
}

// validate reports mistakes in c beyond those of single values. It fills Listener.Binds, Listener.Mode, Backend.Addr,
// Backend.Path, Backend.CheckAddr, Backend.Name, Pool.SourceAddrs and the fields of Admin, Metrics and ProxyProtocol
// that derive from texts.
func validate(r *report, c *Config) {
	validateAdmin(r, &c.Admin)
	validateMetrics(r, c)
	validateFleet(r, c.Fleet)
	for i := range c.Pools {
		validatePool(r, &c.Pools[i])
	}
	pools := make([]string, len(c.Pools))
	for i, p := range c.Pools {
		pools[i] = p.Name
	}
	for i := range c.Listeners {
		validateListener(r, &c.Listeners[i], pools)
	}
	checkListenerConflicts(r, c.Listeners)
	checkMetrics(r, c)
	checkLoops(r, c.Listeners, c.Pools)
	checkSendProxy(r, c)
	checkSafeDrain(r, c)
	checkRebalance(r, c)
	checkPoolTLS(r, c)
	checkUnixBackends(r, c)
	checkAgents(r, c)
	checkUnixListeners(r, c)
	checkPortless(r, c)
}

// defaultMaxUDPAnswer is the default of max_udp_answer, which is allowed also without DNS questions.
const defaultMaxUDPAnswer = 1232

func validateListener(r *report, l *Listener, pools []string) {
	path := Path("listener", l.Name)
	validateProfile(r, path, l)
	applyProfile(r, path, l)
	switch {
	case len(l.Routes) == 0 && r.absent[join(path, "pool")]: // an empty list of routes, or a mistaken one
		r.add(join(path, "pool"), Error{Message: "missing", Allowed: "needs the name of a pool"})
	case len(l.Routes) == 0 || l.Pool != "":
		validatePoolName(r, join(path, "pool"), l.Pool, pools)
	}
	validateRoutes(r, l, pools)
	// A mistaken profile has been replaced by the default, which the file does not contain.
	if l.Cache != nil && l.Protocol == "tcp" && l.Profile != "dns" && !r.seen[join(path, "profile")] {
		r.add(join(path, "cache"),
			Error{Found: "a table", Message: `protocol is "tcp" and profile is ` + quote(l.Profile),
				Allowed: `needs profile = "dns" beside it`})
	}
	if l.MaxUDPAnswer != defaultMaxUDPAnswer && l.Protocol == "udp" && l.Cache == nil && l.Profile != "dns" &&
		!r.seen[join(path, "profile")] {
		r.add(join(path, "max_udp_answer"),
			Error{Found: quote(l.MaxUDPAnswer.String()), Message: "profile is " + quote(l.Profile),
				Allowed: `needs profile = "dns" beside it`})
	}
	if c := l.Cache; c != nil && c.MaxTTL < c.MinTTL {
		r.add(join(join(path, "cache"), "max_ttl"), Error{
			Found: quote(c.MaxTTL.String()), Allowed: fmt.Sprintf("needs min_ttl, %v, or more", c.MinTTL),
		})
	}
	validateProxyProtocol(r, join(path, "proxy_protocol"), &l.ProxyProtocol)
	validateAccess(r, join(path, "access"), &l.Access)
	validateLimits(r, path, l)
	validateListenerTLS(r, path, l)
	validateCongestionControl(r, path, l.CongestionControl)
	validateAddresses(r, l)
}

// validatePoolName checks the name of a pool at path.
func validatePoolName(r *report, path, name string, pools []string) {
	if slices.Contains(pools, name) {
		return
	}
	e := Error{Found: quote(name), Message: "there is no such pool", Nearest: nearest(name, pools)}
	if e.Nearest == "" {
		e.Allowed = "needs the NAME of a [pool.NAME] table"
	}
	r.add(path, e)
}

func validatePool(r *report, p *Pool) {
	path := Path("pool", p.Name)
	if r.absent[join(path, "on_unhealthy")] && p.Health.WantsPrimary() {
		// A demoted or abandoned primary must not keep its writers, since their writes would be lost. A closed session
		// reconnects and finds the new primary.
		p.OnUnhealthy = "close"
		r.origin[join(path, "on_unhealthy")] = `health.role "primary"`
	}
	validateBackends(r, join(path, "backends"), p.Backends, forBackend)
	validateSource(r, path, p)
	validatePoolTLS(r, join(path, "tls"), p.TLS)
	validateZone(r, path, p.Zone)
	// A mistaken algorithm has been replaced by the default, which the file does not contain.
	if p.HashBalance != 0 && !hashes(p.Algorithm) && !r.seen[join(path, "algorithm")] {
		r.add(join(path, "hash_balance"), Error{
			Found:   literal(p.HashBalance),
			Message: fmt.Sprintf("algorithm %q does not hash", p.Algorithm),
			Allowed: "needs " + either(hashing()) + " as algorithm, or 0",
		})
	}
	validateNames(r, path, p)
	validateHealth(r, join(path, "health"), p.Health)
	if b := p.Breaker; b.MaxOpenFor < b.OpenFor {
		r.add(join(join(path, "breaker"), "max_open_for"), Error{
			Found: quote(b.MaxOpenFor.String()), Allowed: fmt.Sprintf("needs open_for, %v, or more", b.OpenFor),
		})
	}
	validateDiscovery(r, join(path, "discovery"), p.Discovery)
}

// algorithms returns the names of the algorithms for which is returns true.
func algorithms(is func(algo.Kind) bool) []string {
	var names []string
	for _, k := range algo.Kinds() {
		if is(k) {
			names = append(names, k.Name)
		}
	}
	return names
}

// hashing returns the names of the algorithms that hash the client's hash_key.
func hashing() []string { return algorithms(func(k algo.Kind) bool { return k.Hash }) }

func hashes(algorithm string) bool { return algo.KindOf(algorithm).Hash }

// validateZone checks the key zone of the table at path.
func validateZone(r *report, path, zone string) {
	if zone != "" && !validName(zone) {
		r.add(join(path, "zone"), Error{Found: quote(zone), Allowed: nameNeeds + `, or ""`})
	}
}

// validateBackends checks the list at path, of a pool or a discovery file, and fills Backend.Addr,
// Backend.Path, Backend.CheckAddr and Backend.Name.
func validateBackends(r *report, path string, backends []Backend, use addressUse) {
	names := map[string]int{}     // the first backend of each name
	addresses := map[string]int{} // the first backend at each address
	for i := range backends {
		b := &backends[i]
		sub := element(path, i)
		validateZone(r, sub, b.Zone)
		if b.Check != "" {
			if end, ok := validAddress(r, join(sub, "check"), b.Check, forCheck); ok {
				b.CheckAddr = netip.AddrPortFrom(end.ip, end.port)
			}
		}
		named := b.Name != ""
		if named && b.Name != b.Address && !validName(b.Name) {
			r.add(join(sub, "name"), Error{Found: quote(b.Name), Allowed: nameNeeds})
		}
		if !named {
			b.Name = b.Address
		}
		sameAddress := false
		if end, ok := validAddress(r, join(sub, "address"), b.Address, use); ok {
			if end.ip.IsValid() {
				b.Addr = netip.AddrPortFrom(end.ip, end.port)
			}
			b.Path = end.path
			var first int
			if first, sameAddress = addresses[end.String()]; sameAddress {
				r.add(join(sub, "address"), Error{Found: quote(b.Address), Message: sameAs(r, path, first, "address")})
			} else {
				addresses[end.String()] = i
			}
		}
		// Two backends without names that share an address are one mistake and not two. A backend without an address is
		// reported already.
		first, sameName := names[b.Name]
		switch {
		case !sameName:
			names[b.Name] = i
		case named || !sameAddress && b.Name != "":
			r.add(join(sub, "name"), Error{Found: quote(b.Name), Message: sameAs(r, path, first, "name")})
		}
	}
}

// sameAs says which earlier backend of the list at path has the same name or address.
func sameAs(r *report, path string, first int, key string) string {
	sub := element(path, first)
	return fmt.Sprintf("%s %s has the same %s", sub, r.where(sub), key)
}

// validAddress reads the address text at path and reports its mistakes.
func validAddress(r *report, path, s string, use addressUse) (address, bool) {
	end, e := readAddress(s, use)
	if e != nil {
		e.Found, e.Nearest = quote(s), meantAddress(s, use)
		r.add(path, *e)
	}
	return end, e == nil
}

// readAddress reads an address text. The error has neither place nor Found.
func readAddress(s string, use addressUse) (address, *Error) {
	split := splitAddress
	if use.mayLackPort() {
		split = splitBackend
	}
	end, e := split(s, use.needs())
	switch {
	case end.path != "" && use.mayBeUnix():
	case strings.HasPrefix(s, unixPrefix) && !use.mayBeUnix():
		e = &Error{Allowed: use.needs()}
	case e != nil:
	case use != forListener && use != forMetrics && end.host == "":
		e = &Error{Message: "the host is missing", Allowed: use.needs()}
	case use.isLiteral() && !end.ip.IsValid() && end.host != "":
		e = &Error{Message: quote(end.host) + " is a host name", Allowed: use.needs()}
	case end.ip.IsValid():
		if wrong := checkIP(end.ip, !use.listens()); wrong != "" {
			e = &Error{Message: wrong}
		}
	}
	return end, e
}
