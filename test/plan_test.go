package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

func decode(t testing.TB, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// A plan has the fields of a plan that can be compared with its effect.
type plan struct {
	Same      bool
	Listeners []struct{ Name, What, Address string }
	Pools     []struct {
		Name, What string
		Backends   []struct{ Name, What string }
	}
	Drained, Ended int
}

// A fleet is the state of a balancer, as its control API shows it.
type fleet struct {
	listeners map[string]string // addresses by name
	pools     map[string]bool
	backends  map[string]backendState // by pool/name
	sessions  map[string]sessionState // by id
}

type backendState struct {
	Pool, Name, Address, Mode, Zone string
	Weight, Tier                    int
	MaxSessions                     int `json:"max_sessions"`
}

type sessionState struct{ ID, Listener, Pool, Backend, Phase string }

// observe reads the balancer's state.
func observe(t testing.TB, b *harness.Balancer) fleet {
	t.Helper()
	f := fleet{listeners: map[string]string{}, pools: map[string]bool{}, backends: map[string]backendState{},
		sessions: map[string]sessionState{}}
	var all struct {
		Listeners, Pools []struct{ Name, Address string }
		Backends         []backendState
		Sessions         []sessionState
	}
	for _, path := range []string{"/v1/listeners", "/v1/pools", "/v1/backends", "/v1/sessions"} {
		b.Ask(t, "GET", path, nil, &all)
	}
	for _, l := range all.Listeners {
		f.listeners[l.Name] = l.Address
	}
	for _, p := range all.Pools {
		f.pools[p.Name] = true
	}
	for _, s := range all.Backends {
		f.backends[s.Pool+"/"+s.Name] = s
	}
	for _, s := range all.Sessions {
		f.sessions[s.ID] = s
	}
	return f
}

// A draw makes random configurations of a few listeners, pools and backends.

type draw struct {
	random    *rand.Rand
	addresses []string // of listeners, two for each
	servers   []string // backends
}

func (d *draw) pick(words ...string) string { return words[d.random.IntN(len(words))] }

func (d *draw) config() string {
	var b strings.Builder
	pools := []string{"a", "b", "c"}[:1+d.random.IntN(3)]
	for i := range len(d.addresses) / 2 {
		if i > 0 && d.random.IntN(3) == 0 {
			continue
		}
		address := d.addresses[2*i+d.random.IntN(2)]
		fmt.Fprintf(&b, "[listener.l%d]\naddress = %q\npool = %q\nidle_timeout = %q\nbacklog = %d\n",
			i, address, d.pick(pools...), d.pick("0s", "1h"), 100*(1+d.random.IntN(2)))
	}
	for _, pool := range pools {
		fmt.Fprintf(&b, "[pool.%s]\nalgorithm = %q\non_remove = %q\nretries = %d\nbackends = [\n", pool,
			d.pick("round_robin", "least_conn", "maglev", "ring_hash", "client_hash", "first"), d.pick("drain",
				"close"), d.random.IntN(3))
		servers := slices.Clone(d.servers)
		d.random.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
		names := []string{"b1", "b2", "b3", "b4", "b5"}
		d.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for i := range 1 + d.random.IntN(4) {
			mode := "ready"
			if i > 0 {
				mode = d.pick("ready", "ready", "ready", "drain", "maintenance")
			}
			fmt.Fprintf(&b, "  { name = %q, address = %q, weight = %d, max_sessions = %d, mode = %q, tier = %d },\n",
				names[i], servers[i], d.random.IntN(3), 100*d.random.IntN(3), mode, d.random.IntN(4)/3)
		}
		b.WriteString("]\n")
	}
	return b.String()
}

// TestPlan plans and applies a configuration for 200 random pairs: afterwards listeners, pools, backends and sessions
// are as planned.
func TestPlan(t *testing.T) {
	t.Parallel()
	d := &draw{random: rand.New(rand.NewPCG(3, 4))}
	for range 6 {
		d.addresses = append(d.addresses, harness.FreeAddress(t))
	}
	for range 5 {
		d.servers = append(d.servers, harness.Serve(t, harness.Silent).Address())
	}
	first := d.config()
	config := first
	b := harness.StartBalancer(t, config)
	b.ListenersMoved()
	for i := range 200 {
		clients := dialAll(t, b)
		next := config
		if d.random.IntN(10) > 0 {
			next = d.config()
		}
		planAndReload(t, b, config, next)
		if t.Failed() {
			t.Fatalf("pair %d: from\n%s\nto\n%s", i, config, next)
		}
		config = next
		for _, c := range clients {
			c.Close()
		}
		b.Ask(t, "DELETE", "/v1/sessions?client=127.0.0.0/8", nil, nil)
		harness.Eventually(t, "no session is left", func() error {
			if n := len(observe(t, b).sessions); n > 0 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
	}
	b.Reload(t, first)
}

// accepted counts the clients that each listener has accepted so far.
func accepted(t testing.TB, b *harness.Balancer) map[string]int {
	t.Helper()
	var all struct {
		Listeners []struct {
			Address  string
			Accepted int
		}
	}
	b.Ask(t, "GET", "/v1/listeners", nil, &all)
	counts := map[string]int{}
	for _, l := range all.Listeners {
		counts[l.Address] = l.Accepted
	}
	return counts
}

// dialAll opens three sessions through each listener, and waits until each is connected to a backend or refused for
// want of one.
func dialAll(t *testing.T, b *harness.Balancer) []net.Conn {
	t.Helper()
	const each = 3
	var clients []net.Conn
	before := accepted(t, b)
	for address := range before {
		for range each {
			c, err := net.DialTimeout("tcp", address, harness.Patience)
			if errors.Is(err, syscall.ECONNRESET) {
				continue // refused at once
			}
			check(t, err)
			clients = append(clients, c)
		}
	}
	harness.Eventually(t, "every session is connected, or refused", func() error {
		for address, n := range accepted(t, b) {
			if n != before[address]+each {
				return fmt.Errorf("%s has accepted %d more", address, n-before[address])
			}
		}
		for _, s := range observe(t, b).sessions {
			if s.Phase != "relaying" {
				return fmt.Errorf("session %+v is not", s)
			}
		}
		return nil
	})
	return clients
}

// planAndReload compares the plan for next with the effect of the reload.
func planAndReload(t *testing.T, b *harness.Balancer, now, next string) {
	t.Helper()
	var said plan
	status, answer := b.API(t, "POST", "/v1/plan?name=next.toml", []byte(b.Complete(next)), "Content-Type",
		"application/toml")
	if status != http.StatusOK {
		t.Fatalf("plan: %d %s\n%s", status, answer, next)
	}
	decode(t, answer, &said)
	before := observe(t, b)
	b.Configure(t, next)
	status, answer = b.API(t, "POST", "/v1/reload", nil)
	if status != http.StatusOK {
		t.Fatalf("reload: %d %s", status, answer)
	}
	var done struct{ Plan plan }
	decode(t, answer, &done)
	if a, z := fmt.Sprintf("%+v", said), fmt.Sprintf("%+v", done.Plan); a != z {
		t.Errorf("the plan was\n%s\nand the reload says it did\n%s", a, z)
	}
	if said.Same != (now == next) {
		t.Errorf("the plan says that nothing changes: %v", said.Same)
	}
	after := observe(t, b)
	said.checkListeners(t, before, after)
	said.checkPools(t, before, after)
	said.checkBackends(t, before, after)
	said.checkSessions(t, b, before, after)
}

func (p *plan) checkListeners(t *testing.T, before, after fleet) {
	t.Helper()
	what := map[string]string{}
	for _, l := range p.Listeners {
		what[l.Name] = l.What
	}
	for name := range union(before.listeners, after.listeners) {
		from, to := before.listeners[name], after.listeners[name]
		said := strings.ReplaceAll(what[name], "changed", "kept") // its settings are not visible from here
		if want := fate(from, to, "rebound", "kept"); said != want {
			t.Errorf("listener %s: the plan says %q, and it was %s", name, what[name], want)
		}
	}
}

// fate returns the change of an object that is from before and to afterwards; "" means absent.
func fate(from, to, different, same string) string {
	switch {
	case from == "":
		return "added"
	case to == "":
		return "removed"
	case from != to:
		return different
	}
	return same
}

func union[V any](a, b map[string]V) map[string]bool {
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	return names
}

func (p *plan) checkPools(t *testing.T, before, after fleet) {
	t.Helper()
	what := map[string]string{}
	for _, pool := range p.Pools {
		what[pool.Name] = strings.ReplaceAll(pool.What, "changed", "kept")
	}
	there := func(f fleet, name string) string {
		if f.pools[name] {
			return "there"
		}
		return ""
	}
	for name := range union(before.pools, after.pools) {
		if want := fate(there(before, name), there(after, name), "", "kept"); what[name] != want {
			t.Errorf("pool %s: the plan says %q, and it was %s", name, what[name], want)
		}
	}
}

func (p *plan) checkBackends(t *testing.T, before, after fleet) {
	t.Helper()
	what := map[string]string{}
	for _, pool := range p.Pools {
		for _, backend := range pool.Backends {
			what[pool.Name+"/"+backend.Name] = backend.What
		}
	}
	for name := range union(before.backends, after.backends) {
		from, was := before.backends[name]
		to, is := after.backends[name]
		want := ""
		switch {
		case !was:
			want = "added"
		case !is:
			want = "removed"
		case from.Address != to.Address || from.Tier != to.Tier:
			want = "replaced"
		case from != to:
			want = "changed"
		}
		if what[name] != want {
			t.Errorf("backend %s: the plan says %q, and it was %q: from %+v to %+v", name, what[name], want, from, to)
		}
	}
}

func (p *plan) checkSessions(t *testing.T, b *harness.Balancer, before, after fleet) {
	t.Helper()
	harness.Eventually(t, "the sessions that are to end have ended", func() error {
		after.sessions = observe(t, b).sessions
		if n := len(before.sessions) - len(after.sessions); n != p.Ended {
			return fmt.Errorf("%d have, and the plan says %d", n, p.Ended)
		}
		return nil
	})
	time.Sleep(5 * time.Millisecond) // time for sessions that end although they should not
	after.sessions = observe(t, b).sessions
	if n := len(before.sessions) - len(after.sessions); n != p.Ended {
		t.Errorf("%d sessions have ended, and the plan says %d", n, p.Ended)
	}
	drained := 0
	for id, s := range after.sessions {
		if _, old := before.sessions[id]; !old {
			t.Errorf("session %s is new", id)
		}
		name := s.Pool + "/" + s.Backend
		from, to := before.backends[name], after.backends[name]
		replaced := from.Address != to.Address || from.Tier != to.Tier
		turned := from.Mode != to.Mode && to.Mode != "ready" || from.Weight != to.Weight && to.Weight == 0
		if after.listeners[s.Listener] != before.listeners[s.Listener] || replaced || turned {
			drained++
		}
	}
	if drained != p.Drained {
		t.Errorf("%d sessions go on where nothing new goes, and the plan says %d", drained, p.Drained)
	}
}
