package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Warnings returns what is allowed but probably not meant, one line each, in the form of an Error: pools that no
// listener uses or that can serve nobody, loops of listeners, checks that take longer than their interval or that prove
// little, keys without effect, listeners at an address of another one.
func (c *Config) Warnings() []string {
	var lines []string
	for _, e := range c.WarningErrors() {
		lines = append(lines, e.Error())
	}
	return lines
}

// WarningErrors returns what Warnings does, in its parts.
func (c *Config) WarningErrors() Errors {
	used := map[string]bool{}
	for _, l := range c.Listeners {
		for _, p := range l.Pools() {
			used[p] = true
		}
	}
	r := newReport(c.parts, c.lines)
	for i := range c.Pools {
		p := &c.Pools[i]
		path := Path("pool", p.Name)
		if !used[p.Name] {
			r.add(path, Error{Message: "no listener uses this pool"})
		}
		if p.Discovery == nil { // discovery may find what is missing here
			warnOfBackends(r, path, p)
		}
		warnOfKeys(r, path, p, c.Listeners)
		warnOfChecks(r, path, p)
		warnOfNames(r, path, p)
		warnOfSource(r, path, p, c.Listeners)
		warnOfPoolTLS(r, path, p, c.Listeners)
		warnOfHealth(r, join(path, "health"), p.Health)
		warnOfPlainCheck(r, path, p, c)
		warnOfSilence(r, path, p, c.Listeners)
		warnOfCluster(r, path, p)
		warnOfSentinels(r, path, p)
	}
	for i := range c.Listeners {
		warnOfRoutes(r, &c.Listeners[i], c.ReadsMQTT(&c.Listeners[i]), c.ReadsPostgres(&c.Listeners[i]))
		warnOfListenerTLS(r, &c.Listeners[i])
		warnOfAccess(r, &c.Listeners[i])
		warnOfLimits(r, &c.Listeners[i])
	}
	warnOfFleet(r, c)
	warnOfOverlaps(r, c.Listeners)
	warnOfLoops(r, c)
	return r.sorted()
}

// warnOfRoutes reports keys of a listener that its routes, or their absence, make useless. mqtt and
// postgres say that it reads MQTT client identifiers, and what clients of Postgres begin with.
func warnOfRoutes(r *report, l *Listener, mqtt, postgres bool) {
	path := Path("listener", l.Name)
	if len(l.Routes) == 0 && !mqtt && !postgres && l.InspectTimeout != defaultInspectTimeout {
		r.add(join(path, "inspect_timeout"), Error{Found: quote(l.InspectTimeout.String()), Message: "the listener has no " +
			`routes, reads no MQTT client identifier, and profile is not "postgres": this key changes nothing`})
	}
	if i := slices.IndexFunc(l.Routes, func(t Route) bool { return t.fitsAll() }); i >= 0 && l.Pool != "" {
		r.add(join(path, "pool"), Error{Found: quote(l.Pool), Message: fmt.Sprintf(
			"every client fits %s: nobody comes here", element(join(path, "routes"), i))})
	}
}

// warnOfOverlaps reports listeners at an address that a wildcard listener includes. That is allowed, and the kernel
// gives the clients of that address to the more specific listener, which may surprise the author of the other.
func warnOfOverlaps(r *report, listeners []Listener) {
	type socket struct {
		protocol string
		port     uint16
	}
	type wildcard struct {
		listener *Listener
		bind     *Bind
	}
	everywhere := map[socket][]wildcard{} // no more than one for each family
	for i := range listeners {
		l := &listeners[i]
		for k := range l.Binds {
			if b := &l.Binds[k]; b.Addr.IsValid() && b.Addr.Addr().IsUnspecified() {
				for _, protocol := range l.Protocols() {
					at := socket{protocol, b.Port}
					everywhere[at] = append(everywhere[at], wildcard{l, b})
				}
			}
		}
	}
	type pair struct {
		element, otherElement int
		other                 *Listener
	}
	for i := range listeners {
		one := &listeners[i]
		warned := map[pair]bool{}
		for _, b := range one.Binds {
			for _, protocol := range one.Protocols() {
				for _, all := range everywhere[socket{protocol, b.Port}] {
					here := pair{b.Element, all.bind.Element, all.listener}
					if all.listener == one || !all.bind.includes(b.Addr) || warned[here] {
						continue
					}
					warned[here] = true
					path := all.listener.AddressPath(all.bind.Element)
					where := fmt.Sprintf("%s %s, %s",
						path, r.where(path), quote(all.listener.Address[all.bind.Element]))
					r.add(one.AddressPath(b.Element), Error{Found: quote(one.Address[b.Element]),
						Message: where + ", includes this address: its clients there come to this listener"})
				}
			}
		}
	}
}

// includes reports whether the bind is a wildcard that includes the address.
func (b *Bind) includes(one netip.AddrPort) bool {
	if !one.IsValid() || !b.Addr.Addr().IsUnspecified() || one.Addr().IsUnspecified() || b.Port != one.Port() {
		return false
	}
	return b.DualStack || b.Addr.Addr().Is4() == one.Addr().Is4()
}

