package gate

import (
	"net/netip"
	"testing"
	"time"
)

// listOf returns an access list of prefixes: those that begin with "+" are allowed, and those with "-" denied.
func listOf(t *testing.T, allowOnly bool, prefixes ...string) *AccessList {
	t.Helper()
	list := NewAccessList(allowOnly)
	for _, p := range prefixes {
		insert := list.Allow
		if p[0] == '-' {
			insert = list.Deny
		}
		if !insert(netip.MustParsePrefix(p[1:])) {
			t.Fatalf("%s contradicts another prefix", p)
		}
	}
	return list
}

// TestAccess holds who may come in: the longest prefix decides, of whichever list, and a rule of the same length holds
// against a listed prefix, one of the listener against one of all.
func TestAccess(t *testing.T) {
	everywhere := func(p string, allow bool) AccessRule {
		return AccessRule{Prefix: netip.MustParsePrefix(p), Allow: allow}
	}
	here := func(p string, allow bool) AccessRule {
		return AccessRule{Listener: "web", Prefix: netip.MustParsePrefix(p), Allow: allow}
	}
	past := everywhere("192.0.2.1/32", false)
	past.Until = time.Now().Add(-time.Second)
	elsewhere := AccessRule{Listener: "other", Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	for _, tt := range []struct {
		name   string
		list   *AccessList
		rules  []AccessRule
		client string
		in     bool
		by     string // "" = no prefix
	}{
		{"no list", nil, nil, "192.0.2.1", true, ""},
		{"not in the list", listOf(t, false, "-10.0.0.0/8"), nil, "192.0.2.1", true, ""},
		{"denied", listOf(t, false, "-192.0.2.0/24"), nil, "192.0.2.1", false, "192.0.2.0/24"},
		{"mapped into IPv6", listOf(t, false, "-192.0.2.0/24"), nil, "::ffff:192.0.2.1", false, "192.0.2.0/24"},
		{"a mapped prefix", listOf(t, false, "-::ffff:192.0.2.0/120"), nil, "192.0.2.1", false, "192.0.2.0/24"},
		{"a zone", listOf(t, false, "-fe80::/10"), nil, "fe80::1%lo", false, "fe80::/10"},
		{"only allowed ones", listOf(t, true, "+10.0.0.0/8"), nil, "192.0.2.1", false, ""},
		{"allowed", listOf(t, true, "+10.0.0.0/8"), nil, "10.1.2.3", true, "10.0.0.0/8"},
		{"a hole", listOf(t, true, "+10.0.0.0/8", "-10.66.0.0/16"), nil, "10.66.0.1", false, "10.66.0.0/16"},
		{"within the hole", listOf(t, true, "+10.0.0.0/8", "-10.66.0.0/16", "+10.66.1.0/24"), nil, "10.66.1.1", true,
			"10.66.1.0/24"},
		{"everybody", listOf(t, false, "-0.0.0.0/0"), nil, "10.66.1.1", false, "0.0.0.0/0"},
		{"all of IPv6", listOf(t, false, "-::/0"), nil, "10.66.1.1", true, ""},
		{"a rule", nil, []AccessRule{everywhere("192.0.2.0/24", false)}, "192.0.2.1", false, "192.0.2.0/24"},
		{"a rule for others", nil, []AccessRule{elsewhere}, "192.0.2.1", true, ""},
		{"a rule whose time is over", nil, []AccessRule{past}, "192.0.2.1", true, ""},
		{"a rule beats a listed prefix", listOf(t, true, "+192.0.2.0/24"),
			[]AccessRule{here("192.0.2.0/24", false)}, "192.0.2.1", false, "192.0.2.0/24"},
		{"a longer prefix beats a rule", listOf(t, true, "+192.0.2.0/24"),
			[]AccessRule{here("192.0.0.0/16", false)}, "192.0.2.1", true, "192.0.2.0/24"},
		{"a rule lets in whom no list allows", listOf(t, true, "+10.0.0.0/8"),
			[]AccessRule{everywhere("192.0.2.0/24", true)}, "192.0.2.1", true, "192.0.2.0/24"},
		{"the listener's rule", nil, []AccessRule{here("192.0.2.0/24", true), everywhere("192.0.2.0/24", false)},
			"192.0.2.1", true, "192.0.2.0/24"},
		{"rules of both", nil, []AccessRule{here("192.0.2.0/24", true), everywhere("192.0.2.1/32", false)},
			"192.0.2.1", false, "192.0.2.1/32"},
	} {
		g := newGate(t, plenty, plenty)
		ls := g.NewListener("web", 1, 1)
		ls.Set(Settings{MaxFlows: 10, Access: tt.list})
		g.SetRules(tt.rules)
		client := netip.MustParseAddr(tt.client)
		want := Admitted
		if !tt.in {
			want = Denied
		}
		c := Client{Addr: netip.AddrPortFrom(client, 4711)}
		if why := ls.AdmitSession(&c, new(Place), false, 0); why != want {
			t.Errorf("%s: a session for reason %d, want %d", tt.name, why, want)
		}
		if why := enter(ls.NewFlows(), new(FlowPlace), client, 0); why != want {
			t.Errorf("%s: a flow for reason %d, want %d", tt.name, why, want)
		}
		if why := ls.NewQuestions().Admit(&c, 0); why != want {
			t.Errorf("%s: a question for reason %d, want %d", tt.name, why, want)
		}
		in, by := ls.ExplainAccess(client)
		if in != tt.in || by.IsValid() != (tt.by != "") || tt.by != "" && by != netip.MustParsePrefix(tt.by) {
			t.Errorf("%s: explained as %v by %v, want %v by %s", tt.name, in, by, tt.in, tt.by)
		}
		if n := int64(g.Sessions() + g.Flows()); n != map[bool]int64{true: 2}[tt.in] {
			t.Errorf("%s: %d sessions and flows are counted", tt.name, n)
		}
	}
}

// TestContradiction holds that a prefix that is both allowed and denied is denied, whichever came first.
func TestContradiction(t *testing.T) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	for _, allowFirst := range []bool{true, false} {
		list := NewAccessList(false)
		first, second := list.Deny, list.Allow
		if allowFirst {
			first, second = second, first
		}
		for _, insert := range []func(netip.Prefix) bool{first, first} {
			if !insert(p) {
				t.Error("the same again is reported as a contradiction")
			}
		}
		if second(p) {
			t.Error("a contradiction is not reported")
		}
		ls := newGate(t, plenty, plenty).NewListener("web", 1, 1)
		ls.Set(Settings{Access: list})
		if in, _ := ls.ExplainAccess(netip.MustParseAddr("192.0.2.1")); in || list.Len() != 1 {
			t.Errorf("allowed first: %v: let in: %v, %d prefixes", allowFirst, in, list.Len())
		}
	}
}

