package convert

import (
	"slices"
	"strings"
	"time"
)

// A condition is one test of a sample, as acl and braces have it.
type condition struct {
	fetch  string // such as "req.ssl_sni", without its alias
	match  string // of -m: "str", "end", "beg", ...; "" is the default
	file   string // of -f
	values []string
}

// readCondition reads the words of a test.
func readCondition(words []string) condition {
	c := condition{}
	if len(words) == 0 {
		return c
	}
	c.fetch = words[0]
	for from, to := range map[string]string{"req_ssl_sni": "req.ssl_sni", "req_ssl_hello_type": "req.ssl_hello_type",
		"req_len": "req.len", "req_ssl_ver": "req.ssl_ver"} {
		if c.fetch == from {
			c.fetch = to
		}
	}
	for _, end := range []string{"_end", "_dom", "_beg", "_reg", "_sub"} {
		if name, has := strings.CutSuffix(c.fetch, end); has {
			c.fetch, c.match = name, end[1:]
		}
	}
	c.fetch = strings.TrimSuffix(c.fetch, ",lower")
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "-i", "-n":
		case "-m":
			i++
			if i < len(words) {
				c.match = words[i]
			}
		case "-f":
			i++
			if i < len(words) {
				c.file = words[i]
			}
		case "--":
		default:
			c.values = append(c.values, words[i])
		}
	}
	return c
}

// acl reads a line acl.
func (h *haproxy) acl(p *proxy, l line) {
	if len(l.words) < 3 {
		h.unreadable(l, "a name and a test")
		return
	}
	p.acls[l.words[1]] = append(p.acls[l.words[1]], readCondition(l.words[2:]))
}

// A term is one part of a condition: a test that must succeed, or must not. Several tests of one name are alternatives.
type term struct {
	negated bool
	tests   []condition
}

// readTerms reads what follows if or unless: alternatives, each of terms that must all hold. ok is false if it is not
// understood.
func (p *proxy) readTerms(words []string) (alternatives [][]term, ok bool) {
	now := []term{}
	negated := false
	for i := 0; i < len(words); i++ {
		word := words[i]
		if rest, not := strings.CutPrefix(word, "!"); not {
			negated, word = !negated, rest
		}
		switch word {
		case "":
			continue
		case "or", "||":
			alternatives = append(alternatives, now)
			now = []term{}
			continue
		case "{":
			end := slices.Index(words[i:], "}")
			if end < 0 {
				return nil, false
			}
			now = append(now, term{negated, []condition{readCondition(words[i+1 : i+end])}})
			i += end
		default:
			tests := p.acls[word]
			switch word {
			case "TRUE":
				tests = []condition{{fetch: "always_true"}}
			case "HTTP", "WAIT_END":
				tests = []condition{{fetch: word}}
			}
			if tests == nil {
				return nil, false
			}
			now = append(now, term{negated, tests})
		}
		negated = false
	}
	return append(alternatives, now), true
}

// conditionAt returns the index of if or unless in a line; -1 if it has none.
func conditionAt(l line) int {
	return slices.IndexFunc(l.words, func(w string) bool { return w == "if" || w == "unless" })
}

// isHello reports whether a test only says that a client has begun TLS, which routes ask for anyway.
func isHello(c condition) bool {
	switch c.fetch {
	case "req.ssl_hello_type", "req.len", "HTTP", "WAIT_END", "always_true", "req.ssl_ver", "ssl_fc":
		return true
	}
	return false
}

// serverNames returns the names of SNI for which a line's condition holds. ok is false if it is about anything else.
func (p *proxy) serverNames(l line) (names []string, ok bool) {
	at := conditionAt(l)
	if at < 0 || l.words[at] == "unless" {
		return nil, false
	}
	alternatives, ok := p.readTerms(l.words[at+1:])
	if !ok {
		return nil, false
	}
	for _, terms := range alternatives {
		var here []string
		found := false
		for _, t := range terms {
			if !t.negated && slices.IndexFunc(t.tests, func(c condition) bool { return !isHello(c) }) < 0 {
				continue
			}
			if t.negated || found { // and another name: nobody has two
				return nil, false
			}
			for _, c := range t.tests {
				more, ok := sniNames(c)
				if !ok {
					return nil, false
				}
				here = append(here, more...)
			}
			found = true
		}
		if !found {
			return nil, false
		}
		names = append(names, here...)
	}
	return names, true
}

