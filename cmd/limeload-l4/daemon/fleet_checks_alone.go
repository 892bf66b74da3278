package daemon

import (
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// viewEvery is how often a node looks whether it is cut off.
	viewEvery = 500 * time.Millisecond
	// viewSoon is the same while many checks fail.
	viewSoon = 100 * time.Millisecond
	// sampleHosts is how many hosts a node checks before it concludes that it is cut off.
	sampleHosts = 8
)

// isAlone reports whether this node is cut off.
func (p *sharedChecks) isAlone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self.isAlone()
}

// doubting reports whether this node's own verdicts do not count.
func (p *sharedChecks) doubting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self.isDoubting()
}

// aloneReason returns why this node does not judge backends now; "" if it does. p may be nil.
func (p *sharedChecks) aloneReason() string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.self.reason()
}

// reconsider looks whether this node is cut off, before the failure of a check counts. p may be nil.
func (p *sharedChecks) reconsider() {
	if p == nil {
		return
	}
	now := time.Now()
	p.mu.Lock()
	s := &p.self
	recent, most := now.Sub(s.viewed) < viewSoon, s.reach.reached*2 > s.reach.hosts
	linked, runs := p.link, p.runs
	p.mu.Unlock()
	if !runs || recent && most { // before it runs, it cannot know what others reach, nor would its doubt end
		return
	}
	if p.view(now, linked) {
		p.reviewAll()
	}
}

// reviewAll decides about all duties.
func (p *sharedChecks) reviewAll() {
	for _, k := range p.checked() {
		k.review(nil)
	}
}

// followDoubt looks from time to time whether this node is cut off. It reports whether it thinks otherwise than before.
func (p *sharedChecks) followDoubt(now time.Time, linked bool) bool {
	p.mu.Lock()
	recent := now.Sub(p.self.viewed) < viewEvery
	p.mu.Unlock()
	return !recent && p.view(now, linked)
}

// view looks whether this node is cut off. It reports whether it thinks otherwise than before.
func (p *sharedChecks) view(now time.Time, linked bool) bool {
	p.viewing.Lock()
	defer p.viewing.Unlock()
	hosts, after := make(map[host]*hostView), time.Duration(0)
	pools := p.checked()
	for _, k := range pools {
		after = max(after, k.viewHosts(hosts))
	}
	r := reachOf(hosts)
	if r.cutOff() {
		for _, k := range pools {
			k.addHosts(hosts)
		}
		r = reachOf(hosts)
	}
	p.mu.Lock()
	r.peers = len(p.seats) > 0
	doubted, alone, since := p.self.isDoubting(), p.self.isAlone(), p.self.alone
	p.self.see(now, r, linked, after)
	doubts, isAlone, reason := p.self.isDoubting(), p.self.isAlone(), p.self.reason()
	if alone != isAlone {
		p.saySeatLocked()
	}
	p.mu.Unlock()
	if alone != isAlone {
		p.membership.members.setAlone(reason)
	}
	log := p.membership.daemon.log
	switch {
	case isAlone && !alone:
		log.Error().Str("reason", reason).Str("event", "fleet_alone").
			Msg("this node is cut off from the backends: it is not ready, and does not judge them")
	case alone && !isAlone:
		log.Info().Float64("duration", now.Sub(since).Seconds()).Str("event", "fleet_not_alone").
			Msg("this node is not cut off any more")
	}
	switch {
	case doubts && !doubted:
		room := sampleHosts - r.hosts
		for _, k := range pools {
			k.restoreBefore(now)
			room -= k.sample(room, hosts, false)
		}
		for _, k := range pools {
			room -= k.sample(room, hosts, true)
		}
	case doubted && !doubts:
		back := slices.ContainsFunc(pools, (*checkedPool).reachesAgain)
		for _, k := range pools {
			k.endDoubt(back)
		}
	}
	return doubts != doubted || alone != isAlone
}

// A hostView is what this node and others see of one host.
type hostView struct{ checked, reached, judged, elsewhere bool }

// reachOf adds up.
func reachOf(hosts map[host]*hostView) (r reach) {
	for _, h := range hosts {
		switch {
		case !h.checked:
			r.others++
			continue
		case h.reached:
			r.reached++
		case h.elsewhere:
			r.judged++
			r.elsewhere++
		case h.judged:
			r.judged++
		}
		r.hosts++
	}
	return r
}

// A host is what backends have in common that are cut off together.
type host struct {
	addr netip.Addr
	path string // of a Unix socket
}

