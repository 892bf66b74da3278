package daemon

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// sharedPool returns a pool whose checks are shared by so many nodes, of which the others say that all backends are
// healthy. Nothing runs.
func sharedPool(t testing.TB, nodes, backends int) (*sharedChecks, *checkedPool) {
	t.Helper()
	return sharedPoolBy(t, nodes, backends, sharing{sum: "s", question: "q"})
}

// sharedPoolBy is sharedPool for a pool whose checks are shared in this way. If its backends are judged together, the
// others say nothing.
func sharedPoolBy(t testing.TB, nodes, backends int, by sharing) (*sharedChecks, *checkedPool) {
	t.Helper()
	d := &Daemon{life: newLife()}
	f := fleet.New(fleet.Options{Name: "edge", Node: "n0"})
	m := &membership{daemon: d, conf: &conf.Fleet{CheckShare: 2}, fleet: f}
	m.checks = newSharedChecks(m)
	c := m.checks
	c.link = true
	p, err := pool.New(PoolOptions(&conf.Pool{Name: "web", Algorithm: "p2c", Health: &conf.Health{}}))
	if err != nil {
		t.Fatal(err)
	}
	s := healthcheck.NewScheduler(healthcheck.Options{Report: func([]healthcheck.Change) {}})
	k := newCheckedPool(zerolog.Nop(), s, p, &builtCheck{
		sharing: by,
		policy:  healthcheck.Policy{Interval: time.Second, Timeout: time.Second, Rise: 1, Fall: 1},
	}, false)
	var specs []pool.Spec
	for i := range backends {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80)
		specs = append(specs, pool.Spec{ID: fmt.Sprintf("b%d", i), Addr: pool.At(at), Weight: 1})
	}
	if _, err := p.Reconcile("", specs); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.joinLocked(c)
	k.mu.Unlock()
	names := []string{"n0"}
	for i := 1; i < nodes; i++ {
		names = append(names, fmt.Sprintf("n%d", i))
		c.seats[names[i]] = &seat{map[string]string{"web": k.share.sum}}
	}
	c.seated++
	k.match()
	if by.together {
		return c, k
	}
	for id, at := range k.share.places {
		for _, judge := range fleet.Duties(names, k.share.subject(id), 2) {
			d := dutyKey{"web", id}
			if c.reports[d] == nil {
				c.reports[d] = make(map[string]*report)
			}
			if judge != "n0" {
				c.reports[d][judge] = &report{k.share.sum, findings{id: {Address: at.text(), Verdict: "healthy"}}}
			}
		}
	}
	return c, k
}

// TestSharedPool: a node has the checks of its duties only, and believes the judges of the others.
func TestSharedPool(t *testing.T) {
	t.Parallel()
	const nodes, backends = 10, 1000
	_, k := sharedPool(t, nodes, backends)
	k.review(nil)
	n := k.shares()
	if mean := backends * 2 / nodes; n.own < mean/2 || n.own > mean*2 || n.looking != 0 || n.own+n.others != backends {
		t.Errorf("%+v", n)
	}
	if len(k.targets) != n.own {
		t.Errorf("%d backends are checked, and %d are its duty", len(k.targets), n.own)
	}
	healthy := 0
	for _, b := range k.pool.Backends() {
		if b.Verdict == pool.Healthy {
			healthy++
		}
	}
	if healthy != backends { // those of its duty have another judge
		t.Errorf("%d of %d are healthy", healthy, backends)
	}
}

// verdictOn returns the verdict in force on a backend.
func (k *checkedPool) verdictOn(id string) pool.Verdict {
	b, _ := k.pool.Backend(id)
	return b.Verdict
}

// sayAll makes all other judges say something about all backends.
func (c *sharedChecks) sayAll(v pool.Verdict) {
	for d, by := range c.reports {
		for node, r := range by {
			by[node] = &report{r.Sum, findings{d.backend: {Address: r.Backends[d.backend].Address, Verdict: v.String()}}}
		}
	}
}

