package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// unreachedFleet is a table of a fleet that nobody can reach.
const unreachedFleet = "[fleet]\nname = \"edge\"\nnode = \"n1\"\nendpoints = [\"http://127.0.0.1:1\"]\n"

// fleetDaemon returns a daemon of goodConfig in a fleet. It does not run, and so has no connection.
func fleetDaemon(t *testing.T) *Daemon {
	t.Helper()
	return testDaemon(t, parsed(t, unreachedFleet))
}

// theBackend is the backend of goodConfig.
const theBackend = "127.0.0.1:7998"

// set changes a backend of the pool web, and does not wait for the fleet.
func set(t *testing.T, d *Daemon, c admin.BackendChange) {
	t.Helper()
	if _, err := d.changeBackend("web", theBackend, c, d.give(admin.Origin{By: "root", Local: c.Local})); err != nil {
		t.Fatal(err)
	}
}

// recordOf returns a record of another node, made at that second.
func recordOf(t *testing.T, second int, v sharedValue) fleet.Record {
	t.Helper()
	value, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	r := fleet.Record{Serial: uint64(second), Node: "n2", At: time.Unix(int64(second), 0), Value: value}
	r.Undone = len(v.Overrides) == 0 && v.Rule == nil
	return r
}

// weightOf returns a record of another node that gives the backend of goodConfig a weight.
func weightOf(t *testing.T, d *Daemon, second int, weight uint32) fleet.Record {
	t.Helper()
	b, _ := d.pools["web"].pool.Backend(theBackend)
	return recordOf(t, second, sharedValue{Overrides: []savedOverride{toSaved(pool.Override{
		Kind: pool.OverrideChanged, Source: b.Source, Base: b.Given, Weight: &weight})}})
}

// weight returns the weight of the backend of goodConfig.
func weight(d *Daemon) int {
	b, _ := d.pools["web"].pool.Backend(theBackend)
	return int(b.Weight)
}

// TestTake walks through changes of one setting by other nodes and by this one.
func TestTake(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	key := settingKey("web", theBackend, fieldWeight)
	p := d.fleet.changes
	take := func(r fleet.Record) int { return len(p.take(map[string]fleet.Record{key: r})) }
	local := func(weight int) { set(t, d, admin.BackendChange{Weight: &weight, Local: true}) }
	for _, step := range []struct {
		what       string
		do         func() int
		changed    int
		weight     int
		shared     bool
		hasChanges bool // in the state file besides those of the fleet
	}{
		{"undone before it was known", func() int { local(3); return take(recordOf(t, 1, sharedValue{})) }, 1, 1, false, false},
		{"a local change", func() int { local(4); return 0 }, 0, 4, false, true},
		{"the same record again", func() int { return take(recordOf(t, 1, sharedValue{})) }, 0, 4, false, true},
		{"a change of another node", func() int { return take(weightOf(t, d, 2, 5)) }, 1, 5, true, false},
		{"a local change over it", func() int { local(6); return 0 }, 0, 6, false, true},
		{"the same change again", func() int { return take(weightOf(t, d, 2, 5)) }, 0, 6, false, true},
		{"with another serial", func() int {
			r := weightOf(t, d, 2, 5)
			r.Serial = 9
			return take(r)
		}, 0, 6, false, true},
		{"a later one", func() int { return take(weightOf(t, d, 3, 7)) }, 1, 7, true, false},
		{"nonsense", func() int { return take(weightOf(t, d, 4, 4000)) }, 0, 7, true, false},
		{"undone", func() int { return take(recordOf(t, 5, sharedValue{})) }, 1, 1, false, false},
		{"another base", func() int {
			heavy := uint32(9)
			b, _ := d.pools["web"].pool.Backend(theBackend)
			b.Given.Weight = 2
			return take(recordOf(t, 6, sharedValue{Overrides: []savedOverride{toSaved(pool.Override{
				Kind: pool.OverrideChanged, Source: b.Source, Base: b.Given, Weight: &heavy})}}))
		}, 1, 1, true, false},
		{"of the same base again", func() int { return take(weightOf(t, d, 7, 8)) }, 1, 8, true, false},
		{"forgotten by the fleet while it holds", func() int { return len(p.take(nil)) }, 1, 1, false, false},
		{"nothing", func() int { return len(p.take(nil)) }, 0, 1, false, false},
		{"once more", func() int { return take(weightOf(t, d, 8, 8)) }, 1, 8, true, false},
		{"a local change over that", func() int { local(9); return 0 }, 0, 9, false, true},
		{"forgotten under it", func() int { return len(p.take(nil)) }, 0, 9, false, true},
	} {
		changed := step.do()
		state := d.collectState()
		if changed != step.changed || weight(d) != step.weight || d.fleet.shared(key) != step.shared ||
			len(state.Pools["web"]) > 0 != step.hasChanges {
			t.Errorf("%s: %d changes, weight %d, shared %v, own %v; want %+v", step.what, changed, weight(d),
				d.fleet.shared(key), state.Pools, step)
		}
	}
}

