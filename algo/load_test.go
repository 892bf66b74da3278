package algo

import "testing"

func TestLoadCounts(t *testing.T) {
	var l Load
	for i, step := range []struct {
		do   func() int64
		want int64
	}{{l.Acquire, 1}, {l.Acquire, 2}, {l.Leases, 2}, {l.Release, 1}, {l.Release, 0}, {l.Leases, 0}} {
		if got := step.do(); got != step.want {
			t.Errorf("step %d = %d, want %d", i, got, step.want)
		}
	}
}

func TestLoadBelowZeroPanics(t *testing.T) {
	wantPanic(t, func() { new(Load).Release() })
}
