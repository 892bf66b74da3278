package pool

import (
	"fmt"
	"testing"
)

// TestRevocations holds what revokes the leases on a backend, by the options, in the order of the changes.
func TestRevocations(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"keep all", Options{}, "[]"},
		{"close the unhealthy", Options{CloseOnUnhealthy: true}, "[ill unhealthy ill unhealthy]"},
		{"close the removed", Options{CloseOnRemove: true}, "[serviced removed gone removed found removed]"},
		{"close both", Options{CloseOnUnhealthy: true, CloseOnRemove: true},
			"[ill unhealthy serviced removed ill unhealthy gone removed found removed]"},
		{"try all", Options{CloseOnUnhealthy: true, TryAllWhenNone: true}, "[ill unhealthy ill unhealthy]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := made(t, tt.o, at("ill", 0, "", 0), at("serviced", 0, "", 0), at("drained", 0, "", 0), at("gone", 0, "", 0), at("well", 0, "", 0))
			got := []string{}
			p.OnRevoke(func(b *Backend, why Revocation) {
				if !b.Revoked() || b.inUse.Load() {
					t.Errorf("%s is told of with Revoked %v, in use %v", b.ID(), b.Revoked(), b.inUse.Load())
				}
				got = append(got, b.ID(), map[Revocation]string{RevokedUnhealthy: "unhealthy", RevokedRemoved: "removed"}[why])
			})
			must(t, p.SetVerdict("ill", Unhealthy, ""))
			must(t, p.SetMode("serviced", Maintenance))
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
			// The last one falls ill: with TryAllWhenNone it is in use all the same, and so keeps its sessions.
			must(t, p.SetVerdict("well", Unhealthy, ""))
			want := tt.want
			if tt.o.CloseOnUnhealthy && !tt.o.TryAllWhenNone {
				want = want[:len(want)-1] + " well unhealthy]"
			}
			if fmt.Sprint(got) != want {
				t.Errorf("told of %v, want %s", got, want)
			}
		})
	}
}

// TestVerdictsThatRevoke holds which verdicts end sessions: lag does not, whatever comes after it counts.
func TestVerdictsThatRevoke(t *testing.T) {
	for verdicts, want := range map[[2]Verdict]bool{
		{Healthy, Unhealthy}: true, {Healthy, WrongRole}: true, {Healthy, Lagging}: false, {Healthy, Unknown}: false,
		{Lagging, WrongRole}: true, {Unhealthy, WrongRole}: false, {WrongRole, Lagging}: false, {Unknown, Unhealthy}: true,
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
