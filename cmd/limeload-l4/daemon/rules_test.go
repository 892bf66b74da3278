package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// A ruleTaker takes access rules as the data plane does.
type ruleTaker struct {
	mu    sync.Mutex
	rules []l4.AccessRule // the last ones
	times int
}

func (r *ruleTaker) take(rules []l4.AccessRule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules, r.times = rules, r.times+1
}

// last returns the last rules in a few words, and how often there were any.
func (r *ruleTaker) last() (string, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, rule := range r.rules {
		all = append(all, fmt.Sprintf("%s@%s=%t", rule.Prefix, rule.Listener, rule.Allow))
	}
	return strings.Join(all, " "), r.times
}

// deny returns a rule to be added.
func deny(prefix, listener string) admin.NewAccessRule {
	return admin.NewAccessRule{Prefix: prefix, Action: admin.ActionDeny, Listener: listener}
}

// TestAccessRules adds, replaces and removes rules, and checks what the data plane, the API, the events and the log
// get.
func TestAccessRules(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	var log lockedLog
	d.log = zerolog.New(&log)
	var data ruleTaker
	d.rules.useServer(data.take)
	events, stop := d.Events()
	defer stop()
	seconds := 600.0
	for _, tc := range []struct {
		rule  admin.NewAccessRule
		given string // all rules, afterwards
		event string
	}{
		{deny("192.0.2.0/24", "web"), "192.0.2.0/24@web=false", `deny 192.0.2.0/24 at listener "web"`},
		{admin.NewAccessRule{Prefix: "::ffff:192.0.2.0/120", Action: "deny", Comment: "scan"},
			"192.0.2.0/24@=false 192.0.2.0/24@web=false", `deny 192.0.2.0/24 at every listener: scan`},
		{admin.NewAccessRule{Prefix: "192.0.2.0/24", Action: "allow", Listener: "web"},
			"192.0.2.0/24@=false 192.0.2.0/24@web=true", `allow 192.0.2.0/24 at listener "web"`},
		{admin.NewAccessRule{Prefix: "2001:db8::7", Action: "deny", For: &seconds},
			"192.0.2.0/24@=false 2001:db8::7/128@=false 192.0.2.0/24@web=true", ""},
	} {
		before := time.Now()
		added, err := d.AddAccessRule(tc.rule)
		if err != nil {
			t.Fatal(err)
		}
		if given, _ := data.last(); given != tc.given {
			t.Errorf("%+v: the data plane has %s, want %s", tc.rule, given, tc.given)
		}
		if added.Added.Before(before.Round(0)) || added.Gone || added.Action != tc.rule.Action ||
			added.Listener != tc.rule.Listener || added.Comment != tc.rule.Comment {
			t.Errorf("%+v: added is %+v", tc.rule, added)
		}
		if (added.Until != nil) != (tc.rule.For != nil) ||
			added.Until != nil && !added.Until.Equal(added.Added.Add(10*time.Minute)) {
			t.Errorf("%+v: it ends at %v", tc.rule, added.Until)
		}
		if tc.rule.For != nil {
			tc.event = "deny 2001:db8::7/128 at every listener until " + added.Until.UTC().Format(time.RFC3339)
		}
		if e := <-events; e.Kind != "access_rule_added" || e.Text != tc.event || !e.At.Equal(added.Added) {
			t.Errorf("%+v: the event is %+v, want %s", tc.rule, e, tc.event)
		}
	}
	if n := numbers(scrape(t, d.metrics, textForm))["limeload_access_rules{}"]; n != 3 {
		t.Errorf("the metric is %v", n)
	}
	for _, removed := range []ruleKey{{listener: "web"}, {}} {
		if _, err := d.RemoveAccessRule("192.0.2.0/24", removed.listener, admin.Origin{}); err != nil {
			t.Fatal(err)
		}
		if e := <-events; e.Kind != "access_rule_removed" || !strings.Contains(e.Text, "192.0.2.0/24") {
			t.Errorf("the event is %+v", e)
		}
	}
	if rules := d.AccessRules(); len(rules) != 1 || rules[0].Prefix != "2001:db8::7/128" || rules[0].Until == nil {
		t.Errorf("left are %+v", rules)
	}
	if given, times := data.last(); given != "2001:db8::7/128@=false" || times != 6 {
		t.Errorf("the data plane has %s, and was told %d times", given, times)
	}
	want := `{"level":"info","prefix":"192.0.2.0/24","action":"deny","listener":"","comment":"scan",` +
		`"event":"access_rule_added","message":"access rule added"}`
	if lines := log.String(); !strings.Contains(lines, want) || strings.Count(lines, "access rule removed") != 2 {
		t.Errorf("the log is\n%s", lines)
	}
}

