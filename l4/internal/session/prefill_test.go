package session

import (
	"reflect"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/loop"
)

// TestPrefill holds that the prefill is what was added, in its order, whether it fits in one buffer or not; that only
// the client's bytes count as bytes to the backend; and that the buffers it came in are given back once.
func TestPrefill(t *testing.T) {
	l := Loop{Loop: new(loop.Loop)}
	fill := func(text string, done int) *loop.ByteQueue {
		q := new(loop.ByteQueue)
		q.Append(&l.Buffers, []byte(text))
		if done > 0 {
			q.Done(&l.Buffers, done)
		}
		return q
	}
	s := l.sessions.Take()
	header, early, late := fill("HEADER", 0), fill("xearly", 1), fill(string(make([]byte, loop.ScratchBytes)), 0)
	l.Prefill(s, header, false)
	l.Prefill(s, new(loop.ByteQueue), true)
	if got := string(s.in.rest()); got != "HEADER" || s.prefilled != 0 || s.in.writes != 1 {
		t.Fatalf("%q, %d of the client, %d writes", got, s.prefilled, s.in.writes)
	}
	l.Prefill(s, early, true)
	l.Prefill(s, late, true)
	want := "HEADERearly" + string(make([]byte, loop.ScratchBytes))
	if got := string(s.in.rest()); got != want || s.prefilled != 5+loop.ScratchBytes {
		t.Fatalf("%d bytes that begin with %.20q, %d of the client", len(got), got, s.prefilled)
	}
	for _, q := range []*loop.ByteQueue{header, early, late} {
		if !reflect.DeepEqual(*q, loop.ByteQueue{}) {
			t.Errorf("%d bytes are in a queue that was taken, or it has its buffer still", q.Size())
		}
	}
	l.release(&s.in)
	if s.in.held() {
		t.Error("released, and held")
	}
	const all = 20 // more than a loop keeps of a size
	for _, size := range []int{1, 10 << 10, loop.ScratchBytes} {
		taken := make(map[*byte]bool)
		for range all {
			b := &l.Buffers.Get(size)[0]
			if taken[b] {
				t.Errorf("a buffer for %d bytes was given back twice", size)
			}
			taken[b] = true
		}
	}
}
