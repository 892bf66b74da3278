package conf

import (
	"fmt"
	"slices"
	"time"
)

// Warnings returns what is allowed but perhaps not meant, one line each, in the form of an
// Error: pools that no listener uses or that can serve nobody, sessions sent back to where they
// came in, checks that overlap their own rhythm or that anyone could answer, keys that change nothing.
func (c *Config) Warnings() []string {
	used := map[string]bool{}
	for _, l := range c.Listeners {
		used[l.Pool] = true
	}
	r := newReport(c.File, c.lines)
	for i := range c.Pools {
		p := &c.Pools[i]
		path := Path("pool", p.Name)
		if !used[p.Name] {
			r.add(path, Error{Message: "no listener uses this pool"})
		}
		if p.Discovery == nil { // what is found later may be what is missing here
			warnOfBackends(r, path, p)
		}
		if p.HashKey == "client" && !hashes(p.Algorithm) {
			r.add(join(path, "hash_key"), Error{Found: quote(p.HashKey),
				Message: fmt.Sprintf("algorithm %q does not hash: this key changes nothing", p.Algorithm)})
		}
		warnOfCycles(r, path, p, c.Listeners)
		warnOfHealth(r, join(path, "health"), p.Health)
		warnOfSilence(r, path, p, c.Listeners)
	}
	var lines []string
	for _, e := range r.sorted() {
		lines = append(lines, e.Error())
	}
	return lines
}

// warnOfBackends is for a pool whose backends are all in the configuration.
func warnOfBackends(r *report, path string, p *Pool) {
	some := func(has func(Backend) bool) bool { return slices.ContainsFunc(p.Backends, has) }
	switch {
	case !some(func(b Backend) bool { return b.Weight > 0 }):
		r.add(join(path, "backends"), Error{Message: "every backend has weight 0: all clients are refused"})
	case !some(func(b Backend) bool { return b.Weight > 0 && b.Mode == "ready" }):
		r.add(join(path, "backends"), Error{Message: `no backend with a weight above 0 has mode "ready": all clients are refused`})
	}
	if p.Zone != "" && !some(func(b Backend) bool { return b.Zone == p.Zone }) {
		r.add(join(path, "zone"), Error{Found: quote(p.Zone), Message: "no backend has this zone: none is preferred"})
	}
	if p.Queue.Max > 0 && !some(func(b Backend) bool { return b.MaxSessions > 0 }) {
		r.add(join(join(path, "queue"), "max"), Error{Found: literal(p.Queue.Max),
			Message: "no backend has max_sessions: none is ever full, and nobody waits"})
	}
}

// warnOfCycles finds backends that are listeners of their own pool.
func warnOfCycles(r *report, path string, p *Pool, listeners []Listener) {
	for i, b := range p.Backends {
		for _, l := range listeners {
			if l.Pool == p.Name && b.Addr.IsValid() && b.Addr == l.Bind {
				r.add(join(element(join(path, "backends"), i), "address"), Error{Found: quote(b.Address),
					Message: fmt.Sprintf("%s listens there and sends its clients to this pool: each session makes another", Path("listener", l.Name))})
			}
		}
	}
}

// warnOfSilence finds pools of resolvers that nobody checks: what questions are answered is for clients to choose, so nothing else can tell that
// one has fallen silent.
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
			Message: fmt.Sprintf("longer than interval, %v: a silent backend is checked less often than that", h.Interval)})
	}
	if h.FastInterval > h.Interval {
		r.add(join(path, "fast_interval"), Error{Found: quote(h.FastInterval.String()),
			Message: fmt.Sprintf("longer than interval, %v, which is used instead", h.Interval)})
	}
	if enough := 2*h.Interval + h.Timeout; h.StaleAfter != 0 && h.StaleAfter < enough {
		r.add(join(path, "stale_after"), Error{Found: quote(h.StaleAfter.String()),
			Message: fmt.Sprintf("shorter than two intervals and a timeout, %v: one late check makes a verdict unknown", enough)})
	}
	if h.Type == "icmp" {
		r.add(join(path, "type"), Error{Found: quote(h.Type), Message: "a host that answers says nothing of its services: a second check in all_of does"})
	}
	warnOfCheck(r, path, &h.Check)
	warnOfPrimary(r, path, h, &h.Check)
	for i := range h.Checks {
		warnOfCheck(r, element(join(path, "checks"), i), &h.Checks[i])
		warnOfPrimary(r, path, h, &h.Checks[i])
	}
}

// minRedisLag is how often an idle Redis primary sends its replicas something (repl-ping-replica-period): a shorter lag cannot be told from
// silence.
const minRedisLag = Duration(10 * time.Second)

func warnOfCheck(r *report, path string, c *Check) {
	if !c.Verify {
		r.add(join(path, "verify"), Error{Found: "false", Message: "the check accepts any certificate"})
	}
	if c.Type == "redis" && c.MaxLag > 0 && c.MaxLag < minRedisLag {
		r.add(join(path, "max_lag"), Error{Found: quote(c.MaxLag.String()),
			Message: fmt.Sprintf("an idle primary says something every %v only: its replicas seem to lag in between", minRedisLag)})
	}
	if c.Method == "HEAD" && c.Body != "" {
		r.add(join(path, "body"), Error{Found: quote(c.Body), Message: `the answer to "HEAD" has no body: the check always fails`})
	}
}

// warnOfPrimary is for backends that are to be the primary.
func warnOfPrimary(r *report, path string, h *Health, c *Check) {
	if c.Role == "primary" && h.Initial == "healthy" {
		r.add(join(path, "initial"), Error{Found: quote(h.Initial), Message: "until the first check is done, replicas get the sessions of the primary"})
	}
}
