package daemon

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// reviewEvery is how often the nodes look at what depends on time: how long too few others say something, and
	// whether this node's own checks agree.
	reviewEvery = 200 * time.Millisecond
	// linkPatience is how long what others say counts after the connection to etcd was lost: this node finds another
	// member meanwhile.
	linkPatience = 3 * time.Second
)

// sharedChecks divides the checks among the nodes, and shares their verdicts. check_share nodes, the judges, check each
// backend and say what they find; the others believe them. fleet_checks_rules.go has the rules.
//
// A node takes part with its seat, which names the pools and the sums of their checks: only nodes that check alike hear
// each other. All that a node says ends with its lease.
//
// Locks are taken in this order: viewing, checkedPool.mu, mu, those of the fleet.
type sharedChecks struct {
	// set once, then read-only
	membership *membership
	share      int           // how many nodes check each backend
	wake       chan struct{} // has room for one: there is something to hear

	viewing sync.Mutex // held by view, so that what follows from two views is done in their order

	mu sync.Mutex
	// mu guards the fields below
	pools   map[string]*checkedPool
	sums    map[string]string              // of the pools' checks
	news    map[string]bool                // keys that have changed
	allNew  bool                           // any key may have
	seats   map[string]*seat               // of the other nodes
	reports map[dutyKey]map[string]*report // of the other nodes, by node
	seated  uint64                         // version of the seats
	runs    bool                           // run was called: not yet in a process that is about to take over
	link    bool                           // what others say counts
	leaving bool                           // this node drains, and takes no duty
	self    selfDoubt
}

func newSharedChecks(m *membership) *sharedChecks {
	p := &sharedChecks{
		membership: m, share: m.conf.CheckShare, wake: make(chan struct{}, 1), pools: make(map[string]*checkedPool),
		sums: make(map[string]string), news: make(map[string]bool), seats: make(map[string]*seat),
		reports: make(map[dutyKey]map[string]*report), seated: 1,
	}
	if p.share > 0 {
		m.fleet.Observe(fleet.Checks, p.noteNews)
	}
	return p
}

// sharing returns the shared checks; nil if the nodes do not share them. m may be nil.
func (m *membership) sharing() *sharedChecks {
	if m == nil || m.checks.share == 0 {
		return nil
	}
	return m.checks
}

// node returns the name of this node.
func (p *sharedChecks) node() string { return p.membership.fleet.Node() }

// noteNews notes that others say something new; nil stands for any key.
func (p *sharedChecks) noteNews(keys []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allNew = p.allNew || keys == nil
	for _, key := range keys {
		p.news[key] = true
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run works until ctx is done.
func (p *sharedChecks) run(ctx context.Context) {
	if p.share == 0 {
		return
	}
	p.mu.Lock()
	p.runs = true
	p.mu.Unlock()
	tick := time.NewTicker(reviewEvery)
	defer tick.Stop()
	for seated := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			p.hear()
		case <-tick.C:
			seated = p.tick(seated)
		}
	}
}

// tick does what depends on time. A change of the seats is taken up here: when a fleet starts, they come one by one.
func (p *sharedChecks) tick(seated uint64) uint64 {
	changed := p.follow(time.Now())
	p.mu.Lock()
	changed, now := changed || p.seated != seated, p.seated
	p.mu.Unlock()
	for _, k := range p.checked() {
		if changed {
			k.review(nil)
		} else {
			k.reviewRestless()
		}
	}
	return now
}

// follow takes up the state of the connection, and whether this node drains or is cut off. It reports whether all
// duties have to be reviewed.
func (p *sharedChecks) follow(now time.Time) bool {
	d := p.membership.daemon
	link := p.membership.fleet.Link()
	counts := link.Up || !link.Since.IsZero() && now.Sub(link.Since) < linkPatience
	leaving := d.life.current() == draining && d.replaced.Load() == nil // a new process goes on under this node's name
	p.mu.Lock()
	changed := p.link != counts || p.leaving != leaving
	p.link = counts
	if p.leaving != leaving {
		p.leaving = leaving
		p.saySeatLocked()
	}
	p.mu.Unlock()
	return p.followDoubt(now, counts) || changed
}

// checked returns the pools whose checks are shared.
func (p *sharedChecks) checked() []*checkedPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.pools))
}

