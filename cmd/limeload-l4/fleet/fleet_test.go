package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestShared: what one node says and changes, the others know, until it leaves.
func TestShared(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	var nodes []*testNode
	for i := range 3 {
		nodes = append(nodes, startNode(t, Options{Node: fmt.Sprintf("n%d", i), Endpoints: []string{server.Endpoint}}))
	}
	awaitNodes(t, 3, nodes...)
	key := Changes + Key("backends", "main", "b/1", "mode")
	nodes[0].set(key, `"drain"`)
	awaitRecord(t, key, `"drain"`, nodes...)
	for _, n := range nodes {
		if r := n.Records(Changes)[key]; r.Node != "n0" || r.Serial != 1 || r.By != "root" {
			t.Errorf("%s has %+v", n.Fleet.Node(), r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := nodes[0].Settle(ctx, key); err != nil {
		t.Error(err)
	}
	nodes[2].kill()
	nodes[2].Leave(t.Context())
	left := time.Now()
	awaitNodes(t, 2, nodes[0], nodes[1])
	if took := time.Since(left); took > leaseTime/2 {
		t.Errorf("the others know after %v that the node has left", took)
	}
}

// TestSaid: a value is said, changed, and said no more; a lost lease or a deletion by somebody else does not end it.
func TestSaid(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	key := Checks + Key("main", "b1", "a")
	await := func(want string) {
		t.Helper()
		harness.Eventually(t, "b hears", func() error {
			if got := b.HeardOf(key); string(got) != want {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
	}
	for i := range 50 {
		a.Say(key, fmt.Appendf(nil, "%d", i))
	}
	await("49")
	server.Do(t, "del", "/limeload/edge/"+key)
	await("49")
	a.awaitSettled(t)
	server.Do(t, "put", "/limeload/edge/"+key, "of somebody else")
	await("49")
	a.awaitSettled(t)
	server.Do(t, "lease", "revoke", fmt.Sprintf("%x", int64(a.leaseID())))
	harness.Eventually(t, "a has another lease", func() error {
		if s := a.Stats(); s.Unsaid > 0 || a.leaseID() == 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	await("49")
	a.Say(key, nil)
	if heard := b.Heard(Checks + Key("main") + "/"); len(heard) != 1 {
		t.Errorf("b hears %v", heard)
	}
	a.Unsay(key)
	harness.Eventually(t, "b does not hear it any more", func() error {
		if got := b.HeardOf(key); got != nil {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	a.awaitSettled(t)
	if s := a.Stats(); s.Said != 1 {
		t.Errorf("a says %d values, want that of the node", s.Said)
	}
}

// TestMany: ten thousand changes and twenty thousand verdicts take few transactions, and prefixes find their own.
func TestMany(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	const backends = 10_000
	before := a.Stats().Writes
	began := time.Now()
	for i := range backends {
		pool, backend := fmt.Sprintf("p%d", i%100), fmt.Sprintf("b%d", i)
		a.set(Changes+Key("backends", pool, backend, "mode"), `"drain"`)
		for _, judge := range []string{"a", "c"} {
			a.Say(Checks+Key(pool, backend, judge), []byte(`{"verdict":"healthy"}`))
		}
	}
	a.awaitSettled(t)
	writes := a.Stats().Writes - before
	harness.Eventually(t, "b knows all", func() error {
		if s := b.Stats(); s.Records != backends || s.Heard != 2*backends+2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	t.Logf("%d transactions, %v", writes, time.Since(began))
	if most := uint64(3*backends/mostOps*3/2 + 50); writes > most {
		t.Errorf("%d transactions, want at most %d", writes, most)
	}
	if got := len(b.Heard(Checks + Key("p7") + "/")); got != 2*backends/100 {
		t.Errorf("%d verdicts of one pool", got)
	}
	if got := len(b.Records(Changes + Key("backends", "p7", "b107") + "/")); got != 1 {
		t.Errorf("%d changes of one backend", got)
	}
	late := startNode(t, Options{Node: "late", Endpoints: []string{server.Endpoint}})
	harness.Eventually(t, "a late node knows all", func() error {
		if s := late.Stats(); s.Records != backends {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestBounds: what is too large, or no key or value of a fleet, is refused and ignored.
func TestBounds(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	a.awaitUp(t)
	key := Changes + "x"
	large := []byte(`"` + strings.Repeat("x", MaxValueBytes) + `"`)
	for _, refused := range []struct {
		key   string
		value []byte
		want  error
	}{
		{key, large, ErrTooLarge},
		{key, []byte(`"` + strings.Repeat("<", MaxValueBytes/4) + `"`), ErrTooLarge}, // each is six bytes in etcd
		{key, []byte(`{`), nil},
		{Checks + "x", []byte(`1`), ErrBadKey},
		{Changes + strings.Repeat("x", MaxKeyBytes), []byte(`1`), ErrBadKey},
		{Changes + strings.Repeat("x/", maxParts-1) + "x", []byte(`1`), ErrBadKey},
		{Changes + "a b", []byte(`1`), ErrBadKey}, // not escaped
		{Changes, []byte(`1`), ErrBadKey},
	} {
		r := Record{Value: refused.value}
		err := a.CanChange(refused.key, r)
		if err == nil || refused.want != nil && !errors.Is(err, refused.want) {
			t.Errorf("change %.20q: error %v, want %v", refused.key, err, refused.want)
		}
		if got := a.Change(refused.key, r); got.Serial != 0 {
			t.Errorf("change %.20q: %+v", refused.key, got)
		}
	}
	a.Say(Checks+"y", []byte("old"))
	a.Say(Checks+"y", large)
	if s := a.Stats(); s.Refused != 9 || s.Records != 0 {
		t.Errorf("%+v", s)
	}
	for _, put := range [][2]string{
		{"unknown/key", "1"}, {Changes + "a b", "1"}, {Changes + "x", `{"serial":0}`}, {Changes + "x", "no JSON"},
		{Changes + "x", `{"serial":18446744073709551615,"node":"a","at":"2026-01-01T00:00:00Z"}`},
		{Changes + "x", `{"serial":1,"node":"\u001b[2J","at":"2026-01-01T00:00:00Z"}`},
		{Changes + "x", `{"serial":1,"node":"a","at":"9999-12-31T23:59:59.999999999Z"}`},
		{Nodes + "b", "no JSON"}, {Nodes + "b/c", "{}"}, {Nodes + "%1B%5B2J", "{}"}, {owners + "a", "nonsense"},
		{Checks + "z", strings.Repeat("x", MaxValueBytes+1)},
	} {
		server.Do(t, "put", "/limeload/edge/"+put[0], put[1])
	}
	server.Do(t, "put", "/limeload/edge/"+Nodes+"hostile",
		`{"host":"\u001b[2J","rate":1e300,"sessions":-1,"state":"`+strings.Repeat("x", 5000)+`"}`)
	awaitNodes(t, 2, a)
	n := a.Nodes()[1]
	if n.Host != "\uFFFD[2J" || n.Rate != maxRate || n.Sessions != 0 || len(n.State) != maxTextBytes {
		t.Errorf("%+v", n)
	}
	if s := a.Stats(); s.Records != 0 || s.Ignored != 8 {
		t.Errorf("%+v", s)
	}
	a.set(key, `{"a": "<"}`)
	a.awaitSettled(t)
	a.set(key, `2`)
	a.awaitSettled(t)
}

// TestOtherForm: a record that somebody has written in another form of JSON is the same one on all nodes.
func TestOtherForm(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	key := Changes + "x"
	server.Do(t, "put", "/limeload/edge/"+key,
		`{ "value": {"b": 1, "a": "<"}, "at":"2026-01-01T01:00:00+01:00", "serial":3,"node":"c", "later": true }`)
	awaitRecord(t, key, "{\"b\":1,\"a\":\"\\u003c\"}", a, b)
	server.Do(t, "del", "/limeload/edge/"+key)
	harness.Eventually(t, "it is written again", func() error {
		if got := server.Do(t, "get", "/limeload/edge/"+key); got == "" {
			return errors.New("there is no such key")
		}
		return nil
	})
	a.awaitSettled(t)
	b.awaitSettled(t)
	if x, y := a.Records(key)[key], b.Records(key)[key]; !x.same(y) || x.Serial != 3 {
		t.Errorf("%+v and %+v", x, y)
	}
	if writes := a.Stats().Repairs + b.Stats().Repairs; writes != 1 {
		t.Errorf("%d repairs, want 1", writes)
	}
}

// FuzzRecord: whatever etcd has at a key is no record, or one that stays the same when it is written and read again.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"serial":1,"node":"a","at":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00Z","value":{"a": "<"}}`))
	f.Add([]byte(`{"serial":9007199254740993,"node":"a"}`))
	f.Add([]byte(`{"serial":1,"value":null,"by":"\u0000","undone":true}`))
	f.Add([]byte(`{"serial":1,"node":"a","at":"0000-01-01T00:00:00+01:00"}`)) // the year -1 in UTC
	f.Add([]byte(`{"serial":1,"node":"a","at":"2026-01-01T00:00:00Z","until":"9999-12-31T23:59:59-01:00"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, is := parseRecord(text)
		if !is {
			return
		}
		again, is := parseRecord(r.text())
		if !is || !again.same(r) || !bytes.Equal(again.text(), r.text()) {
			t.Errorf("%s becomes %s", r.text(), again.text())
		}
		next := r
		next.Serial, next.At = r.after(time.Unix(0, 0))
		if next, err := next.normal(); err != nil || !next.newer(r) || !next.later(r) || r.newer(next) {
			t.Errorf("a change after %s: %s, %v", r.text(), next.text(), err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}
