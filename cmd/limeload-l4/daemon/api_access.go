package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// What decides whether an address may come in, in the API.
const (
	byRule    = "rule"
	byList    = "list"
	byDefault = "default"
)

// AccessRules returns the access rules that were added at run time, sorted by listener and prefix.
func (d *Daemon) AccessRules() []admin.AccessRule {
	listeners := listenerNames(d.config())
	rules := []admin.AccessRule{}
	for _, r := range d.rules.list() {
		a := r.answer(listeners)
		a.Fleet = d.fleet.shared(accessKey(r.ruleKey))
		rules = append(rules, a)
	}
	return rules
}

// answer converts a rule for the API. listeners are those of the configuration in force.
func (r accessRule) answer(listeners []string) admin.AccessRule {
	a := admin.AccessRule{
		Prefix: r.prefix.String(), Action: r.action(), Listener: r.listener, Added: r.added, Comment: r.comment,
		Gone: r.listener != "" && !slices.Contains(listeners, r.listener),
	}
	if !r.until.IsZero() {
		a.Until = &r.until
	}
	return a
}

// AddAccessRule adds an access rule for clients that come from now on, or replaces the one for the same prefix and
// listener.
func (d *Daemon) AddAccessRule(n admin.NewAccessRule) (admin.AccessRule, error) {
	if err := n.Check(); err != nil {
		return admin.AccessRule{}, err
	}
	prefix, err := admin.ParsePrefix(n.Prefix)
	if err != nil {
		return admin.AccessRule{}, err
	}
	lasts, err := n.Time()
	if err != nil {
		return admin.AccessRule{}, err
	}
	listeners := listenerNames(d.config())
	if err := knownListener(n.Listener, listeners); n.Listener != "" && err != nil {
		return admin.AccessRule{}, err
	}
	r := accessRule{
		ruleKey: ruleKey{prefix: prefix, listener: n.Listener}, allow: n.Action == admin.ActionAllow, added: wallNow(),
		comment: n.Comment,
	}
	if lasts > 0 {
		r.until = r.added.Add(lasts)
	}
	g := d.give(admin.Origin{By: n.By, Local: n.Local})
	answer := r.answer(listeners)
	if err := d.addRule(r, g); err != nil {
		return answer, err // an *admin.NotSavedError, if it is in force
	}
	answer.Fleet, answer.Sharing = d.fleet.shared(accessKey(r.ruleKey)), g.await()
	return answer, nil
}

func (d *Daemon) addRule(r accessRule, g *giving) error {
	end, err := d.beginChange()
	if err != nil {
		return err
	}
	defer end()
	if err := d.rules.add(r); err != nil {
		return err
	}
	g.rule(r)
	return d.saveState()
}

// RemoveAccessRule removes the access rule for a prefix and a listener; "" stands for every listener.
func (d *Daemon) RemoveAccessRule(prefix, listener string, from admin.Origin) (*admin.Sharing, error) {
	p, err := admin.ParsePrefix(prefix)
	if err != nil {
		return nil, err
	}
	g := d.give(from)
	if err := d.removeRule(ruleKey{prefix: p, listener: listener}, g); err != nil {
		return nil, err
	}
	return g.await(), nil
}

func (d *Daemon) removeRule(k ruleKey, g *giving) error {
	end, err := d.beginChange()
	if err != nil {
		return err
	}
	defer end()
	if err := d.rules.remove(k, wallNow()); err != nil {
		return err
	}
	g.noRule(k)
	return d.saveState()
}

// CheckAccess returns where an address may come in, and what decides.
func (d *Daemon) CheckAccess(q admin.AccessQuery) (admin.AccessCheck, error) {
	address, err := netip.ParseAddr(q.Address)
	if err != nil {
		return admin.AccessCheck{}, &admin.RequestError{Field: "address", Value: q.Address,
			Want: `an IP address, such as "192.0.2.7"`}
	}
	names := listenerNames(d.config())
	if q.Listener != "" {
		if err := knownListener(q.Listener, names); err != nil {
			return admin.AccessCheck{}, err
		}
		names = []string{q.Listener}
	}
	c := admin.AccessCheck{Address: q.Address, Listeners: []admin.AccessDecision{}}
	for _, name := range names {
		if decision, known := d.explainAccess(name, address); known {
			c.Listeners = append(c.Listeners, decision)
		}
	}
	return c, nil
}

