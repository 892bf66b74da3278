package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxNameBytes keeps names readable in logs and short in metrics, where each series has them.
const maxNameBytes = 64

const nameNeeds = "needs 1 to 64 letters, digits, '_', '-' or '.'"

// validName says whether a listener, pool or backend may be called so. bareKeyChars are the
// letters, digits, '_' and '-'.
func validName(name string) bool {
	return name != "" && len(name) <= maxNameBytes && strings.Trim(strings.ReplaceAll(name, ".", ""), bareKeyChars) == ""
}

// validate reports what is wrong with c beyond single values, and fills Listener.Bind,
// Listener.DualStack, Backend.Addr and Backend.Name.
func validate(r *report, c *Config) {
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
}

func validateListener(r *report, l *Listener, pools []string) {
	path := Path("listener", l.Name)
	if !slices.Contains(pools, l.Pool) {
		e := Error{Found: quote(l.Pool), Message: "there is no such pool", Nearest: nearest(l.Pool, pools)}
		if e.Nearest == "" {
			e.Allowed = "needs the NAME of a [pool.NAME] table"
		}
		r.add(join(path, "pool"), e)
	}
	end, ok := validAddress(r, join(path, "address"), l.Address, false)
	switch {
	case !ok:
	case end.host == "":
		l.Bind, l.DualStack = netip.AddrPortFrom(netip.IPv6Unspecified(), end.port), true
	case end.ip.IsValid():
		l.Bind = netip.AddrPortFrom(end.ip, end.port)
	}
}

func validatePool(r *report, p *Pool) {
	path := Path("pool", p.Name)
	names := map[string]int{}     // of the first backend called so
	addresses := map[string]int{} // of the first backend there
	for i := range p.Backends {
		b := &p.Backends[i]
		sub := element(join(path, "backends"), i)
		named := b.Name != ""
		if named && b.Name != b.Address && !validName(b.Name) {
			r.add(join(sub, "name"), Error{Found: quote(b.Name), Allowed: nameNeeds})
		}
		if !named {
			b.Name = b.Address
		}
		sameAddress := false
		if end, ok := validAddress(r, join(sub, "address"), b.Address, true); ok {
			if end.ip.IsValid() {
				b.Addr = netip.AddrPortFrom(end.ip, end.port)
			}
			var first int
			if first, sameAddress = addresses[end.String()]; sameAddress {
				r.add(join(sub, "address"), Error{Found: quote(b.Address), Message: sameAs(r, path, first, "address")})
			} else {
				addresses[end.String()] = i
			}
		}
		// Two backends without names that share an address are one mistake and not two; one
		// without an address is a mistake already.
		first, sameName := names[b.Name]
		switch {
		case !sameName:
			names[b.Name] = i
		case named || !sameAddress && b.Name != "":
			r.add(join(sub, "name"), Error{Found: quote(b.Name), Message: sameAs(r, path, first, "name")})
		}
	}
	validateHealth(r, join(path, "health"), p.Health)
}

func validateHealth(r *report, path string, h *Health) {
	if h == nil || h.StaleAfter == 0 || h.StaleAfter >= h.Interval+h.Timeout {
		return
	}
	r.add(join(path, "stale_after"), Error{
		Found:   quote(h.StaleAfter.String()),
		Message: "a verdict would be unknown again before the next check can end",
		Allowed: fmt.Sprintf("needs interval plus timeout, %v, or more, or 0s", h.Interval+h.Timeout),
	})
}

// sameAs names the backend of the pool at path that has the same name or address already.
func sameAs(r *report, path string, first int, key string) string {
	sub := element(join(path, "backends"), first)
	return fmt.Sprintf("%s on line %d has the same %s", sub, r.lines[sub], key)
}

// validAddress reads the address text at path, and reports what is wrong with it.
func validAddress(r *report, path, s string, backend bool) (address, bool) {
	needs := listenerNeeds
	if backend {
		needs = backendNeeds
	}
	end, e := splitAddress(s, needs)
	switch {
	case e != nil:
	case backend && end.host == "":
		e = &Error{Message: "the host is missing", Allowed: needs}
	case end.ip.IsValid():
		if wrong := checkIP(end.ip, backend); wrong != "" {
			e = &Error{Message: wrong}
		}
	}
	if e != nil {
		e.Found = quote(s)
		r.add(path, *e)
	}
	return end, e == nil
}

// checkListenerConflicts reports listeners that would share an address. A wildcard beside one
// of its addresses is no conflict: the kernel prefers the address.
func checkListenerConflicts(r *report, listeners []Listener) {
	taken := map[string]*Listener{}
	for i := range listeners {
		l := &listeners[i]
		for _, claim := range claims(l) {
			first, conflict := taken[claim]
			if !conflict {
				taken[claim] = l
				continue
			}
			path := Path("listener", first.Name, "address")
			r.add(Path("listener", l.Name, "address"), Error{
				Found:   quote(l.Address),
				Message: fmt.Sprintf("%s on line %d, %s, has this address already", path, r.lines[path], quote(first.Address)),
			})
			break
		}
	}
}

// claims lists what no other listener may have: its address, or for a dual-stack one both
// wildcards. A name counts by its text until it is resolved; a mistaken address not at all.
func claims(l *Listener) []string {
	if l.DualStack {
		return []string{l.Bind.String(), netip.AddrPortFrom(netip.IPv4Unspecified(), l.Bind.Port()).String()}
	}
	if l.Bind.IsValid() {
		return []string{l.Bind.String()}
	}
	if end, e := splitAddress(l.Address, listenerNeeds); e == nil && !end.ip.IsValid() {
		return []string{end.String()}
	}
	return nil
}

// Warnings returns what is allowed but perhaps not meant, one line each, in the form of an
// Error: pools that no listener uses or that can serve nobody, sessions sent back to where they came in, checks that
// overlap their own rhythm.
func (c *Config) Warnings() []string {
	used := map[string]bool{}
	for _, l := range c.Listeners {
		used[l.Pool] = true
	}
	r := newReport(c.File, c.lines)
	for _, p := range c.Pools {
		path := Path("pool", p.Name)
		if !used[p.Name] {
			r.add(path, Error{Message: "no listener uses this pool"})
		}
		if !slices.ContainsFunc(p.Backends, func(b Backend) bool { return b.Weight > 0 }) {
			r.add(join(path, "backends"), Error{Message: "every backend has weight 0: all clients are refused"})
		}
		for i, b := range p.Backends {
			for _, l := range c.Listeners {
				if l.Pool == p.Name && b.Addr.IsValid() && b.Addr == l.Bind {
					r.add(join(element(join(path, "backends"), i), "address"), Error{Found: quote(b.Address),
						Message: fmt.Sprintf("%s listens there and sends its clients to this pool: each session makes another", Path("listener", l.Name))})
				}
			}
		}
		h := p.Health
		if h == nil {
			continue
		}
		if h.Timeout > h.Interval {
			r.add(join(join(path, "health"), "timeout"), Error{Found: quote(h.Timeout.String()),
				Message: fmt.Sprintf("longer than interval, %v: a silent backend is checked less often than that", h.Interval)})
		}
		if h.FastInterval > h.Interval {
			r.add(join(join(path, "health"), "fast_interval"), Error{Found: quote(h.FastInterval.String()),
				Message: fmt.Sprintf("longer than interval, %v, which is used instead", h.Interval)})
		}
	}
	var lines []string
	for _, e := range r.sorted() {
		lines = append(lines, e.Error())
	}
	return lines
}
