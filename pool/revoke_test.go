package pool

import (
	"fmt"
	"net/netip"
	"testing"
)

// revocations records the pool's revocations as ids, with "-" for a backend that was removed or is in maintenance; take
// returns those since its last call.
func revocations(t testing.TB, p *Pool) (take func() []string) {
	var revoked []string
	p.OnRevoke(func(b *Backend, why Revocation) {
		if !b.Revoked() || b.inUse.Load() {
			t.Errorf("%s is revoked with Revoked %v, in use %v", b.ID(), b.Revoked(), b.inUse.Load())
		}
		revoked = append(revoked, map[Revocation]string{RevokedUnhealthy: "", RevokedRemoved: "-"}[why]+b.ID())
	})
	return func() []string {
		ids := revoked
		revoked = nil
		return ids
	}
}

// TestRevocations holds which changes revoke the leases on a backend under which options, in the order of the changes.
func TestRevocations(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		want []string
	}{
		{"keep all", Options{}, nil},
		{"close the unhealthy", Options{CloseOnUnhealthy: true}, []string{"ill", "ill"}},
		{"close the removed", Options{CloseOnRemove: true}, []string{"-serviced", "-gone", "-found"}},
		{"close both", Options{CloseOnUnhealthy: true, CloseOnRemove: true},
			[]string{"ill", "-serviced", "ill", "-gone", "-found"}},
		{"try all", Options{CloseOnUnhealthy: true, TryAllWhenNone: true}, []string{"ill", "ill"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := made(t, tt.o, at("ill", 0, "", 0), at("serviced", 0, "", 0), at("drained", 0, "", 0),
				at("gone", 0, "", 0), at("well", 0, "", 0))
			revoked := revocations(t, p)
			must(t, p.SetVerdict("ill", Unhealthy, ""))
			must(t, p.SetMode("serviced", Maintenance))
			must(t, p.SetWeight("serviced", 3)) // which is no news
			must(t, p.SetMode("serviced", Drain))
			must(t, p.SetMode("drained", Drain))
			must(t, p.SetVerdict("drained", Unknown, ""))
			must(t, p.SetVerdict("ill", Healthy, ""))
			p.mu.Lock()
			if b := p.byID["ill"].backend; b.Revoked() {
				t.Error("a backend that recovered is still revoked")
			}
			p.mu.Unlock()
			must(t, p.SetVerdict("ill", Unhealthy, ""))
			must(t, p.Remove("gone"))
			_, err := p.Reconcile("file", []Spec{at("found", 0, "", 0)})
			must(t, err)
			_, err = p.Reconcile("file", nil)
			must(t, err)
			// The last one becomes unhealthy: with TryAllWhenNone it stays in use, and so keeps its sessions.
			must(t, p.SetVerdict("well", Unhealthy, ""))
			want := tt.want
			if tt.o.CloseOnUnhealthy && !tt.o.TryAllWhenNone {
				want = append(want, "well")
			}
			wantIDs(t, "revoked", revoked(), want...)
		})
	}
}

// TestVerdictsThatRevoke holds which verdicts end sessions: lag does not, but a later verdict does.
func TestVerdictsThatRevoke(t *testing.T) {
	for verdicts, want := range map[[2]Verdict]bool{
		{Healthy, Unhealthy}: true, {Healthy, WrongRole}: true, {Healthy, Lagging}: false, {Healthy, Unknown}: false,
		{Lagging, WrongRole}: true, {Unhealthy, WrongRole}: false, {WrongRole, Lagging}: false,
		{Unknown, Unhealthy}: true,
	} {
		p := made(t, Options{CloseOnUnhealthy: true}, at("a", 0, "", 0))
		must(t, p.SetVerdict("a", verdicts[0], ""))
		var revoked bool
		p.OnRevoke(func(*Backend, Revocation) { revoked = true })
		must(t, p.SetVerdict("a", verdicts[1], ""))
		if revoked != want {
			t.Errorf("from %v to %v revokes the leases: %v, want %v", verdicts[0], verdicts[1], revoked, want)
		}
	}
}

