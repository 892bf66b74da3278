package file

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const limit = 4 << 10

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read reads path, and fails the test if that takes longer than any file may.
func read(t *testing.T, path string) ([]byte, error) {
	t.Helper()
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := Read(path, limit)
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-time.After(30 * time.Second):
		t.Fatalf("reading %s does not end", path)
		return nil, nil
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"one line": "secret\n", "empty": "",
		"full": strings.Repeat("x", limit)} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(content), 0o600))
		if got, err := read(t, path); err != nil || string(got) != content {
			t.Errorf("%s: read %q, error %v", name, got, err)
		}
	}
	// as the kubelet lays out a secret: a link to a file behind a link to a folder
	must(t, os.MkdirAll(filepath.Join(dir, "..2026"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "..2026", "password"), []byte("linked"), 0o600))
	must(t, os.Symlink("..2026", filepath.Join(dir, "..data")))
	must(t, os.Symlink(filepath.Join("..data", "password"), filepath.Join(dir, "password")))
	if got, err := read(t, filepath.Join(dir, "password")); err != nil || string(got) != "linked" {
		t.Errorf("through links: read %q, error %v", got, err)
	}
}

// TestReadRefuses has paths of every kind that is not a regular file: each is refused at once, with an error that names
// the path.
func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("folder"), 0o700))
	must(t, syscall.Mkfifo(at("pipe"), 0o600))
	must(t, os.Symlink("pipe", at("link to a pipe")))
	must(t, os.Symlink("loop", at("loop")))
	must(t, os.WriteFile(at("large"), []byte(strings.Repeat("x", limit+1)), 0o600))
	must(t, os.WriteFile(at("sparse"), nil, 0o600))
	must(t, os.Truncate(at("sparse"), 1<<30))
	socket, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer socket.Close()
	for path, want := range map[string]error{
		at("nothing"):          fs.ErrNotExist,
		at("folder"):           ErrNotRegular,
		at("pipe"):             ErrNotRegular,
		at("link to a pipe"):   ErrNotRegular,
		at("loop"):             syscall.ELOOP,
		at("socket"):           ErrNotRegular,
		at("large"):            ErrTooLarge,
		at("sparse"):           ErrTooLarge,
		at("large") + "/below": syscall.ENOTDIR,
		"/dev/zero":            ErrNotRegular,
		"/dev/tty":             ErrNotRegular,
		"/dev/stdin":           nil, // whatever the test was given
		"/proc/self/smaps":     ErrTooLarge,
		"/proc/kmsg":           nil, // an error without permission; with it, a read would block
	} {
		got, err := read(t, path)
		var pathErr *fs.PathError
		switch {
		case want == nil && err == nil:
		case !errors.As(err, &pathErr) || !strings.Contains(err.Error(), path) || got != nil:
			t.Errorf("%s: read %d bytes, error %v", path, len(got), err)
		case want != nil && !errors.Is(err, want):
			t.Errorf("%s: error %v, want %v", path, err, want)
		}
	}
}

// TestReadOpened has a path that leads to a pipe only once it is opened.
func TestReadOpened(t *testing.T) {
	pipe, writer, err := os.Pipe()
	must(t, err)
	defer pipe.Close()
	defer writer.Close()
	read := func(io.Reader) error { return nil }
	if err := streamOpened(pipe, "path", limit, read); !errors.Is(err, ErrNotRegular) {
		t.Errorf("error %v, want that it is not regular", err)
	}
}

// TestReadCostsNoMemory holds that a file that is too large is refused without reading all of it.
func TestReadCostsNoMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 1<<30))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Read(path, limit)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("a sparse file of 1 GiB costs %d bytes, error %v", got, err)
	}
}
