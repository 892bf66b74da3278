package test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A ticketFleet is a fleet whose nodes have the listeners of tlsFiles, and one more like the first.
type ticketFleet struct {
	*tlsFiles
	etcd  *harness.Etcd
	nodes []*fleetNode
}

func startTicketFleet(t *testing.T) *ticketFleet {
	t.Helper()
	f := &ticketFleet{tlsFiles: newTLSFiles(t), etcd: harness.StartEtcd(t, "--unsafe-no-fsync")}
	w := fleetWorld{world: world{Backends: []string{f.echo}}, Etcd: []*harness.Etcd{f.etcd}}
	for i := range 3 {
		second := fmt.Sprintf("[listener.second]\naddress = %q\npool = 'echo'\ntls = { %s }\n",
			harness.FreeAddress(t), f.ca.pairs("db"))
		w.Suffix = f.config(t, "") + second
		f.nodes = append(f.nodes, w.startNode(t, fmt.Sprintf("n%d", i+1)))
	}
	for _, n := range f.nodes {
		n.awaitJoined(t)
		awaitTickets(t, n)
	}
	return f
}

// awaitTickets waits until a node makes tickets that all nodes read.
func awaitTickets(t *testing.T, n *fleetNode) {
	t.Helper()
	n.WaitLine(t, n.Name+" shares tickets", func(l harness.Line) bool { return l.Event == "fleet_tickets_shared" })
}

// A traveller is a client that takes its session from node to node.
type traveller struct {
	config *tls.Config
}

// traveller returns a new client that has begun a session at a listener, for each version of TLS.
func (f *ticketFleet) travellers(t *testing.T, at *fleetNode, listener string) []traveller {
	t.Helper()
	var all []traveller
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := traveller{f.client(t, version, "good")}
		if resumed, err := v.visit(t, at, listener); err != nil || resumed {
			t.Errorf("%s: the first session is resumed: %v; error %v", at.Name, resumed, err)
		}
		all = append(all, v)
	}
	return all
}

// visit connects, and reports whether the session was resumed.
func (v traveller) visit(t *testing.T, to *fleetNode, listener string) (resumed bool, err error) {
	t.Helper()
	state, err := echoTLS(to.Address(t, listener), v.config)
	return state.DidResume, err
}

// want checks that the sessions of all travellers are resumed, or not.
func want(t *testing.T, what string, all []traveller, to *fleetNode, listener string, resumed bool) {
	t.Helper()
	for _, v := range all {
		got, err := v.visit(t, to, listener)
		if err != nil || got != resumed {
			t.Errorf("%s, %s at %s of %s: resumed %v, error %v", what, tls.VersionName(v.config.MaxVersion), listener, to.Name,
				got, err)
		}
	}
}

// A ticketRecord is the record of the keys in etcd.
type ticketRecord struct {
	Serial uint64    `json:"serial"`
	Node   string    `json:"node"`
	At     time.Time `json:"at"`
	Value  struct {
		Version int `json:"version"`
		Keys    []struct {
			Key  []byte    `json:"key"`
			From time.Time `json:"from"`
		} `json:"keys"`
	} `json:"value"`
}

const ticketsKey = "/limeload/edge/tickets"

func (f *ticketFleet) record(t *testing.T) (r ticketRecord) {
	t.Helper()
	check(t, json.Unmarshal([]byte(f.etcd.Do(t, "get", "--print-value-only", ticketsKey)), &r))
	return r
}

// rotateSoon moves the times of the keys so that the next one becomes the current one in a few seconds.
func (f *ticketFleet) rotateSoon(t *testing.T) {
	t.Helper()
	r := f.record(t)
	keys := r.Value.Keys
	early := time.Until(keys[len(keys)-1].From) - 3*time.Second
	for i := range keys {
		keys[i].From = keys[i].From.Add(-early)
	}
	r.Serial, r.Node, r.At = r.Serial+1, "somebody", time.Now().UTC()
	text, err := json.Marshal(r)
	check(t, err)
	f.etcd.Do(t, "put", ticketsKey, string(text))
}

