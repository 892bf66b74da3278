package session_test

import "testing"

// TestPrefill holds that the prefill is what was added, in its order, whether it fits in one buffer or not; that only
// the client's bytes count as bytes to the backend; and that the buffers it came in are given back.
func TestPrefill(t *testing.T) {
	var l loop
	fill := func(text string, done int) *streamBuffer {
		b := new(streamBuffer)
		b.append(&l, []byte(text))
		if done > 0 {
			b.done(&l, done)
		}
		return b
	}
	s := l.sessions.take()
	header, early, late := fill("HEADER", 0), fill("xearly", 1), fill(string(make([]byte, scratchBytes)), 0)
	l.prefill(s, header, false)
	l.prefill(s, new(streamBuffer), true)
	if got := string(s.in.kept); got != "HEADER" || s.prefilled != 0 || s.in.writes != 1 {
		t.Fatalf("%q, %d of the client, %d writes", got, s.prefilled, s.in.writes)
	}
	l.prefill(s, early, true)
	l.prefill(s, late, true)
	want := "HEADERearly" + string(make([]byte, scratchBytes))
	if got := string(s.in.kept); got != want || s.prefilled != 5+scratchBytes {
		t.Fatalf("%d bytes that begin with %.20q, %d of the client", len(got), got, s.prefilled)
	}
	for _, b := range []*streamBuffer{header, early, late} {
		if b.buf != nil || b.size() != 0 {
			t.Errorf("%d bytes are in a buffer that was taken", b.size())
		}
	}
	l.release(&s.in)
	if s.in.held() {
		t.Error("released, and held")
	}
	for c, free := range l.buffers.free {
		for i, b := range free {
			for _, other := range free[:i] {
				if &b[0] == &other[0] {
					t.Errorf("a buffer of class %d was given back twice", c)
				}
			}
		}
	}
}
