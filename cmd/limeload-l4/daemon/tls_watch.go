package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

const (
	// tlsSettleTime is how long files must stay unchanged before they are read: they are written in several steps.
	tlsSettleTime = 75 * time.Millisecond
	// tlsMaxSettling is how long continuous changes may delay the read.
	tlsMaxSettling = time.Second
	// tlsLookEvery is how often files are examined for changes that cause no event in their folders, such as those
	// behind a symbolic link.
	tlsLookEvery = 2 * time.Second
	// tlsRetryPause is the pause before files that do not fit together are read again; it doubles each time. A
	// certificate and its key are two files, and some programs take a while to write both.
	tlsRetryPause = 250 * time.Millisecond
	// tlsRetries is how often that is done, within four seconds.
	tlsRetries = 4
)

// A tlsWatcher follows the files of TLS. The zero value follows nothing.
type tlsWatcher struct {
	stop    context.CancelFunc // nil: it follows nothing
	running sync.WaitGroup     // stop ends it
}

// watchTLS starts to follow the files of TLS in the configuration in force, instead of those of before. The caller has
// the turn.
func (d *Daemon) watchTLS() {
	d.unwatchTLS()
	paths := tlsPaths(d.config())
	if len(paths) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	d.tlsWatcher.stop = stop
	w := &tlsFiles{daemon: d, paths: paths}
	var err error
	if w.folders, err = fsnotify.NewWatcher(); err != nil {
		d.log.Warn().AnErr("err", err).Msg("certificates cannot be watched: examined every few seconds")
	}
	d.tlsWatcher.running.Go(func() { w.follow(ctx) })
}

// unwatchTLS stops to follow the files. It does not wait for the goroutine, which may wait for the turn.
func (d *Daemon) unwatchTLS() {
	if d.tlsWatcher.stop != nil {
		d.tlsWatcher.stop()
		d.tlsWatcher.stop = nil
	}
}

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

// tlsFiles are files that are followed. Only the goroutine of follow uses them.
type tlsFiles struct {
	// set once, then read-only
	daemon  *Daemon
	paths   []string
	folders *fsnotify.Watcher // nil: they cannot be watched

	last    []os.FileInfo // of paths, as they were when last examined; nil: not there
	read    []os.FileInfo // as they were when last read
	settled time.Duration // for how long the files have been changing
	failed  int           // how often in turn they could not be used
}

// follow gives listeners and pools the files whenever they have changed, until ctx is done.
func (w *tlsFiles) follow(ctx context.Context) {
	var events chan fsnotify.Event
	var lost chan error
	if w.folders != nil {
		defer w.folders.Close()
		events, lost = w.folders.Events, w.folders.Errors
		w.watchFolders()
	}
	look := time.NewTicker(tlsLookEvery)
	defer look.Stop()
	due := time.NewTimer(0) // at once, since the files may have changed while nobody watched
	defer due.Stop()
	waits := true // due will fire
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-lost:
		case <-look.C:
			w.watchFolders()
		case <-due.C:
			waits = false
			if pause := w.examine(ctx); pause > 0 {
				due.Reset(pause)
				waits = true
			}
			continue
		}
		if !waits {
			due.Reset(tlsSettleTime)
			waits = true
		}
	}
}

// watchFolders watches the folders of all files. One that did not exist or was replaced is watched from now on.
func (w *tlsFiles) watchFolders() {
	if w.folders == nil {
		return
	}
	var done []string
	for _, path := range w.paths {
		folder := filepath.Dir(path)
		if slices.Contains(done, folder) {
			continue
		}
		done = append(done, folder)
		_ = w.folders.Add(folder) // the files are examined anyway
	}
}

// examine looks at the files, and has them read if they have changed and settled, or could not be used before. It
// returns when to examine them again; 0 is after the next event.
func (w *tlsFiles) examine(ctx context.Context) (pause time.Duration) {
	now := make([]os.FileInfo, len(w.paths))
	for i, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			now[i] = info
		}
	}
	first := w.last == nil
	changing := !first && !slices.EqualFunc(now, w.last, sameFile)
	w.last = now
	if changing && w.settled < tlsMaxSettling {
		w.settled += tlsSettleTime
		return tlsSettleTime
	}
	w.settled = 0
	changed := first || !slices.EqualFunc(now, w.read, sameFile)
	if !changed && w.failed == 0 {
		return 0
	}
	if changed {
		w.failed = 0
	}
	w.read = now
	if w.daemon.reloadTLS(ctx, w.failed == tlsRetries) {
		w.failed = 0
		return 0
	}
	if w.failed++; w.failed > tlsRetries {
		w.failed = 0
		return 0
	}
	return tlsRetryPause << (w.failed - 1)
}

// sameFile reports whether a file is as it was.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// reloadTLS gives listeners and pools the files that have changed, and returns false if some cannot be used: then those
// of before stay. Only the last attempt is reported.
func (d *Daemon) reloadTLS(ctx context.Context, last bool) (good bool) {
	_, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return true // another configuration is in force, or the daemon drains
	}
	defer giveBack()
	if ctx.Err() != nil {
		return true // another configuration is in force, and its files are followed
	}
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
	d.noteTLSReload(t)
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
			d.log.Error().Str(kind, name).AnErr("err", err).Msg("certificates not taken up: the old ones stay")
			d.events.publish(admin.Event{At: time.Now(), Kind: "tls_reload_failed", Reason: err.Error()})
		}
		return
	}
	t.done++
	d.files.take(t.from, r.path)
	d.log.Info().Str(kind, name).Msg("certificates taken up")
	d.events.publish(admin.Event{At: time.Now(), Kind: "tls_reloaded", Text: r.path})
	for _, f := range warnings {
		d.log.Warn().Str("configuration", r.locate(f).Error()).Msg("allowed, but perhaps not meant")
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

// tlsReloads counts how often files of TLS were taken up, or could not be. Daemon.mu guards it.
type tlsReloads struct {
	done, failed int
	failing      bool // the files cannot be used now
}

// noteTLSReload counts a run of reloadTLS.
func (d *Daemon) noteTLSReload(t *tlsReload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tlsReloads.done += t.done
	switch {
	case !t.failed:
		d.tlsReloads.failing = false
	case t.last:
		d.tlsReloads.failed++
		d.tlsReloads.failing = true
	}
}

// securedNow returns the TLS in force.
func (d *Daemon) securedNow() *secured {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.secured
}
