package daemon

import (
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// TestWorryingVerdicts holds which changes of verdicts are warnings: a role other than the wanted one is as intended,
// unless the backend served.
func TestWorryingVerdicts(t *testing.T) {
	for _, tt := range []struct {
		from, to pool.Verdict
		want     bool
	}{
		{pool.Unknown, pool.Healthy, false}, {pool.Unhealthy, pool.Healthy, false},
		{pool.Unknown, pool.WrongRole, false}, {pool.Unhealthy, pool.WrongRole, false},
		{pool.Lagging, pool.WrongRole, false},
		{pool.Healthy, pool.WrongRole, true}, {pool.Fallback, pool.WrongRole, true},
		{pool.Unknown, pool.Fallback, false}, {pool.Healthy, pool.Fallback, false},
		{pool.WrongRole, pool.Unhealthy, true}, {pool.Fallback, pool.Unhealthy, true},
		{pool.Healthy, pool.Lagging, true}, {pool.Healthy, pool.Unknown, true},
	} {
		if got := worrying(tt.from, tt.to); got != tt.want {
			t.Errorf("from %v to %v is worrying: %v", tt.from, tt.to, got)
		}
	}
}

// TestFallbackIsVisible holds what the API says while the primary serves for want of replicas.
func TestFallbackIsVisible(t *testing.T) {
	d := testDaemon(t, parsed(t, `
[pool.reads]
backends = [{ address = "127.0.0.1:7998", name = "b1" }, { address = "127.0.0.1:7997", name = "b2" }]
health = { type = "redis", role = "replica", fallback = "primary" }
`))
	p := d.pools["reads"].pool
	for id, v := range map[string]pool.Verdict{"b1": pool.Fallback, "b2": pool.Unhealthy} {
		if err := p.SetVerdict(id, v, "because"); err != nil {
			t.Fatal(err)
		}
	}
	x, err := d.Explain(admin.ExplainQuery{Pool: "reads", Client: "10.0.0.1"})
	if err != nil || x.Backend != "b1" ||
		!strings.Contains(x.Text, "No replica is eligible, and fallback has the primary serve.") {
		t.Errorf("explained as %+v, %v", x, err)
	}
	answer := d.pools["reads"].answer(d.config(), &d.config().Pools[0])
	if !answer.FallsBack || answer.Eligible != 1 || answer.Healthy != 0 {
		t.Errorf("the pool is %+v", answer)
	}
	if err := p.SetVerdict("b2", pool.Healthy, ""); err != nil {
		t.Fatal(err)
	}
	x, err = d.Explain(admin.ExplainQuery{Pool: "reads", Client: "10.0.0.1"})
	if err != nil || x.Backend != "b2" || x.Others[0].Why != "fallback" {
		t.Errorf("with a replica, explained as %+v, %v", x, err)
	}
}
