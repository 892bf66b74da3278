package pool

import (
	"errors"
	"testing"
	"time"
)

// TestAgentWeighs holds the weight in force, and that the operator's values stay as they are.
func TestAgentWeighs(t *testing.T) {
	for _, tt := range []struct {
		weight  uint32
		agent   Agent
		inForce uint32
	}{
		{4, Agent{}, 4}, {4, Agent{Weighs: true, Percent: 75}, 3}, {4, Agent{Weighs: true, Percent: 1}, 1},
		{4, Agent{Weighs: true}, 0}, {0, Agent{Weighs: true, Percent: 300}, 0},
		{256, Agent{Weighs: true, Percent: 300}, MaxWeight}, {1, Agent{Weighs: true, Percent: MaxAgentPercent}, MaxWeight},
	} {
		if got := tt.agent.weigh(tt.weight); got != tt.inForce {
			t.Errorf("%d with %q: %d, want %d", tt.weight, tt.agent, got, tt.inForce)
		}
	}
	p := made(t, Options{Algorithm: "round_robin"}, at("a", 0, "", 0), at("b", 0, "", 0))
	must(t, p.SetWeight("a", 8))
	must(t, p.SetWeight("b", 4))
	must(t, p.SetAgent("a", Agent{Weighs: true, Percent: 50}))
	if got := shareOf(t, p, "a", 1000); got != 0.5 {
		t.Errorf("a gets %v, want a half", got)
	}
	if b := p.Backends()[0]; b.Weight != 8 || b.Agent.String() != "50%" || len(p.Overrides()) != 2 {
		t.Errorf("it is %+v", b)
	}
}

// TestAgentIsAVoice holds who decides when the agent, the operator and the checks disagree, and what Explain says.
func TestAgentIsAVoice(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0))
	for i, step := range []struct {
		do   func() error
		want Obstacle
	}{
		{func() error { return p.SetAgent("a", Agent{Mode: Drain}) }, AgentForbids},
		{func() error { return p.SetMode("a", Maintenance) }, InMaintenance},
		{func() error { return p.SetAgent("a", Agent{}) }, InMaintenance}, // "ready" does not end what the operator wants
		{func() error { return p.SetAgent("a", Agent{Down: true, Reason: "disk"}) }, InMaintenance},
		{func() error { return p.SetMode("a", Ready) }, AgentForbids},
		{func() error { return p.SetVerdict("a", Unhealthy, "test") }, AgentForbids},
		{func() error { return p.SetAgent("a", Agent{}) }, NotHealthy},
		{func() error { return p.SetVerdict("a", Healthy, "test") }, InOtherZone},
		{func() error { return p.SetAgent("a", Agent{Weighs: true}) }, AgentForbids},
	} {
		must(t, step.do())
		x := p.Explain(from(1))
		switch {
		case step.want == InOtherZone && x.Backend != "a":
			t.Errorf("after step %d: %+v, want a", i, x)
		case step.want != InOtherZone && (len(x.Others) != 1 || x.Others[0].Why != step.want):
			t.Errorf("after step %d: %+v, want %v", i, x.Others, step.want)
		}
	}
}

// TestAgentLimits holds that the lower limit counts, and that sessions wait at the agent's.
func TestAgentLimits(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 5))
	must(t, p.SetAgent("a", Agent{MaxSessions: 2}))
	ids, leases := picks(p, 3)
	wantIDs(t, "with the agent's limit", ids, "a", "a", "busy")
	if x := p.Explain(from(1)); x.Others[0].Reason != "it has 2 of 2 sessions" {
		t.Errorf("explained as %+v", x.Others)
	}
	l := &line{pool: p}
	l.wait(t, "w")
	must(t, p.SetAgent("a", Agent{MaxSessions: 100}))
	wantIDs(t, "with a higher one", l.names(), "w")
	picks(p, 2)
	ids, _ = picks(p, 1)
	wantIDs(t, "with its own limit", ids, "busy")
	leases[0].Release(Served)
}

// TestAgentRevokes holds that down and maint end sessions where the options say so, and that a new agent of another
// backend of the same id has said nothing yet.
func TestAgentRevokes(t *testing.T) {
	p := made(t, Options{CloseOnUnhealthy: true, CloseOnRemove: true}, at("a", 0, "", 0))
	var got []Revocation
	p.OnRevoke(func(_ *Backend, r Revocation) { got = append(got, r) })
	must(t, p.SetAgent("a", Agent{Down: true}))
	must(t, p.SetAgent("a", Agent{Down: true, Weighs: true, Percent: 5}))
	must(t, p.SetAgent("a", Agent{}))
	must(t, p.SetAgent("a", Agent{Mode: Maintenance}))
	if len(got) != 2 || got[0] != RevokedUnhealthy || got[1] != RevokedRemoved {
		t.Errorf("revoked are %v", got)
	}
	for _, bad := range []Agent{{Mode: 9}, {Percent: MaxAgentPercent + 1}, {MaxSessions: -1}} {
		var invalid *InvalidBackendError
		if err := p.SetAgent("a", bad); !errors.As(err, &invalid) {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	if err := p.SetAgent("nobody", Agent{}); !errors.Is(err, ErrUnknownBackend) {
		t.Errorf("an unknown backend: %v", err)
	}
}