// TestTakeForgotten: what the fleet has forgotten ends here, also an added backend and an access rule.
func TestTakeForgotten(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	added := settingKey("web", "x", pool.FieldThere)
	records := map[string]fleet.Record{
		added: recordOf(t, 1, sharedValue{Overrides: []savedOverride{{What: string(pool.OverrideAdded), Base: savedBackend{
			Name: "x", Address: pool.At(netip.MustParseAddrPort("192.0.2.1:1")), Weight: 1, Mode: "ready"}}}}),
		accessKey(ruleKeyOf(t, "192.0.2.0/24")): recordOf(t, 1, sharedValue{
			Rule: &savedAccessRule{Prefix: "192.0.2.0/24", Action: admin.ActionDeny}}),
	}
	p := d.fleet.changes
	if n := len(p.take(records)); n != 2 || d.rules.len() != 1 || !hasBackend(d, "x") {
		t.Fatalf("%d changes, %d rules, the backend is there: %v", n, d.rules.len(), hasBackend(d, "x"))
	}
	delete(records, added)
	if n := len(p.take(records)); n != 1 || d.rules.len() != 1 || hasBackend(d, "x") {
		t.Errorf("%d changes, %d rules, the backend is there: %v", n, d.rules.len(), hasBackend(d, "x"))
	}
	if n := len(p.take(nil)); n != 1 || d.rules.len() != 0 {
		t.Errorf("%d changes, %d rules", n, d.rules.len())
	}
}

func hasBackend(d *Daemon, id string) bool {
	_, known := d.pools["web"].pool.Backend(id)
	return known
}

