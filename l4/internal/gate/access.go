package gate

import (
	"net/netip"
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
	r := rule(2 * p.Bits())
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

// SetRules replaces the rules that were given while the process runs, of all listeners.
func (g *Gate) SetRules(rules []AccessRule) {}