// warnOfBackends checks a pool whose backends are all in the configuration.
func warnOfBackends(r *report, path string, p *Pool) {
	some := func(has func(Backend) bool) bool { return slices.ContainsFunc(p.Backends, has) }
	switch {
	case !some(func(b Backend) bool { return b.Weight > 0 }):
		r.add(join(path, "backends"), Error{Message: "every backend has weight 0: all clients are refused"})
	case !some(func(b Backend) bool { return b.Weight > 0 && b.Mode == "ready" }):
		r.add(join(path, "backends"),
			Error{Message: `no backend with a weight above 0 has mode "ready": all clients are refused`})
	}
	if p.Zone != "" && !some(func(b Backend) bool { return b.Zone == p.Zone }) {
		r.add(join(path, "zone"), Error{Found: quote(p.Zone), Message: "no backend has this zone: none is preferred"})
	}
	if p.Queue.Max > 0 && !some(func(b Backend) bool { return b.MaxSessions > 0 || b.MaxRate.On() }) {
		r.add(join(join(path, "queue"), "max"), Error{Found: literal(p.Queue.Max),
			Message: "no backend has max_sessions or max_rate: none is ever full, and nobody waits"})
	}
}

// warnOfChecks reports backends with an address for checks in a pool without checks.
func warnOfChecks(r *report, path string, p *Pool) {
	for i, b := range p.Backends {
		if b.Check != "" && p.Health == nil {
			r.add(join(element(join(path, "backends"), i), "check"), Error{Found: quote(b.Check),
				Message: "the pool has no table health: nothing is checked"})
		}
	}
}

// warnOfNames reports backends whose names have resolved to addresses of this machine or to link-local ones: whoever
// controls such a name decides which local services all clients reach. localhost is excepted.
func warnOfNames(r *report, path string, p *Pool) {
	for i, b := range p.Backends {
		end, e := splitBackend(b.Address, "")
		ip := b.Addr.Addr()
		if e != nil || end.ip.IsValid() || end.host == "localhost" || !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			continue
		}
		r.add(join(element(join(path, "backends"), i), "address"), Error{Found: quote(b.Address),
			Message: fmt.Sprintf("the name came to %s, an address of this machine or its link: clients reach what "+
				"listens there for this machine alone", ip)})
	}
}

// warnOfSilence reports pools of resolvers without checks. Clients choose the questions, so an unanswered one proves
// nothing, and only a check notices a resolver that has fallen silent.
func warnOfSilence(r *report, path string, p *Pool, listeners []Listener) {
	if p.Health != nil || p.Discovery == nil && len(p.Backends) < 2 {
		return
	}
	for _, l := range listeners {
		if l.Pool == p.Name && l.Profile == "dns" {
			r.add(path, Error{Message: fmt.Sprintf(
				"%s asks these backends, and only a check notices one that falls silent: needs a table health, of type \"dns\"", Path("listener", l.Name))})
			return
		}
	}
}

func warnOfHealth(r *report, path string, h *Health) {
	if h == nil {
		return
	}
	if h.Timeout > h.Interval {
		r.add(join(path, "timeout"), Error{Found: quote(h.Timeout.String()),
			Message: fmt.Sprintf("longer than interval, %v: a silent backend is checked less often than that",
				h.Interval)})
	}
	if h.FastInterval > h.Interval {
		r.add(join(path, "fast_interval"), Error{Found: quote(h.FastInterval.String()),
			Message: fmt.Sprintf("longer than interval, %v, which is used instead", h.Interval)})
	}
	if enough := 2*h.Interval + h.Timeout; h.StaleAfter != 0 && h.StaleAfter < enough {
		r.add(join(path, "stale_after"), Error{Found: quote(h.StaleAfter.String()),
			Message: fmt.Sprintf("shorter than two intervals and a timeout, %v: one late check makes a verdict unknown",
				enough)})
	}
	if h.Type == "icmp" {
		r.add(join(path, "type"),
			Error{Found: quote(h.Type),
				Message: "a host that answers says nothing of its services: a second check in " +
					"all_of does"})
	}
	warnOfCheck(r, path, &h.Check)
	warnOfPrimary(r, path, h, &h.Check)
	for i := range h.Checks {
		warnOfCheck(r, element(join(path, "checks"), i), &h.Checks[i])
		warnOfPrimary(r, path, h, &h.Checks[i])
	}
}

// minRedisLag is how often an idle Redis primary sends something to its replicas (repl-ping-replica-period): a shorter
// lag cannot be distinguished from silence.
const minRedisLag = Duration(10 * time.Second)

func warnOfCheck(r *report, path string, c *Check) {
	if !c.Verify {
		r.add(join(path, "verify"), Error{Found: "false", Message: "the check accepts any certificate"})
	}
	if c.Type == "redis" && c.MaxLag > 0 && c.MaxLag < minRedisLag {
		r.add(join(path, "max_lag"), Error{Found: quote(c.MaxLag.String()),
			Message: fmt.Sprintf("an idle primary says something every %v only: its replicas seem to lag in between",
				minRedisLag)})
	}
	if c.Method == "HEAD" && c.Body != "" {
		r.add(join(path, "body"),
			Error{Found: quote(c.Body), Message: `the answer to "HEAD" has no body: the check always fails`})
	}
}

// warnOfPrimary checks a pool whose checks require the primary.
func warnOfPrimary(r *report, path string, h *Health, c *Check) {
	if c.Role == "primary" && h.Initial == "healthy" {
		r.add(join(path, "initial"),
			Error{Found: quote(h.Initial),
				Message: "until the first check is done, replicas get the sessions of the primary"})
	}
}
