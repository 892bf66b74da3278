package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/pool"
)

// parseLines takes one address a line.
func parseLines(_ string, data []byte) (specs []pool.Spec, err error) {
	for i, line := range strings.Fields(string(data)) {
		addr, err := netip.ParseAddrPort(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		specs = append(specs, pool.Spec{ID: line, Addr: pool.At(addr), Weight: 1})
	}
	return specs, nil
}

func write(t testing.TB, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// replace writes a file as careful programs do: whole, under another name, and then over the old one.
func replace(t testing.TB, path, content string) {
	t.Helper()
	write(t, path+".tmp", content)
	must(t, os.Rename(path+".tmp", path))
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backends")
	f := File{Path: path, Parse: parseLines}
	find := func(prepare func()) (Found, error) {
		t.Helper()
		must(t, os.RemoveAll(path))
		prepare()
		return f.Find(t.Context())
	}
	found, err := find(func() { write(t, path, "10.0.0.2:1\n10.0.0.1:1\n") })
	wantFound(t, found, err, 0, "10.0.0.2:1", "10.0.0.1:1") // in the file's order
	found, err = find(func() { write(t, path, "") })
	wantFound(t, found, err, 0)
	found, err = find(func() { write(t, path, strings.Repeat("\n", MaxFileBytes)) })
	wantFound(t, found, err, 0)
	found, err = find(func() {
		write(t, path+".1", "10.0.0.1:1")
		must(t, os.Symlink("backends.1", path))
	})
	wantFound(t, found, err, 0, "10.0.0.1:1")

	found, err = find(func() {})
	wantFailure(t, found, err, fs.ErrNotExist, "read backends: open "+path+": no such file or directory")
	found, err = find(func() { write(t, path, strings.Repeat("\n", MaxFileBytes+1)) })
	wantFailure(t, found, err, file.ErrTooLarge,
		"read backends: read "+path+": the file is too large: more than 4194304 bytes")
	for _, special := range []func(){
		func() { must(t, os.Mkdir(path, 0o700)) },
		func() { must(t, syscall.Mkfifo(path, 0o600)) }, // would hang here
		func() { must(t, os.Symlink("/dev/zero", path)) },
	} {
		found, err = find(special)
		if want := "read backends: read " + path + ": not a regular file"; err == nil || err.Error() != want ||
			found.Backends != nil {
			t.Errorf("found %v, error %v; want %q", found, err, want)
		}
	}
	found, err = find(func() { write(t, path, "10.0.0.1:1\nten\n") })
	if want := `parse backends: line 2: not an ip:port`; err == nil || err.Error() != want || found.Backends != nil {
		t.Errorf("found %v, error %v; want %q", found, err, want)
	}
}

func TestFileIsNamedToParse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends.json")
	write(t, path, "content")
	refused := errors.New("refused")
	_, err := File{Path: path, Parse: func(p string, data []byte) ([]pool.Spec, error) {
		if p != path || !bytes.Equal(data, []byte("content")) {
			t.Errorf("Parse gets %q of %s", data, p)
		}
		return nil, refused
	}}.Find(t.Context())
	if !errors.Is(err, refused) {
		t.Errorf("error %v, want that of Parse", err)
	}
}

// follow starts a runner that would not read the file again by itself, and returns its pool once the first attempt is
// over.
func follow(t *testing.T, path string, onError OnError) *fakePool {
	t.Helper()
	p := new(fakePool)
	r := New(Options{Name: "file", Source: File{Path: path, Parse: parseLines}, Pool: p, Refresh: time.Hour,
		OnError: onError})
	t.Cleanup(run(t, r))
	<-r.First()
	return p
}

// TestFollowsFile changes a file in all ways that there are, one after the other, beside a refresh of an hour.
func TestFollowsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends")
	write(t, path, "10.0.0.1:1")
	p := follow(t, path, Keep)
	p.eventually(t, "10.0.0.1:1")
	wantLines(t, p.take(), "file: 1 found, +1 -0 ~0, 0 ignored")

	replace(t, path, "10.0.0.2:1")
	p.eventually(t, "10.0.0.2:1")
	replace(t, path, "10.0.0.3:1")
	p.eventually(t, "10.0.0.3:1")

	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = file.WriteString("\n10.0.0.4:1")
	must(t, err)
	p.eventually(t, "10.0.0.3:1", "10.0.0.4:1") // while the writer still has it open
	must(t, file.Close())

	write(t, path, "10.0.0.5:1")
	p.eventually(t, "10.0.0.5:1")
	p.eventuallyReported(t, "file: 1 found")

	must(t, os.Remove(path))
	p.eventuallyReported(t, "file: -0, read backends: open "+path+": no such file or directory")
	replace(t, path, "broken")
	p.eventuallyReported(t, `file: -0, parse backends: line 1: not an ip:port`)
	if got := p.now(); got != "10.0.0.5:1" {
		t.Errorf("the pool has %s, want what was good last", got)
	}
	write(t, path, "10.0.0.5:1")
	p.eventuallyReported(t, "file: 1 found")
	write(t, path, "10.0.0.6:1")
	p.eventually(t, "10.0.0.6:1")

	must(t, os.Chmod(path, 0)) // root may read it all the same
	must(t, os.Chmod(path, 0o600))
	must(t, os.Remove(path))
	must(t, os.Symlink("elsewhere", path))
	write(t, filepath.Join(filepath.Dir(path), "elsewhere"), "10.0.0.7:1")
	p.eventually(t, "10.0.0.7:1")
	write(t, filepath.Join(filepath.Dir(path), "elsewhere"), "10.0.0.8:1")
	p.eventually(t, "10.0.0.8:1")
}

func TestEmptiedWhenTheFileGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backends")
	write(t, path, "10.0.0.1:1")
	p := follow(t, path, Empty)
	p.eventually(t, "10.0.0.1:1")
	must(t, os.Remove(path))
	p.eventually(t)
	write(t, path, "10.0.0.1:1")
	p.eventually(t, "10.0.0.1:1")
}

// TestFollowsConfigMap does what Kubernetes does: the file is a link through ..data, a link to a folder that is
// replaced.
func TestFollowsConfigMap(t *testing.T) {
	dir := t.TempDir()
	swap := func(version, content string) {
		t.Helper()
		folder := filepath.Join(dir, "..2026_"+version)
		must(t, os.Mkdir(folder, 0o700))
		write(t, filepath.Join(folder, "backends"), content)
		old, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, os.Symlink(filepath.Base(folder), filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if old != "" {
			must(t, os.RemoveAll(filepath.Join(dir, old)))
		}
	}
	swap("1", "10.0.0.1:1")
	path := filepath.Join(dir, "backends")
	must(t, os.Symlink(filepath.Join("..data", "backends"), path))
	p := follow(t, path, Empty)
	p.eventually(t, "10.0.0.1:1")
	for i, want := range []string{"10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"} {
		swap(fmt.Sprint(2+i), want)
		p.eventually(t, want)
	}
	for _, line := range p.take() {
		if strings.Contains(line, "no such file") { // it is there at each moment
			t.Errorf("the pool got %q", line)
		}
	}
}

// TestFolderThatComesLate has a file whose folder is not there at first, then goes, and then is another one.
func TestFolderThatComesLate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "conf")
	path := filepath.Join(dir, "backends")
	p := follow(t, path, Empty)
	p.eventually(t)
	wantLines(t, p.take(), "file: -0, read backends: open "+path+": no such file or directory")
	must(t, os.Mkdir(dir, 0o700))
	write(t, path, "10.0.0.1:1")
	p.eventually(t, "10.0.0.1:1")

	must(t, os.RemoveAll(dir))
	p.eventually(t)
	must(t, os.Mkdir(dir, 0o700))
	write(t, path, "10.0.0.2:1")
	p.eventually(t, "10.0.0.2:1")
	replace(t, path, "10.0.0.3:1")
	p.eventually(t, "10.0.0.3:1")
	must(t, os.Rename(dir, dir+".old"))
	p.eventually(t)
	must(t, os.Rename(dir+".old", dir))
	p.eventually(t, "10.0.0.3:1")
}

// TestFolderBehindALink has a link that is turned to another folder, of which neither folder knows.
func TestFolderBehindALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "backends"), "10.0.0."+version+":1")
	}
	current := filepath.Join(dir, "current")
	must(t, os.Symlink("1", current))
	p := follow(t, filepath.Join(current, "backends"), Keep)
	p.eventually(t, "10.0.0.1:1")
	must(t, os.Symlink("2", current+".new"))
	must(t, os.Rename(current+".new", current))
	p.eventually(t, "10.0.0.2:1")
	replace(t, filepath.Join(current, "backends"), "10.0.0.3:1")
	p.eventually(t, "10.0.0.3:1")
}

// TestFileBehindALink has a link to a file in another folder, which is written to.
func TestFileBehindALink(t *testing.T) {
	t.Parallel()
	target, path := filepath.Join(t.TempDir(), "target"), filepath.Join(t.TempDir(), "backends")
	write(t, target, "10.0.0.1:1")
	must(t, os.Symlink(target, path))
	p := follow(t, path, Keep)
	p.eventually(t, "10.0.0.1:1")
	replace(t, target, "10.0.0.20:1")
	p.eventually(t, "10.0.0.20:1")
}

// TestBareName is a file in the working folder.
func TestBareName(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "backends", "10.0.0.1:1")
	p := follow(t, "backends", Keep)
	p.eventually(t, "10.0.0.1:1")
	replace(t, "backends", "10.0.0.2:1")
	p.eventually(t, "10.0.0.2:1")
}
