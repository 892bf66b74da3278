package daemon

import (
	"fmt"
	"slices"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// poolGone is the reason why run-time changes end with their pool.
const poolGone = "the configuration has no such pool any more"

// fleetKeeps is added to the reason if the fleet shares a change that ends here.
const fleetKeeps = "; the fleet keeps it, and it is in force again when the configuration is as before"

// whyDropped returns the reason why a run-time change ends, and what becomes of it.
func whyDropped(diff *admin.Difference, reason string) string {
	if diff.Fleet {
		return reason + fleetKeeps
	}
	return reason
}

// runTimeChanges returns the run-time changes that stay in force after a proposal, and those that end, with the reason.
func (d *Daemon) runTimeChanges(p *proposal) (staying []admin.Difference, dropped []admin.Dropped) {
	staying, dropped = []admin.Difference{}, []admin.Dropped{}
	for _, pp := range p.pools {
		source := d.endingSource(pp)
		for _, o := range pp.served.pool.Overrides() {
			for _, diff := range d.fleet.marked(differencesOf(pp.conf.Name, o)) {
				if source != "" && o.Source == source {
					dropped = append(dropped, admin.Dropped{
						Pool: diff.Pool, Backend: diff.Backend, What: diff.What, Running: diff.Running,
						Why: whyDropped(&diff, pool.OverruledAbsent.String()),
					})
					continue
				}
				if u, ends := pp.overruled(o, diff.What); ends {
					dropped = append(dropped, admin.Dropped{
						Pool: diff.Pool, Backend: diff.Backend, What: diff.What, File: fileValue(diff.What, u),
						Running: diff.Running, Why: whyDropped(&diff, u.Why.String()),
					})
					continue
				}
				if s, named := pp.spec[o.Base.ID]; named && o.Kind == pool.OverrideRemoved && o.Source == sourceConfig {
					diff.File = s.Addr.String() // the file may name another address than before
				}
				staying = append(staying, diff)
			}
		}
	}
	for _, s := range p.gone {
		for _, o := range s.pool.Overrides() {
			for _, diff := range d.fleet.marked(differencesOf(s.pool.Name(), o)) {
				dropped = append(dropped, admin.Dropped{
					Pool: diff.Pool, Backend: diff.Backend, What: diff.What, Running: diff.Running,
					Why: whyDropped(&diff, poolGone),
				})
			}
		}
	}
	return staying, dropped
}

// endingSource returns the kind of discovery that the proposal ends or replaces by another kind; "" if it does neither.
func (d *Daemon) endingSource(pp *proposedPool) string {
	if pp.isNew || !pp.changes("discovery") {
		return ""
	}
	now, next := d.poolConfig(pp.conf.Name).Discovery, pp.conf.Discovery
	if now == nil || next != nil && next.Type == now.Type {
		return ""
	}
	return now.Type
}

// overruled returns why the proposal ends one value of an override; false if the value stays.
func (pp *proposedPool) overruled(o pool.Override, what string) (pool.Unapplied, bool) {
	i := slices.IndexFunc(pp.difference.Dropped, func(u pool.Unapplied) bool {
		of := u.Override
		return of.Kind == o.Kind && of.Source == o.Source && of.Base.ID == o.Base.ID &&
			(u.Field == "" || u.Field == what)
	})
	if i < 0 {
		return pool.Unapplied{}, false
	}
	return pp.difference.Dropped[i], true
}

// fileValue returns the value of the file that replaces one that ends; "" if there is none.
func fileValue(what string, u pool.Unapplied) string {
	if u.Why == pool.OverruledAbsent {
		return ""
	}
	switch what {
	case "weight":
		return fmt.Sprint(u.Now.Weight)
	case "max_sessions":
		return fmt.Sprint(u.Now.MaxSessions)
	case "max_rate":
		return u.Now.MaxRate.String()
	case "mode":
		return u.Now.Mode.String()
	}
	return u.Now.Addr.String()
}

// logDropped logs how many changes end with a pool that the configuration no longer has, without those that the fleet
// keeps. For pools that stay, their events report it.
func (d *Daemon) logDropped(s *served) {
	n := 0
	for _, o := range s.pool.Overrides() {
		if _, own := d.fleet.ownPart(s.pool.Name(), o); own {
			n++
		}
	}
	if n > 0 {
		d.log.Warn().Str("pool", s.pool.Name()).Int("changes", n).
			Str("event", "run_time_change_dropped").Msg("run-time changes dropped: " + poolGone)
	}
}
