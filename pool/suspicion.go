package pool

import (
	"sync/atomic"
	"time"
)

// hintEvery is the least time between two hints about a backend that count: more frequent ones say nothing new, and may
// be forged. A failure is a hint, too, in a pool with checks.
const hintEvery = time.Second

// hint reports whether an outcome proves nothing but is a reason to check the backend.
func (o Outcome) hint() bool { return o == ICMPError || o == NoAnswer }

// A suspicion has the state of the hints about one backend. It is safe for concurrent use.
type suspicion struct {
	next        atomic.Int64 // when the next hint counts, on the pool's clock
	unpublished atomic.Bool  // Run has yet to publish it
}

// suspect records a hint about a backend and makes Run publish a Suspected event. It returns false if the last hint
// that counted was less than hintEvery ago.
func (p *Pool) suspect(s *settings, b *Backend) bool {
	now := int64(s.Clock())
	sus := &b.record.suspicion
	next := sus.next.Load()
	if now < next || !sus.next.CompareAndSwap(next, now+int64(hintEvery)) {
		return false
	}
	sus.unpublished.Store(true)
	p.wakeRun()
	return true
}

// publishSuspectedLocked publishes which backends have become suspected since the last call.
func (p *Pool) publishSuspectedLocked(at time.Time) {
	for _, m := range p.snap.Load().members {
		if sus := &m.backend.record.suspicion; sus.unpublished.Load() && sus.unpublished.Swap(false) {
			p.publishLocked(Suspected{p.change(m, at)})
		}
	}
}
