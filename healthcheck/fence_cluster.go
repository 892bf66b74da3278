package healthcheck

import "fmt"

// sameCluster reports whether two targets are members of one cluster whose members all take writes.
func sameCluster(a, b Result) bool { return a.Cluster != "" && a.Cluster == b.Cluster }

// joinLocked judges the claim of a member of the primary's cluster. The primary stays what it is while its verdict is
// healthy: sessions must not move without need, and a second writer would cause conflicts. If nobody knows which member
// was the primary before, as after a start, the lower address wins.
func (f *Fence) joinLocked(c claimant) (reason string) {
	winner, loser := claimant{f.primary, f.claim}, c
	if better, _ := f.outranksLocked(c); better {
		winner, loser = c, winner
		f.scheduler.judge(loser.ID, WrongRole, memberWords(winner.Target))
		f.installLocked(c)
	} else {
		reason = memberWords(winner.Target)
	}
	f.members[loser.ID] = loser
	_, known := f.scheduler.verdict(f.remember.ID)
	if !known || f.others[f.remember.ID] || f.remember.ID == loser.ID { // otherwise that one has not been asked yet
		f.remember = winner.Target
	}
	return reason
}

// succeedLocked makes c the primary when there is none, unless another member of its cluster has a lower address. That
// one is then checked soon. So all fences choose the same member, whichever they check first, and no session moves
// twice.
func (f *Fence) succeedLocked(c claimant) (reason string) {
	first := c
	for _, m := range f.members {
		if sameCluster(m.claim, c.claim) && m.Addr.Compare(first.Addr) < 0 {
			first = m
		}
	}
	if first.ID != c.ID {
		f.members[c.ID] = c
		f.scheduler.CheckSoon(first.ID)
		return memberWords(first.Target)
	}
	if sameCluster(c.claim, f.claim) {
		f.remember = c.Target // and not the earlier one, should it come back before another check has failed
	}
	f.installLocked(c)
	return ""
}

// abstain notes that a check of a target found nothing out. The other members of its cluster do not wait for it.
func (f *Fence) abstain(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.members, id)
}

// checkMembersLocked has the members of the primary's cluster checked soon, since the primary failed a check: one of
// them may have to take its place.
func (f *Fence) checkMembersLocked() {
	for id := range f.members {
		f.scheduler.CheckSoon(id)
	}
}

// memberWords says why a member of a cluster is not the primary.
func memberWords(primary Target) string {
	return fmt.Sprintf("another member of its cluster gets the writes: %s", primary.ID)
}
