package daemon

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
)

const (
	// sharesEvery is how often the shares are computed.
	sharesEvery = time.Second
	// growAfter is how long a larger share is put off: an etcd that was emptied, or that was away, may know only some of
	// the nodes until the others have written their keys again.
	growAfter = 5 * time.Second
	// trafficMemory is how long it takes until two thirds of a change of the traffic are in the shares.
	trafficMemory = 10 * time.Second
	// evenPart is the part of the rates that is divided evenly also with share_limits = "traffic", so that a node without
	// traffic can serve the first clients that come.
	evenPart = 0.25
	// coarseness is the least relative change of a share that is put in force.
	coarseness = 0.005
	// leastShare bounds the share, whatever the other nodes say: that of a fleet of 10,000 nodes.
	leastShare = 1e-4
	// maxNodeRate bounds what a node may say of its traffic, in sessions and flows a second.
	maxNodeRate = 1e9
)

// limitShares divides the rates that hold for all clients among the nodes: the max_rate of backends, and the rate of
// listeners. Each node computes its own share of what it knows of the others, and nobody is asked. Without a connection
// the last share stays. Its methods may be called from any goroutine.
type limitShares struct {
	// set once, then read-only
	membership *membership

	changed chan struct{} // has room for one; a node has changed

	mu sync.Mutex
	// mu guards the field below, and is held while the share is put in force
	share float64 // in force; 0 if none was computed yet
}

func newLimitShares(m *membership) *limitShares {
	p := &limitShares{membership: m, changed: make(chan struct{}, 1)}
	m.fleet.Observe(fleet.Nodes, func([]string) { wake(p.changed) })
	return p
}

// run works until ctx is done.
func (p *limitShares) run(ctx context.Context) {
	c := p.membership.conf
	if c.ShareLimits == "none" {
		<-ctx.Done()
		return
	}
	d := division{self: p.membership.fleet.Node(), byTraffic: c.ShareLimits == "traffic", share: p.inForce()}
	tick := time.NewTicker(sharesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		case <-tick.C:
		}
		if !p.membership.fleet.Link().Up {
			d.pause()
			continue
		}
		d.look(p.membership.fleet.Nodes(), time.Now())
		p.use(d.share, d.settled)
	}
}

// inForce returns the share that is in force; 0 if none was computed yet.
func (p *limitShares) inForce() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.share
}

// restore takes up the share of an earlier process of this node, 0 for none. It must be called before run.
func (p *limitShares) restore(share float64) {
	if p.membership.conf.ShareLimits != "none" && share >= leastShare && share <= 1 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.share = share
	}
}

// use puts a share in force if it differs enough. settled says that the nodes are those of before: then the change is
// small, and need not be saved.
func (p *limitShares) use(share float64, settled bool) {
	p.mu.Lock()
	from := p.share
	changes := from != share && (!settled || math.Abs(share-from) > coarseness*from)
	if changes {
		p.share = share
		p.applyLocked()
	}
	p.mu.Unlock()
	if !changes {
		return
	}
	log := p.membership.daemon.log.Debug()
	if !settled {
		log = p.membership.daemon.log.Info()
		p.membership.daemon.saveOrLog()
	}
	log.Float64("share", share).Str("event", "fleet_rate_share").Msg("this node's part of the rates has changed")
}

// apply puts the share in force in the server and in all pools, also in those that are new.
func (p *limitShares) apply() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applyLocked()
}

func (p *limitShares) applyLocked() {
	if p.share == 0 {
		return
	}
	d := p.membership.daemon
	d.server.SetRateShare(p.share)
	for _, s := range d.servedPools() {
		s.pool.SetRateShare(p.share)
	}
}

// rateShare returns this node's part of the rates that the nodes divide; 1 for nil, and before it is known.
func (m *membership) rateShare() float64 {
	if m == nil {
		return 1
	}
	if share := m.shares.inForce(); share > 0 {
		return share
	}
	return 1
}

// A division is how a node follows its share. It is used by one goroutine; self must be set.
type division struct {
	// set once, then read-only
	self      string // the name of this node
	byTraffic bool

	share   float64 // 0 before the first look, unless it is that of an earlier process
	settled bool    // the last look has only followed the traffic

	nodes  string    // that are ready, as of the last look; "" if they are to be looked at as new ones
	growAt time.Time // when a larger share is taken after a change of the nodes; the zero time if there was none
	looked time.Time
}

// pause says that what the nodes say is not known for the moment.
func (d *division) pause() { d.nodes, d.growAt = "", time.Time{} }

// look computes the share of what the nodes say. A smaller share is taken at once, a larger one after growAfter: for a
// while the nodes let in too few rather than too many. If only the traffic changes, the share follows it slowly, by the
// same rule on every node, so that all shares still add up to 1.
func (d *division) look(nodes []fleet.Node, now time.Time) {
	target, names := d.target(nodes)
	since := now.Sub(d.looked)
	d.looked = now
	if names != d.nodes {
		d.nodes, d.growAt = names, now.Add(growAfter)
	}
	switch changing := !d.growAt.IsZero(); {
	case changing && !now.Before(d.growAt):
		d.share, d.settled, d.growAt = target, false, time.Time{}
	case d.share == 0 || changing && target < d.share:
		d.share, d.settled = target, false
	case changing: // it is not known yet whether the others have really gone
		d.settled = true
	default:
		d.share += (target - d.share) * (1 - math.Exp(-since.Seconds()/trafficMemory.Seconds()))
		d.settled = true
	}
}

// target returns the share that fits what the nodes say, and the names of those that count: all that are ready, and
// this one.
func (d *division) target(nodes []fleet.Node) (share float64, names string) {
	counted := []string{d.self}
	var own, all float64
	for _, n := range nodes {
		rate := min(max(n.Rate, 0), maxNodeRate)
		switch {
		case n.Name == d.self:
			own = rate
		case !n.Ready:
			continue
		default:
			counted = append(counted, n.Name)
		}
		all += rate
	}
	slices.Sort(counted)
	even := 1 / float64(len(counted))
	if share = even; d.byTraffic && all > 0 {
		share = evenPart*even + (1-evenPart)*own/all
	}
	return max(share, leastShare), strings.Join(counted, "\x00")
}
