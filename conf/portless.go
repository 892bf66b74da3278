package conf

import (
	"fmt"
	"slices"
	"strings"
)

// A backend's address may lack the port. Each client of it then gets the port of the listener's address that it has
// connected to.

// mayLackPort reports whether the address may be one without a port.
func (u addressUse) mayLackPort() bool { return u == forBackend || u == forDiscovered }

// splitBackend is splitAddress for a backend's address, whose port is 0 if it is missing. An IPv6 address without a
// port needs brackets, since the port of "2001:db8::7:6379" would go unnoticed.
func splitBackend(s, needs string) (address, *Error) {
	host, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		host, bracketed = strings.CutSuffix(host, "]")
	}
	whole, e := splitAddress(s+":1", needs)
	if e != nil || whole.path != "" || !bracketed && strings.Contains(s, ":") || host == "" {
		return splitAddress(s, needs)
	}
	whole.port = 0
	return whole, nil
}

// lacksPort reports whether the backend has an IP address without a port.
func (b *Backend) lacksPort() bool { return b.Addr.IsValid() && b.Addr.Port() == 0 }

// hasNoPort reports whether the backend's address is one without a port, which may be a host name.
func (b *Backend) hasNoPort() bool {
	end, e := splitBackend(b.Address, "")
	return e == nil && end.path == "" && end.port == 0
}

// checkPortless reports backends without a port where a port is needed.
func checkPortless(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		k := slices.IndexFunc(p.Backends, func(b Backend) bool { return b.hasNoPort() })
		if k < 0 {
			continue
		}
		for _, l := range c.Listeners {
			if !slices.Contains(l.Pools(), p.Name) {
				continue
			}
			if why := l.whyNoPort(); why != "" {
				r.add(join(element(Path("pool", p.Name, "backends"), k), "address"), Error{
					Found: quote(p.Backends[k].Address), Message: "the port is missing: " + why,
					Allowed: `needs "HOST:PORT" or "[IPV6]:PORT"`})
				break
			}
		}
		if p.Health != nil {
			checkPortlessTargets(r, p)
		}
	}
}

// whyNoPort says why sessions of the listener have no port for a backend without one; "" if they have one.
func (l *Listener) whyNoPort() string {
	path := Path("listener", l.Name)
	switch {
	case l.Cache != nil || l.Profile == "dns":
		return path + " asks it on behalf of all its clients together"
	case slices.ContainsFunc(l.Binds, func(b Bind) bool { return b.Path != "" }):
		return path + " listens at a Unix socket, which has none"
	}
	return ""
}

// checkPortlessTargets reports checks that need a port, of backends without one.
func checkPortlessTargets(r *report, p *Pool) {
	k := slices.IndexFunc(p.Backends, func(b Backend) bool { return b.hasNoPort() && b.Check == "" })
	if k < 0 {
		return
	}
	backend := element(Path("pool", p.Name, "backends"), k)
	look := func(path string, c *Check) {
		switch c.Type {
		case "icmp", "exec", "all_of", "any_of": // they have no port, or those of others
			return
		}
		if c.Port == 0 && !r.seen[join(path, "port")] && !r.seen[join(path, "type")] {
			r.add(join(path, "port"), Error{
				Message: fmt.Sprintf("%s has no port, and so the check has none", backend),
				Allowed: fmt.Sprintf("needs a port to check, or check = \"IP:PORT\" in %s", backend)})
		}
	}
	path := join(Path("pool", p.Name), "health")
	look(path, &p.Health.Check)
	for i := range p.Health.Checks {
		look(element(join(path, "checks"), i), &p.Health.Checks[i])
	}
}
