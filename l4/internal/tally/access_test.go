package tally

import "testing"

// TestAccessLines holds which sessions have a line: each loop counts those that ended in order by itself.
func TestAccessLines(t *testing.T) {
	const n = 1000
	for _, tt := range []struct {
		every  int
		probes bool
		why    Reason
		want   int
	}{
		{1, true, ClientClosed, n},
		{0, true, ClientClosed, 0},
		{0, true, ConnectFailed, 0},
		{-1, true, ClientClosed, 0},
		{-1, true, BackendReset, n},
		{-1, true, NoBackend, n},
		{100, true, BackendClosed, n / 100},
		{100, true, Idle, n},
		{3, true, Answered, n / 3},
		{1, true, Probe, n},
		{1, false, Probe, 0},
		{100, true, Probe, n / 100},
	} {
		var a AccessLog
		var sample Sample
		a.Set(tt.every, tt.probes)
		if every, probes := a.Settings(); every != tt.every || probes != tt.probes {
			t.Errorf("Settings are %d, %t", every, probes)
		}
		got := 0
		for range n {
			if a.Logs(tt.why, tt.why.InOrder(), &sample) {
				got++
			}
		}
		if got != tt.want {
			t.Errorf("every %d, probes %t: %d of %d with %v are logged, want %d", tt.every, tt.probes, got, n, tt.why, tt.want)
		}
	}
	var a AccessLog
	var one, other Sample
	a.Set(2, true)
	if a.Logs(ClientClosed, true, &one) || a.Logs(ClientClosed, true, &other) || !a.Logs(ClientClosed, true, &one) {
		t.Error("loops share a count")
	}
	for why := NoReason + 1; why < ReasonCount; why++ {
		if why.InOrder() && (why.Abrupt() || why >= MaxSessions) {
			t.Errorf("%v is both in order and not", why)
		}
	}
}

// BenchmarkAccessLines is what the choice costs a session.
func BenchmarkAccessLines(b *testing.B) {
	for name, every := range map[string]int{"all": 1, "errors": -1, "sampled": 100, "none": 0} {
		b.Run(name, func(b *testing.B) {
			var a AccessLog
			var sample Sample
			a.Set(every, true)
			for b.Loop() {
				a.Logs(ClientClosed, ClientClosed.InOrder(), &sample)
			}
		})
	}
}
