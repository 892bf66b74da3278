package dns

import "github.com/limeload/limeload-l4/l4/internal/dns/dnscache"

// A heldAnswers is answers for a session whose client does not take those before them. They are not written before
// there is room, and share their memory with all others who get the same answer: what one answer costs does not grow
// with those who wait for it. Used onLoop only; its zero value is empty.
type heldAnswers struct {
	line []dnscache.Held
	from int // those before it are gone
}

func (h *heldAnswers) size() int { return len(h.line) - h.from }

// add makes an answer the last.
func (h *heldAnswers) add(held dnscache.Held) {
	if len(h.line) == cap(h.line) && h.from > 0 {
		n := copy(h.line, h.line[h.from:])
		clear(h.line[n:])
		h.line, h.from = h.line[:n], 0
	}
	h.line = append(h.line, held)
}

// next takes the first one out. The caller releases it.
func (h *heldAnswers) next() dnscache.Held {
	first := h.line[h.from]
	h.line[h.from] = dnscache.Held{}
	if h.from++; h.from == len(h.line) {
		*h = heldAnswers{}
	}
	return first
}

// release gives all of them up.
func (h *heldAnswers) release() {
	for i := range h.line[h.from:] {
		h.line[h.from+i].Release()
	}
	*h = heldAnswers{}
}

// answerSession gives a session the i-th of some answers, if the session is still there.
func (f *forwarder) answerSession(c *client, answers dnscache.Answers[client], i int) {
	s, alive := c.session.Get()
	if !alive {
		return
	}
	t, asking := s.Preface().(*preface)
	if !asking {
		return
	}
	t.waiting--
	switch {
	case t.overrun:
	case t.out.Size() < maxOutbox && t.held.size() == 0:
		t.out.add(&f.loop.Buffers, answers.Append(f.loop.answer[:0], i))
	default:
		held, ok := f.resolver.Hold(answers, i)
		if ok {
			t.held.add(held)
		} else {
			t.overrun = true
		}
	}
	t.later(s)
}

// writeHeld writes held answers as far as the outbox has room.
func (t *preface) writeHeld() {
	for t.held.size() > 0 && t.out.Size() < maxOutbox {
		held := t.held.next()
		t.out.add(&t.loop.Buffers, held.Append(t.loop.answer[:0]))
		held.Release()
	}
}
