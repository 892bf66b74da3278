package gate

import (
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
)

// An AccessList says which addresses may come in. It is immutable once it is in use, and may then be used from any
// goroutine. The zero value lets everybody in.
type AccessList struct {
	table     bart.Table[rule]
	allowOnly bool
}

// A rule is what holds for a prefix: twice its length, and one more if it allows. So the larger of two rules is that of
// the longer prefix.
type rule uint16

func ruleOf(p netip.Prefix, allow bool) rule {
	r := rule(2 * unmapped(p).Bits())
	if allow {
		r++
	}
	return r
}

func (r rule) allows() bool { return r&1 == 1 }
func (r rule) bits() int    { return int(r >> 1) }

// NewAccessList returns a list of prefixes. allowOnly says that whom no prefix contains is denied.
func NewAccessList(allowOnly bool) *AccessList { return &AccessList{allowOnly: allowOnly} }

// Allow lets the addresses of a prefix in, unless a longer prefix that contains them is denied. It reports false if the
// prefix is denied, which then holds on.
func (a *AccessList) Allow(p netip.Prefix) bool { return a.insert(p, true) }

// Deny keeps the addresses of a prefix out, unless a longer prefix that contains them is allowed. It reports false if
// the prefix is allowed, which then holds no longer.
func (a *AccessList) Deny(p netip.Prefix) bool { return a.insert(p, false) }

func (a *AccessList) insert(p netip.Prefix, allow bool) bool {
	p = unmapped(p)
	was, known := a.table.Get(p)
	if known && was.allows() != allow {
		a.table.Insert(p, ruleOf(p, false))
		return false
	}
	a.table.Insert(p, ruleOf(p, allow))
	return true
}

// Len is how many prefixes there are.
func (a *AccessList) Len() int { return a.table.Size() }

// unmapped returns a prefix of IPv4 addresses mapped into IPv6 as one of IPv4.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// An AccessRule is a rule that was given while the server runs. Of a rule and a listed prefix of the same length the
// rule holds.
type AccessRule struct {
	Listener string // its name; "" = every listener
	Prefix   netip.Prefix
	Allow    bool
	Until    time.Time // the rule holds no longer from then on; zero = until it is removed
}

// A ruleSet is the rules that were given while the process runs. It is immutable.
type ruleSet struct {
	everywhere *AccessList            // nil = none
	of         map[string]*AccessList // by the name of a listener that has rules of its own: those of all are among them
}

// SetRules replaces the rules that were given while the process runs, of all listeners. Of two rules for a prefix that
// of the listener holds, and else the last one.
func (g *Gate) SetRules(rules []AccessRule) {
	now := time.Now()
	rules = slices.DeleteFunc(slices.Clone(rules), func(r AccessRule) bool {
		return !r.Until.IsZero() && !r.Until.After(now)
	})
	if len(rules) == 0 {
		g.rules.Store(nil)
		return
	}
	to := &ruleSet{of: make(map[string]*AccessList)}
	for _, r := range rules {
		if r.Listener != "" {
			to.of[r.Listener] = NewAccessList(false)
		} else if to.everywhere == nil {
			to.everywhere = NewAccessList(false)
		}
	}
	for _, r := range rules {
		if r.Listener == "" {
			for _, list := range to.of {
				list.set(r.Prefix, r.Allow)
			}
			to.everywhere.set(r.Prefix, r.Allow)
		}
	}
	for _, r := range rules {
		if r.Listener != "" {
			to.of[r.Listener].set(r.Prefix, r.Allow)
		}
	}
	g.rules.Store(to)
}

func (a *AccessList) set(p netip.Prefix, allow bool) { a.table.Insert(unmapped(p), ruleOf(p, allow)) }

// listFor is the list of the rules that hold at a listener; nil if there are none.
func (s *ruleSet) listFor(listener string) *AccessList {
	if own := s.of[listener]; own != nil {
		return own
	}
	return s.everywhere
}

// letsIn reports whether an address may come in. Of the rules and the listener's list the longest prefix holds.
func (ls *Listener) letsIn(s *Settings, addr netip.Addr) bool {
	addr = addr.Unmap()
	var given rule
	ruled := false
	if rules := ls.gate.rules.Load(); rules != nil {
		if list := rules.listFor(ls.Name); list != nil {
			given, ruled = list.table.Lookup(addr)
		}
	}
	if s.Access == nil {
		return !ruled || given.allows()
	}
	listed, known := s.Access.table.Lookup(addr)
	switch {
	case ruled && (!known || given.bits() >= listed.bits()):
		return given.allows()
	case known:
		return listed.allows()
	}
	return !s.Access.allowOnly
}

// ExplainAccess reports whether an address may come in, and the prefix that says so; an invalid one if none does.
func (ls *Listener) ExplainAccess(addr netip.Addr) (allowed bool, by netip.Prefix) {
	addr = addr.Unmap().WithZone("")
	s := ls.settings()
	lists := []*AccessList{s.Access}
	if rules := ls.gate.rules.Load(); rules != nil {
		lists = append(lists, rules.listFor(ls.Name))
	}
	for _, list := range lists {
		if list == nil {
			continue
		}
		p, _, ok := list.table.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
		if ok && (!by.IsValid() || p.Bits() >= by.Bits()) {
			by = p
		}
	}
	return ls.letsIn(s, addr), by
}
