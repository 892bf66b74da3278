package discovery

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestEventsThatConcernTheFile are those of its name, and those after which its name leads to something else.
func TestEventsThatConcernTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backends")
	own, other := fsnotify.Event{Name: path}, fsnotify.Event{Name: filepath.Join(dir, "..data")}
	o := observed{dir: dir, path: path}
	for _, step := range []struct {
		name   string
		change func()
		event  fsnotify.Event
		want   bool
	}{
		{"a neighbour of a file that is not there", func() {}, other, false},
		{"it comes", func() { write(t, path, "a") }, other, true},
		{"a neighbour", func() { write(t, path+".bak", "a") }, other, false},
		{"its own event, as of other permissions", func() {}, own, true},
		{"it is longer", func() { write(t, path, "ab") }, other, true},
		{"it is newer", func() { must(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))) }, other, true},
		{"it is another one", func() { replace(t, path, "cd") }, other, true},
		{"it leads elsewhere", func() {
			must(t, os.Remove(path))
			must(t, os.Symlink("backends.bak", path))
		}, other, true},
		{"nothing more", func() {}, other, false},
		{"it goes", func() { must(t, os.Remove(path)) }, other, true},
		{"it is still not there", func() {}, other, false},
	} {
		step.change()
		if got := o.concerns(step.event); got != step.want {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}

// TestSettling holds that each change delays the read, but not for ever.
func TestSettling(t *testing.T) {
	var o observed
	start := time.Now()
	for _, step := range []struct{ at, want time.Duration }{
		{0, settleTime},
		{50 * time.Millisecond, settleTime},
		{900 * time.Millisecond, settleTime},
		{950 * time.Millisecond, 50 * time.Millisecond},
		{time.Second, 0},
		{time.Minute, 0},
	} {
		if got := o.settle(start.Add(step.at)); got != step.want {
			t.Errorf("%v after the first change: %v, want %v", step.at, got, step.want)
		}
	}
}

// TestWatchEndsWithTheFolder removes the folder: Watch must call changed once more, and end.
func TestWatchEndsWithTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf")
	f := File{Path: filepath.Join(dir, "backends")}
	if err := f.Watch(t.Context(), func() { t.Error("got a change without a folder") }); err == nil {
		t.Error("a folder that is not there was watched")
	}
	must(t, os.Mkdir(dir, 0o700))
	noticed, ended := make(chan bool, 10), make(chan error, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watching.Go(func() { ended <- f.Watch(ctx, func() { noticed <- true }) })
	harness.Receive(t, "it begins to watch", noticed)
	must(t, os.Remove(dir))
	harness.Receive(t, "the folder went", noticed)
	if err := harness.Receive(t, "the watch ends", ended); err == nil {
		t.Error("the watch of a folder that went ended without an error")
	}
}

// TestFindWaitsForTheWriter holds that Find waits only for a file that was just written.
func TestFindWaitsForTheWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends")
	start := time.Now()
	write(t, path, "10.0.0.1:1")
	f, err := File{Path: path, Parse: parseLines}.Find(t.Context())
	wantFound(t, f, err, 0, "10.0.0.1:1")
	if took := time.Since(start); took < settleTime/2 { // the kernel's clock of files may be some ms behind
		t.Errorf("a file that was just written was read after %v, want %v", took, settleTime)
	}

	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path, long, long))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err = File{Path: path, Parse: parseLines}.Find(ctx)
	wantFound(t, f, err, 0, "10.0.0.1:1") // nothing to wait for
	future := time.Now().Add(time.Hour)
	must(t, os.Chtimes(path, future, future))
	start = time.Now()
	f, err = File{Path: path, Parse: parseLines}.Find(t.Context())
	wantFound(t, f, err, 0, "10.0.0.1:1")
	if took := time.Since(start); took > maxSettling {
		t.Errorf("a file from the future was read after %v", took)
	}
}