// explainAccess returns whether an address may come in at a listener; known is false if there is no such listener.
func (d *Daemon) explainAccess(listener string, address netip.Addr) (_ admin.AccessDecision, known bool) {
	address = address.Unmap().WithZone("")
	allowed, by, known := d.server.ExplainAccess(listener, address)
	if !known {
		return admin.AccessDecision{}, false
	}
	return decisionOf(listener, address, allowed, by, d.rules.list(), wallNow()), true
}

// decisionOf finds what has decided about an address, by the prefix that did; an invalid one if no prefix contains the
// address. Of two rules for the prefix, the one for the listener holds.
func decisionOf(
	listener string, address netip.Addr, allowed bool, by netip.Prefix, rules []accessRule, now time.Time,
) admin.AccessDecision {
	c := admin.AccessDecision{Listener: listener, Allowed: allowed, DecidedBy: byDefault}
	verb := "is denied"
	if allowed {
		verb = "may come in"
	}
	c.Text = fmt.Sprintf("%s %s at listener %q: ", address, verb, listener)
	if !by.IsValid() {
		if allowed {
			c.Text += "no prefix of its access list and no rule contains it."
		} else {
			c.Text += "the listener has a list of who may come in, and no prefix of it contains the address."
		}
		return c
	}
	c.DecidedBy, c.Prefix = byList, by.String()
	c.Text += fmt.Sprintf("the prefix %s of its access list decides.", by)
	for _, r := range slices.Backward(rules) { // those for every listener are first in the list
		if r.prefix == by && r.allow == allowed && (r.listener == "" || r.listener == listener) && !r.over(now) {
			rule := r.answer([]string{r.listener})
			c.DecidedBy, c.Rule = byRule, &rule
			c.Text = fmt.Sprintf("%s %s at listener %q: the rule decides that was added at run time, %s.", address, verb,
				listener, r)
			break
		}
	}
	return c
}

// explainedAccess returns whether the client of a query may come in at its listener; nil if that is not known. It
// reports false if the client may not, which then is all there is to explain.
func (d *Daemon) explainedAccess(q admin.ExplainQuery, client netip.Addr) (*admin.AccessDecision, bool) {
	if q.Listener == "" {
		return nil, true
	}
	decision, known := d.explainAccess(q.Listener, client)
	if !known {
		return nil, true
	}
	return &decision, decision.Allowed
}

// noteRule logs and publishes a change of the access rules.
func (d *Daemon) noteRule(kind string, r accessRule, now time.Time) {
	line := d.log.Info().Str("prefix", r.prefix.String()).Str("action", r.action()).Str("listener", r.listener)
	if !r.until.IsZero() {
		line.Time("until", r.until)
	}
	if r.comment != "" {
		line.Str("comment", r.comment)
	}
	line.Str("event", kind).Msg(strings.ReplaceAll(kind, "_", " "))
	d.events.publish(admin.Event{At: now, Kind: kind, Text: r.String()})
}

// listenerNames returns the names of a configuration's listeners, sorted.
func listenerNames(cfg *conf.Config) []string {
	names := make([]string, len(cfg.Listeners))
	for i, l := range cfg.Listeners {
		names[i] = l.Name
	}
	slices.Sort(names)
	return names
}

// knownListener returns an error that wraps admin.ErrUnknownListener, and names the listeners there are, if there is
// none of that name.
func knownListener(name string, listeners []string) error {
	if slices.Contains(listeners, name) {
		return nil
	}
	err := fmt.Errorf("listener %q: %w", name, admin.ErrUnknownListener)
	if n := len(listeners); n > namedBackends {
		more := n - namedBackends
		return fmt.Errorf("%w; there are %s and %d more", err, strings.Join(listeners[:namedBackends], ", "), more)
	}
	if len(listeners) == 0 {
		return err
	}
	return fmt.Errorf("%w; there %s %s", err, map[bool]string{true: "is", false: "are"}[len(listeners) == 1],
		strings.Join(listeners, ", "))
}
