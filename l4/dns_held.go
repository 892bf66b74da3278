package l4

import "github.com/limeload/limeload-l4/l4/internal/dnscache"

// A heldAnswers is answers of a talk whose client does not take those before them. They are not written before there is
// room, and share their memory with all others who get the same: what one answer costs does not grow with those who
// wait for it. Used onLoop only; its zero value is empty.
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

// next takes the first one out, which the caller has to release.
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

// answerTalk gives a session the answer that it has waited for, if it is there still.
func (k *dnsAsker) answerTalk(s *session, generation uint32, answers dnscache.Answers[dnsClient], i int) {
	if s.generation != generation {
		return
	}
	l, t := k.loop, s.talk
	t.waiting--
	switch {
	case t.overrun:
	case t.out.size() < maxTalkBytes && t.held.size() == 0:
		t.out.add(l, answers.Append(l.dns.answer[:0], i))
	default:
		held, ok := k.resolver.Hold(answers, i)
		if ok {
			t.held.add(held)
		} else {
			t.overrun = true
		}
	}
	l.talkLater(s)
}

// writeHeld writes held answers as far as the talk's outbox has room.
func (l *loop) writeHeld(t *dnsTalk) {
	for t.held.size() > 0 && t.out.size() < maxTalkBytes {
		held := t.held.next()
		t.out.add(l, held.Append(l.dns.answer[:0]))
		held.Release()
	}
}
