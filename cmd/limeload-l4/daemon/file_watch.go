package daemon

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

const (
	// settleTime is how long files must stay unchanged before they are read: they are written in several steps.
	settleTime = 75 * time.Millisecond
	// maxSettling is how long continuous changes may delay the read.
	maxSettling = time.Second
	// lookEvery is how often files are examined for changes that cause no event in their folders, such as those
	// behind a symbolic link.
	lookEvery = 2 * time.Second
	// fileRetryPause is the pause before files that do not fit together are read again; it doubles each time. A
	// certificate and its key are two files, and some programs take a while to write both.
	fileRetryPause = 250 * time.Millisecond
	// fileRetries is how often that is done, within four seconds.
	fileRetries = 4
)

// A fileWatcher follows files that the configuration in force names. The zero value follows nothing.
type fileWatcher struct {
	stop    context.CancelFunc // nil: it follows nothing
	running sync.WaitGroup     // stop ends it
}

// start follows the files at paths, instead of those of before. reload puts their contents in force whenever they have
// changed, and returns false if it cannot; then it is called again, and with last only in the end. The caller has the
// turn, and reload takes it.
func (w *fileWatcher) start(log zerolog.Logger, paths []string, reload func(ctx context.Context, last bool) bool) {
	w.cease()
	if len(paths) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	f := &followedFiles{reload: reload, paths: paths}
	var err error
	if f.folders, err = fsnotify.NewWatcher(); err != nil {
		log.Warn().AnErr("err", err).
			Str("event", "watch_failed").Msg("files cannot be watched: examined every few seconds")
	}
	w.running.Go(func() { f.follow(ctx) })
}

// cease stops to follow the files. It does not wait for the goroutine, which may wait for the turn.
func (w *fileWatcher) cease() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// end stops to follow the files for good, and waits for the goroutine.
func (w *fileWatcher) end() {
	w.cease()
	w.running.Wait()
}

// watchFiles starts to follow the files that the configuration in force names, instead of those of before. The caller
// has the turn.
func (d *Daemon) watchFiles() {
	cfg := d.config()
	d.tlsWatcher.start(d.log, tlsPaths(cfg), d.reloadTLS)
	d.accessWatcher.start(d.log, accessPaths(cfg), d.reloadAccess)
	d.includeWatcher.start(d.log, includedPaths(cfg), d.includedChanged)
}

// fileReloads counts how often files were taken up, or could not be. Daemon.mu guards it.
type fileReloads struct {
	done, failed int
	failing      bool // the files cannot be used now
}

// note counts a run of a fileWatcher's reload, which has put done files in force.
func (r *fileReloads) note(done int, failed, last bool) {
	r.done += done
	switch {
	case !failed:
		r.failing = false
	case last:
		r.failed++
		r.failing = true
	}
}

// followedFiles are files that are followed. Only the goroutine of follow uses them.
type followedFiles struct {
	// set once, then read-only
	reload  func(ctx context.Context, last bool) (good bool)
	paths   []string
	folders *fsnotify.Watcher // nil: they cannot be watched

	last    []os.FileInfo // of paths, as they were when last examined; nil: not there
	read    []os.FileInfo // as they were when last read
	settled time.Duration // for how long the files have been changing
	failed  int           // how often in turn they could not be used
}

// follow has the files put in force whenever they have changed, until ctx is done.
func (w *followedFiles) follow(ctx context.Context) {
	var events chan fsnotify.Event
	var lost chan error
	if w.folders != nil {
		defer w.folders.Close()
		events, lost = w.folders.Events, w.folders.Errors
		w.watchFolders()
	}
	look := time.NewTicker(lookEvery)
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
			due.Reset(settleTime)
			waits = true
		}
	}
}

// watchFolders watches the folders of all files. One that did not exist or was replaced is watched from now on.
func (w *followedFiles) watchFolders() {
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
func (w *followedFiles) examine(ctx context.Context) (pause time.Duration) {
	now := make([]os.FileInfo, len(w.paths))
	for i, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			now[i] = info
		}
	}
	first := w.last == nil
	changing := !first && !slices.EqualFunc(now, w.last, sameFile)
	w.last = now
	if changing && w.settled < maxSettling {
		w.settled += settleTime
		return settleTime
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
	if w.reload(ctx, w.failed == fileRetries) {
		w.failed = 0
		return 0
	}
	if w.failed++; w.failed > fileRetries {
		w.failed = 0
		return 0
	}
	return fileRetryPause << (w.failed - 1)
}

// sameFile reports whether a file is as it was.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// turnForFiles takes the turn for taking up files that have changed. It returns false if they are not to be taken up:
// another configuration is in force, whose files are followed, or the daemon drains.
func (d *Daemon) turnForFiles(ctx context.Context) (giveBack func(), ok bool) {
	_, giveBack, err := d.life.takeTurn(ctx)
	if err != nil {
		return nil, false
	}
	if ctx.Err() != nil {
		giveBack()
		return nil, false
	}
	return giveBack, true
}
