package dnscache

import (
	"sync/atomic"
	"time"
)

// A Held is one client's answer that cannot be sent yet. It shares the answer's memory with all others who get the
// same, and is written when there is room; until then it is a hundred bytes. It has to be released once. Only one
// goroutine may use it; its zero value is of no use.
type Held struct {
	caller
	entry    *entry
	held     *atomic.Int64 // the cache's
	spelling spelling
	subnet   []byte
	stale    bool
	now      time.Duration
}

// Hold keeps the answer for client i. It reports false, and keeps nothing, when 64 MiB of answers are held for clients that do not take
// them; an answer that many clients hold counts once.
func (r *Resolver[W]) Hold(a Answers[W], i int) (Held, bool) {
	e, w, held := a.entry, &a.waiters[i], &r.cache.held
	if e.holders.Add(1) == 1 && held.Add(e.bytes()) > maxHeldBytes {
		release(e, held)
		return Held{}, false
	}
	return Held{caller: w.caller, entry: e, held: held, spelling: w.spelling, subnet: a.subnet, stale: a.stale, now: a.now}, true
}

// Append appends the answer; see Answers.Append.
func (h *Held) Append(dst []byte) []byte {
	return appendSpelled(dst, h.entry, &h.spelling, form{caller: h.caller, subnet: h.subnet, stale: h.stale, now: h.now})
}

// Release gives the answer up.
func (h *Held) Release() {
	release(h.entry, h.held)
	*h = Held{}
}

func release(e *entry, held *atomic.Int64) {
	if e.holders.Add(-1) == 0 {
		held.Add(-e.bytes())
	}
}
