package conf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func mustParse(t *testing.T, doc string) *Config {
	t.Helper()
	c, err := Parse("lb.toml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var errNoHost = errors.New("no such host")

// hosts returns a lookup in a fixed table.
func hosts(table map[string]string) Lookup {
	return func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" {
			return nil, errors.New("network " + network)
		}
		switch text, ok := table[host]; {
		case !ok:
			return nil, errNoHost
		case text == "":
			return nil, nil
		case text == "both":
			return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1"),
				netip.MustParseAddr("192.0.2.2")}, nil
		default:
			return []netip.Addr{netip.MustParseAddr(text)}, nil
		}
	}
}

const names = `listener.a = { pool = "p", address = "lo:1" }
listener.b = { pool = "p", address = ":1" }
listener.c = { pool = "p", address = "127.0.0.2:1" }
[pool.p]
backends = [
  { address = "Db.internal:1" },
  { address = "six:2" },
  { address = "db.internal:2" },
  { address = "10.0.0.1:3" },
]
`

func TestResolve(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := mustParse(t, names)
	var lookups atomic.Int32
	table := hosts(map[string]string{"lo": "127.0.0.1", "db.internal": "both", "six": "2001:db8::6"})
	err := c.Resolve(t.Context(), func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		lookups.Add(1)
		return table(ctx, network, host)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := lookups.Load(); n != 3 {
		t.Errorf("%d lookups for 3 names", n)
	}
	var got []string
	for _, l := range c.Listeners {
		got = append(got, l.Binds[0].Addr.String())
	}
	for _, b := range c.Pools[0].Backends {
		got = append(got, b.Addr.String())
	}
	want := []string{"127.0.0.1:1", "[::]:1", "127.0.0.2:1", "192.0.2.1:1", "[2001:db8::6]:2", "192.0.2.1:2",
		"10.0.0.1:3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err := c.Resolve(t.Context(), nil, nil); err != nil { // nothing is left to look up
		t.Errorf("a second time: %v", err)
	}
}

// TestResolveErrors holds that a listener without an address is an error, and leaves the Config as it was.
func TestResolveErrors(t *testing.T) {
	defer goleak.VerifyNone(t)
	c, before := mustParse(t, names), mustParse(t, names)
	for _, tt := range []struct {
		table map[string]string
		want  string
	}{
		{map[string]string{"six": ""}, `lb.toml:1: listener.a.address: found "lo:1"; cannot be resolved: no such host
lb.toml:6: pool.p.backends[0].address: found "Db.internal:1"; cannot be resolved: no such host
lb.toml:7: pool.p.backends[1].address: found "six:2"; the name has no address
lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; cannot be resolved: no such host`},
		{map[string]string{"lo": "127.0.0.2", "db.internal": "10.0.0.1", "six": "0.0.0.0"},
			`lb.toml:3: listener.c.address: found "127.0.0.2:1"; listener.a.address on line 1, "lo:1", has this address already
lb.toml:7: pool.p.backends[1].address: found "six:2"; its address is 0.0.0.0: this address can be listened on but not connected to`},
		{map[string]string{"lo": "0.0.0.0", "db.internal": "10.0.0.1", "six": "10.0.0.1"},
			`lb.toml:2: listener.b.address: found ":1"; listener.a.address on line 1, "lo:1", has this address already
lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; its address is 10.0.0.1:2; pool.p.backends[1] on line 7 has the same address`},
	} {
		err := c.Resolve(t.Context(), hosts(tt.table), nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("got\n%v\nwant\n%s", err, tt.want)
		}
		if len(tt.table) == 1 && !errors.Is(err, errNoHost) {
			t.Error("errors.Is does not see the cause")
		}
		if diff := cmp.Diff(before, c, compareConfig); diff != "" {
			t.Errorf("the Config changed, -before +after:\n%s", diff)
		}
	}
}

// addressesOf lists the resolved addresses of listeners and backends.
func addressesOf(c *Config) string {
	var texts []string
	for _, l := range c.Listeners {
		texts = append(texts, l.Binds[0].Addr.String())
	}
	for _, p := range c.Pools {
		for _, b := range p.Backends {
			texts = append(texts, b.Addr.String())
		}
	}
	return strings.Join(texts, " ")
}

// TestResolveLater holds that a backend whose name has no usable address causes no error, is reported, keeps its
// earlier address, and gets a new one as soon as there is one.
func TestResolveLater(t *testing.T) {
	defer goleak.VerifyNone(t)
	const literal = "127.0.0.2:1"
	resolve := func(table map[string]string, before *Config) *Config {
		t.Helper()
		c := mustParse(t, names)
		if err := c.Resolve(t.Context(), hosts(table), before); err != nil {
			t.Fatal(err)
		}
		return c
	}
	holds := func(c *Config, addresses string, unresolved ...string) {
		t.Helper()
		if got := addressesOf(c); got != addresses {
			t.Errorf("addresses\n%s, want\n%s", got, addresses)
		}
		if got := c.Unresolved().Error(); got != strings.Join(unresolved, "\n") {
			t.Errorf("unresolved:\n%s\nwant:\n%s", got, strings.Join(unresolved, "\n"))
		}
	}
	const listeners = "127.0.0.1:1 [::]:1 " + literal + " "
	all := map[string]string{"lo": "127.0.0.1", "db.internal": "10.0.0.9", "six": "10.0.0.6"}

	first := resolve(map[string]string{"lo": "127.0.0.1", "six": "224.0.0.1"}, nil)
	holds(first, listeners+"invalid AddrPort invalid AddrPort invalid AddrPort 10.0.0.1:3",
		`lb.toml:6: pool.p.backends[0].address: found "Db.internal:1"; cannot be resolved: no such host`,
		`lb.toml:7: pool.p.backends[1].address: found "six:2"; its address is 224.0.0.1: a multicast or broadcast address is of no use here`,
		`lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; cannot be resolved: no such host`)

	some := first.ResolveAgain(t.Context(), hosts(map[string]string{"six": "10.0.0.6"}))
	holds(some, listeners+"invalid AddrPort 10.0.0.6:2 invalid AddrPort 10.0.0.1:3",
		`lb.toml:6: pool.p.backends[0].address: found "Db.internal:1"; cannot be resolved: no such host`,
		`lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; cannot be resolved: no such host`)
	// and "six" is not asked for
	done := some.ResolveAgain(t.Context(), hosts(map[string]string{"db.internal": "10.0.0.9"}))
	holds(done, listeners+"10.0.0.9:1 10.0.0.6:2 10.0.0.9:2 10.0.0.1:3")

	// On the next reload the resolver knows no names.
	next := resolve(nil, done)
	const kept = "; it keeps the address it had, "
	holds(next, listeners+"10.0.0.9:1 10.0.0.6:2 10.0.0.9:2 10.0.0.1:3",
		`lb.toml:1: listener.a.address: found "lo:1"; cannot be resolved: no such host`+kept+"127.0.0.1",
		`lb.toml:6: pool.p.backends[0].address: found "Db.internal:1"; cannot be resolved: no such host`+kept+
			"10.0.0.9",
		`lb.toml:7: pool.p.backends[1].address: found "six:2"; cannot be resolved: no such host`+kept+"10.0.0.6",
		`lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; cannot be resolved: no such host`+kept+
			"10.0.0.9")
	moved := next.ResolveAgain(t.Context(), hosts(map[string]string{"db.internal": "10.0.0.10", "six": "10.0.0.6"}))
	holds(moved, listeners+"10.0.0.10:1 10.0.0.6:2 10.0.0.10:2 10.0.0.1:3",
		`lb.toml:1: listener.a.address: found "lo:1"; cannot be resolved: no such host`+kept+"127.0.0.1")
	// A listener stays at its address, even if its name now has the address of another listener.
	holds(moved.ResolveAgain(t.Context(), hosts(map[string]string{"lo": "127.0.0.2"})),
		listeners+"10.0.0.10:1 10.0.0.6:2 10.0.0.10:2 10.0.0.1:3")

	// Two backends at one address: the first of the file has it.
	same := resolve(map[string]string{"lo": "127.0.0.1", "db.internal": "10.0.0.6", "six": "10.0.0.6"}, nil)
	const conflict = `lb.toml:8: pool.p.backends[2].address: found "db.internal:2"; its address is 10.0.0.6:2; pool.p.backends[1] on line 7 has the same address`
	holds(same, listeners+"10.0.0.6:1 10.0.0.6:2 invalid AddrPort 10.0.0.1:3", conflict)
	holds(same.ResolveAgain(t.Context(), hosts(all)), listeners+"10.0.0.6:1 10.0.0.6:2 10.0.0.9:2 10.0.0.1:3")
}

// TestResolveAtOnce: many names that time out cost as many timeouts as maxLookups makes
// rounds, and an end of the context ends them.
func TestResolveAtOnce(t *testing.T) {
	doc := "listener.a = { pool = 'p', address = ':1' }\n[pool.p]\nbackends = [\n"
	for i := range 4 * maxLookups {
		doc += fmt.Sprintf("{ address = 'h%d:1' },\n", i)
	}
	doc += "]\n"
	synctest.Test(t, func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		c := mustParse(t, doc)
		slow := func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(5 * time.Second):
				return nil, context.DeadlineExceeded
			}
		}
		for _, limit := range []time.Duration{time.Hour, 7 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			start := time.Now()
			err := c.Resolve(ctx, slow, nil)
			cancel()
			if took := time.Since(start); took != min(20*time.Second, limit) {
				t.Errorf("with %v to go it took %v", limit, took)
			}
			if errs := c.Unresolved(); err != nil || len(errs) != 4*maxLookups ||
				!errors.Is(errs, context.DeadlineExceeded) {
				t.Errorf("%d names unresolved, error %v", len(errs), err)
			}
		}
	})
}
