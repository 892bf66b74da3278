package discovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long a file must be left alone before it is read: writers that write in place do so in several
	// steps, and a ConfigMap is swapped in five.
	settleTime = 75 * time.Millisecond
	// maxSettling is how long a writer that never stops may put the reading off.
	maxSettling = time.Second
	// lookEvery is how often is looked for what causes no event in the folder: a symbolic link on the way to it that is
	// turned elsewhere, or a file in another folder, reached through a link, that is written to.
	lookEvery = 2 * time.Second
)

// Watch calls changed when it begins to watch and then soon after each change of the file, until ctx is done or the
// folder of the file is not there, or not any more. It watches the folder and not the file, since what is renamed over
// the file is another file.
func (f File) Watch(ctx context.Context, changed func()) error {
	dir, base := filepath.Split(filepath.Clean(f.Path))
	dir = filepath.Clean(dir) // of a bare name: the working folder
	folder, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("watch folder %s: %w", dir, err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch folder %s: %w", dir, err)
	}
	defer w.Close()
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("watch folder %s: %w", dir, err)
	}
	o := observed{dir: dir, path: filepath.Join(dir, base), folder: folder, changed: changed}
	o.lookAgain() // from here on no change is missed; what came before is seen by whoever is told now
	changed()
	return o.follow(ctx, w)
}

// An observed is a file whose folder is watched, for the one goroutine of Watch.
type observed struct {
	// set once, then read-only
	dir, path string
	folder    os.FileInfo // that is watched
	changed   func()

	file  os.FileInfo // as it was when last looked at; nil: not there
	since time.Time   // of the first change not yet told; zero: there is none
}

// follow tells of changes once they have settled.
func (o *observed) follow(ctx context.Context, w *fsnotify.Watcher) error {
	settled := time.NewTimer(0)
	settled.Stop()
	defer settled.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		stays := true
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-w.Events:
			if !open {
				return fsnotify.ErrClosed // by nobody but the deferred Close of Watch
			}
			if o.concerns(e) {
				settled.Reset(o.settle(time.Now()))
			}
			stays = filepath.Clean(e.Name) != o.dir || o.folderStays()
		case err := <-w.Errors: // events were lost
			o.changed()
			return fmt.Errorf("watch folder %s: %w", o.dir, err)
		case <-look.C:
			if o.lookAgain() {
				settled.Reset(o.settle(time.Now()))
			}
			stays = o.folderStays()
		case <-settled.C:
			o.since = time.Time{}
			o.changed()
		}
		if !stays {
			o.changed()
			return fmt.Errorf("watch folder %s: it was removed or replaced", o.dir)
		}
	}
}

// concerns reports whether an event may mean another content of the file. Events of other names do so if they changed
// what the file's name leads to: so the file's content is not read at every event of a busy folder.
func (o *observed) concerns(e fsnotify.Event) bool {
	different := o.lookAgain()
	return different || filepath.Clean(e.Name) == o.path
}

// lookAgain reports whether the file is another one than when last looked at, or was written to.
func (o *observed) lookAgain() bool {
	before := o.file
	now, err := os.Stat(o.path)
	if err != nil {
		now = nil // Find will say why
	}
	o.file = now
	if before == nil || now == nil {
		return before != now
	}
	return !os.SameFile(before, now) || before.Size() != now.Size() || !before.ModTime().Equal(now.ModTime())
}

// settle returns how long to wait after a change at the time now.
func (o *observed) settle(now time.Time) time.Duration {
	if o.since.IsZero() {
		o.since = now
	}
	return max(0, min(settleTime, maxSettling-now.Sub(o.since)))
}

// folderStays reports whether the path still leads to the folder that is watched.
func (o *observed) folderStays() bool {
	now, err := os.Stat(o.dir)
	return err == nil && os.SameFile(o.folder, now)
}
