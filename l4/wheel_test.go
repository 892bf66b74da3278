package l4

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestWheel holds that every timer fires in its own tick, whatever was armed, moved or stopped before, and that
// due never promises a later moment than the next one.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		w.now = rapid.Int64Range(0, wheelRange).Draw(t, "start")
		sessions := make([]session, 20)
		want := make(map[*session]int64)
		fire := func(due *timer) {
			s := due.session
			if at, ok := want[s]; !ok || at != w.now {
				t.Fatalf("fired at %d, wanted %d (%v)", w.now, at, ok)
			}
			delete(want, s)
		}
		for i := range sessions {
			sessions[i].timer.session = &sessions[i]
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			s := &sessions[rapid.IntRange(0, len(sessions)-1).Draw(t, "session")]
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				at := w.now + rapid.Int64Range(1, 1<<rapid.IntRange(0, 25).Draw(t, "far")).Draw(t, "at")
				w.arm(&s.timer, at)
				want[s] = at
			case 1:
				w.stop(&s.timer)
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
	var w wheel
	var s session
	s.timer.session = &s
	fired := 0
	w.arm(&s.timer, 5)
	w.advance(1000, func(*timer) {
		fired++
		w.arm(&s.timer, w.now+100)
	})
	if fired != 10 {
		t.Fatalf("fired %d times from 5 to 1000 every 100 ticks, want 10", fired)
	}
}

func BenchmarkWheel(b *testing.B) {
	var w wheel
	sessions := make([]session, 10_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range sessions {
		sessions[i].timer.session = &sessions[i]
		w.arm(&sessions[i].timer, 1+r.Int64N(6000))
	}
	for i := 0; b.Loop(); i++ {
		w.arm(&sessions[i%len(sessions)].timer, w.now+1+r.Int64N(6000))
		if i%100 == 0 {
			w.advance(w.now+1, func(t *timer) { w.arm(t, w.now+6000) })
		}
	}
}
