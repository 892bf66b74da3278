package conf

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// unixPrefix begins an address that is the path of a Unix socket.
const unixPrefix = "unix:"

// splitUnix parses the text of a Unix socket's address. The error has neither place nor Found.
func splitUnix(p, needs string) (address, *Error) {
	switch {
	case !strings.HasPrefix(p, "/"):
		return address{}, &Error{Message: "the path does not begin with '/'", Allowed: needs}
	case len(p) > maxSocketPath:
		return address{}, &Error{Message: fmt.Sprintf("the path has %d bytes", len(p)),
			Allowed: fmt.Sprintf("allowed are %d", maxSocketPath)}
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return address{}, &Error{Message: "the path has characters that are not text", Allowed: needs}
	case path.Clean(p) != p: // two texts of one path would be two backends
		return address{}, &Error{Allowed: "needs " + quote(unixPrefix+path.Clean(p)) + ", the same path in short"}
	}
	return address{path: p}, nil
}

// mayBeUnix reports whether the address may be that of a Unix socket.
func (u addressUse) mayBeUnix() bool { return u == forBackend || u == forDiscovered }

// checkUnixBackends reports backends that are Unix sockets where nothing can be done with them.
func checkUnixBackends(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		k := slices.IndexFunc(p.Backends, func(b Backend) bool { return b.Path != "" })
		if k < 0 {
			continue
		}
		for _, l := range c.Listeners {
			if slices.Contains(l.Pools(), p.Name) && (l.Protocol == "udp" || l.Cache != nil || l.Profile == "dns") {
				r.add(join(element(Path("pool", p.Name, "backends"), k), "address"), Error{
					Found: quote(p.Backends[k].Address), Allowed: "needs an IP address and a port, or another pool",
					Message: fmt.Sprintf("%s sends datagrams, and a Unix socket takes connections of TCP only",
						Path("listener", l.Name))})
				break
			}
		}
		if p.Health != nil {
			checkUnixTargets(r, p)
		}
	}
}

// checkUnixTargets reports checks that a backend which is a Unix socket cannot have.
func checkUnixTargets(r *report, p *Pool) {
	k := slices.IndexFunc(p.Backends, func(b Backend) bool { return b.Path != "" && b.Check == "" })
	if k < 0 {
		return
	}
	backend := element(Path("pool", p.Name, "backends"), k)
	look := func(path string, c *Check) {
		allowed := fmt.Sprintf("needs another type, or check = \"IP:PORT\" in %s", backend)
		switch {
		case c.Port != 0:
			r.add(join(path, "port"), Error{Found: literal(c.Port),
				Message: backend + " is a Unix socket and has no ports",
				Allowed: fmt.Sprintf("needs 0, or check = \"IP:PORT\" in %s", backend)})
		case c.Type == "icmp" || c.Type == "udp" || c.Type == "dns" && c.Transport == "udp":
			r.add(join(path, "type"), Error{Found: quote(c.Type),
				Message: backend + " is a Unix socket and takes no datagrams", Allowed: allowed})
		}
	}
	path := join(Path("pool", p.Name), "health")
	look(path, &p.Health.Check)
	for i := range p.Health.Checks {
		look(element(join(path, "checks"), i), &p.Health.Checks[i])
	}
}
