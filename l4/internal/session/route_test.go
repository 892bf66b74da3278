package session

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/pool"
)

func namedPool(t testing.TB, name string) *pool.Pool {
	p, err := pool.New(pool.Options{Name: name, Algorithm: "first"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// poolOf returns the name of the pool for a client; "" for none.
func poolOf(r *Routes, name string, protocols ...string) string {
	p := r.Pool([]byte(name), func(protocol string) bool { return slices.Contains(protocols, protocol) })
	if p == nil {
		return ""
	}
	return p.Name()
}

// TestRoutes holds which route a client takes.
func TestRoutes(t *testing.T) {
	route := func(to string, names string, protocols ...string) Route {
		return Route{ServerNames: strings.Fields(names), Protocols: protocols, Pool: namedPool(t, to)}
	}
	r := NewRoutes([]Route{
		route("all", "*"),
		route("wide", "*.example.com"),
		route("long", "*.db.example.com"),
		route("exact", "example.com one.db.example.com h2.example.com"),
		route("h2", "h2.example.com", "h2", "h3"),
		route("http", "h2.example.com", "http/1.1"),
		route("only", "only.example.org", "pg"),
		route("dot", "", "dot"),
	})
	for _, test := range []struct{ name, protocols, want string }{
		{"example.com", "", "exact"},
		{"one.db.example.com", "", "exact"},
		{"two.db.example.com", "", "long"},
		{"a.two.db.example.com", "", "long"},
		{"db.example.com", "", "wide"},
		{"a.b.c.example.com", "", "wide"},
		{"example.org", "", "all"},
		{"notexample.com", "", "all"},
		{"com", "", "all"},
		{"", "", "all"},
		{"", "dot", "dot"},
		{"example.org", "x dot", "dot"},
		{"example.com", "dot", "exact"},
		{"h2.example.com", "", "exact"},
		{"h2.example.com", "h3", "h2"},
		{"h2.example.com", "http/1.1", "http"},
		{"h2.example.com", "http/1.1 h2", "h2"}, // the order of routes and not the client's
		{"h2.example.com", "H2", "exact"},
		{"only.example.org", "pg", "only"},
		{"only.example.org", "h2", "all"},
	} {
		if got := poolOf(r, test.name, strings.Fields(test.protocols)...); got != test.want {
			t.Errorf("%q with %q goes to %q, want %q", test.name, test.protocols, got, test.want)
		}
	}
	strict := NewRoutes([]Route{route("a", "a.example.com"), route("b", "*.b.example.com", "h2")})
	for _, name := range []string{"", "example.com", "b.a.example.com", "x.b.example.com", "b.example.com"} {
		if got := poolOf(strict, name); got != "" {
			t.Errorf("%q goes to %q", name, got)
		}
	}
}

// TestRoutesModel compares the lookup with the rule as the documentation has it, for any routes and clients.
func TestRoutesModel(t *testing.T) {
	labels := rapid.SampledFrom([]string{"a", "b", "c"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(labels, 1, 4).Draw(t, "labels"), ".")
	})
	pattern := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"", "", "*."}).Draw(t, "wild") + name.Draw(t, "name")
	})
	protocols := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 2, rapid.ID)
	pools := []*pool.Pool{namedPool(t, "0"), namedPool(t, "1"), namedPool(t, "2"), namedPool(t, "3"), namedPool(t, "4")}
	rapid.Check(t, func(t *rapid.T) {
		var routes []Route
		for i := range rapid.IntRange(0, len(pools)).Draw(t, "routes") {
			names := rapid.SliceOfN(rapid.OneOf(pattern, rapid.Just("*")), 0, 3).Draw(t, "names")
			routes = append(routes, Route{names, protocols.Draw(t, "protocols"), pools[i]})
		}
		client := rapid.OneOf(name, rapid.Just("")).Draw(t, "client")
		offered := protocols.Draw(t, "offered")
		got, want := poolOf(NewRoutes(routes), client, offered...), modelRoute(routes, client, offered)
		if got != want {
			t.Fatalf("%q with %q goes to %q, want %q: %v", client, offered, got, want, routes)
		}
	})
}

// modelRoute goes through all patterns and keeps the best one.
func modelRoute(routes []Route, client string, offered []string) (to string) {
	best := -1
	for _, route := range routes {
		with := 0
		if len(route.Protocols) > 0 {
			if !slices.ContainsFunc(offered, func(p string) bool { return slices.Contains(route.Protocols, p) }) {
				continue
			}
			with = 1
		}
		patterns := route.ServerNames
		if len(patterns) == 0 {
			patterns = []string{"*"}
		}
		for _, p := range patterns {
			rank := -1
			switch {
			case p == "*":
				rank = 0
			case client == p:
				rank = 1000
			case strings.HasPrefix(p, "*.") && strings.HasSuffix(client, p[1:]):
				rank = len(p)
			}
			if rank >= 0 && 2*rank+with > best {
				best, to = 2*rank+with, route.Pool.Name()
			}
		}
	}
	return to
}

// TestRoutesAllocateNothing holds that a lookup allocates nothing.
func TestRoutesAllocateNothing(t *testing.T) {
	r := NewRoutes([]Route{{[]string{"*.example.com"}, []string{"h2"}, namedPool(t, "a")}})
	name := []byte("a.very.long.name.with.many.labels.example.com")
	offers := func(p string) bool { return p == "h2" }
	if n := testing.AllocsPerRun(100, func() { r.Pool(name, offers) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