// TestFleetTickets has clients take their sessions from node to node: to each listener, through a rotation of the keys,
// with nonsense in etcd, and while etcd is away, with a restart and an upgrade of a node.
func TestFleetTickets(t *testing.T) {
	t.Parallel()
	f := startTicketFleet(t)
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]

	open := f.travellers(t, a, "open")
	want(t, "from a node to another one", open, b, "open", true)
	want(t, "and on", open, c, "open", true)
	want(t, "another listener", f.travellers(t, a, "open"), b, "second", false)
	want(t, "a listener that wants certificates", f.travellers(t, a, "open"), b, "closed", false)
	want(t, "with a certificate", f.travellers(t, c, "closed"), a, "closed", true)

	open, before := f.travellers(t, a, "open"), f.record(t)
	f.rotateSoon(t)
	harness.Eventually(t, "the next key is made", func() error {
		if r := f.record(t); r.Node == "somebody" || len(r.Value.Keys) != 3 || time.Until(r.Value.Keys[2].From) < 11*time.Hour ||
			string(r.Value.Keys[0].Key) != string(before.Value.Keys[len(before.Value.Keys)-2].Key) {
			return fmt.Errorf("the record is that of %s, with %d keys", r.Node, len(r.Value.Keys))
		}
		return nil
	})
	want(t, "after a rotation", open, b, "open", true)
	want(t, "with the new key", f.travellers(t, b, "open"), c, "open", true)

	now := f.record(t)
	f.etcd.Do(t, "put", ticketsKey, fmt.Sprintf(`{"serial":%d,"node":"x","at":"2026-01-02T03:04:05Z","value":{"version":1}}`,
		now.Serial+1))
	harness.Eventually(t, "the keys are there again", func() error {
		r := f.record(t)
		if len(r.Value.Keys) != 3 || string(r.Value.Keys[1].Key) != string(now.Value.Keys[1].Key) {
			return errors.New("they are others, or none")
		}
		return nil
	})
	want(t, "after nonsense in etcd", f.travellers(t, b, "open"), a, "open", true)
	for _, n := range f.nodes {
		state := string(readFile(t, n.State))
		for _, k := range now.Value.Keys {
			if strings.Contains(state, base64.StdEncoding.EncodeToString(k.Key)) {
				t.Errorf("the state file of %s has a key", n.Name)
			}
		}
	}

	check(t, syscall.Kill(f.etcd.PID(), syscall.SIGKILL))
	f.etcd.Wait(t)
	want(t, "without etcd", f.travellers(t, a, "open"), b, "open", true)
	a.do(t, "upgrade")
	want(t, "after an upgrade without etcd", f.travellers(t, b, "open"), a, "open", true)
	c.stop(t)
	c.run(t)
	want(t, "after a restart without etcd", f.travellers(t, a, "open"), c, "open", false)
	own := f.travellers(t, c, "open")
	want(t, "a node alone", own, c, "open", true)
	f.etcd.Restart(t)
	awaitTickets(t, c)
	want(t, "etcd is back", f.travellers(t, a, "open"), c, "open", true)
	want(t, "tickets of before", own, c, "open", true)
}

// TestFleetTicketsOff holds that nodes with ticket_keys = false, and listeners with a file of keys, do not use the shared
// keys.
func TestFleetTicketsOff(t *testing.T) {
	t.Parallel()
	f := &ticketFleet{tlsFiles: newTLSFiles(t), etcd: harness.StartEtcd(t, "--unsafe-no-fsync")}
	w := fleetWorld{world: world{Backends: []string{f.echo}}, Etcd: []*harness.Etcd{f.etcd}}
	start := func(name, keys string) *fleetNode {
		w.Suffix = f.config(t, keys)
		n := w.startNode(t, name)
		n.awaitJoined(t)
		return n
	}
	shares := start("n1", "")
	awaitTickets(t, shares)
	file := fmt.Sprintf("ticket_key_file = '%s/tickets'", f.dir)
	one, two := start("n2", file), start("n3", file)
	want(t, "a file of keys", f.travellers(t, one, "open"), two, "open", true)
	want(t, "to a file of keys", f.travellers(t, shares, "open"), one, "open", false)
	w.Fleet = []string{"ticket_keys = false"}
	off := start("n4", "")
	want(t, "to a node that shares none", f.travellers(t, shares, "open"), off, "open", false)
	if m := metrics(t, off.Balancer); m["limeload_fleet_rate_share"] == 0 {
		t.Errorf("the metrics are %v", m)
	} else if _, is := m["limeload_fleet_tickets_shared"]; is {
		t.Error("a node that shares no keys says whether it does")
	}
	if m := metrics(t, shares.Balancer); m["limeload_fleet_tickets_shared"] != 1 {
		t.Error("a node that shares keys does not say so")
	}
}
