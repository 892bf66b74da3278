package pool

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// A snapshot is a pool at one moment. It is immutable: readers may use it for as long as they like.
type snapshot struct {
	settings *settings
	members  []*member // in the order of their addition
	eligible int
	tiers    []*tier    // those with an eligible backend, in the order in which picks ask them
	trials   []*Backend // whose breakers are half-open
	slow     *slowStarts
	pacing   *pacing // the pool's if a member has a rate, or there is a ramp; else nil
	moving   bool    // slow or pacing is there, and a pick advances them first
	tryAll   bool    // no backend is healthy, and so all enabled ones are eligible
	fallback bool    // no Healthy backend is eligible, and so those of the verdict Fallback are

	barren time.Duration // for how long no backend was eligible, in all before since
	since  time.Duration // when the snapshot was made, on the pool's clock
}

// barrenAt returns for how long no backend was eligible in all, until now.
func (s *snapshot) barrenAt(now time.Duration) time.Duration {
	if s.eligible > 0 {
		return s.barren
	}
	return s.barren + max(now-s.since, 0)
}

// A tier is the eligible backends of one group, and their picker. It is immutable.
type tier struct {
	group    *group
	backends []*Backend
	weights  []uint32 // of each
	picker   algo.Picker
	summed   atomic.Pointer[tierSums] // nil before the first digest; it is all that is set later
}

// A group is the backends of one tier that are in the pool's zone, or those that are not. It holds the state that
// outlives a tier's snapshots. A backend never changes its tier, and changes its group only when the pool's zone
// changes: so its leases count in one of two totals.
type group struct {
	// set once, then read-only
	tier  int
	other bool // the group of backends outside the preferred zone

	state algo.State
	total algo.Total // of the leases of the eligible ones; counted only for a hash balance

	eligible []*member // used while a snapshot is made, with Pool.mu held
}

// compare orders groups as picks ask them.
func (g *group) compare(other *group) int {
	if c := cmp.Compare(g.tier, other.tier); c != 0 || g.other == other.other {
		return c
	}
	if g.other {
		return 1
	}
	return -1
}

// groupLocked returns the group that a backend belongs to.
func (p *Pool) groupLocked(s Spec) *group {
	zone := p.settings().Zone
	other := zone != "" && s.Zone != zone
	for _, g := range p.groups {
		if g.tier == s.Tier && g.other == other {
			return g
		}
	}
	g := &group{tier: s.Tier, other: other}
	p.groups = append(p.groups, g)
	slices.SortFunc(p.groups, (*group).compare)
	return g
}

// replaceLocked makes a snapshot of members and puts it in force. An unchanged tier keeps its picker, so that the first
// verdicts of many backends that stay out of use cost next to nothing.
func (p *Pool) replaceLocked(members []*member) {
	old := p.snap.Load()
	now := p.clock()
	s := &snapshot{settings: p.settings(), members: members, barren: old.barrenAt(now), since: now}
	eligible := (*member).eligible
	switch {
	case slices.ContainsFunc(members, eligible):
	case slices.ContainsFunc(members, (*member).standsIn):
		s.fallback, eligible = true, (*member).standsIn
	case p.settings().TryAllWhenNone:
		s.tryAll, eligible = true, (*member).tryable
	}
	for _, m := range members {
		if eligible(m) {
			g := m.backend.group.Load()
			g.eligible = append(g.eligible, m)
			s.eligible++
		}
		if m.maxRate.On() {
			s.pacing = &p.pacing
		}
		if m.onTrial() && !s.tryAll && (m.verdict == Healthy || s.fallback) {
			s.trials = append(s.trials, m.backend)
		}
	}
	for _, g := range p.groups {
		if len(g.eligible) > 0 {
			s.tiers = append(s.tiers, p.tierLocked(old, g))
		}
	}
	if len(s.trials) > 0 {
		p.wakeRun() // their time begins now
	}
	s.slow = p.slowStartsLocked()
	p.rampLocked(old, s)
	s.moving = s.slow != nil || s.pacing != nil
	for _, g := range p.groups {
		g.eligible = slices.Delete(g.eligible, 0, len(g.eligible))
	}
	p.publishTiersLocked(old, s)
}

// publishTiersLocked replaces old with s. A backend that leaves is out of use before it returns, and a new one is in
// the totals before its first pick. A backend that moves from one total to another is in both meanwhile, so that the
// totals of both snapshots are complete.
func (p *Pool) publishTiersLocked(old, s *snapshot) {
	p.generation++
	s.noteDrainsLocked()
	for _, t := range s.tiers {
		for _, b := range t.backends {
			b.generation = p.generation
			if g := t.counting(s.settings); g != nil && g != b.counted {
				g.total.Join(&b.load)
				if b.counted == nil {
					b.counted = g
				}
			}
			if !b.inUse.Load() {
				b.revoked.Store(false)
				b.inUse.Store(true)
			}
		}
	}
	p.snap.Store(s)
	for _, t := range old.tiers {
		for _, b := range t.backends {
			if b.generation != p.generation {
				b.inUse.Store(false)
				b.countIn(nil)
			}
		}
	}
	s.endDrainsLocked()
	if old.settings == s.settings {
		return
	}
	for _, t := range s.tiers { // the zone or the hash balance may have changed
		for _, b := range t.backends {
			b.countIn(t.counting(s.settings))
		}
	}
}

// counting returns the group in whose total the tier's leases count; nil is none.
func (t *tier) counting(s *settings) *group {
	if s.HashBalance == 0 {
		return nil
	}
	return t.group
}

// countIn makes g, which may be nil, the only group that counts the backend. The backend has joined g's total already;
// it leaves that of its former group.
func (b *Backend) countIn(g *group) {
	if b.counted != nil && b.counted != g {
		b.counted.total.Leave(&b.load)
	}
	b.counted = g
}

// tierLocked returns the tier of a group's eligible members, that of old if it is still right.
func (p *Pool) tierLocked(old *snapshot, g *group) *tier {
	for _, t := range old.tiers {
		if t.group == g && old.settings.picksLike(p.settings()) && t.is(g.eligible) {
			return t
		}
	}
	t := &tier{group: g}
	candidates := make([]algo.Member, len(g.eligible))
	for i, m := range g.eligible {
		t.backends = append(t.backends, m.backend)
		t.weights = append(t.weights, m.weightInForce())
		candidates[i] = algo.Member{ID: m.backend.id, Weight: m.weightInForce(), Load: &m.backend.load}
	}
	picker, err := algo.Build(p.settings().Algorithm, candidates,
		algo.Options{State: &g.state, Balance: p.settings().HashBalance, Total: &g.total})
	if err != nil {
		panic(fmt.Sprintf("pool %s: algorithm known to New is unknown now: %v", p.name, err))
	}
	t.picker = picker
	return t
}

// is reports whether the tier was made for these members.
func (t *tier) is(members []*member) bool {
	return slices.EqualFunc(t.backends, members, func(b *Backend, m *member) bool { return b == m.backend }) &&
		slices.EqualFunc(t.weights, members, func(w uint32, m *member) bool { return w == m.weightInForce() })
}
