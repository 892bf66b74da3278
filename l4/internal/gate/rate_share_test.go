package gate

import (
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// TestRateShare holds that a listener admits its share of its rate, whether it delays or refuses, and that limits for
// one client are not divided.
func TestRateShare(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("web", 1, 1)
	admitted := func(from time.Duration) (n int) {
		for now := from; now < from+10*time.Second; now += time.Millisecond {
			var place Place
			if ls.AdmitSession(someone(), &place, false, now) == Admitted {
				ls.LeaveSession(place, someone().Addr.Addr())
				n++
			}
		}
		return n
	}
	ls.Set(Settings{Limits: Limits{Rate: rate.PerSecond(90, 9)}})
	g.SetRateShare(1.0 / 3)
	if n := admitted(time.Hour); n != 302 {
		t.Errorf("a third of 90 a second admits %d in 10 s", n)
	}
	g.SetRateShare(1)
	if n := admitted(2 * time.Hour); n != 908 {
		t.Errorf("90 a second admit %d in 10 s", n)
	}
	g.SetRateShare(0.5)
	ls.Set(Settings{Limits: Limits{ClientRate: rate.PerSecond(90, 9)}})
	if n := admitted(3 * time.Hour); n != 908 {
		t.Errorf("90 a second of one client admit %d in 10 s", n)
	}
	ls.Set(Settings{Limits: Limits{Rate: rate.PerSecond(10, 1), Over: OverDelay}})
	now := 4 * time.Hour
	if _, why := ls.Claim(now); why != Admitted {
		t.Errorf("no place: %d", why)
	}
	if again, why := ls.Claim(now); why != Often || again != now+200*time.Millisecond {
		t.Errorf("reason %d, again in %v", why, again-now)
	}
}
