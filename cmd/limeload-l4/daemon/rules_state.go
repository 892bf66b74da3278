package daemon

import (
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// A savedAccessRule is an access rule in a state file.
type savedAccessRule struct {
	Prefix   string    `json:"prefix"`
	Action   string    `json:"action"`
	Listener string    `json:"listener,omitempty"` // "" for every listener
	Added    time.Time `json:"added"`
	Until    time.Time `json:"until,omitzero"` // zero if it stays until it is removed
	Comment  string    `json:"comment,omitempty"`
}

// saved returns the rules for the state file that are this node's own.
func (a *accessRules) saved(own func(k ruleKey) bool) []savedAccessRule {
	rules := a.list()
	list := make([]savedAccessRule, 0, len(rules))
	for _, r := range rules {
		if own(r.ruleKey) {
			list = append(list, r.save())
		}
	}
	return list
}

// save returns the rule for a state file.
func (r accessRule) save() savedAccessRule {
	return savedAccessRule{
		Prefix: r.prefix.String(), Action: r.action(), Listener: r.listener, Added: r.added, Until: r.until,
		Comment: r.comment,
	}
}

// parseSavedRules checks the rules of a state file by the bounds of the API: what holds here may be repeated in an
// answer or a log.
func parseSavedRules(saved []savedAccessRule) ([]accessRule, error) {
	if len(saved) > admin.MaxAccessRules {
		return nil, fmt.Errorf("it has %d access rules, more than %d", len(saved), admin.MaxAccessRules)
	}
	rules := make([]accessRule, 0, len(saved))
	seen := make(map[ruleKey]bool, len(saved))
	for _, s := range saved {
		err := admin.NewAccessRule{Prefix: s.Prefix, Action: s.Action, Comment: s.Comment}.Check()
		if err != nil {
			return nil, fmt.Errorf("access rule %q: %w", s.Prefix, err)
		}
		prefix, err := admin.ParsePrefix(s.Prefix)
		r := accessRule{
			ruleKey: ruleKey{prefix: prefix, listener: s.Listener}, allow: s.Action == admin.ActionAllow,
			added: s.Added, until: s.Until, comment: s.Comment,
		}
		if err == nil && seen[r.ruleKey] {
			err = fmt.Errorf("there are two %s", r.place())
		}
		if err != nil {
			return nil, fmt.Errorf("access rule %q: %w", s.Prefix, err)
		}
		seen[r.ruleKey] = true
		rules = append(rules, r)
	}
	return rules, nil
}

// restore takes the rules of the previous process over, before anything else uses a. Those whose time has passed
// meanwhile are dropped. It returns how many are left.
func (a *accessRules) restore(rules []accessRule, now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rules {
		if r.over(now) {
			a.note("access_rule_expired", r, now)
			continue
		}
		a.rules[r.ruleKey] = r
	}
	return len(a.rules)
}
