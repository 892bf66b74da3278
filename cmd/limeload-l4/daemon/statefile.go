package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/rate"
)

// stateVersion is the version of the format. Files of other versions are refused.
const stateVersion = 1

// A savedState is the content of a state file: the run-time changes with the values before them, the primaries, and the
// access rules.
type savedState struct {
	Version int                        `json:"version"`
	Pools   map[string][]savedOverride `json:"pools"`

	// Primaries are the backends that last were the primary, by pool; see healthcheck.Fence. Older versions ignore it.
	Primaries map[string]string `json:"primaries,omitempty"`

	// Access are the access rules that were added at run time. Older versions ignore them, and leave them out of the
	// files that they write.
	Access []savedAccessRule `json:"access,omitempty"`

	// Fleet are the changes that the nodes of a fleet share; they are in no other field. Older versions ignore them.
	Fleet *savedFleet `json:"fleet,omitempty"`
	// RateShare is this node's part of the rates that the nodes of a fleet divide; 0 if it is not known.
	RateShare float64 `json:"rate_share,omitempty"`
}

// A savedOverride is the run-time change of one backend.
type savedOverride struct {
	What   string       `json:"what"`             // added, removed or changed
	Source string       `json:"source,omitempty"` // the source that also names the backend
	Base   savedBackend `json:"base"`             // as its source named it at the time; for an added one, as it is

	Weight      *uint32 `json:"weight,omitempty"` // only for a changed one, only values that differ
	MaxSessions *int    `json:"max_sessions,omitempty"`
	MaxRate     *string `json:"max_rate,omitempty"`
	Mode        *string `json:"mode,omitempty"`
}

// A savedBackend is a backend as its source describes it.
type savedBackend struct {
	Name        string         `json:"name"`
	Address     pool.Address   `json:"address"`
	Weight      uint32         `json:"weight"`
	MaxSessions int            `json:"max_sessions"`
	MaxRate     string         `json:"max_rate,omitempty"`
	Tier        int            `json:"tier"`
	Zone        string         `json:"zone"`
	Mode        string         `json:"mode"`
	Check       netip.AddrPort `json:"check,omitzero"`
}

// collectState returns the content of the state file.
func (d *Daemon) collectState() savedState {
	state := savedState{
		Version: stateVersion, Pools: make(map[string][]savedOverride), Primaries: d.primaries(),
		Access: d.rules.saved(func(k ruleKey) bool { return !d.fleet.shared(accessKey(k)) }),
		Fleet:  d.fleet.saved(),
	}
	if d.fleet != nil {
		state.RateShare = d.fleet.shares.inForce()
	}
	for name, s := range d.servedPools() {
		for _, o := range s.pool.Overrides() {
			if o, own := d.fleet.ownPart(name, o); own {
				state.Pools[name] = append(state.Pools[name], toSaved(o))
			}
		}
	}
	return state
}

// primaries returns the primary of each pool that has one.
func (d *Daemon) primaries() map[string]string {
	all := make(map[string]string)
	for name, s := range d.servedPools() {
		if k, _ := s.works(); k != nil {
			if backend := k.primary(); backend != "" {
				all[name] = backend
			}
		}
	}
	return all
}

// keepPrimaries saves the state whenever a primary changes, until ctx is done.
func (d *Daemon) keepPrimaries(ctx context.Context) {
	if d.state.path == "" {
		return
	}
	saved := d.primaries()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.judgedAgain:
		}
		if now := d.primaries(); !maps.Equal(now, saved) {
			d.saveOrLog()
			saved = now
		}
	}
}

func toSaved(o pool.Override) savedOverride {
	s := savedOverride{What: string(o.Kind), Source: o.Source, Weight: o.Weight, MaxSessions: o.MaxSessions,
		Base: savedBackend{
			Name: o.Base.ID, Address: o.Base.Addr, Weight: o.Base.Weight, MaxSessions: o.Base.MaxSessions,
			MaxRate: o.Base.MaxRate.String(),
			Tier:    o.Base.Tier, Zone: o.Base.Zone, Mode: o.Base.Mode.String(), Check: o.Base.Check,
		}}
	if o.MaxRate != nil {
		text := o.MaxRate.String()
		s.MaxRate = &text
	}
	if o.Mode != nil {
		mode := o.Mode.String()
		s.Mode = &mode
	}
	return s
}

func fromSaved(s savedOverride) (pool.Override, error) {
	o := pool.Override{Kind: pool.OverrideKind(s.What), Source: s.Source, Weight: s.Weight, MaxSessions: s.MaxSessions,
		Base: pool.Spec{
			ID: s.Base.Name, Addr: s.Base.Address, Weight: s.Base.Weight, MaxSessions: s.Base.MaxSessions,
			Tier: s.Base.Tier, Zone: s.Base.Zone, Check: s.Base.Check,
		}}
	var err error
	if o.Base.Mode, err = pool.ParseMode(s.Base.Mode); err == nil && s.Mode != nil {
		var mode pool.Mode
		mode, err = pool.ParseMode(*s.Mode)
		o.Mode = &mode
	}
	if err == nil {
		o.Base.MaxRate, err = pool.ParseMaxRate(s.Base.MaxRate)
	}
	if err == nil && s.MaxRate != nil {
		var l rate.Limit
		l, err = pool.ParseMaxRate(*s.MaxRate)
		o.MaxRate = &l
	}
	return o, err
}

