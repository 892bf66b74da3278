package tally

import (
	"crypto/tls"
	"maps"
	"sync/atomic"
	"testing"
	"time"
)

// TestCounts holds that each counter has a name of its own, and that counts add up over loops and processes.
func TestCounts(t *testing.T) {
	loops := make([]Counters, 2)
	seen := make(map[string]bool)
	i := uint64(0)
	loops[0].each(func(name string, n *atomic.Uint64) {
		if seen[name] {
			t.Errorf("%q stands for two counters", name)
		}
		seen[name] = true
		i++
		n.Store(i)
	})
	loops[1].Ended[Idle].Add(1000)
	loops[1].Handshake(BackendSide, tls.VersionTLS13, true)
	loops[1].Duration.Observe(3 * time.Second)
	counts := Counts(loops)
	counts["unknown"] = 1
	other := make([]Counters, 1)
	other[0].AddCounts(counts)
	delete(counts, "unknown")
	if again := Counts(other); !maps.Equal(counts, again) {
		t.Errorf("%v became %v", counts, again)
	}
	var was, is Histogram
	was.Merge(&loops[0].Duration)
	was.Merge(&loops[1].Duration)
	is.Merge(&other[0].Duration)
	if was.Count != is.Count || was.Sum != is.Sum {
		t.Errorf("%d times and %v became %d and %v", was.Count, was.Sum, is.Count, is.Sum)
	}
	for _, r := range Reasons() {
		if ReasonNamed(r.String()) != r {
			t.Errorf("%v is not found by its name", r)
		}
	}
	if r := ReasonNamed("unheard of"); r != NoReason {
		t.Errorf("a reason without a name is %v", r)
	}
}