// hear takes up what others say, and reviews the duties that it is about.
func (p *sharedChecks) hear() {
	about := make(map[string][]string) // duties by pool; nil for all
	p.mu.Lock()
	all, keys := p.allNew, p.news
	p.allNew, p.news = false, make(map[string]bool)
	if all {
		clear(p.seats)
		clear(p.reports)
		p.seated++
		for key, value := range p.membership.fleet.Heard(fleet.Checks) {
			p.hearLocked(key, value)
		}
		for name := range p.pools {
			about[name] = nil
		}
	} else {
		for key := range keys {
			if duty, is := p.hearLocked(key, p.membership.fleet.HeardOf(key)); is {
				about[duty.pool] = append(about[duty.pool], duty.backend)
			}
		}
	}
	pools := maps.Clone(p.pools)
	p.mu.Unlock()
	for name, ids := range about {
		if k := pools[name]; k != nil {
			k.review(ids)
		}
	}
}

// hearLocked takes up what another node says for a key; nil is nothing. It returns the duty that it is about, if it is
// one.
func (p *sharedChecks) hearLocked(key string, value []byte) (d dutyKey, is bool) {
	d, node, is := parseCheckKey(key)
	if !is || node == p.node() {
		return d, false
	}
	if d.pool == "" {
		s := parseSeat(value)
		before := p.seats[node]
		if s == nil {
			delete(p.seats, node)
		} else {
			p.seats[node] = s
		}
		if (s == nil) != (before == nil) || s != nil && !maps.Equal(s.Pools, before.Pools) {
			p.seated++
		}
		return d, false
	}
	r := parseReport(d, value)
	if r == nil {
		delete(p.reports[d], node)
		if len(p.reports[d]) == 0 {
			delete(p.reports, d)
		}
		return d, true
	}
	if p.reports[d] == nil {
		p.reports[d] = make(map[string]*report)
	}
	p.reports[d][node] = r
	return d, true
}

// register begins to share the checks of a pool, which have a sum.
func (p *sharedChecks) register(k *checkedPool, sum string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pools[k.pool.Name()], p.sums[k.pool.Name()] = k, sum
	p.seated++
	p.saySeatLocked()
}

// unregister ends that.
func (p *sharedChecks) unregister(k *checkedPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools[k.pool.Name()] == k { // or else a new one has its name already
		delete(p.pools, k.pool.Name())
		delete(p.sums, k.pool.Name())
		p.saySeatLocked()
	}
}

// saySeatLocked says that this node takes part, or that it does not.
func (p *sharedChecks) saySeatLocked() {
	p.seated++
	key := fleet.Checks + fleet.Key(p.node())
	text, err := json.Marshal(seat{p.sums})
	if err != nil || len(text) > fleet.MaxValueBytes || p.leaving || p.self.isAlone() {
		p.membership.fleet.Unsay(key)
		return
	}
	p.membership.fleet.Say(key, text)
}

// takingPart returns the nodes that take part in the checks of a pool, this one included unless it is alone or drains,
// and the version of the seats; nil if that is the one known.
func (p *sharedChecks) takingPart(name, sum string, known uint64) (nodes []string, seated uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seated == known {
		return nil, known
	}
	if !p.leaving && !p.self.isAlone() {
		nodes = append(nodes, p.node())
	}
	for node, s := range p.seats {
		if s.Pools[name] == sum {
			nodes = append(nodes, node)
		}
	}
	return nodes, p.seated
}

// said returns what other nodes say about a duty by the same check, about the same backends at the same addresses, and
// which nodes these are.
func (p *sharedChecks) said(d dutyKey, s *poolShare, members []string) (heard []findings, by []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.link {
		return nil, nil
	}
	for node, r := range p.reports[d] {
		at := p.seats[node]
		if at == nil || at.Pools[d.pool] != s.sum || r.Sum != s.sum || len(r.Backends) != len(members) {
			continue
		}
		if slices.ContainsFunc(members, func(id string) bool {
			f, has := r.Backends[id]
			return !has || f.Address != s.places[id].text()
		}) {
			continue
		}
		if !s.sharing.primary || r.Backends.count(pool.Healthy) <= 1 { // or else it is of no use
			by = append(by, node)
		}
	}
	slices.Sort(by)
	for _, node := range by {
		heard = append(heard, p.reports[d][node].Backends)
	}
	return heard, by
}

// linked reports whether what others say counts.
func (p *sharedChecks) linked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.link
}

// say says what this node has found about a duty. It reports false if that is too much.
func (p *sharedChecks) say(d dutyKey, r report) bool {
	text, err := json.Marshal(r)
	if err != nil || len(text) > fleet.MaxValueBytes {
		return false
	}
	p.membership.fleet.Say(d.key(p.node()), text)
	return true
}

// unsay withdraws it.
func (p *sharedChecks) unsay(d dutyKey) { p.membership.fleet.Unsay(d.key(p.node())) }