// TestRevocationOfTheTried holds that while all backends are tried no leases are revoked, except on one that turns out
// to have the wrong role, even if it was unhealthy before.
func TestRevocationOfTheTried(t *testing.T) {
	p := pair(t, Options{CloseOnUnhealthy: true, TryAllWhenNone: true})
	_, leases := picks(p, 2)
	a := leases[0].Backend()
	revoked := revocations(t, p)
	for _, step := range []struct {
		judgements []Judgement
		want       []string
		revoked    bool // a is
	}{
		{[]Judgement{{"a", Unhealthy, ""}}, []string{"a"}, true},
		{[]Judgement{{"b", Unhealthy, ""}}, nil, false}, // both are tried again
		{[]Judgement{{"a", WrongRole, ""}}, []string{"a"}, true},
		{[]Judgement{{"a", Unhealthy, ""}}, nil, false},
		{[]Judgement{{"a", Lagging, ""}}, nil, false},
		{[]Judgement{{"a", Healthy, ""}, {"b", Healthy, ""}}, nil, false},
		{[]Judgement{{"b", Unhealthy, ""}, {"a", Unhealthy, ""}}, nil, false},
		{[]Judgement{{"b", Healthy, ""}}, nil, false}, // what it has it keeps
		{[]Judgement{{"a", WrongRole, ""}}, []string{"a"}, true},
		{[]Judgement{{"a", Unhealthy, ""}}, nil, true},
		{[]Judgement{{"a", Unknown, ""}}, nil, true}, // until it is eligible again
		{[]Judgement{{"a", Healthy, ""}}, nil, false},
	} {
		must(t, p.SetVerdicts(step.judgements...))
		wantIDs(t, fmt.Sprintf("revoked after %v", step.judgements), revoked(), step.want...)
		if a.Revoked() != step.revoked {
			t.Errorf("after %v a is revoked: %v, want %v", step.judgements, a.Revoked(), step.revoked)
		}
	}
}

// TestRevocationsOfOneCall holds that all backends of one call are out of use before the first revocation, that
// revocations are in the order of the changes, and that each function of OnRevoke is called.
func TestRevocationsOfOneCall(t *testing.T) {
	p := made(t, Options{CloseOnUnhealthy: true, CloseOnRemove: true}, at("a", 0, "", 0), at("b", 0, "", 0),
		at("c", 0, "", 0))
	first, second := revocations(t, p), revocations(t, p)
	p.OnRevoke(func(*Backend, Revocation) {
		if l, err := p.Pick(PickContext{}); err != ErrNoBackend {
			t.Errorf("while it is revoked, %s can be picked", l.Backend().ID())
		}
	})
	must(t, p.SetVerdicts(Judgement{"c", Unhealthy, ""}, Judgement{"a", WrongRole, ""}, Judgement{"b", Unhealthy, ""},
		Judgement{"c", Lagging, ""}))
	wantIDs(t, "the first gets", first(), "a", "b") // c lags only, as it was judged last
	wantIDs(t, "the second gets", second(), "a", "b")
}

// TestRevocationOfTheReplaced holds that the old backend is revoked when a source moves a backend or puts it into
// maintenance.
func TestRevocationOfTheReplaced(t *testing.T) {
	p := made(t, Options{CloseOnRemove: true})
	answer := []Spec{at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0)}
	reconcile := func() {
		t.Helper()
		_, err := p.Reconcile("dns", answer)
		must(t, err)
	}
	reconcile()
	revoked := revocations(t, p)
	_, leases := picks(p, 3)
	answer[0].Addr = At(netip.MustParseAddrPort("127.9.9.9:9"))
	answer[1].Mode, answer[2].Mode = Maintenance, Drain
	reconcile()
	wantIDs(t, "revoked", revoked(), "-a", "-b")
	for _, l := range leases {
		if b := l.Backend(); b.Revoked() != (b.ID() != "c") {
			t.Errorf("the lease on %s is revoked: %v", b.ID(), b.Revoked())
		}
	}
	ids, fresh := picks(p, 1)
	if ids[0] != "a" || fresh[0].Backend().Revoked() || fresh[0].Backend() == leases[0].Backend() {
		t.Errorf("the new one is %v, revoked: %v", ids, fresh[0].Backend().Revoked())
	}
	answer[1].Mode = Ready
	reconcile()
	if b := leases[1].Backend(); b.Revoked() {
		t.Error("back from maintenance it is still revoked")
	}
}
