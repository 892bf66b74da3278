package conf

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
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
func (u addressUse) mayBeUnix() bool {
	return u == forListener || u == forBackend || u == forDiscovered
}

// maxListenerPath is the longest path of a listener's socket, which has a longer name until it is in force.
const maxListenerPath = maxSocketPath - len(".new")

// defaultPermissions is the default of permissions, which is allowed for every address.
const defaultPermissions = "0660"

// validateUnixListener checks the Unix sockets of a listener, and the keys that only such a listener has. It fills
// Mode.
func validateUnixListener(r *report, l *Listener) {
	path := Path("listener", l.Name)
	mode, err := strconv.ParseUint(l.Permissions, 8, 32)
	if err != nil || mode > 0o777 {
		r.add(join(path, "permissions"),
			Error{Found: quote(l.Permissions), Allowed: `needs permission bits as chmod has them, such as "0660"`})
	}
	l.Mode = fs.FileMode(mode)
	unix := false
	for _, b := range l.Binds {
		if b.Path != "" {
			unix = true
			validateUnixBind(r, l, &b)
		}
	}
	switch {
	case !unix && len(l.Binds) > 0:
		for _, k := range []struct{ key, value, unset string }{
			{"permissions", l.Permissions, defaultPermissions}, {"owner", l.Owner, ""}, {"group", l.Group, ""},
		} {
			if k.value != k.unset && l.speaks("tcp") {
				r.add(join(path, k.key), Error{Found: quote(k.value), Message: "no address is a Unix socket",
					Allowed: `needs address = "unix:PATH" beside it`})
			}
		}
	case unix && l.ProxyProtocol.Accept != "off" && !r.seen[join(join(path, "proxy_protocol"), "accept")]:
		r.add(join(join(path, "proxy_protocol"), "accept"), Error{Found: quote(l.ProxyProtocol.Accept),
			Message: "clients of a Unix socket have no address, and so none is trusted", Allowed: `needs "off"`})
	}
}

// isOnlyUnix reports whether all clients of the listener come by Unix sockets, and so have no address.
func (l *Listener) isOnlyUnix() bool {
	return len(l.Binds) > 0 && !slices.ContainsFunc(l.Binds, func(b Bind) bool { return b.Path == "" })
}

// validateUnixBind checks one Unix socket of a listener.
func validateUnixBind(r *report, l *Listener, b *Bind) {
	e := Error{Found: quote(l.Address[b.Element])}
	switch {
	case l.speaks("udp"):
		e.Message, e.Allowed = "a Unix socket takes no datagrams", `needs protocol = "tcp", or an address with a port`
	case len(b.Path) > maxListenerPath:
		e.Message = fmt.Sprintf("the path has %d bytes", len(b.Path))
		e.Allowed = fmt.Sprintf("allowed are %d", maxListenerPath)
	default:
		return
	}
	r.add(l.AddressPath(b.Element), e)
}

// checkUnixListeners reports sockets of listeners at which something else of the file listens, or is to be reached.
func checkUnixListeners(r *report, c *Config) {
	for i := range c.Listeners {
		for _, b := range c.Listeners[i].Binds {
			if b.Path != "" {
				checkUnixListener(r, c, &c.Listeners[i], &b)
			}
		}
	}
}

func checkUnixListener(r *report, c *Config, l *Listener, at *Bind) {
	path := l.AddressPath(at.Element)
	if at.Path == c.Admin.Socket {
		r.add(path, Error{Found: quote(l.Address[at.Element]), Message: "the control API listens there"})
	}
	for _, p := range c.Pools {
		for i, b := range p.Backends {
			if b.Path == at.Path {
				r.add(join(element(Path("pool", p.Name, "backends"), i), "address"), Error{Found: quote(b.Address),
					Message: fmt.Sprintf("%s %s listens there, and does not serve sessions of this process",
						path, r.where(path))})
			}
		}
	}
}

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