// restoreState restores the run-time changes: those of the state file or, when this process takes over from another one,
// those of that process. Only the latter is an error, since the changes would be lost silently.
func (d *Daemon) restoreState() error {
	if d.from == nil {
		d.loadState()
		return nil
	}
	d.state.hold()
	if err := d.restore(d.from.offer.State); err != nil {
		return fmt.Errorf("run-time changes cannot be taken over: %w", err)
	}
	return nil
}

// loadState restores the run-time changes of the previous process. Errors are only logged, since the daemon can serve
// without them. A file that cannot be understood is renamed.
func (d *Daemon) loadState() {
	var state savedState
	err := d.state.load(&state)
	if err == nil {
		if wrong := d.restore(state); wrong != nil {
			err = d.state.setAside(wrong)
		}
	}
	if err != nil {
		d.loadFailure = err
		d.log.Error().AnErr("err", err).Str("event", "state_not_restored").Msg("run-time changes not restored")
	}
}

// restore applies a state, either as a whole or not at all.
func (d *Daemon) restore(state savedState) error {
	if state.Version != stateVersion && len(state.Pools)+state.Version > 0 {
		return fmt.Errorf("its version is %d, and not %d", state.Version, stateVersion)
	}
	overrides := make(map[string][]pool.Override, len(state.Pools))
	for name, saved := range state.Pools {
		for _, s := range saved {
			o, err := fromSaved(s)
			if err != nil {
				return fmt.Errorf("pool %s: backend %q: %w", name, s.Base.Name, err)
			}
			overrides[name] = append(overrides[name], o)
		}
	}
	rules, err := parseSavedRules(state.Access)
	if err != nil {
		return err
	}
	for name, backend := range state.Primaries {
		if s := d.pools[name]; s != nil && s.checks != nil {
			s.checks.remember(backend)
		}
	}
	for name, all := range overrides {
		s := d.pools[name]
		if s == nil {
			d.log.Warn().Str("pool", name).Int("changes", len(all)).
				Str("event", "run_time_change_dropped").Msg("run-time changes dropped: " + poolGone)
			continue
		}
		unapplied, err := s.pool.Restore(all)
		if err != nil {
			return err
		}
		for _, u := range unapplied {
			d.log.Warn().Str("pool", name).Str("backend", u.Override.Base.ID).Str("reason", u.String()).
				Str("event", "run_time_change_dropped").Msg("run-time change dropped")
		}
		if n := len(all) - len(unapplied); n > 0 {
			d.log.Info().Str("pool", name).Int("changes", n).
				Str("event", "state_restored").Msg("run-time changes restored")
		}
	}
	if d.fleet != nil {
		d.fleet.shares.restore(state.RateShare)
	}
	if n := d.rules.restore(rules, wallNow()); n > 0 {
		d.log.Info().Int("rules", n).Str("event", "access_rules_restored").Msg("access rules restored")
	}
	d.restoreFleet(state.Fleet)
	return nil
}

// saveState writes the state file, if there is one. The error is an *admin.NotSavedError.
func (d *Daemon) saveState() error {
	if err := d.state.save(); err != nil {
		return &admin.NotSavedError{Err: err}
	}
	return nil
}

// saveOrLog is saveState where nobody waits for the result.
func (d *Daemon) saveOrLog() {
	if err := d.saveState(); err != nil {
		d.log.Error().AnErr("err", err).Str("event", "state_not_saved").Msg("state not saved")
	}
}

// stateError returns why the last write of the state file failed or, before the first write, the read.
func (d *Daemon) stateError() error {
	if written, err := d.state.outcome(); written {
		return err
	}
	return d.loadFailure
}

// differences returns all run-time values that differ from those of the backends' sources.
func (d *Daemon) differences() []admin.Difference {
	all := []admin.Difference{}
	in := d.servedPools()
	for _, c := range d.config().Pools {
		if s := in[c.Name]; s != nil {
			for _, o := range s.pool.Overrides() {
				all = append(all, d.fleet.marked(differencesOf(c.Name, o))...)
			}
		}
	}
	return all
}

func differencesOf(name string, o pool.Override) []admin.Difference {
	var all []admin.Difference
	note := func(what, file, running string) {
		all = append(all, admin.Difference{Pool: name, Backend: o.Base.ID, What: what, File: file, Running: running})
	}
	switch o.Kind {
	case pool.OverrideAdded:
		note("added", "", o.Base.Addr.String())
	case pool.OverrideRemoved:
		note("removed", o.Base.Addr.String(), "")
	}
	if o.Weight != nil {
		note("weight", fmt.Sprint(o.Base.Weight), fmt.Sprint(*o.Weight))
	}
	if o.MaxSessions != nil {
		note("max_sessions", fmt.Sprint(o.Base.MaxSessions), fmt.Sprint(*o.MaxSessions))
	}
	if o.MaxRate != nil {
		note("max_rate", o.Base.MaxRate.String(), o.MaxRate.String())
	}
	if o.Mode != nil {
		note("mode", o.Base.Mode.String(), o.Mode.String())
	}
	return all
}
