package dnscache

import (
	"sync/atomic"
	"time"
)

// A Held is one client's answer that cannot be sent yet. It shares the answer's memory with all clients that get the
// same answer, and is written only when there is room; until then it needs a hundred bytes. It must be released once.
// Only one goroutine may use it; its zero value is of no use.
type Held struct {
	caller
	entry    *entry
	held     *atomic.Int64 // the cache's count of bytes
	spelling spelling
	subnet   []byte
	stale    bool
	now      time.Duration
}

// Hold keeps the answer for client i. It returns false, and keeps nothing, if 64 MiB of answers are held for clients
// that do not read them. An answer that many clients hold counts once.
func (r *Resolver[W]) Hold(a Answers[W], i int) (Held, bool) {
	e, w, held := a.entry, &a.waiters[i], &r.cache.held
	if e.holders.Add(1) == 1 && held.Add(e.bytes()) > maxHeldBytes {
		release(e, held)
		return Held{}, false
	}
	return Held{caller: w.caller, entry: e, held: held, spelling: w.spelling, subnet: a.subnet, stale: a.stale,
		now: a.now}, true
}

// Append appends the answer; see Answers.Append.
func (h *Held) Append(dst []byte) []byte {
	return appendSpelled(dst, h.entry, &h.spelling,
		form{caller: h.caller, subnet: h.subnet, stale: h.stale, now: h.now})
}

// Release releases the answer.
func (h *Held) Release() {
	release(h.entry, h.held)
	*h = Held{}
}

func release(e *entry, held *atomic.Int64) {
	if e.holders.Add(-1) == 0 {
		held.Add(-e.bytes())
	}
}
