package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// ruleRecheck bounds how long the expiry sleeps. Rules end by the wall clock, which may jump while a timer runs.
const ruleRecheck = time.Minute

// An accessRule is an access rule that was added at run time. It is a value; both times are of the wall clock.
type accessRule struct {
	ruleKey
	allow   bool
	added   time.Time
	until   time.Time // when it ends; zero if it stays until it is removed
	comment string
}

// A ruleKey is what there is one rule for.
type ruleKey struct {
	prefix   netip.Prefix // masked; IPv4 prefixes are never mapped into IPv6
	listener string       // "" for every listener
}

// accessRules are the access rules that were added at run time. Its methods may be called from any goroutine; its zero
// value is of no use, see newAccessRules.
type accessRules struct {
	// set once, then read-only
	note    func(kind string, r accessRule, now time.Time) // called with mu held, for each change, in their order
	changed chan struct{}                                  // has room for one; the next end may be another

	mu sync.Mutex
	// mu guards the fields below
	rules map[ruleKey]accessRule
	give  func([]l4.AccessRule) // sets the rules of the data plane; nil before there is one
}

func newAccessRules(note func(kind string, r accessRule, now time.Time)) *accessRules {
	return &accessRules{note: note, changed: make(chan struct{}, 1), rules: make(map[ruleKey]accessRule)}
}

// action is the rule's action in the API.
func (r accessRule) action() string {
	if r.allow {
		return admin.ActionAllow
	}
	return admin.ActionDeny
}

// over reports whether the rule's time has passed.
func (r accessRule) over(now time.Time) bool { return !r.until.IsZero() && !now.Before(r.until) }

// same reports whether two rules are the same one.
func (r accessRule) same(o accessRule) bool {
	return r.ruleKey == o.ruleKey && r.allow == o.allow && r.added.Equal(o.added) && r.until.Equal(o.until) &&
		r.comment == o.comment
}

// place says where a rule applies.
func (k ruleKey) place() string {
	if k.listener == "" {
		return "at every listener"
	}
	return fmt.Sprintf("at listener %q", k.listener)
}

// String describes the rule in a few words.
func (r accessRule) String() string {
	text := fmt.Sprintf("%s %s %s", r.action(), r.prefix, r.place())
	if !r.until.IsZero() {
		text += " until " + r.until.UTC().Format(time.RFC3339)
	}
	if r.comment != "" {
		text += ": " + r.comment
	}
	return text
}

// compare sorts rules: those for every listener first, so that of two rules for one prefix the one for a single
// listener comes later, and holds.
func (k ruleKey) compare(other ruleKey) int {
	return cmp.Or(strings.Compare(k.listener, other.listener), k.prefix.Compare(other.prefix))
}

// useServer gives the rules to the data plane, now and after each change.
func (a *accessRules) useServer(give func([]l4.AccessRule)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.give = give
	if len(a.rules) > 0 {
		a.giveLocked()
	}
}

// giveLocked gives the rules to the data plane. It does so with mu held, so that an older list never replaces a newer
// one.
func (a *accessRules) giveLocked() {
	if a.give == nil {
		return
	}
	rules := make([]l4.AccessRule, 0, len(a.rules))
	for _, r := range a.sortedLocked() {
		rules = append(rules, l4.AccessRule{Listener: r.listener, Prefix: r.prefix, Allow: r.allow, Until: r.until})
	}
	a.give(rules)
}

func (a *accessRules) sortedLocked() []accessRule {
	list := make([]accessRule, 0, len(a.rules))
	for _, r := range a.rules {
		list = append(list, r)
	}
	slices.SortFunc(list, func(x, y accessRule) int { return x.compare(y.ruleKey) })
	return list
}

// list returns the rules, sorted by listener and prefix.
func (a *accessRules) list() []accessRule {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sortedLocked()
}

// has reports whether a rule is there, with the same action and end.
func (a *accessRules) has(r accessRule) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	there, is := a.rules[r.ruleKey]
	return is && there.same(r)
}

// len returns how many rules there are.
func (a *accessRules) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.rules)
}

// add adds a rule, or replaces the one with its key. The error wraps admin.ErrTooManyAccessRules.
func (a *accessRules) add(r accessRule) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, replaces := a.rules[r.ruleKey]; !replaces && len(a.rules) >= admin.MaxAccessRules {
		return fmt.Errorf("%w: there are %d, and no more may be added", admin.ErrTooManyAccessRules, len(a.rules))
	}
	a.rules[r.ruleKey] = r
	a.giveLocked()
	a.note("access_rule_added", r, r.added)
	a.poke()
	return nil
}

// remove removes a rule. The error wraps admin.ErrUnknownAccessRule, and names rules for other listeners.
func (a *accessRules) remove(k ruleKey, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, known := a.rules[k]
	if !known {
		err := fmt.Errorf("%s %s: %w", k.prefix, k.place(), admin.ErrUnknownAccessRule)
		for _, other := range a.sortedLocked() {
			if other.prefix == k.prefix {
				return fmt.Errorf("%w; there is one %s", err, other.place())
			}
		}
		return err
	}
	delete(a.rules, k)
	a.giveLocked()
	a.note("access_rule_removed", r, now)
	return nil
}

// follow makes rules those of shared changes of the fleet. A rule whose time has passed is none. If there are too many,
// the rest is left out, and counted.
func (a *accessRules) follow(changes []*sharedChange, now time.Time) (left int) {
	if len(changes) == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range changes {
		before, known := a.rules[c.rule.ruleKey]
		switch {
		case c.record.Undone || c.rule.over(now):
			if known {
				delete(a.rules, before.ruleKey)
				a.note("access_rule_removed", before, now)
			}
		case known && before.same(c.rule):
		case !known && len(a.rules) >= admin.MaxAccessRules:
			left++
		default:
			a.rules[c.rule.ruleKey] = c.rule
			a.note("access_rule_added", c.rule, now)
		}
	}
	a.giveLocked()
	a.poke()
	return left
}

// poke makes keep look for the next end again.
func (a *accessRules) poke() {
	select {
	case a.changed <- struct{}{}:
	default: // it will look anyway
	}
}

// expire removes the rules whose time has passed. It returns whether there were any, and how long it takes until the
// next one ends; 0 if none does.
func (a *accessRules) expire(now time.Time) (some bool, next time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.sortedLocked() {
		switch left := r.until.Sub(now); {
		case r.until.IsZero():
		case r.over(now):
			delete(a.rules, r.ruleKey)
			a.note("access_rule_expired", r, now)
			some = true
		case next == 0 || left < next:
			next = left
		}
	}
	if some {
		a.giveLocked()
	}
	return some, next
}

// keep expires rules until ctx is done, and calls save after each expiry.
func (a *accessRules) keep(ctx context.Context, save func()) {
	for {
		some, next := a.expire(wallNow())
		if some {
			save()
		}
		var wake <-chan time.Time // never, if no rule ends
		var timer *time.Timer
		if next > 0 {
			timer = time.NewTimer(min(next, ruleRecheck))
			wake = timer.C
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
		case <-wake:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// wallNow returns the time without a monotonic part, which would hide that the wall clock was set.
func wallNow() time.Time { return time.Now().Round(0) }
