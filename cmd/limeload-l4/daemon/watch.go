package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// watchRetry is the pause before a folder that could not be watched is tried again.
const watchRetry = 2 * time.Second

// A watcher reloads when the configuration's file changes. The zero value watches nothing.
type watcher struct {
	stop    context.CancelFunc // nil: it does not watch
	running sync.WaitGroup     // stop ends it
}

// watchFile starts to watch the configuration's file, or stops. The caller has the turn.
func (d *Daemon) watchFile(on bool) {
	w := &d.watcher
	switch {
	case on && w.stop == nil:
		ctx, stop := context.WithCancel(context.Background())
		w.stop = stop
		w.running.Go(func() { d.followFile(ctx) })
	case !on && w.stop != nil:
		// It does not wait for the goroutine, which may be the caller: its reload has turned the watching off.
		w.stop()
		w.stop = nil
	}
}

// endWatching stops to watch the file for good, and waits for the goroutine.
func (d *Daemon) endWatching() {
	d.watchFile(false)
	d.watcher.running.Wait()
}

// followFile reloads when the file no longer matches the configuration in force, until ctx is done.
func (d *Daemon) followFile(ctx context.Context) {
	file := d.config().File
	for logged := false; ; logged = true {
		err := discovery.File{Path: file}.Watch(ctx, func() { d.fileChanged(ctx) })
		if ctx.Err() != nil {
			return
		}
		if !logged {
			d.log.Warn().Str("file", file).AnErr("err", err).
				Str("event", "watch_failed").Msg("configuration cannot be watched: tried again every few seconds")
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return
		}
	}
}

// includedPaths returns what to follow besides the configuration's own file: the files that it includes, and the
// folders in which more of them may appear.
func includedPaths(cfg *conf.Config) []string {
	if !cfg.Global.Watch {
		return nil
	}
	paths := cfg.Files()[1:]
	for _, folder := range cfg.IncludeFolders() {
		paths = append(paths, folder+"/.") // it is inside of the folder, which is watched thus
	}
	return paths
}

// includedChanged is fileChanged for an included file. The reload replaces the watcher that calls it.
func (d *Daemon) includedChanged(ctx context.Context, _ bool) bool {
	d.fileChanged(context.WithoutCancel(ctx))
	return true
}

// fileChanged reloads, unless the file matches the configuration in force: it was only touched, or the watching has
// just begun.
func (d *Daemon) fileChanged(ctx context.Context) {
	cfg, err := conf.LoadRegular(d.config().File)
	if err == nil && len(d.config().Compare(cfg)) == 0 {
		return
	}
	_, _ = d.Reload(ctx) // it logs its outcome
}
