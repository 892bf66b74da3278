package pool

import (
	"sync/atomic"
	"time"
)

// hintEvery is how often a hint about one backend is taken up: whatever comes faster tells nothing new, and may be
// forged.
const hintEvery = time.Second

// hint reports whether an outcome is no evidence, but a reason to look at the backend.
func (o Outcome) hint() bool { return o == ICMPError || o == NoAnswer }

// A suspicion is hints about a backend that nobody has looked into yet. It is safe for concurrent use.
type suspicion struct {
	next   atomic.Int64 // when the next hint is taken up, on the pool's clock
	untold atomic.Bool  // Run is to publish it
}

// suspect takes a hint about a backend and has Run publish a Suspected. It reports false when the last one was not long
// ago.
func (p *Pool) suspect(s *settings, b *Backend) bool {
	now := int64(s.Clock())
	sus := &b.record.suspicion
	next := sus.next.Load()
	if now < next || !sus.next.CompareAndSwap(next, now+int64(hintEvery)) {
		return false
	}
	sus.untold.Store(true)
	p.wakeRun()
	return true
}

// publishSuspectedLocked tells the observers which backends are suspected since it was called last.
func (p *Pool) publishSuspectedLocked(at time.Time) {
	for _, m := range p.snap.Load().members {
		if sus := &m.backend.record.suspicion; sus.untold.Load() && sus.untold.Swap(false) {
			p.publishLocked(Suspected{p.change(m, at)})
		}
	}
}