// TestNamesTheClient holds that a proxy that names the real client is not asked for itself, and the client that it names
// is, with its own place.
func TestNamesTheClient(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("web", 1, 1)
	proxy := netip.MustParseAddrPort("10.0.0.1:1")
	ls.Set(Settings{
		Limits: Limits{ClientSessions: 1}, Access: listOf(t, true, "+192.0.2.0/24"),
		Names: func(a netip.Addr) bool { return a == proxy.Addr() },
	})
	for _, tt := range []struct {
		client string
		want   Reason
	}{
		{"192.0.2.1:1", Admitted}, {"192.0.2.2:1", Admitted}, {"192.0.2.1:2", ClientFull}, {"10.0.0.1:5", Denied},
	} {
		var place Place
		if why := ls.AdmitSession(&Client{Addr: proxy}, &place, false, 0); why != Admitted || place != 0 {
			t.Fatalf("the proxy: reason %d, place %d", why, place)
		}
		client := netip.MustParseAddrPort(tt.client)
		if why := ls.AdmitNamed(client, &place, 0); why != tt.want || (place != 0) != (tt.want == Admitted) {
			t.Errorf("%s: reason %d, want %d; place %d", tt.client, why, tt.want, place)
		}
	}
	if why := ls.AdmitSession(&Client{Addr: netip.MustParseAddrPort("10.0.0.2:1")}, new(Place), false, 0); why != Denied {
		t.Errorf("who names nobody: reason %d", why)
	}
}
