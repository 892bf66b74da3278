package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestWiped: when the data is deleted by mistake, nobody loses a node or a change, and each record is written again by
// one node.
func TestWiped(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	var nodes []*testNode
	for i := range 4 {
		nodes = append(nodes, startNode(t, Options{Node: fmt.Sprintf("n%d", i), Endpoints: []string{server.Endpoint}}))
	}
	awaitNodes(t, len(nodes), nodes...)
	const records = 1000
	for i := range records {
		nodes[i%len(nodes)].set(Changes+Key("backends", "main", fmt.Sprint(i)), "1")
	}
	harness.Eventually(t, "all know all", func() error {
		for _, n := range nodes {
			if s := n.Stats(); s.Records != records || s.Pending > 0 {
				return fmt.Errorf("%s: %+v", n.Fleet.Node(), s)
			}
		}
		return nil
	})
	for _, n := range nodes {
		n.expect(len(nodes))
	}
	server.Do(t, "del", "--prefix", "/limeload/")
	harness.Eventually(t, "etcd has all again", func() error {
		got := countKeys(t, server, "")
		if want := records + 2*len(nodes); got != want {
			return fmt.Errorf("%d keys, want %d", got, want)
		}
		return nil
	})
	var repairs uint64
	for _, n := range nodes {
		n.awaitSettled(t)
		if n.fewestNodes() != len(nodes) {
			t.Errorf("%s has found %d nodes at a time", n.Fleet.Node(), n.fewestNodes())
		}
		s := n.Stats()
		if s.Repairs > records*6/10 {
			t.Errorf("%s has written %d of %d records", n.Fleet.Node(), s.Repairs, records)
		}
		if up, down, _ := n.reports(); up != 1 || down != 0 {
			t.Errorf("%s reported %d connections and %d losses", n.Fleet.Node(), up, down)
		}
		repairs += s.Repairs
	}
	if repairs != records {
		t.Errorf("%d records were written again, want %d", repairs, records)
	}
}

// TestWipedForGood: a node that does not come back after its values were deleted is gone after a while.
func TestWipedForGood(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	b.kill()
	server.Do(t, "del", "--prefix", "/limeload/")
	a.awaitSettled(t)
	awaitNodes(t, 1, a)
}

