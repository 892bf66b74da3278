package loop

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheel holds that every timer fires in its own tick, whatever was armed, moved or stopped before, and that
// due never promises a later moment than the next one.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Wheel[thing]
		w.now = rapid.Int64Range(0, wheelRange).Draw(t, "start")
		if rapid.Bool().Draw(t, "late") {
			w.now += 1<<32 - wheelRange // a timer's 32 bits start again
		}
		things := make([]thing, 20)
		want := make(map[*thing]int64)
		fire := func(s *thing) {
			if at, ok := want[s]; !ok || at != w.now {
				t.Fatalf("fired at %d, wanted %d (%v)", w.now, at, ok)
			}
			delete(want, s)
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			s := &things[rapid.IntRange(0, len(things)-1).Draw(t, "thing")]
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				at := w.now + rapid.Int64Range(1, 1<<rapid.IntRange(0, 25).Draw(t, "far")).Draw(t, "at")
				s.timer.of = s
				w.arm(&s.timer, at)
				want[s] = at
			case 1:
				w.Stop(&s.timer)
				delete(want, s)
			case 2:
				now := w.now + rapid.Int64Range(0, 1<<rapid.IntRange(0, 20).Draw(t, "on")).Draw(t, "by")
				first, ok := w.due()
				for _, at := range want {
					if !ok || at < first {
						t.Fatalf("due at %d (%v), but a timer at %d", first, ok, at)
					}
				}
				w.advance(now, fire)
				for _, at := range want {
					if at <= now {
						t.Fatalf("at %d a timer for %d has not fired", now, at)
					}
				}
			}
			if w.armed != len(want) {
				t.Fatalf("%d armed, wanted %d", w.armed, len(want))
			}
		}
	})
}

// TestWheelRearm holds that a timer may be armed again while it fires.
func TestWheelRearm(t *testing.T) {
	var w Wheel[thing]
	var s thing
	fired := 0
	s.timer.of = &s
	w.arm(&s.timer, 5)
	w.advance(1000, func(*thing) {
		fired++
		w.arm(&s.timer, w.now+100)
	})
	if fired != 10 {
		t.Fatalf("fired %d times from 5 to 1000 every 100 ticks, want 10", fired)
	}
}

// TestWheelFar holds that a timer for a moment that is too far away fires early, and not at once.
func TestWheelFar(t *testing.T) {
	var w Wheel[thing]
	var s thing
	s.timer.of = &s
	w.arm(&s.timer, 1<<40)
	fired := 0
	w.advance(farthest-1, func(*thing) { fired++ })
	if fired != 0 {
		t.Fatal("fired before the farthest moment")
	}
	w.advance(farthest, func(*thing) { fired++ })
	if fired != 1 {
		t.Fatalf("fired %d times at the farthest moment, want once", fired)
	}
}

func BenchmarkWheel(b *testing.B) {
	var w Wheel[thing]
	things := make([]thing, 10_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range things {
		things[i].timer.of = &things[i]
		w.arm(&things[i].timer, 1+r.Int64N(6000))
	}
	for i := 0; b.Loop(); i++ {
		w.arm(&things[i%len(things)].timer, w.now+1+r.Int64N(6000))
		if i%100 == 0 {
			w.advance(w.now+1, func(t *thing) { w.arm(&t.timer, w.now+6000) })
		}
	}
}

// TestWheelArm holds that a timer does not fire before the moment it is armed for, nor a Tick or more after it.
func TestWheelArm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Wheel[thing]
		var s thing
		at := time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "at"))
		w.Arm(&s.timer, &s, at)
		fired := 0
		w.Advance(at-1, func(*thing) { fired++ })
		if fired > 0 && at%Tick != 0 {
			t.Fatal("fired early")
		}
		w.Advance(at+Tick-1, func(of *thing) {
			if of != &s {
				t.Fatal("fired for another one")
			}
			fired++
		})
		if _, armed := w.Due(); fired != 1 || armed {
			t.Fatalf("fired %d times, armed %v", fired, armed)
		}
	})
}