// A lockedLog is a log for several goroutines.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestAccessRulesRefused: a rule that is refused changes nothing, and the error says what to do.
func TestAccessRulesRefused(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	var data ruleTaker
	d.rules.useServer(data.take)
	if _, err := d.AddAccessRule(deny("192.0.2.0/24", "web")); err != nil {
		t.Fatal(err)
	}
	events, stop := d.Events()
	defer stop()
	for _, tc := range []struct {
		err  error
		is   error
		text string
	}{
		{addError(d, deny("198.51.100.0/24", "wep")), admin.ErrUnknownListener,
			`listener "wep": there is no such listener; there is web`},
		{addError(d, deny("198.51.100.1/24", "web")), nil, "needs 198.51.100.0/24, or 198.51.100.1/32"},
		{addError(d, admin.NewAccessRule{Prefix: "198.51.100.1"}), nil, `action: found ""; needs allow or deny`},
		{errorOf(d.RemoveAccessRule("198.51.100.0/24", "", admin.Origin{})), admin.ErrUnknownAccessRule,
			"198.51.100.0/24 at every listener: there is no such access rule"},
		{errorOf(d.RemoveAccessRule("192.0.2.0/24", "", admin.Origin{})), admin.ErrUnknownAccessRule,
			`192.0.2.0/24 at every listener: there is no such access rule; there is one at listener "web"`},
		{errorOf(d.RemoveAccessRule("192.0.2.0", "web", admin.Origin{})), admin.ErrUnknownAccessRule, "192.0.2.0/32"},
		{errorOf(d.RemoveAccessRule("web", "web", admin.Origin{})), nil, `prefix: found "web"`},
	} {
		if tc.err == nil || !strings.Contains(tc.err.Error(), tc.text) || tc.is != nil && !errors.Is(tc.err, tc.is) {
			t.Errorf("%v, want %s", tc.err, tc.text)
		}
	}
	if given, times := data.last(); given != "192.0.2.0/24@web=false" || times != 1 || len(events) > 0 {
		t.Errorf("the data plane has %s, and was told %d times; there are %d events", given, times, len(events))
	}
	if err := knownListener("x", []string{"a", "b", "c", "d", "e", "f", "g"}); err.Error() !=
		`listener "x": there is no such listener; there are a, b, c, d, e and 2 more` {
		t.Error(err)
	}
}

func addError(d *Daemon, r admin.NewAccessRule) error {
	_, err := d.AddAccessRule(r)
	return err
}

