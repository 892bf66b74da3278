package session

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestTimeoutsCountByCause changes at random moments whether a backend is eligible while a session waits, and looks at
// the session when it wants to be looked at. It is refused when the time under its present cause is as long as that
// cause allows, with the cause's reason: never sooner, and hardly later. Without a hold all time counts for the queue.
func TestTimeoutsCountByCause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		millis := func(most int, what string) time.Duration {
			return time.Duration(rapid.IntRange(1, most).Draw(t, what)) * time.Millisecond
		}
		now := time.Hour
		o := pool.Options{Name: "p", Algorithm: "round_robin", Initial: pool.Healthy, HoldMax: 1, QueueMax: 1,
			QueueTimeout: millis(10_000, "queue"), Clock: func() time.Duration { return now }}
		if rapid.IntRange(0, 3).Draw(t, "with a hold") > 0 {
			o.HoldTimeout = millis(10_000, "hold")
		}
		p, err := pool.New(o)
		if err == nil {
			err = p.Add(pool.Spec{ID: "b", Addr: pool.At(netip.MustParseAddrPort("127.0.0.1:80")), Weight: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		barren := rapid.Bool().Draw(t, "barren")
		change := func() {
			mode := pool.Ready
			if barren {
				mode = pool.Drain
			}
			if err := p.SetMode("b", mode); err != nil {
				t.Fatal(err)
			}
		}
		change()
		l := &Loop{Loop: &loop.Loop{Now: now}}
		s := &Session{pool: p, phase: queued, waiter: &wait{
			waiting: now, queueTimeout: o.QueueTimeout, holdTimeout: o.HoldTimeout, barren: p.Barren(),
		}}
		var held, queued time.Duration
		spend := func(d time.Duration) {
			if now += d; barren && o.HoldTimeout > 0 {
				held += d
			} else {
				queued += d
			}
		}
		toChange := millis(5_000, "to a change")
		for {
			l.Now = now
			at, why := l.waitEnds(s)
			over := queued - o.QueueTimeout
			want := tally.QueueTimeout
			switch {
			case barren && o.HoldTimeout > 0:
				over, want = held-o.HoldTimeout, tally.HoldTimeout
			case barren:
				want = tally.NoBackend
			}
			if at <= now {
				if over < 0 || why != want {
					t.Fatalf("it is refused for %v, %v before the end of %v", why, -over, want)
				}
				return
			}
			if over >= 0 {
				t.Fatalf("it is not refused %v after the end of %v", over, want)
			}
			for at > now { // until it is looked at
				if step := at - now; step < toChange {
					toChange -= step
					spend(step)
					continue
				}
				spend(toChange)
				barren = !barren
				change()
				toChange = millis(5_000, "to the next change")
				// A change is seen betweenCauses later, or when the present cause's time would have been over.
				if at-now > max(betweenCauses, o.QueueTimeout-queued, o.HoldTimeout-held) {
					t.Fatalf("it is looked at %v after a change", at-now)
				}
			}
		}
	})
}