// TestSharedPoolRestores: a node that begins to doubt itself uses the backends again that have failed a moment ago. It
// does not go back further: what it did not know when it started is known now.
func TestSharedPoolRestores(t *testing.T) {
	t.Parallel()
	const backends = 20
	c, k := sharedPool(t, 3, backends)
	expect := func(when string, v pool.Verdict) {
		t.Helper()
		for _, b := range k.pool.Backends() {
			if b.Verdict != v {
				t.Errorf("%s: %s is %s: %s", when, b.ID, b.Verdict, b.Reason)
			}
		}
	}
	k.review(nil)
	expect("others say so", pool.Healthy)
	k.restoreBefore(time.Now())
	expect("they did not fail", pool.Healthy)
	c.sayAll(pool.Unhealthy)
	k.review(nil)
	expect("all say so", pool.Unhealthy)
	k.restoreBefore(time.Now().Add(time.Minute))
	expect("long ago", pool.Unhealthy)
	k.restoreBefore(time.Now())
	expect("they failed a moment ago", pool.Healthy)
}

// TestSharedPoolRestoresNoPrimary: a node that begins to doubt itself does not get a second primary.
func TestSharedPoolRestoresNoPrimary(t *testing.T) {
	t.Parallel()
	_, k := sharedPoolBy(t, 3, 2, sharing{sum: "s", question: "q", together: true, primary: true})
	find := func(b0, b1 pool.Verdict) {
		k.mu.Lock()
		defer k.mu.Unlock()
		next := findings{"b0": {Verdict: b0.String()}, "b1": {Verdict: b1.String()}}
		present := k.presentLocked([]string{"b0", "b1"})
		k.setVerdictsLocked(k.judgementsLocked(k.share.duties[""], present, next, true, nil, time.Now()))
	}
	find(pool.Healthy, pool.WrongRole)
	find(pool.Unhealthy, pool.WrongRole)
	find(pool.Unhealthy, pool.Healthy)
	k.restoreBefore(time.Now())
	if a, b := k.verdictOn("b0"), k.verdictOn("b1"); a != pool.Unhealthy || b != pool.Healthy {
		t.Errorf("after a failover: %s, %s", a, b)
	}
	find(pool.Unhealthy, pool.Unhealthy)
	k.restoreBefore(time.Now())
	if a, b := k.verdictOn("b0"), k.verdictOn("b1"); a != pool.Unhealthy || b != pool.Healthy {
		t.Errorf("both were the primary a moment ago: %s, %s", a, b)
	}
}

// TestSharedPoolEmptied: all backends of a pool go at once, and others come.
func TestSharedPoolEmptied(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{false, true} {
		_, k := sharedPoolBy(t, 3, 3, sharing{sum: "s", question: "q", together: together})
		if _, err := k.pool.Reconcile("", nil); err != nil {
			t.Fatal(err)
		}
		k.match()
		if len(k.targets) != 0 || len(k.share.duties) != 0 {
			t.Errorf("together %t: %d targets, %d duties", together, len(k.targets), len(k.share.duties))
		}
		k.replace(t, "b0", "10.9.0.1:80")
		k.match()
		if len(k.share.duties) != 1 {
			t.Errorf("together %t: %d duties", together, len(k.share.duties))
		}
	}
}

// replace makes a backend at an address the only one of the pool.
func (k *checkedPool) replace(t *testing.T, id, address string) {
	t.Helper()
	at := pool.At(netip.MustParseAddrPort(address))
	if _, err := k.pool.Reconcile("", []pool.Spec{{ID: id, Addr: at, Weight: 1}}); err != nil {
		t.Fatal(err)
	}
}

// TestSharedPoolReplaced: what was found about a backend does not count for one of the same name at another address.
func TestSharedPoolReplaced(t *testing.T) {
	t.Parallel()
	_, k := sharedPool(t, 3, 1)
	k.review(nil)
	if v := k.verdictOn("b0"); v != pool.Healthy {
		t.Fatalf("it is %s", v)
	}
	k.replace(t, "b0", "10.9.0.1:80")
	k.review(nil) // before the event of the change has come
	if v := k.verdictOn("b0"); v != pool.Unknown {
		t.Errorf("before the change was heard: %s", v)
	}
	k.match()
	k.review(nil)
	if v := k.verdictOn("b0"); v != pool.Unknown {
		t.Errorf("afterwards: %s", v)
	}
	old := healthcheck.Change{Target: k.target("b0"), To: healthcheck.Healthy, At: time.Now().Add(-time.Minute)}
	if err := k.take([]healthcheck.Change{old}); err != nil || k.verdictOn("b0") != pool.Unknown {
		t.Errorf("a check from before has ended: %v, %s", err, k.verdictOn("b0"))
	}
}