// TestTakeUnknown: changes of a later version, however many and large, take a few short lines of the log.
func TestTakeUnknown(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	var log bytes.Buffer
	d.log = zerolog.New(&log)
	records := make(map[string]fleet.Record)
	for i := range 100 {
		r := recordOf(t, i+1, sharedValue{Overrides: []savedOverride{{What: strings.Repeat("x", maxChangeBytes/2)}}})
		records[settingKey("web", fmt.Sprint(i), fieldWeight)] = r
	}
	for range 2 {
		if n := len(d.fleet.changes.take(records)); n != 0 {
			t.Errorf("%d changes were taken", n)
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != maxChangeLines+1 || log.Len() > lines*1000 {
		t.Errorf("%d lines of %d bytes:\n%.3000s", lines, log.Len(), log.String())
	}
}

// TestGive has this node change settings: the fleet gets exactly what is set, and the state file has it once.
func TestGive(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	seven, drain := 7, "drain"
	set(t, d, admin.BackendChange{Weight: &seven, Mode: &drain})
	if err := d.addRule(accessRule{ruleKey: ruleKeyOf(t, "192.0.2.0/24"), added: wallNow()},
		d.give(admin.Origin{By: "root"})); err != nil {
		t.Fatal(err)
	}
	if _, err := d.addBackend("web", admin.NewBackend{Name: "x", Address: "192.0.2.1:1"},
		d.give(admin.Origin{})); err != nil {
		t.Fatal(err)
	}
	if got, want := valuesOf(d), "access//192.0.2.0%2F24 deny, backends/web/127.0.0.1:7998/mode drain, "+
		"backends/web/127.0.0.1:7998/weight 7, backends/web/x/there added at 192.0.2.1:1"; got != want {
		t.Errorf("the fleet has %s, want %s", got, want)
	}
	state := d.collectState()
	if len(state.Pools) != 0 || len(state.Access) != 0 || len(state.Fleet.Records) != 4 {
		t.Errorf("the state is %+v", state)
	}
	for _, fields := range []string{"mode true", "weight true", "added true"} {
		what, _, _ := strings.Cut(fields, " ")
		if !slices.ContainsFunc(d.differences(), func(a admin.Difference) bool { return a.What == what && a.Fleet }) {
			t.Errorf("no difference %s of the fleet in %+v", what, d.differences())
		}
	}
	one := 1
	set(t, d, admin.BackendChange{Weight: &one})
	if err := d.removeBackend("web", "x", d.give(admin.Origin{})); err != nil {
		t.Fatal(err)
	}
	if err := d.removeBackend("web", theBackend, d.give(admin.Origin{})); err != nil {
		t.Fatal(err)
	}
	if got, want := valuesOf(d), "access//192.0.2.0%2F24 deny, backends/web/127.0.0.1:7998/mode , "+
		"backends/web/127.0.0.1:7998/there removed, backends/web/127.0.0.1:7998/weight , backends/web/x/there "; got != want {
		t.Errorf("then the fleet has %s, want %s", got, want)
	}
}

// TestPlanOfShared: a plan says of each run-time change whether the fleet shares it, and of one that ends here that the
// fleet keeps it.
func TestPlanOfShared(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	seven, five := 7, 5
	set(t, d, admin.BackendChange{Weight: &seven})
	set(t, d, admin.BackendChange{MaxSessions: &five, Local: true})
	planned := func(pool string) (staying []admin.Difference, dropped []admin.Dropped) {
		t.Helper()
		cfg, err := conf.Parse("lb.toml", []byte(strings.NewReplacer("[pool.web]", "[pool."+pool+"]",
			`pool = "web"`, fmt.Sprintf("pool = %q", pool)).Replace(goodConfig)+unreachedFleet))
		if err == nil {
			cfg.Listeners[0].Binds = d.config().Listeners[0].Binds
			var p *proposal
			if p, err = d.propose(cfg, newFiles("lb.toml")); err == nil {
				return d.runTimeChanges(p)
			}
		}
		t.Fatal(err)
		return nil, nil
	}
	staying, dropped := planned("web")
	if len(staying) != 2 || len(dropped) != 0 {
		t.Fatalf("%+v stay and %+v end", staying, dropped)
	}
	for _, diff := range staying {
		if diff.Fleet != (diff.What == "weight") {
			t.Errorf("%+v", diff)
		}
	}
	staying, dropped = planned("other")
	if len(staying) != 0 || len(dropped) != 2 {
		t.Fatalf("without the pool %+v stay and %+v end", staying, dropped)
	}
	for _, diff := range dropped {
		if want := map[string]string{"weight": poolGone + fleetKeeps, "max_sessions": poolGone}[diff.What]; diff.Why != want {
			t.Errorf("%s ends because %q, want %q", diff.What, diff.Why, want)
		}
	}
}

// valuesOf returns the shared changes in a few words each.
func valuesOf(d *Daemon) string {
	taken, _ := d.fleet.changes.snapshot()
	var all []string
	for key, c := range taken {
		all = append(all, strings.TrimPrefix(key, fleet.Changes)+" "+c.value())
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func ruleKeyOf(t *testing.T, prefix string) ruleKey {
	t.Helper()
	p, err := admin.ParsePrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return ruleKey{prefix: p}
}

// TestFleetState restores a state file in the same fleet, in another one and in none: everything is as it was.
func TestFleetState(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	seven, five, drain := 7, 5, "drain"
	set(t, d, admin.BackendChange{Weight: &seven, Mode: &drain})
	set(t, d, admin.BackendChange{MaxSessions: &five, Local: true})
	if err := d.addRule(accessRule{ruleKey: ruleKeyOf(t, "192.0.2.0/24"), added: wallNow()},
		d.give(admin.Origin{})); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(d.collectState(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		table  string
		shared int // in the state file of the next process
		own    int
	}{
		{unreachedFleet, 3, 1},
		{strings.Replace(unreachedFleet, "edge", "other", 1), 0, 1},
		{"", 0, 1},
	} {
		var state savedState
		if err := json.Unmarshal(text, &state); err != nil {
			t.Fatal(err)
		}
		next := testDaemon(t, parsed(t, tt.table))
		if err := next.restore(state); err != nil {
			t.Fatal(err)
		}
		b, _ := next.pools["web"].pool.Backend(theBackend)
		if b.Weight != 7 || b.Mode != pool.Drain || b.MaxSessions != 5 || next.rules.len() != 1 {
			t.Errorf("%q: %+v", tt.table, b)
		}
		saved := next.collectState()
		records := 0
		if saved.Fleet != nil {
			records = len(saved.Fleet.Records)
		}
		if records != tt.shared || len(saved.Pools["web"]) != tt.own || (len(saved.Access) == 1) != (tt.shared == 0) {
			t.Errorf("%q: the next state is %+v", tt.table, saved)
		}
	}
}

// TestTakeThousands takes 10,000 changes of backends that are not there yet, and of access rules, at once.
func TestTakeThousands(t *testing.T) {
	t.Parallel()
	d := fleetDaemon(t)
	records := make(map[string]fleet.Record)
	for i := range 10_000 {
		backend := fmt.Sprintf("b%d", i)
		mode := "drain"
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i % 256)}), 80)
		records[settingKey("web", backend, fieldMode)] = recordOf(t, i+1, sharedValue{Overrides: []savedOverride{{
			What: "changed", Source: "file", Mode: &mode,
			Base: savedBackend{Name: backend, Address: pool.At(address), Weight: 1, Mode: "ready"},
		}}})
		prefix := fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
		records[accessKey(ruleKeyOf(t, prefix))] = recordOf(t, i+1, sharedValue{
			Rule: &savedAccessRule{Prefix: prefix, Action: admin.ActionDeny}})
	}
	if n := len(d.fleet.changes.take(records)); n != len(records) {
		t.Errorf("%d of %d changes were taken", n, len(records))
	}
	if n := len(d.pools["web"].pool.Overrides()); n != 10_000 || d.rules.len() != admin.MaxAccessRules {
		t.Errorf("%d changes wait, and there are %d rules", n, d.rules.len())
	}
}

// FuzzParseChange parses any record: what passes can be put in force, and described in printable words.
func FuzzParseChange(f *testing.F) {
	f.Add("changes/backends/web/b1/weight", `{"overrides":[{"what":"changed","source":"config",`+
		`"base":{"name":"b1","address":"127.0.0.1:1","weight":1,"mode":"ready"},"weight":3}]}`, false)
	f.Add("changes/backends/web/x/there", `{"overrides":[{"what":"added",`+
		`"base":{"name":"x","address":"127.0.0.1:1","weight":1,"mode":"ready"}}]}`, false)
	f.Add("changes/access//10.0.0.0%2F8", `{"rule":{"prefix":"10.0.0.0/8","action":"deny","added":"2026-01-01T00:00:00Z"}}`, false)
	f.Add("changes/backends/web/b1/mode", ``, true)
	f.Fuzz(func(t *testing.T, key, value string, undone bool) {
		c, err := parseChange(key, fleet.Record{Serial: 1, Node: value, By: value, Undone: undone, Value: []byte(value)})
		if err != nil {
			return
		}
		a := c.answer()
		for _, text := range []string{c.about(), a.Node, a.By, a.Pool, a.Backend, a.Listener, a.Value} {
			if !isPrintable(text, 1<<20) {
				t.Errorf("%q is not printable", text)
			}
		}
		p, err := pool.New(pool.Options{Name: "web", Algorithm: "round_robin"})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SetOverrides([]pool.FieldOverrides{c.setting}); !c.isRule && err != nil {
			t.Errorf("%s cannot be put in force: %v", key, err)
		}
	})
}
