package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

// A poolShare is a pool's part in the shared checks: which backends this node checks, and whose findings are the
// verdicts. checkedPool.mu guards all of it; the methods are those of the checkedPool with the suffix Shared or
// SharedLocked.
type poolShare struct {
	checks *sharedChecks // set once
	sharing

	duties map[string]*duty // by backend; "" if the backends are judged together
	places map[string]place // of the pool's backends

	nodes  []string // that take part, this one included unless it is alone
	seated uint64   // nodes are those of this version of the seats
	// when this node began to check each backend: what was found earlier does not count
	began map[string]time.Time

	primary string // the backend that was last healthy in a pool that has one primary; "" before
}

// A duty is what k nodes check for all: a backend, or all backends of a pool.
type duty struct {
	judge bool // this node is one of the k, or was and its successor has found nothing out yet
	looks bool // this node checks the backends now

	own  map[string]ownFinding // by backend, since the node looks
	said findings              // what this node says; nil for nothing

	suspected   time.Time // the last hint that the node has not checked yet; zero: none
	unconfirmed bool      // see hearing
	sampled     bool      // this node checks the backends to learn whether it is cut off
	short       time.Time // since when too few others say anything; zero: enough
	restless    bool      // time counts for what follows

	others findings // what other nodes have found, if that counts here; nil if it does not
	by     []string // these nodes

	lost map[string]loss // by backend; those that are unhealthy here now
}

// A loss is how a backend has failed. It is a plain value.
type loss struct {
	before finding // the verdict until then
	at     time.Time
}

// note notes a verdict that changes.
func (d *duty) note(backend string, before finding, next string, at time.Time) {
	switch {
	case next != pool.Unhealthy.String():
		delete(d.lost, backend)
	case reached(before.Verdict):
		if d.lost == nil {
			d.lost = make(map[string]loss)
		}
		d.lost[backend] = loss{before, at}
	}
}

// forget forgets a backend that has gone, or that has another address.
func (d *duty) forget(backend string) {
	delete(d.own, backend)
	delete(d.lost, backend)
}

// An ownFinding is a verdict of this node's own checks.
type ownFinding struct {
	verdict pool.Verdict
	reason  string
}

// text returns a place as the nodes compare it.
func (p place) text() string {
	if p.check.IsValid() {
		return p.addr.String() + " " + p.check.String()
	}
	return p.addr.String()
}

// joinLocked begins to share the check, if it can be shared and the node takes part; c may be nil.
func (k *checkedPool) joinLocked(c *sharedChecks) {
	k.share = nil
	if c == nil || k.check.sharing.sum == "" {
		return
	}
	s := &poolShare{checks: c, sharing: k.check.sharing, duties: make(map[string]*duty), places: make(map[string]place),
		began: make(map[string]time.Time)}
	s.sum = sumOf(s.sum, c.share)
	k.share = s
	c.register(k, s.sum)
}

// leaveLocked ends what this node says about the pool.
func (k *checkedPool) leaveLocked() {
	s := k.share
	if s == nil {
		return
	}
	s.checks.unregister(k)
	for id, d := range s.duties {
		k.unsayLocked(id, d)
	}
	k.share = nil
}

// settleLocked updates the duties to the pool's backends, and returns those that have to be reviewed.
func (k *checkedPool) settleLocked(backends []pool.BackendInfo) (changed []string) {
	s := k.share
	places := make(map[string]place, len(backends))
	for _, b := range backends {
		places[b.ID] = place{b.Addr, b.Check}
	}
	note := func(backend string) {
		if id := s.dutyOf(backend); !slices.Contains(changed[max(0, len(changed)-1):], id) {
			changed = append(changed, id)
		}
	}
	for id, at := range places {
		d := s.duties[s.dutyOf(id)]
		if d == nil {
			d = &duty{own: make(map[string]ownFinding)}
			s.duties[s.dutyOf(id)] = d
		}
		if was, known := s.places[id]; !known || was != at {
			k.removeLocked(id) // a target that moves would keep its verdict, and say nothing about the new place
			d.forget(id)
			note(id)
		}
	}
	for id := range s.places {
		if _, there := places[id]; there {
			continue
		}
		k.removeLocked(id)
		delete(s.began, id)
		d := s.duties[s.dutyOf(id)]
		if d == nil {
			continue // all backends of the pool have gone
		}
		d.forget(id)
		if s.together && len(places) > 0 {
			note(id)
			continue
		}
		k.unsayLocked(s.dutyOf(id), d)
		delete(s.duties, s.dutyOf(id))
	}
	s.places = places
	return changed
}

