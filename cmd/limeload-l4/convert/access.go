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
	for _, r := range rules {
		i := slices.IndexFunc(kept, func(before accessRule) bool {
			return before.prefix.Bits() <= r.prefix.Bits() && before.prefix.Contains(r.prefix.Addr())
		})
		switch {
		case i < 0:
			kept = append(kept, r)
		case kept[i].allow != r.allow:
			opposed = append(opposed, r)
		}
	}
	var allow, deny []string
	for _, r := range kept {
		switch {
		case !r.allow:
			deny = append(deny, prefixText(r.prefix))
		case denied || l.in("access").has("deny_file") || isException(r.prefix, kept): // otherwise it changes nothing
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

// isException reports whether a rule that denies contains p.
func isException(p netip.Prefix, rules []accessRule) bool {
	return slices.ContainsFunc(rules, func(r accessRule) bool {
		return !r.allow && r.prefix.Bits() < p.Bits() && r.prefix.Contains(p.Addr())
	})
}
