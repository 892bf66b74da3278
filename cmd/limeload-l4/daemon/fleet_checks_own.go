package daemon

import (
	"slices"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// This file is about this node's own checks of a pool whose checks are shared: which there are, what they have found,
// and what of it the node says to the others.

// ownLocked returns what this node's own checks have found; nil if there is a backend about which they have found
// nothing out yet.
//
// In a pool with one primary, a primary that was found takes the place of the one before, once that one was checked,
// too: there are never two, and nobody waits until all checks of the one before have failed. While the pool has nothing
// healthy, a part of the verdicts is better than none; they are not complete then.
func (k *checkedPool) ownLocked(d *duty, members []string, present findings) (all findings, complete bool) {
	if !d.looks || len(d.own) == 0 {
		return nil, false
	}
	all, complete = make(findings, len(members)), true
	primary := ""
	for _, id := range members {
		own, known := d.own[id]
		if !known {
			continue
		}
		all[id] = finding{Address: k.share.places[id].text(), Verdict: own.verdict.String(), Reason: own.reason}
		if k.share.sharing.primary && own.verdict == pool.Healthy {
			if primary != "" {
				return nil, false // the verdict on one of them is on its way
			}
			primary = id
		}
	}
	serves := present.have(pool.Healthy, pool.Fallback)
	for _, id := range members {
		if _, known := d.own[id]; known {
			continue
		}
		complete = false
		switch healthy := present[id].Verdict == pool.Healthy.String(); {
		case primary != "" && healthy && k.checkedLocked(id):
			all[id] = finding{Address: k.share.places[id].text(), Verdict: pool.Unknown.String(),
				Reason: primary + " is found to be the primary"}
		case !serves, primary != "" && !healthy:
			all[id] = present[id]
		default:
			return nil, false
		}
	}
	return all, complete
}

// checkedLocked reports whether a check of a backend has ended.
func (k *checkedPool) checkedLocked(backend string) bool {
	t, known := k.scheduler.Target(targetID(k.pool.Name(), backend))
	return known && !t.Last.At.IsZero()
}

// confirmsLocked reports whether the last own checks of all backends agree with the own verdicts, and are newer than
// the last hint.
func (k *checkedPool) confirmsLocked(d *duty, members []string) bool {
	if !d.looks {
		return false
	}
	for _, id := range members {
		own, known := d.own[id]
		t, checked := k.scheduler.Target(targetID(k.pool.Name(), id))
		if !known || !checked || !t.Last.At.After(d.suspected) || verdict(t.Last.Outcome.Verdict()) != own.verdict {
			return false
		}
	}
	return true
}

// lookLocked begins or ends this node's own checks of a duty.
func (k *checkedPool) lookLocked(id string, d *duty, members []string, looks bool) {
	fresh := false
	for _, backend := range members {
		if looks {
			if _, checked := k.targets[backend]; !checked {
				fresh = true
				k.share.began[backend] = time.Now()
			}
			k.checkLocked(backend, k.share.places[backend], healthcheck.Unknown)
		} else {
			k.removeLocked(backend)
		}
	}
	if fresh && k.fence != nil {
		if primary := k.share.primary; primary != "" && k.fence.Primary() == "" {
			k.fence.Remember(k.target(primary))
		}
		k.appointByRoleLocked()
	}
	if !looks {
		clear(d.own)
	}
	d.looks = looks
}

// sayLocked says what this node has found, if it is a judge, or withdraws it.
func (k *checkedPool) sayLocked(id string, d *duty, own findings) {
	c := k.share.checks
	if !d.judge || own == nil || c.isAlone() || c.doubting() && own.have(pool.Unhealthy) {
		k.unsayLocked(id, d)
		return
	}
	if d.said != nil && d.said.agree(own) || d.said == nil && !c.linked() {
		return // when it is connected, it knows first who else is there
	}
	all := make(findings, len(own))
	for backend, f := range own {
		f.Reason = printable(f.Reason, maxReason)
		if t, known := k.scheduler.Target(targetID(k.pool.Name(), backend)); known {
			if t.Last.Role != healthcheck.RoleUnknown {
				f.Role = t.Last.Role.String()
			}
		}
		all[backend] = f
	}
	if c.say(dutyKey{k.pool.Name(), id}, report{Sum: k.share.sum, Backends: all}) {
		d.said = all
		return
	}
	k.unsayLocked(id, d) // or else what it has said before would stand
}

// unsayLocked withdraws what this node says about a duty.
func (k *checkedPool) unsayLocked(id string, d *duty) {
	if d.said != nil {
		k.share.checks.unsay(dutyKey{k.pool.Name(), id})
		d.said = nil
	}
}

// takeShared takes the results of this node's checks, if the checks are shared. It reports whether they are.
//
// A check that this node has ended, or begun anew, may have been reported meanwhile. It does not count: the backend may
// have another address.
func (k *checkedPool) takeShared(changes []healthcheck.Change) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.share
	if s == nil {
		return false
	}
	var ids []string
	for _, c := range changes {
		j := judgementOf(c)
		id := s.dutyOf(j.ID)
		d := s.duties[id]
		if _, checked := k.targets[j.ID]; d == nil || !checked || c.At.Before(s.began[j.ID]) {
			continue
		}
		d.own[j.ID] = ownFinding{j.Verdict, j.Reason}
		if !slices.Contains(ids[max(0, len(ids)-1):], id) {
			ids = append(ids, id)
		}
	}
	k.reviewSharedLocked(ids...)
	return true
}

// suspect makes this node check a backend itself that others check.
func (k *checkedPool) suspect(backend string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return
	}
	id := k.share.dutyOf(backend)
	if d := k.share.duties[id]; d != nil {
		d.suspected = time.Now()
		k.reviewSharedLocked(id)
	}
}