// TestSlow: a store whose answers take a second is used as any other.
func TestSlow(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	link, endpoint := linkTo(t, server)
	quick := startNode(t, Options{Node: "quick", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 1, quick)
	for i := range 3000 { // three requests of the first look
		quick.set(Changes+Key("backends", "main", fmt.Sprint(i)), "1")
	}
	quick.awaitSettled(t)
	link.Delay(time.Second)
	slow := startNode(t, Options{Node: "slow", Endpoints: []string{endpoint}})
	awaitNodes(t, 2, slow, quick)
	quick.expect(2)
	key := Changes + "x"
	for i := range 5 {
		value := fmt.Sprint(i)
		slow.set(key, value)
		awaitRecord(t, key, value, quick)
		slow.awaitSettled(t)
	}
	if up, down, _ := slow.reports(); up != 1 || down != 0 {
		t.Errorf("%d connections and %d losses were reported", up, down)
	}
	if quick.fewestNodes() != 2 {
		t.Error("the slow node was not there for a time")
	}
}

// TestHangs: a node leaves a member that hangs before its lease ends.
func TestHangs(t *testing.T) {
	t.Parallel()
	members := harness.StartEtcdCluster(t, 3)
	links := make(map[string]*harness.SlowLink)
	var endpoints []string
	for _, m := range members[:2] {
		link, endpoint := linkTo(t, m)
		links[endpoint] = link
		endpoints = append(endpoints, endpoint)
	}
	a := startNode(t, Options{Node: "a", Endpoints: endpoints})
	b := startNode(t, Options{Node: "b", Endpoints: []string{members[2].Endpoint}})
	awaitNodes(t, 2, a, b)
	b.expect(2)
	hanging := a.Link().Endpoint
	links[hanging].Hang()
	began := time.Now()
	harness.Eventually(t, "the node is at another member", func() error {
		if l := a.Link(); !l.Up || l.Endpoint == hanging {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	t.Logf("at another member after %v", time.Since(began))
	a.set(Changes+"x", "1")
	awaitRecord(t, Changes+"x", "1", b)
	if b.fewestNodes() != 2 {
		t.Error("the others have lost the node")
	}
}

// TestCut: the others lose a node after its lease, and it comes back. Changes of both sides meet: the later one holds.
func TestCut(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	link, endpoint := linkTo(t, server)
	a := startNode(t, Options{Node: "a", Endpoints: []string{endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	early, late := Changes+"early", Changes+"late"
	a.set(early, "0")
	a.set(late, "0")
	awaitRecord(t, early, "0", b)
	awaitRecord(t, late, "0", b)

	link.Cut()
	cut := time.Now()
	a.awaitDown(t)
	a.set(early, `"away"`)
	b.set(early, `"there"`)
	b.set(early, `"there"`)
	b.set(late, `"there"`)
	b.set(late, `"there"`)
	b.awaitSettled(t)
	a.set(late, `"away"`)
	awaitNodes(t, 1, b)
	took := time.Since(cut)
	t.Logf("the cut node is gone for the others after %v", took)
	if took < leaseTime-renewEvery-time.Second || took > 2*leaseTime {
		t.Errorf("the cut node is gone for the others after %v", took)
	}
	if n := a.Nodes(); len(n) != 2 {
		t.Errorf("the cut node knows %+v", n)
	}
	link.Mend()
	awaitNodes(t, 2, a, b)
	awaitRecord(t, early, `"there"`, a, b)
	awaitRecord(t, late, `"away"`, a, b)
	a.awaitSettled(t)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.overruled) != 1 || a.overruled[0] != early {
		t.Errorf("overruled: %v", a.overruled)
	}
}

// TestNoQuorum: without a majority the nodes have no connection, and go on with what they know.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	members := harness.StartEtcdCluster(t, 3)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.Endpoint)
	}
	a := startNode(t, Options{Node: "a", Endpoints: endpoints})
	b := startNode(t, Options{Node: "b", Endpoints: endpoints})
	awaitNodes(t, 2, a, b)
	a.set(Changes+"x", "1")
	awaitRecord(t, Changes+"x", "1", a, b)
	members[1].Kill(t)
	members[2].Kill(t)
	a.awaitDown(t)
	b.awaitDown(t)
	a.set(Changes+"x", "2")
	if n := b.Nodes(); len(n) != 2 {
		t.Errorf("b knows %+v", n)
	}
	members[1].Restart(t)
	awaitRecord(t, Changes+"x", "2", a, b)
	awaitNodes(t, 2, a, b)
}

// TestAllLost: the nodes report once that etcd is gone, and go on when it is back.
func TestAllLost(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	a.awaitSettled(t)
	server.Kill(t)
	a.awaitDown(t)
	a.set(Changes+"x", "1")
	lost := time.Now()
	harness.Eventually(t, "it has tried some times", func() error {
		if took := time.Since(lost); took < 4*retryPause {
			return fmt.Errorf("it is down for %v", took)
		}
		return nil
	})
	if l := a.Link(); l.Up || l.Err == nil || l.Since.After(lost) {
		t.Errorf("%+v", l)
	}
	server.Restart(t)
	a.awaitSettled(t)
	if up, down, _ := a.reports(); up != 2 || down != 1 {
		t.Errorf("%d connections and %d losses were reported", up, down)
	}
}

// TestOldStore: etcd comes back with an old copy of its data, whose revisions are lower than those that the nodes know.
// What the nodes know holds, and what only the copy has is there again.
func TestOldStore(t *testing.T) {
	t.Parallel()
	server, old := startEtcd(t), startEtcd(t)
	var nodes []*testNode
	var links []*harness.SlowLink
	for i := range 3 {
		link, endpoint := linkTo(t, server)
		links = append(links, link)
		nodes = append(nodes, startNode(t, Options{Node: fmt.Sprintf("n%d", i), Endpoints: []string{endpoint}}))
	}
	awaitNodes(t, 3, nodes...)
	changed, same, added := Changes+"changed", Changes+"same", Changes+"added"
	nodes[0].set(changed, "1")
	nodes[0].set(same, "1")
	nodes[0].awaitSettled(t)
	for _, key := range []string{changed, same} {
		text := server.Do(t, "get", "--print-value-only", "/limeload/edge/"+key)
		old.Do(t, "put", "/limeload/edge/"+key, strings.TrimSpace(text))
	}
	old.Do(t, "put", "/limeload/edge/"+Changes+"copy", `{"serial":1,"node":"x","at":"2026-01-01T00:00:00Z","value":1}`)
	nodes[1].set(changed, "2")
	nodes[1].set(added, "2")
	awaitRecord(t, changed, "2", nodes...)
	awaitRecord(t, added, "2", nodes...)
	for _, n := range nodes {
		n.expect(3)
	}
	for _, link := range links {
		link.Cut()
		link.Lead(strings.TrimPrefix(old.Endpoint, "http://"))
	}
	for i, link := range links {
		nodes[i].awaitDown(t)
		link.Mend()
	}
	awaitRecord(t, Changes+"copy", "1", nodes...)
	for key, value := range map[string]string{changed: "2", same: "1", added: "2"} {
		awaitRecord(t, key, value, nodes...)
		harness.Eventually(t, "etcd has it", func() error {
			r, is := parseRecord([]byte(old.Do(t, "get", "--print-value-only", "/limeload/edge/"+key)))
			if !is || string(r.Value) != value {
				return fmt.Errorf("%s is %+v, want %s", key, r, value)
			}
			return nil
		})
	}
	nodes[2].set(changed, "3")
	awaitRecord(t, changed, "3", nodes...)
	for _, n := range nodes {
		if n.fewestNodes() != 3 {
			t.Errorf("%s has found %d nodes at a time", n.Fleet.Node(), n.fewestNodes())
		}
	}
}

// TestReadOnly: a node that may only read follows the others, and says once that it cannot write.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	for _, c := range []string{
		"user add root:secret", "user grant-role root root", "user add reader:secret", "role add reader",
		"role grant-permission reader --prefix=true read /limeload/", "user grant-role reader reader", "auth enable",
	} {
		server.Do(t, strings.Fields(c)...)
	}
	writer := startNode(t, Options{
		Node: "writer", Endpoints: []string{server.Endpoint}, Login: etcd.Login{User: "root", Password: "secret"},
	})
	reader := startNode(t, Options{
		Node: "reader", Endpoints: []string{server.Endpoint}, Login: etcd.Login{User: "reader", Password: "secret"},
	})
	reader.set(Changes+"own", "1")
	awaitNodes(t, 1, writer)
	writer.set(Changes+"x", "1")
	awaitRecord(t, Changes+"x", "1", reader)
	harness.Eventually(t, "the node says that it cannot write", func() error {
		l := reader.Link()
		if !l.Up || l.Err == nil || !strings.Contains(l.Err.Error(), "may not read and write") {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
	failed := reader.Stats().WriteFailures
	harness.Eventually(t, "it tries again", func() error {
		if now := reader.Stats().WriteFailures; now < failed+2 {
			return fmt.Errorf("%d failures, then %d", failed, now)
		}
		return nil
	})
	server.Do(t, "--user=root:secret", "role", "grant-permission", "reader", "--prefix=true", "readwrite", "/limeload/")
	awaitNodes(t, 2, writer, reader)
	awaitRecord(t, Changes+"own", "1", writer)
	reader.awaitSettled(t)
	if up, down, trouble := reader.reports(); up != 2 || down != 0 || trouble != 1 {
		t.Errorf("%d connections, %d losses and %d troubles were reported", up, down, trouble)
	}
	if err := reader.Link().Err; err != nil {
		t.Errorf("link: %v", err)
	}
}

// TestOneRefused: a value that etcd refuses does not keep others from being written.
func TestOneRefused(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t, "--unsafe-no-fsync", "--max-request-bytes", "20000")
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, a, b)
	a.Say(Checks+"large", []byte(strings.Repeat("x", MaxValueBytes)))
	a.set(Changes+"large", `"`+strings.Repeat("x", MaxValueBytes/2)+`"`)
	for i := range 20 {
		a.Say(Checks+fmt.Sprint(i), []byte("1"))
		a.set(Changes+fmt.Sprint(i), "1")
	}
	harness.Eventually(t, "b knows all but the large ones", func() error {
		if s := b.Stats(); s.Records != 20 || s.Heard != 2+20 {
			return fmt.Errorf("%+v; a: %+v, link %+v", s, a.Stats(), a.Link())
		}
		return nil
	})
	if s := a.Stats(); s.Pending != 1 || s.Unsaid != 1 || s.WriteFailures > 60 {
		t.Errorf("%+v", s)
	}
	if l := a.Link(); !l.Up || l.Err == nil {
		t.Errorf("%+v", l)
	}
	a.Unsay(Checks + "large")
	a.set(Changes+"large", `1`)
	a.awaitSettled(t)
	harness.Eventually(t, "the trouble is over", func() error { return a.Link().Err })
}

// TestLargeValues: many values of the largest size are written and read in pieces that etcd and this package allow.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	a := startNode(t, Options{Node: "a", Endpoints: []string{server.Endpoint}})
	value := `"` + strings.Repeat("x", MaxValueBytes-2) + `"`
	const count = 200 // 12.5 MiB
	for i := range count {
		a.set(Changes+fmt.Sprint(i), value)
	}
	a.awaitSettled(t)
	b := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	harness.Eventually(t, "a late node knows all", func() error {
		if s := b.Stats(); s.Records != count {
			return fmt.Errorf("%+v, link %+v", s, b.Link())
		}
		return nil
	})
	if up, down, trouble := a.reports(); up != 1 || down+trouble != 0 {
		t.Errorf("%d connections, %d losses, %d troubles", up, down, trouble)
	}
}