// sniNames returns the names of one test, as routes have them.
func sniNames(c condition) (names []string, ok bool) {
	if c.fetch != "req.ssl_sni" && c.fetch != "ssl_fc_sni" || c.file != "" {
		return nil, false
	}
	for _, v := range c.values {
		v = strings.ToLower(v)
		switch c.match {
		case "", "str":
			names = append(names, v)
		case "end", "dom":
			bare := strings.TrimPrefix(v, ".")
			if bare == v {
				names = append(names, bare)
			}
			names = append(names, "*."+bare)
		default:
			return nil, false
		}
	}
	return names, len(names) > 0
}

// destinations gives the listeners of p their pool and routes.
func (h *haproxy) destinations(p *proxy, made []*listener) {
	pool := ""
	if own := h.pools[p.name]; own != nil && p.kind == "listen" {
		pool = own.name
	}
	if to := p.to.word(1); to != "" {
		pool = h.poolOf(p.to, to)
	}
	var routes []route
	claimed := map[string]bool{}
	for _, l := range p.uses {
		names, ok := p.serverNames(l)
		switch {
		case conditionAt(l) < 0:
			pool = h.poolOf(l, l.word(1))
		case !ok && slices.ContainsFunc(l.words, func(w string) bool { return strings.Contains(w, "ssl_sni") }):
			h.notes.left(l.at, l.raw, `a route has names and "*.NAME", no regular expressions and no other conditions`,
				"see routes of the listener")
		case !ok:
			h.notes.left(l.at, l.raw, "a pool can be chosen by the server name in a TLS ClientHello alone",
				"keep HAProxy or nginx behind limeload-l4 for rules about HTTP")
		default:
			if to := h.poolOf(l, l.word(1)); to != "" {
				routes = append(routes, route{unclaimed(names, claimed), to})
			}
		}
	}
	routes = slices.DeleteFunc(routes, func(r route) bool { return len(r.sni) == 0 })
	for _, l := range made {
		l.pool, l.routes = pool, routes
	}
}

// unclaimed returns the names that are not claimed yet, and claims them: HAProxy takes the first rule that fits.
func unclaimed(names []string, claimed map[string]bool) (free []string) {
	for _, name := range names {
		if !claimed[name] {
			claimed[name] = true
			free = append(free, name)
		}
	}
	return free
}

// poolOf returns the name of the pool of a backend that a line names; "" with a note if there is none.
func (h *haproxy) poolOf(l line, name string) string {
	if p := h.pools[name]; p != nil {
		return p.name
	}
	why := "there is no backend " + quote(name)
	if strings.Contains(name, "%[") {
		why = "a backend cannot be named by an expression"
	}
	h.notes.left(l.at, l.raw, why, "")
	return ""
}

// frontRules carries over tcp-request and stick-table of a frontend.
func (h *haproxy) frontRules(p *proxy, made []*listener) {
	a := &haAccess{}
	defer h.writeAccess(a, made)
	for _, l := range p.rules {
		action := strings.Join(l.words[1:min(len(l.words), 3)], " ")
		switch {
		case l.word(1) == "inspect-delay":
			h.inspectDelay(l, made)
		case l.words[0] == "tcp-response":
			h.notes.left(l.at, l.raw, "answers are passed on unread", "")
		case strings.HasPrefix(l.word(2), "track-sc"), strings.HasPrefix(l.word(2), "set-var"):
			if l.word(3) != "src" {
				h.notes.left(l.at, l.raw, "clients are known by their addresses alone", "see [listener.*.limits]")
			}
		case action == "content accept" && h.onlyHello(p, l):
			a.hello = true
		case h.access(p, l, a), h.limit(p, l, made):
		default:
			h.notes.left(l.at, l.raw, "limeload-l4 has no such rule", "see [listener.*.access] and [listener.*.limits]")
		}
	}
}

func (h *haproxy) inspectDelay(l line, made []*listener) {
	d, ok := haTime(l.word(2))
	if !ok {
		h.unreadable(l, "a time")
		return
	}
	for _, one := range made {
		if len(one.routes) > 0 {
			one.set("inspect_timeout", timeText(d, 10*time.Millisecond, time.Hour))
		}
	}
}

// onlyHello reports whether the condition of a rule only waits for a client to begin TLS.
func (h *haproxy) onlyHello(p *proxy, l line) bool {
	at := conditionAt(l)
	if at < 0 {
		return true
	}
	alternatives, ok := p.readTerms(l.words[at+1:])
	for _, terms := range alternatives {
		for _, t := range terms {
			ok = ok && !slices.ContainsFunc(t.tests, func(c condition) bool { return !isHello(c) })
		}
	}
	return ok
}