// TestSharedPoolOverloaded: a judge whose checks get no turn says nothing, and believes the others; if there are none,
// it does not know.
func TestSharedPoolOverloaded(t *testing.T) {
	t.Parallel()
	c, k := sharedPool(t, 2, 1)
	find := func(v healthcheck.Verdict) {
		t.Helper()
		if err := k.take([]healthcheck.Change{{Target: k.target("b0"), To: v, At: time.Now()}}); err != nil {
			t.Fatal(err)
		}
	}
	find(healthcheck.Healthy)
	d := k.share.duties["b0"]
	if d.said == nil {
		t.Fatal("it says nothing, and is a judge")
	}
	find(healthcheck.Unknown)
	if d.said != nil || k.verdictOn("b0") != pool.Healthy {
		t.Errorf("it says %v; the backend is %s", d.said, k.verdictOn("b0"))
	}
	clear(c.reports)
	k.review(nil)
	if d.said != nil || k.verdictOn("b0") != pool.Unknown {
		t.Errorf("nobody knows: it says %v; the backend is %s", d.said, k.verdictOn("b0"))
	}
}

// TestSharedPoolSays: a node without a connection does not begin to say anything; what has become too much withdraws
// what was said before.
func TestSharedPoolSays(t *testing.T) {
	t.Parallel()
	c, k := sharedPool(t, 2, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	own := func(n int) findings {
		all := make(findings)
		for i := range n {
			all[fmt.Sprintf("a backend of this number: %d", i)] = finding{Verdict: "healthy"}
		}
		return all
	}
	d := &duty{judge: true}
	c.link = false
	if k.sayLocked("b0", d, own(1)); d.said != nil {
		t.Error("it says something without a connection")
	}
	c.link = true
	if k.sayLocked("b0", d, own(1)); d.said == nil {
		t.Error("it says nothing")
	}
	if k.sayLocked("b0", d, own(5000)); d.said != nil {
		t.Error("it says what it has said before")
	}
}

// TestSharedPoolSamples: a node that does not reach the hosts that it checks also checks other backends on them.
func TestSharedPoolSamples(t *testing.T) {
	t.Parallel()
	_, k := sharedPool(t, 10, 100)
	k.review(nil)
	hosts := make(map[host]*hostView)
	k.addHosts(hosts)
	for _, h := range hosts {
		h.checked = true
	}
	if n := k.sample(5, hosts, false); n != 0 {
		t.Errorf("%d backends on hosts that are checked", n)
	}
	if n := k.sample(5, hosts, true); n != 5 {
		t.Errorf("%d backends more, want 5", n)
	}
	for _, h := range hosts {
		h.reached = true
	}
	if n := k.sample(5, hosts, true); n != 0 {
		t.Errorf("%d backends on hosts that are reached", n)
	}
}

// TestSharedPoolBegins: a check that was not shared is, once it is another one.
func TestSharedPoolBegins(t *testing.T) {
	t.Parallel()
	c, k := sharedPool(t, 2, 1)
	check := func(sum string) {
		t.Helper()
		next := *k.check
		next.sharing.sum = sum
		if err := k.change(&next, false, c); err != nil {
			t.Fatal(err)
		}
	}
	check("")
	if k.share != nil || len(c.pools) != 0 || len(k.targets) != 1 {
		t.Errorf("not shared: %+v, %d pools, %d targets", k.share, len(c.pools), len(k.targets))
	}
	check("t")
	if k.share == nil || len(c.pools) != 1 || len(k.targets) != 1 {
		t.Errorf("shared: %+v, %d pools, %d targets", k.share, len(c.pools), len(k.targets))
	}
}

// BenchmarkReview reviews all duties, as after a change of the nodes.
func BenchmarkReview(b *testing.B) {
	for _, nodes := range []int{5, 100} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			_, k := sharedPool(b, nodes, 10_000)
			k.review(nil)
			for b.Loop() {
				k.review(nil)
			}
		})
	}
}
