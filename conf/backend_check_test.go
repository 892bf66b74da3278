package conf

import (
	"net/netip"
	"strings"
	"testing"
)

// TestBackendCheck reads where backends are checked, in the configuration and in a file of backends.
func TestBackendCheck(t *testing.T) {
	const file = `
[listener.db]
address = ":5432"
pool = "db"
[pool.db]
backends = [
  { address = "10.0.0.1:5432", check = "10.0.0.1:8008" },
  { address = "10.0.0.2:5432", check = "[::ffff:10.0.0.2]:8008" },
  { address = "10.0.0.3:5432" },
]
`
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8008"), netip.MustParseAddrPort("10.0.0.2:8008"), {}}
	cfg, err := Parse("lb.toml", []byte(file+"[pool.db.health]\n"))
	if err != nil {
		t.Fatal(err)
	}
	found, err := ParseBackends("backends.toml", []byte(file[strings.Index(file, "backends ="):]))
	if err != nil {
		t.Fatal(err)
	}
	for _, backends := range [][]Backend{cfg.Pools[0].Backends, found} {
		for i, b := range backends {
			if b.CheckAddr != want[i] {
				t.Errorf("backend %d is checked at %v, want %v", i, b.CheckAddr, want[i])
			}
		}
	}
	if w := cfg.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	if cfg, err = Parse("lb.toml", []byte(file)); err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(cfg.Warnings(), "\n"); strings.Count(w,
		"the pool has no table health: nothing is checked") != 2 {
		t.Errorf("without health: warnings %q, want two of the key check", w)
	}

	for text, want := range map[string]string{
		"db.internal:8008": `needs "IP:PORT" or "[IPV6]:PORT", or "" for the backend's own`,
		"10.0.0.1":         "the port is missing",
		":8008":            "the host is missing",
		"0.0.0.0:8008":     "this address can be listened on but not connected to",
		"10.0.0.1:99999":   portNeeds,
	} {
		_, err := ParseBackends("backends.toml", []byte(`backends = [{ address = "10.0.0.1:1", check = "`+text+`" }]`))
		if err == nil || !strings.Contains(err.Error(), "backends[0].check: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("check %q: %v, want %q", text, err, want)
		}
	}
}
