package daemon

import (
	"fmt"
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

// A reach is how many hosts this node's checks reach. It is a plain value.
type reach struct {
	hosts, reached int // that it checks
	// of those that it does not reach: hosts that other nodes check, and that they reach
	judged, elsewhere int
	others            int // that the node does not check, and could; 0 if there is no other node
}

// cutOff reports whether the node reaches none, or nearly none: a backend on the node itself always answers.
func (r reach) cutOff() bool { return r.hosts > 0 && r.reached*10 <= r.hosts }

// A selfDoubt is what a node thinks of itself. A node that reaches none of its hosts doubts itself at once: its own
// verdicts do not count, neither here nor elsewhere, and it checks more hosts. It goes on to doubt while other nodes
// reach what it does not. If that lasts, the node is alone: it is not ready, and takes part in nothing.
// sharedChecks.mu guards it.
type selfDoubt struct {
	failing time.Time // since when the node reaches none; zero: it reaches some
	doubts  time.Time // since when; zero: it does not
	alone   time.Time // since when; zero: it is not
	calm    time.Time // since when nobody else reaches anything, while it is alone; zero: somebody does
	reach   reach
	linked  bool // to etcd

	viewed time.Time // when reach was looked at
}

// isAlone reports whether the node is alone.
func (s *selfDoubt) isAlone() bool { return !s.alone.IsZero() }

// isDoubting reports whether the node's own verdicts do not count.
func (s *selfDoubt) isDoubting() bool { return s.isAlone() || !s.doubts.IsZero() }

// see takes up what the node reaches. after is how long a doubt lasts before the node is alone: others must have had
// the time to find out the same. If nobody reaches anything, the doubt ends then, too: the backends are down. With one host
// in all there is nothing to doubt.
//
// Without a connection to etcd nobody knows what others reach. Then two hosts that fail at once are enough: they rather
// fail here than both there.
func (s *selfDoubt) see(now time.Time, r reach, linked bool, after time.Duration) {
	s.reach, s.linked, s.viewed = r, linked, now
	switch {
	case !r.cutOff():
		s.failing = time.Time{}
	case s.failing.IsZero():
		s.failing = now
	}
	cut := r.cutOff() && (linked && r.elsewhere > 0 || !linked && r.hosts > 1)
	perhaps := r.cutOff() && linked && r.hosts+r.others > 1 && now.Sub(s.failing) < after
	if s.isAlone() {
		switch {
		case cut:
			s.calm = time.Time{}
		case r.hosts > 0 && !r.cutOff():
			s.alone, s.doubts, s.calm = time.Time{}, time.Time{}, time.Time{}
		case s.calm.IsZero():
			s.calm = now
		case now.Sub(s.calm) >= after:
			s.alone, s.doubts, s.calm = time.Time{}, time.Time{}, time.Time{}
		}
		return
	}
	switch {
	case !cut && !perhaps:
		s.doubts = time.Time{}
	case s.doubts.IsZero():
		s.doubts = now
	case cut && now.Sub(s.doubts) >= after && (!linked || r.elsewhere*2 > r.judged):
		s.alone = now
	}
}

// reason says why the node is alone; "" if it is not.
func (s *selfDoubt) reason() string {
	r := s.reach
	switch {
	case !s.isAlone():
		return ""
	case s.linked:
		return fmt.Sprintf(
			"alone: this node reaches %d of the %d hosts that it checks, and other nodes reach %d of the others",
			r.reached, r.hosts, r.elsewhere)
	}
	return fmt.Sprintf("alone: this node reaches %d of the %d hosts that it checks, and no etcd", r.reached, r.hosts)
}

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
	linked := p.link
	p.mu.Unlock()
	if recent && most {
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
	if len(p.seats) == 0 {
		r.others = 0
	}
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
			room -= k.sample(room, hosts)
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
		heard, _ := k.share.checks.said(dutyKey{k.pool.Name(), duty}, k.share, k.share.members(duty))
		for _, f := range heard {
			h.judged = h.judged || f[id].Verdict != pool.Unknown.String()
			h.elsewhere = h.elsewhere || reached(f[id].Verdict)
		}
	}
	return k.check.suspense()
}

// restoreBefore restores the verdicts from before the last changes, if those were a moment ago: they have come from the
// checks of a node that is cut off.
func (k *checkedPool) restoreBefore(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	var all []pool.Judgement
	for id, d := range k.share.duties {
		if d.before == nil || now.Sub(d.changed) > k.check.suspense() {
			continue
		}
		all = append(all, k.judgementsLocked(d, k.presentLocked(k.share.members(id)), d.before, false, nil, now)...)
		d.before = nil
	}
	k.setVerdictsLocked(all)
}

// sample makes this node check backends on hosts that it does not check, up to so many. It returns how many there are.
func (k *checkedPool) sample(room int, hosts map[host]*hostView) (n int) {
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
		if d.looks || h == nil || h.checked {
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