// TestAccessRulesBound: there are as many rules as there may be, and then one can be replaced, but none added.
func TestAccessRulesBound(t *testing.T) {
	a := newAccessRules(func(string, accessRule, time.Time) {})
	rule := func(i int) accessRule {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		return accessRule{ruleKey: ruleKey{prefix: netip.PrefixFrom(addr, 32)}, added: wallNow()}
	}
	for i := range admin.MaxAccessRules {
		if err := a.add(rule(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.add(rule(admin.MaxAccessRules)); !errors.Is(err, admin.ErrTooManyAccessRules) || a.len() !=
		admin.MaxAccessRules {
		t.Errorf("%d rules, %v", a.len(), err)
	}
	if err := a.add(rule(7)); err != nil {
		t.Error(err)
	}
	if err := a.remove(rule(7).ruleKey, wallNow()); err != nil {
		t.Error(err)
	}
	if err := a.add(rule(admin.MaxAccessRules)); err != nil {
		t.Error(err)
	}
}

// TestAccessRulesExpire: each rule ends at its time, whatever is added and removed meanwhile.
func TestAccessRulesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := wallNow()
		var data ruleTaker
		var ended []string
		a := newAccessRules(func(kind string, r accessRule, now time.Time) {
			if kind == "access_rule_expired" {
				ended = append(ended, fmt.Sprintf("%s after %v", r.prefix, now.Sub(begin)))
			}
		})
		a.useServer(data.take)
		saves := 0
		ctx, cancel := context.WithCancel(t.Context())
		var keeping sync.WaitGroup
		keeping.Go(func() { a.keep(ctx, func() { saves++ }) })
		add := func(prefix string, lasts time.Duration) {
			t.Helper()
			r := accessRule{ruleKey: ruleKey{prefix: netip.MustParsePrefix(prefix)}, added: wallNow()}
			if lasts > 0 {
				r.until = r.added.Add(lasts)
			}
			if err := a.add(r); err != nil {
				t.Fatal(err)
			}
		}
		add("192.0.2.0/24", 0)
		add("10.0.0.0/8", 2*time.Hour)
		time.Sleep(time.Second)
		add("10.1.0.0/16", 2*time.Second) // earlier than the one before it
		add("10.2.0.0/16", 5*time.Second)
		add("10.3.0.0/16", 2*time.Second)
		add("10.3.0.0/16", 9*time.Second) // replaces it
		time.Sleep(time.Second)
		if err := a.remove(ruleKey{prefix: netip.MustParsePrefix("10.2.0.0/16")}, wallNow()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		want := []string{"10.1.0.0/16 after 3s", "10.3.0.0/16 after 10s", "10.0.0.0/8 after 2h0m0s"}
		if !slices.Equal(ended, want) || saves != 3 {
			t.Errorf("%q have ended, want %q; saved %d times", ended, want, saves)
		}
		if given, _ := data.last(); given != "192.0.2.0/24@=false" {
			t.Errorf("the data plane has %s", given)
		}
		cancel()
		keeping.Wait()
	})
}

// TestAccessDecision: what decides is found by the prefix that the data plane names.
func TestAccessDecision(t *testing.T) {
	now := wallNow()
	p := netip.MustParsePrefix
	rules := []accessRule{
		{ruleKey: ruleKey{prefix: p("192.0.2.0/24")}, comment: "scan"},
		{ruleKey: ruleKey{prefix: p("198.51.100.0/24")}, until: now},
		{ruleKey: ruleKey{prefix: p("192.0.2.0/24"), listener: "web"}, allow: true},
	}
	address := netip.MustParseAddr("192.0.2.7")
	for _, tc := range []struct {
		listener string
		allowed  bool
		by       netip.Prefix
		decided  string
		text     string
	}{
		{"db", false, p("192.0.2.0/24"), byRule,
			`192.0.2.7 is denied at listener "db": the rule decides that was added at run time, ` +
				`deny 192.0.2.0/24 at every listener: scan.`},
		{"web", true, p("192.0.2.0/24"), byRule,
			`192.0.2.7 may come in at listener "web": the rule decides that was added at run time, ` +
				`allow 192.0.2.0/24 at listener "web".`},
		{"web", true, p("192.0.2.0/25"), byList,
			`192.0.2.7 may come in at listener "web": the prefix 192.0.2.0/25 of its access list decides.`},
		{"web", false, p("198.51.100.0/24"), byList, // the rule has ended
			`192.0.2.7 is denied at listener "web": the prefix 198.51.100.0/24 of its access list decides.`},
		{"web", true, netip.Prefix{}, byDefault,
			`192.0.2.7 may come in at listener "web": no prefix of its access list and no rule contains it.`},
		{"web", false, netip.Prefix{}, byDefault, `192.0.2.7 is denied at listener "web": ` +
			`the listener has a list of who may come in, and no prefix of it contains the address.`},
	} {
		got := decisionOf(tc.listener, address, tc.allowed, tc.by, rules, now)
		if got.DecidedBy != tc.decided || got.Text != tc.text || (got.Rule != nil) != (tc.decided == byRule) ||
			got.Allowed != tc.allowed || (got.Prefix != "") != tc.by.IsValid() {
			t.Errorf("%s %t %v: %+v, want %s, %s", tc.listener, tc.allowed, tc.by, got, tc.decided, tc.text)
		}
	}
	x := denied(admin.ExplainQuery{Listener: "db", Client: "192.0.2.7"},
		&admin.AccessDecision{Listener: "db", Text: "a rule decides."})
	if x.Refusal != "denied" || x.Access == nil || x.Text != "192.0.2.7 would be refused: denied. a rule decides." {
		t.Errorf("%+v", x)
	}
}
