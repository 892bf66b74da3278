package conf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCompare changes a key of each form.
func TestCompare(t *testing.T) {
	const before = `
[listener.a]
address = ":1"
pool = "p"
[listener.old]
address = ":2"
pool = "p"
[pool.p]
backends = [{ address = "10.0.0.1:1", name = "b1" }, { address = "10.0.0.2:1" }, { address = "h:1", name = "b3" }]
[pool.p.health]
steps = [{ send = "a" }, { expect_regexp = "b+" }]
[pool.q]
backends = [{ address = "10.0.0.1:1" }]
[pool.q.health]
type = "dns"
query = "x"
`
	change := strings.NewReplacer(
		"[listener.a]", "[global]\nwatch = true\n[listener.a]\nkeepalive = { count = 3 }\nidle_timeout = '5m'",
		"[listener.old]", "[listener.new]",
		`name = "b1" }`, `name = "b1", weight = 5 }`,
		`{ address = "10.0.0.2:1" }`, `{ address = "10.0.0.4:1" }`,
		`"b+"`, `"b"`,
		"[pool.q]\n", "[pool.q]\nzone = 'x'\n",
		`query = "x"`, "query = \"x\"\nexpect = ['NOERROR', 'NXDOMAIN']\n[pool.q.discovery]\ntype = 'file'\nfile = 'f'",
	)
	a, err := Parse("lb.toml", []byte(before))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("other.toml", []byte("# moved\n"+before))
	if err != nil {
		t.Fatal(err)
	}
	if d := a.Compare(again); len(d) != 0 {
		t.Errorf("the same text differs: %v", d)
	}
	b, err := Parse("lb.toml", []byte(change.Replace(before)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range a.Compare(b) {
		got = append(got, Path(d.Keys...)+": "+d.From+" -> "+d.To)
	}
	want := []string{
		`global.watch: false -> true`,
		`listener.a.idle_timeout: "0s" -> "5m"`,
		`listener.a.keepalive.count: 6 -> 3`,
		`listener.old: {...} -> `,
		`listener.new:  -> {...}`,
		`pool.p.backends.b1.weight: 1 -> 5`,
		`pool.p.backends."10.0.0.2:1": {...} -> `,
		`pool.p.backends."10.0.0.4:1":  -> {...}`,
		`pool.p.health.steps: {...} -> {...}`,
		`pool.q.zone: "" -> "x"`,
		`pool.q.health.expect: ["NOERROR"] -> ["NOERROR", "NXDOMAIN"]`,
		`pool.q.discovery:  -> {...}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
