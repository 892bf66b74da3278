package loop

import (
	"slices"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A flushing is a part of a loop that does nothing but rounds through a slab.
type flushing struct {
	loop   *Loop
	slab   Slab[thing, *thing]
	rounds Rounds
}

func (f *flushing) AfterEvents()               {}
func (f *flushing) OnTime()                    {}
func (f *flushing) EndTurn(events int)         { f.rounds.EndTurn(f.loop.Now, events) }
func (f *flushing) Due() (time.Duration, bool) { return f.rounds.Due() }
func (f *flushing) Close()                     {}

// TestLoopFlushes holds when a loop goes round to flush counters: some time after an event, as often as there are
// events, and not at all while all is quiet, so that it sleeps.
func TestLoopFlushes(t *testing.T) {
	l, err := New(0, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Discard()
	f := &flushing{loop: l}
	flushed := 0
	f.rounds = NewRounds(func(from int) int { return f.slab.Some(from, func(*thing) { flushed++ }) })
	l.Attach(f)
	const slice = sliceChunks * slabChunk
	want := func(what string, patience time.Duration, flushes int) {
		t.Helper()
		if got := l.patience(); got != patience {
			t.Fatalf("%s: it waits for %v, want %v", what, got, patience)
		}
		if flushed != flushes {
			t.Fatalf("%s: %d were flushed, want %d", what, flushed, flushes)
		}
	}
	const forever = -1
	for range 2 * slice { // two slices
		f.slab.Take().used = true
	}
	want("at first", forever, 0)
	f.EndTurn(1)
	want("after an event", flushEvery, 0)
	l.Now += flushEvery
	f.EndTurn(0)
	want("after the first slice", 0, slice)
	f.EndTurn(0)
	want("after the round", forever, 2*slice)

	f.EndTurn(1)
	l.Now += flushEvery
	f.EndTurn(1)
	f.EndTurn(0)
	want("an event right before the first slice", forever, 4*slice)

	f.EndTurn(1)
	l.Now += flushEvery
	f.EndTurn(0)
	f.EndTurn(1)
	want("an event after the first slice, for a value of it", flushEvery, 6*slice)
}

// TestSliceBounds holds that a slice is what bounds a turn's share of a walk. Tests of other packages count on its
// size, and on flushEvery.
func TestSliceBounds(t *testing.T) {
	var s Slab[thing, *thing]
	for range 5 * slabChunk {
		s.Take().used = true
	}
	var sizes []int
	for next := 0; next >= 0; {
		n := 0
		next = s.Some(next, func(*thing) { n++ })
		sizes = append(sizes, n)
	}
	if want := []int{256, 256, 128}; !slices.Equal(sizes, want) {
		t.Errorf("slices of %v values, want %v", sizes, want)
	}
	if sliceChunks*slabChunk > sock.EventBatch {
		t.Error("a slice is more than a batch of events")
	}
	if flushEvery != 5*time.Second {
		t.Errorf("rounds every %v, want 5 s", flushEvery)
	}
}
