package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// tlsPaths returns the paths of all files of TLS that a configuration names, also of those that need not exist.
func tlsPaths(cfg *conf.Config) []string {
	var paths []string
	add := func(names ...string) {
		for _, name := range names {
			if path := cfg.FilePath(name); name != "" && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	for _, l := range cfg.Listeners {
		if l.TLS == nil {
			continue
		}
		for _, c := range l.TLS.Certificates {
			add(c.Cert, c.Key, c.Cert+ocspSuffix)
		}
		add(l.TLS.ClientCA, l.TLS.ClientCRL, l.TLS.TicketKeyFile)
	}
	for _, p := range cfg.Pools {
		if p.TLS.On() {
			add(p.TLS.CA, p.TLS.Cert, p.TLS.Key)
		}
	}
	return paths
}

// reloadTLS gives listeners and pools the files that have changed, and returns false if some cannot be used: then those
// of before stay. Only the last attempt is reported.
func (d *Daemon) reloadTLS(ctx context.Context, last bool) (good bool) {
	giveBack, ok := d.turnForFiles(ctx)
	if !ok {
		return true
	}
	defer giveBack()
	defer l4.GiveWay()()
	cfg, in := d.config(), d.securedNow()
	t := &tlsReload{daemon: d, cfg: cfg, from: newFiles(cfg.File), last: last}
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if s := in.servers[l.Name]; s != nil {
			r := &materialReader{cfg: cfg, from: t.from, path: conf.Path("listener", l.Name, "tls")}
			m := r.server(l.TLS)
			t.take("listener", l.Name, r, func() ([]*l4.TLSFault, error) {
				err := s.Update(m)
				return s.Warnings(), err
			})
		}
	}
	for i := range cfg.Pools {
		p := &cfg.Pools[i]
		if c := in.clients[p.Name]; c != nil {
			r := &materialReader{cfg: cfg, from: t.from, path: conf.Path("pool", p.Name, "tls")}
			m := r.client(p)
			t.take("pool", p.Name, r, func() ([]*l4.TLSFault, error) {
				err := c.Update(m)
				return c.Warnings(), err
			})
		}
	}
	d.mu.Lock()
	d.tlsReloads.note(t.done, t.failed, last)
	d.mu.Unlock()
	return !t.failed
}

// A tlsReload is one run of reloadTLS.
type tlsReload struct {
	// set once, then read-only
	daemon *Daemon
	cfg    *conf.Config
	from   *files
	last   bool

	done   int // listeners and pools that have other files now
	failed bool
}

// take gives a listener or pool the files that were read, if they have changed.
func (t *tlsReload) take(kind, name string, r *materialReader, update func() ([]*l4.TLSFault, error)) {
	d := t.daemon
	err := errors.Join(r.mistakes...)
	if err == nil && !d.files.differ(t.from, r.path) {
		return
	}
	var warnings []*l4.TLSFault
	if err == nil {
		warnings, err = update()
		err = r.located(err)
	}
	if err != nil {
		if t.failed = true; t.last {
			d.log.Error().Str(kind, name).AnErr("err", err).
				Str("event", "tls_reload_failed").Msg("certificates not taken up: the old ones stay")
			d.events.publish(admin.Event{At: time.Now(), Kind: "tls_reload_failed", Reason: err.Error()})
		}
		return
	}
	t.done++
	d.files.take(t.from, r.path)
	d.log.Info().Str(kind, name).Str("event", "tls_reloaded").Msg("certificates taken up")
	d.events.publish(admin.Event{At: time.Now(), Kind: "tls_reloaded", Text: r.path})
	for _, f := range warnings {
		d.log.Warn().Str("configuration", r.locate(f).Error()).
			Str("event", "configuration_warning").Msg("allowed, but perhaps not meant")
	}
}

// differ reports whether the files below a key are others in next, or have other contents.
func (f *files) differ(next *files, below string) bool {
	here := func(of *files) (n int) {
		for key := range of.seen {
			if isBelow(key, below) {
				n++
			}
		}
		return n
	}
	if here(f) != here(next) {
		return true
	}
	for key, c := range next.seen {
		if isBelow(key, below) && f.seen[key] != c {
			return true
		}
	}
	return false
}

// securedNow returns the TLS in force.
func (d *Daemon) securedNow() *secured {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.secured
}
