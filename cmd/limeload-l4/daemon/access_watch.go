package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// accessPaths returns the paths of all files of prefixes that a configuration names.
func accessPaths(cfg *conf.Config) []string {
	var paths []string
	for _, l := range cfg.Listeners {
		for _, name := range []string{l.Access.AllowFile, l.Access.DenyFile} {
			if path := cfg.FilePath(name); name != "" && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// reloadAccess gives listeners the access lists whose files have changed, and returns false if some cannot be used:
// then those of before stay. Only the last attempt is reported.
func (d *Daemon) reloadAccess(ctx context.Context, last bool) (good bool) {
	giveBack, ok := d.turnForFiles(ctx)
	if !ok {
		return true
	}
	defer giveBack()
	defer l4.GiveWay()()
	cfg, in := d.config(), d.accessNow()
	r := newAccessReader(cfg, in, newFiles(cfg.File))
	next := maps.Clone(in)
	var changed []*conf.Listener
	failed := false
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		a, err := r.list(l)
		switch {
		case err != nil:
			if failed = true; last {
				d.noteAccessFailure(l.Name, err)
			}
		case a != in[l.Name]:
			next[l.Name] = a
			changed = append(changed, l)
		}
	}
	if len(changed) > 0 {
		if err := d.server.Apply(d.buildPlan(cfg, d.poolsByName(), d.securedNow(), next)); err != nil {
			d.noteAccessFailure(changed[0].Name, err) // a bug: nothing but the lists is another
			return true
		}
	}
	d.mu.Lock()
	d.access = next
	d.accessReloads.note(len(changed), failed, last)
	d.mu.Unlock()
	for _, l := range changed {
		d.noteAccess(cfg, l, next[l.Name], r.from)
	}
	return !failed
}

// noteAccessFailure logs that a listener's list could not be taken up, and publishes its event.
func (d *Daemon) noteAccessFailure(listener string, err error) {
	d.log.Error().Str("listener", listener).AnErr("err", err).
		Str("event", "access_reload_failed").Msg("access list not taken up: the old one stays")
	d.events.publish(admin.Event{At: time.Now(), Kind: "access_reload_failed", Reason: err.Error()})
}

// noteAccess logs that a listener has another list, and publishes its event.
func (d *Daemon) noteAccess(cfg *conf.Config, l *conf.Listener, a *accessList, from *files) {
	path := accessPath(l)
	d.files.take(from, path)
	d.log.Info().Str("listener", l.Name).Int("allowed", a.allowed).Int("denied", a.denied).
		Str("event", "access_reloaded").Msg("access list taken up")
	d.events.publish(admin.Event{At: time.Now(), Kind: "access_reloaded", Text: path})
	for _, warning := range a.warnings(cfg, l) {
		d.log.Warn().Str("configuration", warning).
			Str("event", "configuration_warning").Msg("allowed, but perhaps not meant")
	}
}

// accessNow returns the lists in force.
func (d *Daemon) accessNow() accessLists {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.access
}
