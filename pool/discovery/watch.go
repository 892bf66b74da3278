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
	// settleTime is how long a file must stay unchanged before it is read: writing in place takes several steps, and
	// swapping a ConfigMap takes five.
	settleTime = 75 * time.Millisecond
	// maxSettling is how long continuous writing may delay the read.
	maxSettling = time.Second
	// lookEvery is how often the file is examined for changes that cause no event in its folder: a symbolic link on the
	// path to the folder may have changed, or the file may be a link to one in another folder that was written to.
	lookEvery = 2 * time.Second
)

// Watch calls changed when it begins to watch and then soon after each change of the file, until ctx is done or the
// folder of the file does not exist. It watches the folder and not the file, since a rename replaces the file with
// another one.
func (f File) Watch(ctx context.Context, changed func()) error {
	dir, base := filepath.Split(filepath.Clean(f.Path))
	dir = filepath.Clean(dir) // for a bare name, the working folder
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
	o.lookAgain() // no later change is missed; the call of changed covers earlier ones
	changed()
	return o.follow(ctx, w)
}

// An observed is a file whose folder is watched. Only the goroutine of Watch uses it.
type observed struct {
	// set once, then read-only
	dir, path string
	folder    os.FileInfo // that is watched
	changed   func()

	file  os.FileInfo // as it was when last examined; nil: not there
	since time.Time   // of the first change not yet reported; zero: none
}

// follow reports changes once they have settled.
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
				return fsnotify.ErrClosed // only the deferred Close of Watch closes it
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

// concerns reports whether an event may have changed the file's content. An event of another name counts only if the
// file's name now leads to another file, so that events in a busy folder do not cause reads.
func (o *observed) concerns(e fsnotify.Event) bool {
	different := o.lookAgain()
	return different || filepath.Clean(e.Name) == o.path
}

// lookAgain reports whether the file was replaced or written to since it was last examined.
func (o *observed) lookAgain() bool {
	before := o.file
	now, err := os.Stat(o.path)
	if err != nil {
		now = nil // Find will return the reason
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

// folderStays reports whether the path still leads to the folder the watched folder.
func (o *observed) folderStays() bool {
	now, err := os.Stat(o.dir)
	return err == nil && os.SameFile(o.folder, now)
}
