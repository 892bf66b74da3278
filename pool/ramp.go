package pool

import (
	"sync/atomic"
	"time"
)

// When backends come back in a pool with a hold and a slow start, the sessions that were held are not all served at
// once: the line is spread over the slow start. That is the ramp. Each backend that is back has a part of it, by its
// weight, and takes the next session of the line when that is due. In between its load says that it is full, as that of
// a backend over its rate, and the pool's pacing makes it usable again. Newcomers stand behind the line while there is
// one. The ramp is over when nobody stands in the line, or with the slow start; whoever waits then is served at once.
//
// Only sessions that wait are counted: picks cost nothing more.

// maxRampPause is the longest pause between two sessions of the line at one backend: ten sessions a second flood no
// server, and so a short line need not wait for a long slow start.
const maxRampPause = 100 * time.Millisecond

// minRampPause is the shortest time for which a backend is unusable: if sessions are due more often, several are served
// at once. It bounds how often Run wakes up.
const minRampPause = 2 * time.Millisecond

// A backendRamp is a backend's part in a ramp. The zero value is none. pacing.mu guards it.
type backendRamp struct {
	weight uint32
	end    time.Duration // of its slow start, on the pool's clock
	due    time.Duration // when it takes the next session of the line
	usable time.Duration // from when on it may do so
}

// A rampTime is how long there have been ramps. It is immutable.
type rampTime struct {
	before       time.Duration // in all, before since
	since, until time.Duration // the ramp that goes on, on the pool's clock; equal: none
}

// at returns the time of all ramps until now.
func (r *rampTime) at(now time.Duration) time.Duration {
	return r.before + max(min(now, r.until)-r.since, 0)
}

// ramps are the ramps of a pool, a part of its pacing.
type ramps struct {
	time atomic.Pointer[rampTime] // nil: there was no ramp yet; replaced with pacing.mu held

	// pacing.mu guards the fields below
	backends map[*Backend]bool
}

// Ramped returns for how long, in all since New, there was a ramp: sessions that were held stood in the line only
// because the slow start spreads them. It counts for no timeout of theirs. It may be called from any goroutine, and
// takes no lock.
func (p *Pool) Ramped() time.Duration {
	if r := p.pacing.ramps.time.Load(); r != nil {
		return r.at(p.clock())
	}
	return 0
}

// Ramping reports whether sessions that were held stand in the line only because the slow start spreads them. It may be
// called from any goroutine, and takes no lock.
func (p *Pool) Ramping() bool {
	r := p.pacing.ramps.time.Load()
	return r != nil && p.clock() < r.until
}

// rampLocked begins and ends ramps for a snapshot that is to replace old.
func (p *Pool) rampLocked(old, s *snapshot) {
	var slow []growing
	if s.slow != nil && s.settings.HoldTimeout > 0 && p.queue.waiting.Load() > 0 &&
		(old.eligible == 0 || p.Ramping()) {
		slow = s.slow.growing
	}
	if p.pacing.ramp(slow, s.settings.SlowStart) {
		s.pacing = &p.pacing // picks make the backends usable again
	}
}

// ramp makes these backends, and no others, take their parts of the line. It reports whether there are any.
func (p *pacing) ramp(slow []growing, length time.Duration) bool {
	if len(slow) == 0 && p.ramps.time.Load() == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	former := p.ramps.backends
	p.ramps.backends = nil
	var until time.Duration
	for _, g := range slow {
		b := g.backend
		if !former[b] {
			b.ramp = backendRamp{due: now, usable: now}
		}
		delete(former, b)
		b.ramp.weight, b.ramp.end = max(g.weight, 1), g.since+length
		if p.ramps.backends == nil {
			p.ramps.backends = make(map[*Backend]bool, len(slow))
		}
		p.ramps.backends[b] = true
		until = max(until, b.ramp.end)
	}
	for b := range former {
		b.ramp = backendRamp{}
		p.lookLocked(b, now)
	}
	p.noteRampLocked(now, until)
	return len(p.ramps.backends) > 0
}

// noteRampLocked records that there is a ramp until then; a time that has passed is none.
func (p *pacing) noteRampLocked(now, until time.Duration) {
	r := &rampTime{since: now, until: max(now, until)}
	if old := p.ramps.time.Load(); old != nil {
		r.before = old.at(now)
	}
	p.ramps.time.Store(r)
}

// endRamp ends the ramp, since nobody stands in the line any more, or nobody did before the session that comes now.
func (p *pacing) endRamp() {
	if r := p.ramps.time.Load(); r == nil || r.since == r.until {
		return
	}
	p.ramp(nil, 0)
}

// noteServed says that a backend was given to a session of the line, in which others still wait.
func (p *pacing) noteServed(b *Backend, wait int64) {
	if r := p.ramps.time.Load(); r == nil || r.since == r.until {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	if now >= b.ramp.end {
		return // it has no part, or its slow start is over
	}
	var weights int64
	for other := range p.ramps.backends {
		if now < other.ramp.end {
			weights += int64(other.ramp.weight)
		}
	}
	part := max(float64(wait)*float64(b.ramp.weight)/float64(weights), 1)
	pause := min(time.Duration(float64(b.ramp.end-now)/part), maxRampPause)
	// A timer may be late, and other limits may stop the line. It makes up for the former.
	b.ramp.due = max(b.ramp.due, now-maxRampPause) + pause
	if b.ramp.due > now {
		b.ramp.usable = max(b.ramp.due, now+min(minRampPause, b.ramp.end-now))
		p.lookLocked(b, now)
	}
}

// wait returns for how long the backend takes no session of the line.
func (r *backendRamp) wait(now time.Duration) time.Duration {
	if now >= r.end {
		return 0
	}
	return max(min(r.usable, r.end)-now, 0)
}

// ramping reports whether the backend has a part in a ramp.
func (p *pacing) ramping(b *Backend) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock() < b.ramp.end
}
