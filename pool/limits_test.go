package pool

import (
	"errors"
	"math"
	"testing"
	"time"
)

// TestLimits asks for the values at both ends of what is allowed, and the next ones.
func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		check func(n int) error
		most  int
	}{
		"weight": {CheckWeight, MaxWeight}, "max_sessions": {CheckMaxSessions, MaxSessionLimit},
		"tier": {CheckTier, MaxTier},
		"deadline_seconds": {func(n int) error { _, err := DrainDeadline(float64(n)); return err },
			int(MaxDrain / time.Second)},
	} {
		for n, allowed := range map[int]bool{-1: false, 0: true, 1: true, tt.most: true, tt.most + 1: false,
			math.MaxInt: false, math.MinInt: false} {
			err := tt.check(n)
			var refused *InvalidBackendError
			if allowed && err != nil || !allowed && (!errors.As(err, &refused) || refused.Field != name) {
				t.Errorf("%s of %d: %v", name, n, err)
			}
		}
	}
}

func TestDrainDeadline(t *testing.T) {
	if got, err := DrainDeadline(1.5); got != 1500*time.Millisecond || err != nil {
		t.Errorf("1.5 s is %v, %v", got, err)
	}
	for _, seconds := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -0.1, 2592000.1} {
		if got, err := DrainDeadline(seconds); err == nil {
			t.Errorf("%g s is %v, and no error", seconds, got)
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range Modes() {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%v is read as %v, %v", m, got, err)
		}
	}
	for _, name := range []string{"", "Ready", "mode(7)"} {
		if _, err := ParseMode(name); err == nil {
			t.Errorf("%q is a mode", name)
		}
	}
}
