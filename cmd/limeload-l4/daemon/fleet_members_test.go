package daemon

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

// fleetTable is a table of a fleet whose etcd does not answer.
const fleetTable = "[fleet]\nname = \"edge\"\nnode = \"a\"\nendpoints = [\"http://127.0.0.1:1\"]\n"

// saidNode returns what a node says of itself; an empty version if it says nothing yet.
func saidNode(p *members) fleet.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said
}

// TestSay: a change of the state is said at once, and figures every few seconds.
func TestSay(t *testing.T) {
	d := testDaemon(t, parsed(t, fleetTable))
	p := d.fleet.members
	at := time.Now()
	p.say(at)
	first := saidNode(p)
	if first.State != "starting" || first.Ready || first.Reason == "" || first.Config != d.boot.Sum() ||
		!first.Since.Equal(at.UTC()) || first.Name != "a" {
		t.Errorf("at the start it says %+v", first)
	}
	d.life.serve()
	p.say(at.Add(time.Millisecond))
	if n := saidNode(p); n.State != "serving" || !n.Ready || n.Reason != "" || !n.Since.After(first.Since) {
		t.Errorf("once it serves it says %+v", n)
	}
	p.meter.rate = 7
	p.say(at.Add(2 * time.Millisecond))
	if n := saidNode(p); n.Rate != 0 {
		t.Errorf("figures are said at once: %+v", n)
	}
	p.say(at.Add(figuresEvery + time.Second))
	if n := saidNode(p); n.Rate != 7 {
		t.Errorf("figures are not said after %v: %+v", figuresEvery, n)
	}
	p.setAlone("it reaches none of its backends")
	p.say(at.Add(figuresEvery + 2*time.Second))
	if n := saidNode(p); n.Alone == "" || !p.isAlone() {
		t.Errorf("that it is alone is not said at once: %+v", n)
	}
	select {
	case <-p.look:
	default:
		t.Error("nobody is woken up")
	}
	d.replaced.Store(&upgrade{})
	d.life.now.Store(int32(draining))
	p.say(at.Add(time.Hour))
	if n := saidNode(p); n.State != "serving" {
		t.Errorf("a process that was replaced says %+v", n)
	}
}

// TestMeter: the rate is the mean of about ten seconds, and falls to 0.
func TestMeter(t *testing.T) {
	var m meter
	at, total := time.Unix(1000, 0), uint64(500)
	count := func(n uint64) float64 {
		total += n
		at = at.Add(figuresEvery)
		if !m.due(at) {
			t.Fatal("it is not due")
		}
		m.count(total, at)
		return m.rate
	}
	m.count(total, at)
	if m.due(at.Add(time.Second)) || m.rate != 0 {
		t.Errorf("after the first count it is due, or the rate is %v", m.rate)
	}
	for range 10 {
		count(500)
	}
	if m.rate < 99 || m.rate > 101 {
		t.Errorf("100 a second are %v", m.rate)
	}
	total = 0 // a listener was removed
	if r := count(0); r < 0 || r > 51 {
		t.Errorf("after a removal the rate is %v", r)
	}
	for range 12 {
		count(0)
	}
	if m.rate != 0 {
		t.Errorf("without sessions the rate is %v", m.rate)
	}
}

// TestWanted: what most nodes run is wanted. Nodes that have gone do not count.
func TestWanted(t *testing.T) {
	node := func(config, state string) fleet.Node { return fleet.Node{Config: config, State: state} }
	for _, tt := range []struct {
		want  string
		nodes []fleet.Node
	}{
		{"a", []fleet.Node{node("a", "serving")}},
		{"b", []fleet.Node{node("a", "serving"), node("b", "serving"), node("b", "draining")}},
		{"a", []fleet.Node{node("b", "gone"), node("b", "left"), node("a", "serving")}},
		{"a", []fleet.Node{node("b", "serving"), node("a", "serving")}}, // on all nodes the same one
		{"", nil},
	} {
		if got := wanted(tt.nodes); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.nodes, got, tt.want)
		}
	}
}

