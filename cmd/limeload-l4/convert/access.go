package convert

import (
	"net/netip"
	"slices"
	"strings"
)

// maxAccessRules bounds the rules of one listener: a list of addresses in lb.toml has room for 1000.
const maxAccessRules = 4000

// An accessRule is a rule about clients' addresses, of a list in which the first rule that contains a client decides.
type accessRule struct {
	prefix netip.Prefix
	allow  bool
	at     place
	what   string
}

// firstMatch writes rules into the table access, in which the longest prefix decides: a rule behind one that contains
// it has no effect, and is left out. denied says what becomes of clients that no rule contains. It returns the rules
// that are left out though the earlier one says the opposite.
func (l *listener) firstMatch(rules []accessRule, denied bool) (opposed []accessRule) {
	var kept []accessRule
	byPrefix := map[netip.Prefix]bool{} // whether a kept rule allows
	for _, r := range rules {
		// of the kept rules that contain it, the longest is also the first
		switch allows, contained := containing(byPrefix, r.prefix, r.prefix.Bits(), func(bool) bool { return true }); {
		case !contained:
			kept = append(kept, r)
			byPrefix[r.prefix] = r.allow
		case allows != r.allow:
			opposed = append(opposed, r)
		}
	}
	var allow, deny []string
	for _, r := range kept {
		switch {
		case !r.allow:
			deny = append(deny, prefixText(r.prefix))
		case denied || l.in("access").has("deny_file") || isException(byPrefix, r.prefix): // otherwise it changes nothing
			allow = append(allow, prefixText(r.prefix))
		}
	}
	t := l.in("access")
	switch hasAllow := len(allow) > 0 || t.has("allow_file"); {
	case denied && !hasAllow:
		deny = everybody()
	case !denied && hasAllow: // a list allow denies all others
		allow = append(allow, everybody()...)
	}
	if allow != nil {
		t.set("allow", quoteList(allow))
	}
	if deny != nil {
		t.set("deny", quoteList(deny))
	}
	slices.SortFunc(t.keys, func(a, b key) int { return strings.Compare(a.name, b.name) })
	return opposed
}

// containing returns what the longest rule says that contains p, has at most so many bits, and is wanted.
func containing(rules map[netip.Prefix]bool, p netip.Prefix, most int, wanted func(allows bool) bool) (allows, ok bool) {
	for bits := most; bits >= 0; bits-- {
		q, _ := p.Addr().Prefix(bits)
		if allows, ok := rules[q]; ok && wanted(allows) {
			return allows, true
		}
	}
	return false, false
}

// isException reports whether a rule that denies contains p, beside one for p itself.
func isException(rules map[netip.Prefix]bool, p netip.Prefix) bool {
	_, denied := containing(rules, p, p.Bits()-1, func(allows bool) bool { return !allows })
	return denied
}
