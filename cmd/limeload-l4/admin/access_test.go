package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func (f *fake) AccessRules() []AccessRule {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rules)
}

func (f *fake) AddAccessRule(n NewAccessRule) (AccessRule, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fail != nil:
		return AccessRule{}, f.fail
	case n.Listener != "" && n.Listener != "redis":
		return AccessRule{}, fmt.Errorf("listener %q: %w", n.Listener, ErrUnknownListener)
	case n.Comment == "full":
		return AccessRule{}, ErrTooManyAccessRules
	}
	r := AccessRule{Prefix: n.Prefix, Action: n.Action, Listener: n.Listener, Added: fakeTime(), Comment: n.Comment}
	if n.For != nil {
		until := fakeTime().Add(time.Duration(*n.For * float64(time.Second)))
		r.Until = &until
	}
	f.rules = append(f.rules, r)
	f.changed("%s %s at %q", n.Action, n.Prefix, n.Listener)
	r.Sharing = f.shared(Origin{By: n.By, Local: n.Local})
	return r, nil
}

func (f *fake) RemoveAccessRule(prefix, listener string, from Origin) (*Sharing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	i := slices.IndexFunc(f.rules, func(r AccessRule) bool { return r.Prefix == prefix && r.Listener == listener })
	if i < 0 {
		return nil, fmt.Errorf("%s: %w", prefix, ErrUnknownAccessRule)
	}
	f.rules = slices.Delete(f.rules, i, i+1)
	f.changed("remove rule %s at %q", prefix, listener)
	return f.shared(from), nil
}

func (f *fake) CheckAccess(q AccessQuery) (AccessCheck, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.Listener != "" && q.Listener != "redis" {
		return AccessCheck{}, fmt.Errorf("listener %q: %w", q.Listener, ErrUnknownListener)
	}
	return AccessCheck{Address: q.Address, Listeners: []AccessDecision{{Listener: "redis", Allowed: true,
		DecidedBy: "list", Prefix: "192.0.2.0/24", Text: "the prefix 192.0.2.0/24 of its access list decides."}}}, f.fail
}

func (f *fake) Clients(q ClientQuery) (ClientList, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	return ClientList{
		Clients: []TrackedClient{{Listener: "redis", Protocol: "tcp", Client: "192.0.2.7/32", Sessions: 12, Rate: 3.5,
			Refused: 7, Seen: fakeTime()}},
		Tables: []ClientTable{{Listener: "redis", Protocol: "tcp", Tracked: true, Known: 1, Max: 1000}},
	}, f.fail
}

// fakeTime is when everything happens.
func fakeTime() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC) }

// hostileRules returns access rules that must be refused, and removals of rules.
func hostileRules() []refusal {
	add := func(body string) request { return request{"POST", pathAccess, "", jsonHeader(), body} }
	deny := func(more string) request { return add(`{"prefix":"192.0.2.0/24","action":"deny",` + more + `}`) }
	prefix := func(text string) request { return add(`{"action":"deny","prefix":"` + text + `"}`) }
	remove := func(query string) request { return request{method: "DELETE", target: pathAccess + query} }
	list := []refusal{
		{add(`{}`), problemBadRequest, "prefix"},
		{add(`{"prefix":"192.0.2.0/24"}`), problemBadRequest, "action"},
		{add(`{"prefix":"192.0.2.0/24","action":"drop"}`), problemInvalidValue, "action"},
		{deny(`"listener":"none"`), problemUnknownListener, ""},
		{deny(`"comment":"full"`), problemTooManyRules, ""},
		{deny(`"comment":"` + strings.Repeat("x", MaxCommentLength+1) + `"`), problemInvalidValue, "comment"},
		{deny(`"comment":"\u001b[2J"`), problemInvalidValue, "comment"},
		{deny(`"comment":"\u202e"`), problemInvalidValue, "comment"},
		{deny(`"comment":"a\nb"`), problemInvalidValue, "comment"},
		{request{method: "DELETE", target: pathAccess + "?prefix=192.0.2.0/24", body: "x"}, problemBadRequest, ""},
		{remove(""), problemBadRequest, "prefix"},
		{remove("?prefix="), problemBadRequest, "prefix"},
		{remove("?prefix=192.0.2.1/24"), problemInvalidValue, "prefix"},
		{remove("?prefix=192.0.2.0/24"), problemUnknownRule, ""},
		{remove("?prefix=198.51.100.0/24&listener=redis"), problemUnknownRule, ""},
		{remove("?prefix=198.51.100.0/24&listener="), problemBadRequest, "listener"},
		{remove("?prefix=198.51.100.0/24&all=true"), problemBadRequest, "all"},
	}
	for _, text := range []string{
		"example.com", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2/24", "fe80::1%eth0", "fe80::%eth0/64",
		"2001:db8::1/64", "0.0.0.1/0", "*", " 192.0.2.1", "192.0.2.0/024", "10.0.0.0/8,10.0.0.0/9",
	} {
		list = append(list, refusal{prefix(text), problemInvalidValue, "prefix"})
	}
	for _, seconds := range []string{"0", "0.999", "-1", "315360001", "1e300"} {
		list = append(list, refusal{deny(`"for_seconds":` + seconds), problemInvalidValue, "for_seconds"})
	}
	for _, seconds := range []string{`"10m"`, "true", "1e400", "null"} {
		list = append(list, refusal{deny(`"for_seconds":` + seconds), problemBadRequest, "for_seconds"})
	}
	return list
}

// TestParsePrefix checks what is taken for a prefix, and the remedy for one with bits set after its length.
func TestParsePrefix(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.0/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0",
		"2001:DB8::7": "2001:db8::7/128", "2001:db8::/32": "2001:db8::/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"::ffff:192.0.2.0/120": "192.0.2.0/24", "::ffff:0:0/96": "0.0.0.0/0",
	} {
		if got, err := ParsePrefix(text); err != nil || got.String() != want {
			t.Errorf("%s is %v, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"192.0.2.7/24": `prefix: found "192.0.2.7/24"; its address has bits set after the first 24; ` +
			`needs 192.0.2.0/24, or 192.0.2.7/32 for the address alone`,
		"2001:db8::7/64": `prefix: found "2001:db8::7/64"; its address has bits set after the first 64; ` +
			`needs 2001:db8::/64, or 2001:db8::7/128 for the address alone`,
		"localhost": `prefix: found "localhost"; ` +
			`needs an address or a prefix, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32`,
	} {
		if got, err := ParsePrefix(text); err == nil || err.Error() != want {
			t.Errorf("%s is %v, %v, want %s", text, got, err, want)
		}
	}
}

// TestNewAccessRule checks the ends of what is allowed.
func TestNewAccessRule(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("ü", MaxCommentLength/2)
	for _, r := range []NewAccessRule{
		{Prefix: "192.0.2.0/24", Action: "deny", For: new(1.0), Comment: longest},
		{Prefix: "192.0.2.0/24", Action: "allow", For: new(MaxRuleTime.Seconds()), Comment: "a b"},
	} {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	if err := CheckComment(longest + "x"); err == nil {
		t.Errorf("a comment of %d bytes is not refused", len(longest)+1)
	}
	if err := CheckComment("\xff"); err == nil {
		t.Error("a comment that is not UTF-8 is not refused")
	}
	if d, err := (NewAccessRule{For: new(1.5)}).Time(); d != 1500*time.Millisecond || err != nil {
		t.Errorf("1.5 s are %v, %v", d, err)
	}
}
