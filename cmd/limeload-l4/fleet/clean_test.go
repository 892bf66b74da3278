package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestForgotten: records end some time after they were undone, or after their time.
func TestForgotten(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for _, c := range []struct {
		what string
		r    Record
		want bool
	}{
		{"an old one", Record{At: now.AddDate(-1, 0, 0)}, false},
		{"just undone", Record{At: now, Undone: true}, false},
		{"undone for six days", Record{At: now.AddDate(0, 0, -6), Undone: true}, false},
		{"undone for eight days", Record{At: now.AddDate(0, 0, -8), Undone: true}, true},
		{"undone, of an earlier time", Record{At: now, Until: now.AddDate(0, 0, -6), Undone: true}, false},
		{"outdated for a minute", Record{At: now.AddDate(0, 0, -1), Until: now.Add(-time.Minute)}, false},
		{"outdated for two hours", Record{At: now.AddDate(0, 0, -1), Until: now.Add(-2 * time.Hour)}, true},
		{"of a time to come", Record{At: now, Until: now.AddDate(1, 0, 0)}, false},
	} {
		if got := c.r.forgotten(now); got != c.want {
			t.Errorf("%s: forgotten %v, want %v", c.what, got, c.want)
		}
	}
}

// aged returns a saved record of some time ago, as a node would have it that was connected until then.
func aged(age time.Duration, undone bool) Saved {
	at := time.Now().Add(-age)
	r := Record{Serial: 5, Node: "a", At: at, Undone: undone}
	if !undone {
		r.Value = json.RawMessage(`1`)
	}
	return Saved{Record: r, Seen: at}
}

// TestClean: what was undone long ago is removed from etcd and from all nodes, also if a node brings it again.
func TestClean(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	key := func(i int) string { return Changes + fmt.Sprint(i) }
	const count = 250 // three transactions
	for i := range count {
		text := aged(undoneKept+2*forgetAfter, true).text()
		server.Do(t, "put", "/limeload/edge/"+key(i), string(text))
	}
	server.Do(t, "put", "/limeload/edge/"+key(count), string(aged(undoneKept-time.Hour, true).text()))
	server.Do(t, "put", "/limeload/edge/"+key(count+1), string(aged(2*undoneKept, false).text()))
	pending := aged(2*undoneKept, true) // it holds over what etcd has, and then is old
	pending.Pending, pending.Serial = true, 6
	server.Do(t, "put", "/limeload/edge/"+key(count+2), string(aged(3*undoneKept, false).text()))
	a := newNode(Options{Node: "a", Endpoints: []string{server.Endpoint}})
	runNode(t, a, map[string]Saved{key(count + 2): pending})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	a.awaitSettled(t)
	for _, n := range []*testNode{a, b} { // both have looked when they joined, perhaps before they knew each other
		n.Fleet.mu.Lock()
		n.cleanAt = time.Time{}
		n.Fleet.mu.Unlock()
	}
	for _, n := range []*testNode{a, b} {
		harness.Eventually(t, n.Fleet.Node()+" has forgotten", func() error {
			if s := n.Stats(); s.Records != 2 {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	if got := countKeys(t, server, Changes); got != 2 {
		t.Errorf("%d records in etcd, want 2", got)
	}
	// what nobody needs is not written again, even if etcd has it for a moment
	server.Do(t, "put", "/limeload/edge/"+key(0), string(aged(undoneKept+time.Minute, true).text()))
	server.Do(t, "del", "/limeload/edge/"+key(0))
	server.Do(t, "del", "/limeload/edge/"+key(count))
	awaitRecord(t, key(count+1), "1", a, b)
	harness.Eventually(t, "the younger one is written again, and the older one is not", func() error {
		if got := countKeys(t, server, Changes); got != 2 {
			return fmt.Errorf("%d records", got)
		}
		return nil
	})
}

// TestAwayForLong: a node that was away for longer than undone values are remembered does not bring them back. But if
// the store is empty, it writes all.
func TestAwayForLong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		saved Saved
		empty bool
		want  int
	}{
		{"away for eight days", aged(undoneKept+24*time.Hour, false), false, 1},
		{"away for six days", aged(undoneKept-24*time.Hour, false), false, 2},
		{"away for eight days, and an empty store", aged(undoneKept+24*time.Hour, false), true, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			server := startEtcd(t)
			if !c.empty {
				server.Do(t, "put", "/limeload/edge/"+Changes+"x", string(aged(time.Hour, false).text()))
			}
			n := runNode(t, newNode(Options{Node: "a", Endpoints: []string{server.Endpoint}}),
				map[string]Saved{Changes + "old": c.saved})
			if n.Records("")[Changes+"old"].Serial != 5 {
				t.Error("it does not know its own record before it is connected")
			}
			n.awaitSettled(t)
			keys := countKeys(t, server, Changes)
			if got := len(n.Records("")); got != c.want || keys != c.want {
				t.Errorf("%d records, %d in etcd, want %d", got, keys, c.want)
			}
		})
	}
}

// TestRestore: what was saved is known again, and what can be no record is left out.
func TestRestore(t *testing.T) {
	t.Parallel()
	f := New(Options{Name: "edge", Node: "a", Endpoints: []string{"http://127.0.0.1:1"}})
	f.Change(Changes+"own", Record{Value: json.RawMessage(`{"a": "<"}`), By: "\x1b[2J"})
	saved := f.Saved()
	large := json.RawMessage(`"` + strings.Repeat("x", MaxValueBytes) + `"`)
	saved[Changes+"large"] = Saved{Record: Record{Serial: 1, Value: large}}
	saved[Changes+"none"] = Saved{}
	saved[Checks+"x"] = aged(0, false)
	text, err := json.Marshal(saved)
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]Saved
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	next := New(Options{Name: "edge", Node: "a", Endpoints: []string{"http://127.0.0.1:1"}})
	next.Restore(read)
	if s := next.Stats(); s.Records != 1 || s.Pending != 1 || s.Refused != 3 {
		t.Errorf("%+v", s)
	}
	before, after := f.Records("")[Changes+"own"], next.Records("")[Changes+"own"]
	if !before.same(after) || after.By != "\uFFFD[2J" {
		t.Errorf("%+v becomes %+v", before, after)
	}
}
