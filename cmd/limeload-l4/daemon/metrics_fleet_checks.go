package daemon

// ofFleetChecks declares the numbers of the checks that the nodes of a fleet share. A node that shares none has none.
func (c *catalog) ofFleetChecks(d *Daemon) part {
	checks := c.gauge("limeload_fleet_checks",
		"So many backends of shared checks are checked by this node for all (own), by other nodes (others), or by this node "+
			"for itself because it cannot rely on others (looking).",
		"state")
	return func(to sink) {
		shared := d.fleet.sharing()
		if shared == nil {
			return
		}
		var n checkShares
		for _, k := range shared.checked() {
			n = n.plus(k.shares())
		}
		to.put(checks, float64(n.own), label("state", "own"))
		to.put(checks, float64(n.others), label("state", "others"))
		to.put(checks, float64(n.looking), label("state", "looking"))
	}
}

// checkShares are numbers of backends, by who checks them.
type checkShares struct{ own, others, looking int }

// plus returns the sum of two.
func (n checkShares) plus(m checkShares) checkShares {
	return checkShares{n.own + m.own, n.others + m.others, n.looking + m.looking}
}

// shares returns the numbers of a pool.
func (k *checkedPool) shares() (n checkShares) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.share == nil {
		return n
	}
	for id := range k.share.places {
		switch d := k.share.duties[k.share.dutyOf(id)]; {
		case d.judge:
			n.own++
		case d.looks:
			n.looking++
		default:
			n.others++
		}
	}
	return n
}