// TestForget: nodes that have gone are remembered for a while, and not too many of them.
func TestForget(t *testing.T) {
	d := testDaemon(t, parsed(t, fleetTable))
	p, now := d.fleet.members, time.Now()
	for i := range maxGone + 20 {
		name := fmt.Sprintf("n%03d", i)
		p.gone[name] = goneNode{fleet.Node{Name: name, State: nodeGone}, now.Add(time.Duration(i) * time.Second)}
	}
	p.forgetLocked(now)
	if _, first := p.gone["n000"]; first || len(p.gone) != maxGone {
		t.Errorf("%d are remembered, the first: %v", len(p.gone), first)
	}
	if n := len(p.all()); n != maxGone+1 {
		t.Errorf("%d nodes are listed", n)
	}
	p.forgetLocked(now.Add(goneFor + time.Hour))
	if len(p.gone) != 0 {
		t.Errorf("%d are remembered for ever", len(p.gone))
	}
}

// TestReadable: the state that another node says is one of a closed set.
func TestReadable(t *testing.T) {
	for said, want := range map[string]string{
		"serving": "serving", "draining": "draining", "handing_over": "handing_over", "starting": "starting",
		"": "unknown", "gone": "unknown", "left": "unknown", "\x1b[2J": "unknown",
	} {
		if n := readable(fleet.Node{State: said}); n.State != want {
			t.Errorf("%q is %q", said, n.State)
		}
	}
}

// TestWithoutFleet: without the table nothing of the fleet runs, and what it does elsewhere does nothing.
func TestWithoutFleet(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	if d.fleet != nil {
		t.Fatal("there is a membership")
	}
	d.fleet.start()
	d.fleet.changed()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, room := range []string{"limeload-l4/fleet.", "daemon.(*members)", "daemon.(*membership)", "daemon.(*shared",
		"daemon.(*limitShares)", "discovery/etcd."} {
		if strings.Contains(string(stacks), room) {
			t.Errorf("%s runs", room)
		}
	}
	d.fleet.end(false)
	if _, err := d.Fleet(); err != admin.ErrNoFleet {
		t.Errorf("the API answers %v", err)
	}
	if _, err := d.CompareFleet(); err != admin.ErrNoFleet {
		t.Errorf("the API answers %v", err)
	}
	if d.Status().Fleet != nil {
		t.Error("the status has a fleet")
	}
	for name := range scrape(t, d.metrics, textForm) {
		if strings.HasPrefix(name, "limeload_fleet_") {
			t.Errorf("there is a metric %s", name)
		}
	}
}

// someDigests returns digests of n pools.
func someDigests(n int) map[string]poolDigest {
	all := make(map[string]poolDigest)
	for i := range n {
		all[fmt.Sprintf("pool%05d", i)] = poolDigest{Algorithm: "maglev", Backends: 3, Eligible: 3, Members: "1", Weights: "2",
			Choices: fmt.Sprint(i), Ineligible: []string{"b1"}}
	}
	return all
}

// TestParts: what a node says of many pools goes through keys of a bounded size, and is read as it was said.
func TestParts(t *testing.T) {
	for _, n := range []int{0, 1, 100, 5000} {
		said := someDigests(n)
		heard := make(map[string][]byte)
		for i, text := range partsOf(said) {
			heard[fmt.Sprint(i)] = []byte(text)
			if len(text) > partBytes+1000 || fleet.Allowed(fleet.Tables+fleet.Key("a", fmt.Sprint(i)), []byte(text)) != nil {
				t.Errorf("part %d of %d pools has %d bytes", i, n, len(text))
			}
		}
		got := digestsOf(heard)
		if len(got) != n || n > 0 && fmt.Sprint(got) != fmt.Sprint(said) {
			t.Errorf("of %d pools, %d are read", n, len(got))
		}
	}
	was, is := someDigests(5000), someDigests(5000)
	is["pool00007"] = poolDigest{Algorithm: "maglev", Eligible: 2}
	before, after, changed := partsOf(was), partsOf(is), 0
	for i := range after {
		if before[i] != after[i] {
			changed++
		}
	}
	if len(before) < 20 || changed > 2 {
		t.Errorf("a change of one pool writes %d of %d parts", changed, len(before))
	}
	if n := len(partsOf(someDigests(50_000))); n > maxParts {
		t.Errorf("50,000 pools have %d parts", n)
	}
}

