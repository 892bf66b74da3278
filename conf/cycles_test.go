package conf

import (
	"net/netip"
	"strings"
	"testing"
)

// TestLoops holds which backends lead back to their listener, and that the mistake names both places.
func TestLoops(t *testing.T) {
	for _, tc := range []struct {
		name, doc string
		want      []string
	}{
		{"itself", `listener.a = { pool = "p", address = "127.0.0.1:1" }
pool.p.backends = [{ address = "10.0.0.1:1" }, { address = "127.0.0.1:1" }]`, []string{
			`lb.toml:2: pool.p.backends[1].address: found "127.0.0.1:1"; listener.a.address on line 1, "127.0.0.1:1", listens there and sends its clients to this pool: each session makes another`,
		}},
		{"through all addresses", `listener.a = { pool = "p", address = ":1" }
pool.p.backends = [{ address = "127.0.0.2:1" }, { address = "[::1]:1" }, { address = "127.0.0.1:2" }]`, []string{
			`lb.toml:2: pool.p.backends[0].address: found "127.0.0.2:1"; listener.a.address on line 1, ":1", listens there and sends its clients to this pool: each session makes another`,
			`lb.toml:2: pool.p.backends[1].address: found "[::1]:1"; listener.a.address on line 1, ":1", listens there and sends its clients to this pool: each session makes another`,
		}},
		{"a pair", `listener.a = { pool = "p", address = "127.0.0.1:1" }
listener.b = { pool = "q", address = "0.0.0.0:2" }
pool.p.backends = [{ address = "127.0.0.1:2" }]
pool.q.backends = [{ address = "127.0.0.1:1" }]`, []string{
			`lb.toml:3: pool.p.backends[0].address: found "127.0.0.1:2"; listener.b.address on line 2, "0.0.0.0:2", listens there and its pool, "q", leads back to listener.a: each session makes another`,
			`lb.toml:4: pool.q.backends[0].address: found "127.0.0.1:1"; listener.a.address on line 1, "127.0.0.1:1", listens there and its pool, "p", leads back to listener.b: each session makes another`,
		}},
		{"a tail into a loop", `listener.a = { pool = "p", address = "127.0.0.1:1" }
listener.b = { pool = "q", address = "127.0.0.1:2", protocol = "udp" }
listener.c = { pool = "q", address = "127.0.0.1:3", protocol = "udp" }
pool.p.backends = [{ address = "127.0.0.1:2" }]
pool.q.backends = [{ address = "127.0.0.1:2" }]`, []string{
			`lb.toml:5: pool.q.backends[0].address: found "127.0.0.1:2"; listener.b.address on line 2, "127.0.0.1:2", listens there and sends its clients to this pool: each session makes another`,
		}},
		{"a chain", `listener.a = { pool = "p", address = "127.0.0.1:1" }
listener.b = { pool = "q", address = ":2" }
pool.p.backends = [{ address = "127.0.0.1:2" }]
pool.q.backends = [{ address = "10.0.0.1:1" }]`, nil},
		{"the other protocol", `listener.a = { pool = "p", address = "127.0.0.1:1", protocol = "udp" }
listener.b = { pool = "q", address = "127.0.0.1:1" }
pool.p.backends = [{ address = "10.0.0.1:1" }]
pool.q.backends = [{ address = "127.0.0.1:2" }]`, nil},
		{"one address beside all", `listener.a = { pool = "p", address = ":1" }
listener.b = { pool = "q", address = "127.0.0.1:1" }
pool.p.backends = [{ address = "127.0.0.1:1" }]
pool.q.backends = [{ address = "10.0.0.1:1" }]`, nil},
		{"the other family", `listener.a = { pool = "p", address = "[::]:1" }
pool.p.backends = [{ address = "127.0.0.1:1" }]`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) { wantErrors(t, tc.doc, tc.want...) })
	}
}

// TestLoopsByName holds that a name which turns out to be the listener's own address is a mistake.
func TestLoopsByName(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
pool.p.backends = [{ address = "localhost:1" }]`)
	err := c.Resolve(t.Context(), hosts(map[string]string{"localhost": "127.0.0.1"}), nil)
	if err == nil || !strings.Contains(err.Error(),
		`pool.p.backends[0].address: found "localhost:1"; listener.a.address on line 1`) {
		t.Errorf("a backend that is the listener: %v", err)
	}
}

// TestLoopsOfThisMachine holds that loops which depend on the machine's addresses are warnings.
func TestLoopsOfThisMachine(t *testing.T) {
	c := mustParse(t, `listener.a = { pool = "p", address = ":1" }
pool.p.backends = [{ address = "192.0.2.1:1" }, { address = "192.0.2.2:1" }]
pool.admin.backends = [{ address = "127.0.0.1:9" }]
admin.address = "127.0.0.1:9"`)
	r := newReport(c.parts, c.lines)
	reportLoops(r, c.Listeners, c.Pools, func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.2") })
	warnOfOpenAdmin(r, c)
	want := `lb.toml:2: pool.p.backends[1].address: found "192.0.2.2:1"; listener.a.address on line 1, ":1", listens there and sends its clients to this pool: each session makes another
lb.toml:3: pool.admin.backends[0].address: found "127.0.0.1:9"; the control API listens there: whoever reaches a listener of this pool reaches it`
	if got := r.sorted().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
