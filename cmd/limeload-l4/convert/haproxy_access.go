package convert

import (
	"net/netip"
	"slices"
	"strings"
)

// A haAccess collects what the rules of a frontend say about clients' addresses. The first rule that fits a client
// decides, and clients that no rule fits come in.
type haAccess struct {
	rules []accessRule
	// only are the clients that the rules "reject if !..." let through; they are all if isLimited is false
	only      []netip.Prefix
	isLimited bool
	closed    bool // a reject without a condition was there: it ends the rules
	hello     bool // a rule accepts clients that begin TLS
	phase     string
	allowFile string
	denyFile  string
}

// access reads a rule that accepts or rejects clients by their addresses, and reports whether it is one.
func (h *haproxy) access(p *proxy, l line, a *haAccess) bool {
	at := conditionAt(l)
	accepts := l.word(2) == "accept"
	if !accepts && l.word(2) != "reject" {
		return false
	}
	if at < 0 {
		closes := !accepts && len(l.words) == 3 && !a.hello &&
			slices.ContainsFunc(a.rules, func(r accessRule) bool { return r.allow })
		a.closed = a.closed || closes || !accepts && len(l.words) == 3 && !a.hello && a.allowFile != ""
		return a.closed
	}
	alternatives, ok := p.readTerms(l.words[at+1:])
	if !ok || len(alternatives) != 1 || len(alternatives[0]) != 1 {
		return false
	}
	t := alternatives[0][0]
	negated := t.negated != (l.words[at] == "unless")
	prefixes, file, ok := sources(t.tests)
	if !ok || accepts && negated {
		return false
	}
	if !a.closed {
		h.collect(l, a, prefixes, file, accepts, negated)
	}
	return true
}

// sources returns the addresses of clients that tests are about, and the file with more of them. ok is false if a test
// is about anything else.
func sources(tests []condition) (prefixes []netip.Prefix, file string, ok bool) {
	for _, c := range tests {
		if c.fetch != "src" || c.match != "" && c.match != "ip" || c.file != "" && file != "" {
			return nil, "", false
		}
		for _, v := range c.values {
			prefix, ok := isPrefix(v)
			if !ok {
				return nil, "", false
			}
			prefixes = append(prefixes, prefix)
		}
		if len(prefixes) > maxAccessRules {
			break // which collect notes
		}
		if c.file != "" {
			file = c.file
		}
	}
	return prefixes, file, len(prefixes) > 0 || file != ""
}

// collect adds a rule. Those that cannot be carried over beside the others are noted.
func (h *haproxy) collect(l line, a *haAccess, prefixes []netip.Prefix, file string, accepts, negated bool) {
	const remedy = "see [listener.*.access]"
	if len(a.rules)+len(a.only)+len(prefixes) > maxAccessRules {
		h.notes.left(l.at, l.raw, "these are too many addresses", "write them into a file, and name that with deny_file")
		return
	}
	if a.phase != "" && a.phase != l.word(1) && (accepts || slices.ContainsFunc(a.rules, func(r accessRule) bool {
		return r.allow
	})) {
		// an accept of one phase does not end the rules of the next one
		h.notes.left(l.at, l.raw, "accept and reject of several phases cannot be one list", remedy)
		return
	}
	if a.phase == "" {
		a.phase = l.word(1)
	}
	switch {
	case file != "" && (accepts || negated):
		if a.allowFile != "" || len(a.rules) > 0 || a.isLimited {
			h.notes.left(l.at, l.raw, "addresses of a file are accepted only where no rule stands before", remedy)
			return
		}
		a.allowFile = file
	case file != "":
		if a.denyFile != "" && a.denyFile != file || accepts || a.allowFile != "" {
			h.notes.left(l.at, l.raw, "a listener has one file with addresses",
				"write them into one, and name it with deny_file")
			return
		}
		a.denyFile = file
	}
	accepted := a.isLimited || slices.ContainsFunc(a.rules, func(r accessRule) bool { return r.allow })
	if a.denyFile != "" && (accepts || negated || accepted) {
		h.notes.differs(l.at, l.raw, "of the prefixes that contain a client, the longest decides, and not the first rule",
			remedy)
	}
	if negated {
		if a.isLimited {
			prefixes = overlap(a.only, prefixes)
		}
		a.only, a.isLimited = prefixes, true
		return
	}
	if accepts && a.isLimited {
		prefixes = overlap(a.only, prefixes)
	}
	for _, prefix := range prefixes {
		a.rules = append(a.rules, accessRule{prefix, accepts, l.at, l.raw})
	}
}

// overlap returns the addresses that are in both lists.
func overlap(one, other []netip.Prefix) (both []netip.Prefix) {
	for _, p := range one {
		for _, q := range other {
			if !p.Overlaps(q) {
				continue
			}
			if p.Bits() > q.Bits() {
				both = append(both, p)
			} else {
				both = append(both, q)
			}
		}
	}
	return both
}

// writeAccess gives the listeners of a frontend what its rules say about addresses.
func (h *haproxy) writeAccess(a *haAccess, made []*listener) {
	if len(a.rules) == 0 && !a.isLimited && a.allowFile == "" && a.denyFile == "" {
		return
	}
	rules := a.rules
	if a.isLimited && !a.closed {
		for _, p := range a.only {
			rules = append(rules, accessRule{prefix: p, allow: true})
		}
	}
	t := made[0].in("access")
	if a.allowFile != "" {
		t.set("allow_file", quote(a.allowFile))
	}
	if a.denyFile != "" {
		t.set("deny_file", quote(a.denyFile))
	}
	for _, r := range made[0].firstMatch(rules, a.closed || a.isLimited) {
		if !strings.HasPrefix(r.what, "tcp-request") {
			continue // of a list of those that may come in
		}
		h.notes.differs(r.at, r.what, "an earlier rule decides about all of these clients: it has no effect", "")
	}
	for _, l := range made[1:] {
		l.in("access").keys = slices.Clone(t.keys)
	}
}
