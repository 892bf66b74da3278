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
		sharing: sharing{sum: "s", question: "q"},
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
