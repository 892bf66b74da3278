package pool

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Rebalance has the settings of rebalancing: sessions of a backend that has more than its share are asked to leave it,
// while another backend has less than its share. Shares go by weight, and among the backends that get the new sessions
// now. Its zero value is off. It needs DrainSafely, and Pool.Run.
type Rebalance struct {
	MaxSkew float64       // sessions of one backend, as a multiple of its share, above 1; 0 is off
	Rate    float64       // how much of the pool's sessions may be asked to leave in a second, above 0 to 1
	MinAge  time.Duration // younger sessions stay
}

// rebalanceEvery is the time between two looks at the shares. It is short beside the time in which clients connect
// again, so that no backend gives away too many, and long enough that looks cost nothing.
const rebalanceEvery = time.Second

// check returns the error of settings for a pool with these options.
func (r Rebalance) check(o *Options) error {
	switch kind := o.kind(); {
	case r.MaxSkew == 0:
		return nil
	case !(r.MaxSkew > 1) || !(r.Rate > 0 && r.Rate <= 1) || r.MinAge < 0: // in this form NaN is refused, too
		return fmt.Errorf("pool %s: rebalance of %+v", o.Name, r)
	case !o.DrainSafely:
		return fmt.Errorf("pool %s: rebalance without a safe drain", o.Name)
	case kind.Hash || kind.Ordered || o.StickyTTL > 0:
		// A session would come back to the backend that it has left.
		return fmt.Errorf("pool %s: rebalance where the client or the order decides on the backend", o.Name)
	}
	return nil
}

// A rebalancer decides how many sessions may leave which backends. Pool.mu guards it. Its zero value is usable.
type rebalancer struct {
	looked time.Duration // when it last looked, on the pool's clock; 0 is never
	credit float64       // how many sessions may be asked to leave by the rate
	grants []grant       // those of the last look
}

// A grant lets n sessions leave a backend.
type grant struct {
	backend *Backend
	n       int64
}

// rebalance looks at the shares if it is time, and lets sessions leave the backends that have too many. It returns the
// time until the next look; 0 is never.
func (p *Pool) rebalance() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, o := &p.balancer, p.settings().Rebalance
	if o.MaxSkew == 0 {
		r.settle()
		r.looked = 0
		return 0
	}
	now := p.clock()
	since := now - r.looked
	if r.looked != 0 && since < rebalanceEvery {
		return rebalanceEvery - since
	}
	r.settle()
	shares, sessions := p.sharesLocked()
	perSecond := o.Rate * float64(sessions)
	if r.looked == 0 {
		since = rebalanceEvery
	}
	// Without a bound, a pool that was even for an hour could give away all at once.
	r.credit = min(r.credit+perSecond*since.Seconds(), max(perSecond*rebalanceEvery.Seconds(), 1))
	r.looked = max(now, 1)
	r.grants = grantsOf(shares, o.MaxSkew, int64(r.credit), r.grants[:0])
	for _, g := range r.grants {
		p.grantLeavesLocked(g.backend, int(g.n))
	}
	return rebalanceEvery
}

// settle takes back what is left of the grants, and the sessions that have left from the credit.
func (r *rebalancer) settle() {
	for _, g := range r.grants {
		left := g.n - g.backend.leaves.Swap(0)
		r.credit -= float64(left)
	}
	r.grants = r.grants[:0]
}

// A share is what a backend has of the sessions, and what it should have.
type share struct {
	backend *Backend
	weight  float64
	has     int64
	fair    float64
	most    float64 // by its limit
}

// sharesLocked returns the shares of the backends that get the new sessions, those of the first tier, and the number of
// their sessions. A backend in slow start has as much of its weight as it has for picks.
func (p *Pool) sharesLocked() (shares []share, sessions int64) {
	s := p.snap.Load()
	if len(s.tiers) == 0 || s.tryAll {
		return nil, 0 // it is not known which backends work
	}
	if s.slow != nil {
		s.slow.grow(p.clock)
	}
	t := s.tiers[0]
	for i, b := range t.backends {
		one := share{
			backend: b, weight: float64(t.weights[i]) * b.load.Share(), has: b.load.Leases(), most: math.Inf(1),
		}
		if limit := b.load.Limit(); limit > 0 { // one below 0 is for the moment: the backend has reached its rate
			one.most = float64(limit)
		}
		sessions += one.has
		shares = append(shares, one)
	}
	spread(shares, float64(sessions))
	return shares, sessions
}

// spread sets the fair shares of so many sessions by weight. What one backend may not have is spread over the others.
func spread(shares []share, sessions float64) {
	full := func(s share) bool { return s.fair == s.most }
	for {
		rest, weight := sessions, 0.0
		for _, s := range shares {
			if full(s) {
				rest -= s.fair
			} else {
				weight += s.weight
			}
		}
		again := false
		for i := range shares {
			if s := &shares[i]; !full(*s) && weight > 0 {
				s.fair = min(max(rest, 0)*s.weight/weight, s.most)
				again = again || full(*s)
			}
		}
		if !again {
			return
		}
		for i := range shares { // the others are spread anew
			if s := &shares[i]; !full(*s) {
				s.fair = 0
			}
		}
	}
}

// grantsOf appends which backends may give away sessions, at most so many in all. None goes below its share, and there
// is none unless some backend is below its share.
func grantsOf(shares []share, maxSkew float64, most int64, grants []grant) []grant {
	below := func(s share) bool { return float64(s.has) < s.fair }
	if most < 1 || !slices.ContainsFunc(shares, below) {
		return grants
	}
	excess := int64(0)
	for _, s := range shares {
		keeps := int64(max(math.Floor(maxSkew*s.fair), math.Ceil(s.fair)))
		if s.has > keeps {
			grants = append(grants, grant{s.backend, s.has - keeps})
			excess += s.has - keeps
		}
	}
	// The largest first, since rounding up favours the first ones.
	slices.SortStableFunc(grants, func(a, b grant) int { return cmp.Compare(b.n, a.n) })
	for i := range grants {
		g := &grants[i]
		n := min(g.n, (most*g.n+excess-1)/excess)
		excess -= g.n
		most -= n
		g.n = n
	}
	return slices.DeleteFunc(grants, func(g grant) bool { return g.n == 0 })
}
