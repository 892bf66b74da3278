package daemon

import (
	"context"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// watchRetry is how often a folder that cannot be watched is tried again.
const watchRetry = 2 * time.Second

// A watcher reloads when the configuration's file changes. The zero value watches nothing.
type watcher struct {
	stop context.CancelFunc // nil: it does not watch
	done chan struct{}
}

// watchFile watches the configuration's file, or does not any more. Who holds Daemon.applying may call it.
func (d *Daemon) watchFile(on bool) {
	w := &d.watcher
	switch {
	case on && w.stop == nil:
		ctx, stop := context.WithCancel(context.Background())
		w.stop, w.done = stop, make(chan struct{})
		go d.followFile(ctx, w.done)
	case !on && w.stop != nil:
		// Not waited for: it may be the one that reloads just now, and found that it is not wanted any more.
		w.stop()
		w.stop = nil
	}
}

// followFile reloads when the file says something else than what is in force.
func (d *Daemon) followFile(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	file := d.config().File
	for told := false; ; {
		err := discovery.File{Path: file}.Watch(ctx, func() { d.fileChanged(ctx) })
		if ctx.Err() != nil {
			return
		}
		if !told {
			d.log.Warn().Str("file", file).AnErr("err", err).Msg("configuration cannot be watched: tried again every few seconds")
		}
		told = true
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return
		}
	}
}

// fileChanged takes the file up, unless it says what is in force: it was only touched, or this is where the watching begins.
func (d *Daemon) fileChanged(ctx context.Context) {
	cfg, err := conf.LoadRegular(d.config().File)
	if err == nil && len(d.config().Compare(cfg)) == 0 {
		return
	}
	_, _ = d.Reload(ctx) // what came of it is logged
}