// host returns where a place is.
func (p place) host() host {
	if p.check.IsValid() {
		return host{addr: p.check.Addr()}
	}
	return host{p.addr.Addr(), p.addr.Path}
}

// addHosts adds the hosts of all backends.
func (k *checkedPool) addHosts(hosts map[host]*hostView) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	for _, at := range k.share.places {
		if hosts[at.host()] == nil {
			hosts[at.host()] = &hostView{}
		}
	}
}

// viewHosts adds what this node sees of the hosts that it checks. It returns how long others may need to see the same.
func (k *checkedPool) viewHosts(hosts map[host]*hostView) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return 0
	}
	said := make(map[string][]findings) // by duty
	for id, at := range k.targets {
		t, known := k.scheduler.Target(targetID(k.pool.Name(), id))
		if !known || t.Last.At.IsZero() || t.Last.Outcome == healthcheck.FoundNothingOut {
			continue
		}
		h := hosts[at.host()]
		if h == nil {
			h = &hostView{}
			hosts[at.host()] = h
		}
		h.checked = true
		if answers(t.Last) {
			h.reached = true
			continue
		}
		duty := k.share.dutyOf(id)
		if _, asked := said[duty]; !asked {
			said[duty], _ = k.share.checks.said(dutyKey{k.pool.Name(), duty}, k.share, k.share.members(duty))
		}
		for _, f := range said[duty] {
			h.judged = h.judged || f[id].Verdict != pool.Unknown.String()
			h.elsewhere = h.elsewhere || reached(f[id].Verdict)
		}
	}
	return k.check.suspense()
}

// restoreBefore restores the verdicts on backends that have failed a moment ago: that has come from the checks of a
// node that is cut off.
func (k *checkedPool) restoreBefore(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	var all []pool.Judgement
	for id, d := range k.share.duties {
		if len(d.lost) == 0 {
			continue
		}
		before, present := make(findings), k.presentLocked(k.share.members(id))
		for backend, l := range d.lost {
			if now.Sub(l.at) <= k.check.suspense() && k.mayRestoreLocked(backend, l.before, present) {
				before[backend] = l.before
			}
		}
		all = append(all, k.judgementsLocked(d, present, before, false, nil, now)...)
	}
	k.setVerdictsLocked(all)
}

// mayRestoreLocked reports whether a backend may have the verdict of before again: there is never a second primary, nor
// one that the pool's source does not name.
func (k *checkedPool) mayRestoreLocked(backend string, before finding, present findings) bool {
	if !k.share.sharing.primary || before.Verdict != pool.Healthy.String() {
		return true
	}
	b, _ := k.pool.Backend(backend)
	return backend == k.share.primary && !present.have(pool.Healthy) &&
		(b.Role == pool.RoleUnknown || b.Role == pool.RolePrimary)
}

// sample makes this node check more backends, up to so many, on hosts that it does not check or, if again, that it has
// not reached: they may have other backends that answer. It returns how many there are.
func (k *checkedPool) sample(room int, hosts map[host]*hostView, again bool) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return 0
	}
	for id, at := range k.share.places {
		d := k.share.duties[k.share.dutyOf(id)]
		if n >= room {
			break
		}
		h := hosts[at.host()]
		if d.looks || d.sampled || h == nil || h.checked != again || h.reached {
			continue
		}
		h.checked = true
		d.sampled = true
		n++
	}
	return n
}

// reachesAgain reports whether this node reaches a backend that it did not reach when it began to doubt.
func (k *checkedPool) reachesAgain() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return false
	}
	for id := range k.targets {
		t, known := k.scheduler.Target(targetID(k.pool.Name(), id))
		if d := k.share.duties[k.share.dutyOf(id)]; known && d != nil && !d.sampled && answers(t.Last) {
			return true
		}
	}
	return false
}

// endDoubt has this node believe itself again. If it was cut off, what it has found meanwhile is of no use, and it
// begins anew.
func (k *checkedPool) endDoubt(wasCutOff bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	for id, d := range k.share.duties {
		d.sampled = false
		if wasCutOff && d.looks {
			for _, backend := range k.share.members(id) {
				k.removeLocked(backend)
			}
			clear(d.own)
		}
	}
}

// answers reports whether a check that has ended got an answer, even if that was not the right one.
func answers(last healthcheck.Ended) bool {
	return !last.At.IsZero() && last.Outcome != healthcheck.FoundNothingOut && last.Outcome != healthcheck.Failed &&
		last.Outcome != healthcheck.TimedOut
}