// dutyOf returns the id of the duty that a backend belongs to.
func (s *poolShare) dutyOf(backend string) string {
	if s.together {
		return ""
	}
	return backend
}

// members returns the backends of a duty.
func (s *poolShare) members(id string) []string {
	if !s.together {
		return []string{id}
	}
	all := make([]string, 0, len(s.places))
	for backend := range s.places {
		all = append(all, backend)
	}
	slices.Sort(all)
	return all
}

// subject returns what decides who gets a duty. Two pools over the same servers get the same judges.
func (s *poolShare) subject(id string) string {
	lowest := ""
	for _, backend := range s.members(id) {
		if at := s.places[backend].text(); lowest == "" || at < lowest {
			lowest = at
		}
	}
	return s.question + " " + lowest
}

// reviewSharedLocked decides about some duties, and does what follows.
func (k *checkedPool) reviewSharedLocked(ids ...string) {
	s, now := k.share, time.Now()
	if nodes, seated := s.checks.takingPart(k.pool.Name(), s.sum, s.seated); seated != s.seated {
		s.nodes, s.seated = nodes, seated
	}
	var judgements []pool.Judgement
	for _, id := range ids {
		if d := s.duties[id]; d != nil {
			judgements = append(judgements, k.reviewDutyLocked(id, d, now)...)
		}
	}
	k.setVerdictsLocked(judgements)
}

// setVerdictsLocked sets verdicts, all at once.
func (k *checkedPool) setVerdictsLocked(judgements []pool.Judgement) {
	if len(judgements) == 0 {
		return
	}
	if err := ignoreUnknown(k.pool.SetVerdicts(judgements...)); err != nil {
		k.log.Error().AnErr("err", err).Str("event", "verdict_failed").Msg("verdict not taken")
	}
}

// reviewDutyLocked decides about a duty, and returns the verdicts.
func (k *checkedPool) reviewDutyLocked(id string, d *duty, now time.Time) []pool.Judgement {
	s := k.share
	members := s.members(id)
	heard, by := s.checks.said(dutyKey{k.pool.Name(), id}, s, members)
	h := hearing{heard: heard, present: k.presentLocked(members), looks: d.looks, held: s.checks.doubting(),
		alone: s.checks.isAlone(), patience: k.check.patience()}
	k.appointLocked(id, d, by, &h)
	own, complete := k.ownLocked(d, members, h.present)
	if own.have(pool.Unknown) && !s.together {
		// No check has ended for long, so this node is overloaded. That says nothing about the backend, and others know.
		complete = false
		if len(heard) > 0 {
			own = nil
		}
	}
	h.own = own
	if k.confirmsLocked(d, members) {
		d.suspected = time.Time{}
		if h.own.agree(h.agreed()) {
			d.unconfirmed = false
		}
	}
	h.suspected, h.unconfirmed = !d.suspected.IsZero() || d.sampled, d.unconfirmed
	switch {
	case h.judge || len(heard) >= h.need:
		d.short = time.Time{}
	case d.short.IsZero():
		d.short = now
	}
	if !d.short.IsZero() {
		h.short = now.Sub(d.short)
	}
	if !s.checks.linked() {
		h.patience = 0 // it was patient already
	}
	r := h.rule()
	enough := len(heard) >= h.need && h.agreed() != nil
	d.restless = !h.judge && (r.looks && enough || !r.looks && h.short > 0) || s.together && r.looks && !complete
	d.others, d.by = nil, nil
	verdicts := findings(nil)
	switch r.by {
	case byOwn:
		verdicts = h.own
	case byOthers:
		verdicts = h.agreed()
		d.others, d.by = verdicts, by
		d.unconfirmed = d.unconfirmed || !h.judge && h.own == nil && h.worsens(verdicts)
	}
	judgements := k.judgementsLocked(d, h.present, verdicts, r.by == byOthers, by, now)
	k.lookLocked(id, d, members, r.looks)
	if !complete {
		own = nil
	}
	k.sayLocked(id, d, own)
	return judgements
}

