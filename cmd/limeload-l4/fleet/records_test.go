package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// TestTake: what a node makes of what etcd has, by what it knew before.
func TestTake(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0).UTC()
	record := func(serial uint64, second int, value string) Record {
		at := now.Add(time.Duration(second) * time.Second)
		r, err := Record{Serial: serial, Node: "n", At: at, Value: []byte(value)}.normal()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	mine := record(5, 50, "1")
	for what, c := range map[string]struct {
		state  keptState
		has    Record // of etcd; the zero value for none
		seen   int64  // in which revision etcd has it; this node knows 10
		want   keptState
		holds  string // the value afterwards
		serial uint64
	}{
		"the same":                           {settled, mine, 11, settled, "1", 5},
		"the same, which was not written":    {changed, mine, 11, settled, "1", 5},
		"a higher serial":                    {settled, record(6, 40, "2"), 11, settled, "2", 6},
		"a higher serial of an earlier read": {settled, record(6, 60, "2"), 9, settled, "1", 5},
		"a lower serial":                     {settled, record(4, 60, "2"), 11, lost, "1", 5},
		"the same serial, later":             {settled, record(5, 60, "2"), 11, settled, "2", 5},
		"the same serial, earlier":           {settled, record(5, 40, "2"), 11, lost, "1", 5},
		"nothing":                            {settled, Record{}, 11, lost, "1", 5},
		"nothing at an earlier read":         {settled, Record{}, 9, settled, "1", 5},
		"lost, and another one":              {lost, record(6, 60, "2"), 11, settled, "2", 6},
		"changed, and another one":           {changed, record(7, 60, "2"), 11, changed, "1", 8},
		"changed, and nothing":               {changed, Record{}, 11, changed, "1", 5},
		"changed away, and a later one":      {changedAway, record(3, 60, "2"), 11, settled, "2", 3},
		"changed away, and an earlier one":   {changedAway, record(9, 40, "2"), 11, changedAway, "1", 10},
		"changed away, and nothing":          {changedAway, Record{}, 11, changedAway, "1", 5},
	} {
		f := New(Options{Name: "edge", Node: "n", Endpoints: []string{"http://127.0.0.1:1"}})
		key := Changes + "x"
		k := &kept{key: key, record: mine, seen: 10}
		f.records.set(key, k)
		f.setStateLocked(k, c.state)
		e := etcd.KeyChange{Key: key, Revision: c.seen}
		if c.has.Serial > 0 {
			e.Value = c.has.text()
		}
		different, overruled := f.takeLocked(e, c.seen, now)
		if k.state != c.want || string(k.record.Value) != c.holds || k.record.Serial != c.serial {
			t.Errorf("%s: state %d, value %s, serial %d", what, k.state, k.record.Value, k.record.Serial)
		}
		if different != (c.holds == "2") || (overruled != nil) != (different && c.state >= changed) {
			t.Errorf("%s: different %v, overruled %v", what, different, overruled)
		}
		if got := len(f.lost) == 1; got != (c.want == lost) {
			t.Errorf("%s: among the lost ones %v", what, got)
		}
		if got := len(f.unwritten) == 1; got != (c.want >= changed) {
			t.Errorf("%s: among the unwritten ones %v", what, got)
		}
	}
}

// TestRepairTurns: of the nodes that miss a record in etcd, one writes it at once, and the others only if it does not.
func TestRepairTurns(t *testing.T) {
	t.Parallel()
	now := time.Now()
	order := Duties([]string{"a", "b", "c"}, Changes+"x", 3)
	for i, name := range order {
		f := New(Options{Name: "edge", Node: name, Endpoints: []string{"http://127.0.0.1:1"}})
		for _, n := range order {
			f.hearLocked(etcd.KeyChange{Key: Nodes + n, Value: []byte("{}"), Revision: 1}, false, now)
		}
		k := &kept{key: Changes + "x", record: Record{Serial: 1, At: now}, lostAt: now}
		f.records.set(k.key, k)
		f.setStateLocked(k, lost)
		turn := time.Duration(i) * repairStep
		for _, at := range []time.Duration{turn - time.Millisecond, turn} {
			f.repairAt = time.Time{}
			f.repairLocked(now.Add(at), &news{})
			if got, want := len(f.unwritten) == 1, at >= turn; got != want {
				t.Errorf("%s, number %d: it writes after %v: %v", name, i, at, got)
			}
		}
	}
}

// TestChangedWhileHanging: a change that could not be written in time yields to one that was made later elsewhere.
func TestChangedWhileHanging(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	link, endpoint := linkTo(t, server)
	a := startNode(t, Options{Node: "a", Endpoints: []string{endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	a.awaitSettled(t)
	link.Hang()
	key := Changes + "x"
	a.set(key, `"early"`)
	b.set(key, `"late"`)
	b.awaitSettled(t)
	a.awaitDown(t)
	link.Mend()
	awaitRecord(t, key, `"late"`, a, b)
	a.awaitSettled(t)
	awaitRecord(t, key, `"late"`, a, b)
	a.mu.Lock()
	defer a.mu.Unlock()
	if fmt.Sprint(a.overruled) != "["+key+"]" {
		t.Errorf("overruled: %v", a.overruled)
	}
}
