package listen

import (
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// newEnding makes the ending of a binding of so many loops. closes counts how often the sockets are to be closed.
func newEnding(loops int) (e *Ending, closes *int) {
	closes = new(int)
	e = &Ending{gone: make(chan struct{}), close: func() { *closes++ }}
	e.admitting.Store(int32(loops))
	return e, closes
}

// TestEnding holds that sockets are closed, once, when every loop has left them and nobody holds them.
func TestEnding(t *testing.T) {
	for _, tt := range []struct {
		name  string
		loops int
		steps string // H holds, R releases, L is a loop that leaves, ! is where the sockets are to be closed
	}{
		{"nobody holds", 2, "LL!"},
		{"one loop", 1, "L!"},
		{"released before", 2, "HRLL!"},
		{"released between", 2, "HLRL!"},
		{"released afterwards", 2, "HLLR!"},
		{"two hold", 2, "HHLLRR!"},
		{"held between", 2, "LHLR!"},
		{"held and released between", 2, "LHRL!"},
		{"one holds after another", 1, "HHLRHRR!"},
		{"held once more afterwards", 1, "L!HR"},
		{"not left", 2, "HRHRL"},
		{"held for ever", 2, "HHLLR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, closes := newEnding(tt.loops)
			want, held := 0, 0
			for i, step := range tt.steps {
				switch step {
				case 'H':
					e.Hold()
					held++
				case 'R':
					e.Release()
					held--
				case 'L':
					e.Left()
				default:
					continue
				}
				if strings.HasPrefix(tt.steps[i+1:], "!") {
					want++
				}
				if *closes != want {
					t.Fatalf("after %s the sockets were closed %d times, want %d", tt.steps[:i+1], *closes, want)
				}
				if e.Held() != (held > 0) {
					t.Fatalf("after %s they are held: %v", tt.steps[:i+1], e.Held())
				}
			}
		})
	}
}

// TestEndingOnce holds of any order of steps what TestEnding does of some. A flow begins only where a loop admits
// clients.
func TestEndingOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loops := rapid.IntRange(1, 4).Draw(t, "loops")
		e, closes := newEnding(loops)
		admitting, held := loops, 0
		for admitting > 0 || held > 0 {
			switch rapid.SampledFrom([]string{"hold", "release", "leave"}).Draw(t, "step") {
			case "hold":
				if admitting > 0 && held < 5 {
					e.Hold()
					held++
				}
			case "release":
				if held > 0 {
					held--
					e.Release()
				}
			case "leave":
				if admitting > 0 {
					admitting--
					e.Left()
				}
			}
			if want := admitting == 0 && held == 0; (*closes == 1) != want || *closes > 1 {
				t.Fatalf("%d loops admit, %d hold, and the sockets were closed %d times", admitting, held, *closes)
			}
		}
	})
}

// TestEndingOfLoops holds that loops which hold, release and leave at the same time close the sockets once, and not
// before all have left.
func TestEndingOfLoops(t *testing.T) {
	const loops, rounds, flows = 4, 200, 50
	for range rounds {
		e := &Ending{gone: make(chan struct{})}
		var closes, left int
		var mu sync.Mutex // guards closes and left
		e.close = func() {
			mu.Lock()
			defer mu.Unlock()
			closes++
			if left != loops {
				t.Errorf("closed when %d of %d loops have left", left, loops)
			}
		}
		e.admitting.Store(loops)
		var running sync.WaitGroup
		for range loops {
			running.Go(func() {
				for i := range flows {
					e.Hold()
					if i%2 == 0 {
						e.Release()
					}
				}
				mu.Lock()
				left++
				mu.Unlock()
				e.Left()
				for range flows / 2 {
					e.Release()
				}
			})
		}
		running.Wait()
		if closes != 1 || e.Held() {
			t.Fatalf("closed %d times, held %v", closes, e.Held())
		}
	}
}

// TestEndingIsGone holds that it is over with the last socket, and that a loop which never ran may open and close its
// own before the next one does.
func TestEndingIsGone(t *testing.T) {
	e, _ := newEnding(2)
	e.Opened()
	e.Opened()
	e.Closed()
	if e.IsGone() {
		t.Error("it is over with one socket open")
	}
	e.Closed()
	<-e.Gone()
	if !e.IsGone() {
		t.Error("it is not over when all sockets are closed")
	}

	never, _ := newEnding(2)
	for range 2 {
		never.Opened()
		never.Closed()
	}
	<-never.Gone()
}