// appointLocked sets whether this node is a judge of a duty, and how many it needs otherwise.
func (k *checkedPool) appointLocked(id string, d *duty, by []string, h *hearing) {
	s := k.share
	judges := fleet.Duties(s.nodes, s.subject(id), s.checks.share)
	self := s.checks.node()
	successors := slices.ContainsFunc(judges, func(n string) bool { return n != self && !slices.Contains(by, n) })
	onDuty := slices.Contains(judges, self)
	d.judge = onDuty || d.judge && d.said != nil && successors
	h.judge, h.need = d.judge, len(judges)
	if onDuty {
		h.need--
	}
}

// presentLocked returns the verdicts in force. A backend that was just replaced by one at another address is left out:
// what was found about the one before is none of its business.
func (k *checkedPool) presentLocked(members []string) findings {
	all := make(findings, len(members))
	for _, id := range members {
		if b, known := k.pool.Backend(id); known && k.share.places[id] == (place{b.Addr, b.Check}) {
			all[id] = finding{Address: k.share.places[id].text(), Verdict: b.Verdict.String(), Reason: b.Reason}
		}
	}
	return all
}

// judgementsLocked returns the verdicts that change. by are the nodes that say so, if it is not this one.
func (k *checkedPool) judgementsLocked(
	d *duty, present, next findings, byOthers bool, by []string, now time.Time,
) (all []pool.Judgement) {
	for id, f := range next {
		v, is := verdictOfWord(f.Verdict)
		was, known := present[id]
		if !is || !known || was.Verdict == f.Verdict {
			continue
		}
		if v == pool.Healthy && k.share.sharing.primary {
			k.share.primary = id
			k.share.checks.membership.daemon.pokeJudged()
		}
		d.note(id, was, f.Verdict, now)
		reason := f.Reason
		if byOthers {
			reason = checkedBy(by) + f.Reason
		}
		all = append(all, pool.Judgement{ID: id, Verdict: v, Reason: reason})
	}
	// The primary before goes first. They are put in force together, but their events come one after the other.
	slices.SortFunc(all, func(a, b pool.Judgement) int { return healthyLast(a) - healthyLast(b) })
	return all
}

func healthyLast(j pool.Judgement) int {
	if j.Verdict == pool.Healthy {
		return 1
	}
	return 0
}

// checkedBy returns the beginning of a reason that other nodes have found.
func checkedBy(nodes []string) string {
	if len(nodes) == 1 {
		return "checked by node " + nodes[0] + ": "
	}
	const most = 3 // more names than that do not help
	shown := nodes[:min(most, len(nodes))]
	text := "checked by nodes " + strings.Join(shown, ", ")
	if more := len(nodes) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + ": "
}

// review decides about some duties, or about all for nil, because others say something new.
func (k *checkedPool) review(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	if ids == nil {
		ids = slices.Collect(maps.Keys(k.share.duties))
	}
	k.reviewSharedLocked(ids...)
}

// reviewRestless decides about the duties for which time counts.
func (k *checkedPool) reviewRestless() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	var ids []string
	for id, d := range k.share.duties {
		if d.restless {
			ids = append(ids, id)
		}
	}
	k.reviewSharedLocked(ids...)
}

// restartLocked begins anew with another check. The verdicts stay until there are new ones.
func (k *checkedPool) restartLocked(shared *sharedChecks) {
	primary := ""
	if k.share != nil {
		primary = k.share.primary
	}
	k.leaveLocked()
	for id := range k.targets {
		k.removeLocked(id)
	}
	if k.joinLocked(shared); k.share != nil {
		k.share.primary = primary
	}
}

// heard returns what other nodes have found about a backend and which nodes, if that counts here.
func (k *checkedPool) heard(backend string) (f finding, by []string, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return f, nil, false
	}
	d := k.share.duties[k.share.dutyOf(backend)]
	if d == nil || d.others == nil {
		return f, nil, false
	}
	f, is = d.others[backend]
	return f, d.by, is
}