// TestHostileParts: whatever stands in etcd, reading it ends, and what is read is bounded.
func TestHostileParts(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	many := make([]string, 1000)
	for i := range many {
		many[i] = long
	}
	huge, err := json.Marshal(map[string]poolDigest{"p": {Algorithm: long, Ineligible: many}, long: {}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", "null", "[]", `{"p":7}`, `{"p":{"e":"x"}}`, "\xff", string(huge)} {
		for name, d := range digestsOf(map[string][]byte{"0": []byte(text)}) {
			if len(name) > maxNodeText || len(d.Algorithm) > maxNodeText || len(d.Ineligible) > 8 {
				t.Errorf("%.20q: %d bytes, %d bytes, %d backends", text, len(name), len(d.Algorithm), len(d.Ineligible))
			}
			for _, b := range d.Ineligible {
				if len(b) > maxNodeText {
					t.Errorf("%.20q: a name of %d bytes", text, len(b))
				}
			}
		}
	}
}

// TestComparePools: each difference is found on the node that has it, with its reason.
func TestComparePools(t *testing.T) {
	of := func(change func(d *poolDigest)) map[string]poolDigest {
		d := poolDigest{Algorithm: "maglev", Backends: 3, Eligible: 3, Members: "m", Weights: "w", Choices: "c"}
		if change != nil {
			change(&d)
		}
		return map[string]poolDigest{"db": d}
	}
	for _, tt := range []struct {
		name   string
		change func(d *poolDigest)
		want   string
	}{
		{"nothing", nil, ""},
		{"algorithm", func(d *poolDigest) { d.Algorithm = "ring_hash" }, "its algorithm is ring_hash, elsewhere maglev"},
		{"backends", func(d *poolDigest) { d.Backends, d.Eligible, d.Members = 2, 2, "n" }, "it has 2 backends, elsewhere 3"},
		{"eligible", func(d *poolDigest) { d.Eligible, d.Members, d.Ineligible = 2, "n", []string{"b2"} },
			`2 of its 3 backends eligible, elsewhere 3; not eligible here alone: "b2"`},
		{"others", func(d *poolDigest) { d.Members = "n" }, "other backends are eligible, or have other addresses or tiers"},
		{"weights", func(d *poolDigest) { d.Weights = "n" }, "its backends have other weights"},
		{"choices", func(d *poolDigest) { d.Choices = "n" },
			"the same backends, and other choices: its keys of the hash or its version of the program differ"},
		{"zone", func(d *poolDigest) { d.Zone, d.Members = "two", "n" }, ""}, // nothing to compare it with
	} {
		said := map[string]map[string]poolDigest{"a": of(nil), "b": of(tt.change), "c": of(nil)}
		pools := comparePools([]string{"a", "b", "c"}, said)
		if len(pools) != 1 || pools[0].Same != (tt.want == "") || pools[0].Nodes != 3 {
			t.Errorf("%s: %+v", tt.name, pools)
			continue
		}
		var got []string
		for _, d := range pools[0].Differences {
			got = append(got, d.Node+": "+d.Why)
		}
		if tt.want != "" && !slices.Equal(got, []string{"b: " + tt.want}) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
	said := map[string]map[string]poolDigest{"a": of(nil), "b": {}, "c": of(nil)}
	if p := comparePools([]string{"a", "b", "c"}, said)[0]; p.Same || p.Differences[0].Node != "b" || p.Nodes != 2 {
		t.Errorf("a pool that one node does not have: %+v", p)
	}
	said["c"] = map[string]poolDigest{}
	if p := comparePools([]string{"a", "b", "c"}, said)[0]; p.Same || p.Differences[0].Node != "a" || p.Nodes != 1 {
		t.Errorf("a pool that one node has: %+v", p)
	}
}

// TestCompareAlone: a node without others compares its own pools, as they are.
func TestCompareAlone(t *testing.T) {
	d := testDaemon(t, parsed(t, fleetTable))
	c, err := d.CompareFleet()
	if err != nil || !c.Same || c.Connected || !slices.Equal(c.Nodes, []string{"a"}) || len(c.Mute) != 0 || len(c.Pools) == 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if got := digestOf(pool.Digest{Algorithm: "first", Members: 255}); got.Members != "ff" || got.Choices != "" {
		t.Errorf("%+v", got)
	}
	f, err := d.Fleet()
	if err != nil || f.Name != "edge" || f.Node != "a" || len(f.Nodes) != 1 || !f.Nodes[0].This || f.Nodes[0].OtherConfig {
		t.Errorf("%+v, %v", f, err)
	}
}
