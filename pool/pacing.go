package pool

import (
	"cmp"
	"container/heap"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// A pacing keeps the backends that have a max_rate to it, and those that take their parts of a line to these (ramp.go).
// A backend whose rate is used up is over its rate: its load says that it is full, so that all algorithms pass it over,
// until its rate allows the next lease. Then the first pick that comes makes it usable again, and so does Run if
// sessions wait. So no goroutine and no timer follows the rates while nobody waits. It is safe for concurrent use; see
// init.
//
// Invariant: a backend of the pool is in over exactly while its load has a limit below 0.
type pacing struct {
	// set once, then read-only
	clock func() time.Duration
	timer *time.Timer // fires in Run

	next atomic.Int64 // when the first backend in over is usable, on the pool's clock; never: none is there

	mu sync.Mutex
	// mu guards the fields below
	over  overRate
	armed int64   // when the timer fires; never: it does not
	share float64 // of each rate, for this pool; 0 counts as 1

	ramps ramps
}

const never = math.MaxInt64

// overLimit is the limit of leases that makes a load full.
const overLimit = -1

// init prepares the zero value. Its timer is stopped.
func (p *pacing) init(clock func() time.Duration) {
	p.clock, p.armed = clock, never
	p.next.Store(never)
	p.timer = time.NewTimer(time.Hour)
	p.timer.Stop()
}

// withinRate counts a lease that has just been taken in the backend's rate, if it has one, or gives the lease back and
// returns false. It is apart from Load.TryAcquire so that the compiler puts it into its callers: as one function with
// it, it made each pick a nanosecond slower (BenchmarkPick).
func (b *Backend) withinRate() bool { return b.rate.Load() == nil || b.pace() }

// pace is withinRate of a backend with a rate.
func (b *Backend) pace() bool {
	l := b.rate.Load()
	if l == nil { // it was taken away just now
		return true
	}
	now := b.pool.clock()
	taken := b.bucket.Take(*l, now) == 0
	if b.pacing != nil && b.bucket.Wait(*l, now) > 0 {
		b.pacing.look(b)
	}
	if !taken && b.load.Release() == 0 {
		b.watchers.wake()
	}
	return taken
}

// limit sets a backend's max_sessions and max_rate. Leases taken under the former rate count under the new one.
func (p *pacing) limit(b *Backend, sessions int, l rate.Limit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	b.sessions, l = sessions, l.Share(p.share)
	var from rate.Limit
	if old := b.rate.Load(); old != nil {
		from = *old
	}
	switch {
	case l == from:
	case l.On():
		b.bucket.Change(from, l, now)
		b.rate.Store(&l)
	default:
		b.rate.Store(nil)
	}
	p.lookLocked(b, now)
}

// reshare changes the share of the members' rates. The state of a rate stays as it is: the leases so far have paid what
// they had to at their time. Otherwise a share that goes up and down would give new bursts.
func (p *pacing) reshare(share float64, members []*member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if share == p.share {
		return
	}
	p.share = share
	now := p.clock()
	for _, m := range members {
		if m.maxRate.On() {
			m.backend.rate.Store(new(m.maxRate.Share(share)))
			p.lookLocked(m.backend, now)
		}
	}
}

// rateShare returns the share of rates.
func (p *pacing) rateShare() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.share, 1)
}

// forget takes a removed backend out of over, for good: a pick that began before may still use up its rate.
func (p *pacing) forget(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.place > 0 {
		heap.Remove(&p.over, b.place-1)
		p.noteNextLocked()
	}
	delete(p.ramps.backends, b)
	b.gone = true
}

// look makes a backend unusable if its rate is used up.
func (p *pacing) look(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked(b, p.clock())
}

// lookLocked puts a backend into over or takes it out, as its rate and its ramp say.
func (p *pacing) lookLocked(b *Backend, now time.Duration) {
	if b.gone {
		return
	}
	var byRate time.Duration
	if l := b.rate.Load(); l != nil {
		byRate = b.bucket.Wait(*l, now)
	}
	wait := max(byRate, b.ramp.wait(now))
	switch {
	case wait > 0 && b.place > 0:
		b.usable = now + wait
		heap.Fix(&p.over, b.place-1)
	case wait > 0:
		b.usable = now + wait
		heap.Push(&p.over, b)
		if byRate > 0 {
			b.rateReached.Add(1)
		}
		b.load.SetLimit(overLimit)
	default:
		if b.place > 0 {
			heap.Remove(&p.over, b.place-1)
		}
		b.load.SetLimit(int64(b.sessions))
	}
	p.noteNextLocked()
}

func (p *pacing) noteNextLocked() {
	next := int64(never)
	if len(p.over) > 0 {
		next = int64(p.over[0].usable)
	}
	p.next.Store(next)
}

// advance makes the backends usable whose rates allow a lease again.
func (p *pacing) advance() {
	next := p.next.Load()
	if next == never {
		return
	}
	now := p.clock()
	if int64(now) < next {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.over) > 0 && p.over[0].usable <= now {
		p.lookLocked(p.over[0], now)
	}
}

// arm makes Run serve the queue as soon as a rate allows a lease. Whoever finds that sessions wait in vain calls it.
func (p *pacing) arm() {
	if p.next.Load() == never {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if next := p.next.Load(); next < p.armed {
		p.armed = next
		p.timer.Reset(time.Duration(next) - p.clock())
	}
}

// fired says that the timer has fired.
func (p *pacing) fired() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = never
}

// An overRate is a heap of the backends that are over their rates, the one that is usable first in front.
type overRate []*Backend

// Len, Less, Swap, Push and Pop are those of heap.Interface.

func (o overRate) Len() int           { return len(o) }
func (o overRate) Less(i, j int) bool { return o[i].usable < o[j].usable }

func (o overRate) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].place, o[j].place = i+1, j+1
}

func (o *overRate) Push(b any) {
	*o = append(*o, b.(*Backend))
	b.(*Backend).place = len(*o)
}

func (o *overRate) Pop() any {
	last := len(*o) - 1
	b := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	b.place = 0
	return b
}
