package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestListenUnixMode binds under umasks that allow too much and too little. It is not parallel, since the umask belongs
// to the process.
func TestListenUnixMode(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o660, 0o600, 0o666, 0} {
			path := filepath.Join(t.TempDir(), "s")
			before := syscall.Umask(umask)
			bound, err := bindUnix(t.Context(), path, mode)
			if err != nil {
				syscall.Umask(before)
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			check(t, err)
			if got := info.Mode().Perm(); got&^mode != 0 {
				t.Errorf("umask %03o, mode %03o: %03o before chmod", umask, mode, got)
			}
			check(t, bound.Close())
			l, err := ListenUnix(t.Context(), path, mode)
			syscall.Umask(before)
			check(t, err)
			info, err = os.Stat(path)
			check(t, err)
			if got := info.Mode().Perm(); got != mode {
				t.Errorf("umask %03o, mode %03o: %03o", umask, mode, got)
			}
			check(t, l.Close())
		}
	}
}

// TestListenUnixStale has each kind of file at the path.
func TestListenUnixStale(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listen := func() (net.Listener, error) { return ListenUnix(t.Context(), path, 0o600) }

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	stale.SetUnlinkOnClose(false)
	check(t, stale.Close())
	first, err := listen()
	check(t, err)

	if _, err := listen(); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Errorf("beside one that answers: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	} else {
		check(t, c.Close())
	}
	check(t, first.Close())
	if err := first.Close(); err != nil {
		t.Errorf("Close for the second time: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}

	check(t, os.WriteFile(path, []byte("precious"), 0o600))
	if _, err := listen(); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
	check(t, os.Remove(path))
	check(t, os.Symlink("elsewhere", path))
	if _, err := listen(); err == nil {
		t.Error("over a symbolic link")
	}
	check(t, os.Remove(path))
	check(t, os.Mkdir(path, 0o700))
	if _, err := listen(); err == nil {
		t.Error("over a folder")
	}
	path = filepath.Join(path, "none", "s")
	if _, err := listen(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}

// TestListenUnixReplaced: Close does not remove a file that somebody else has put at the path.
func TestListenUnixReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenUnix(t.Context(), path, 0o600)
	check(t, err)
	check(t, os.Remove(path))
	check(t, os.WriteFile(path, []byte("other"), 0o600))
	check(t, l.Close())
	if text, err := os.ReadFile(path); err != nil || string(text) != "other" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// TestListenUnixRace starts many at the same time over a stale socket: one of them gets it, and answers.
func TestListenUnixRace(t *testing.T) {
	t.Parallel()
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		check(t, err)
		stale.SetUnlinkOnClose(false)
		check(t, stale.Close())
		var won atomic.Pointer[net.Listener]
		var racing sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			racing.Go(func() {
				<-begin
				if l, err := ListenUnix(t.Context(), path, 0o600); err == nil && !won.CompareAndSwap(nil, &l) {
					t.Error("two of them have the socket")
					l.Close()
				}
			})
		}
		close(begin)
		racing.Wait()
		if won.Load() == nil {
			t.Fatal("nobody has the socket")
		}
		c, err := net.Dial("unix", path)
		check(t, err)
		check(t, c.Close())
		check(t, (*won.Load()).Close())
	}
}

// TestListenUnixLocked: if somebody else holds a lock on the folder, the wait is no longer than the context allows, and
// the socket is opened then.
func TestListenUnixLocked(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	unlock, err := lockFolder(t.Context(), folder)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ListenUnix(ctx, filepath.Join(folder, "s"), 0o600); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	for range 2 {
		l, err := ListenUnix(t.Context(), filepath.Join(folder, "s"), 0o600)
		check(t, err)
		check(t, l.Close())
		unlock()
	}
}

func TestListenTCP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		address, token string
		ok             bool
	}{
		{"127.0.0.1:0", "", true},
		{"[::ffff:127.0.0.1]:0", "", true},
		{"[::1]:0", "", true},
		{"0.0.0.0:0", "", false},
		{"[::]:0", "", false},
		{"[::]:0", "secret", true},
	} {
		t.Run(fmt.Sprint(c.address, c.token), func(t *testing.T) {
			l, err := ListenTCP(t.Context(), netip.MustParseAddrPort(c.address), c.token)
			if (err == nil) != c.ok {
				t.Fatalf("%v", err)
			}
			if err == nil {
				check(t, l.Close())
			}
		})
	}
}

// TestInherit holds that a listener lives on in another process: the one it came from leaves the file alone, the other
// one removes it in the end.
func TestInherit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	first, err := ListenUnix(t.Context(), path, 0o600)
	check(t, err)
	raw, err := first.(*unixListener).SyscallConn()
	check(t, err)
	var fd int
	check(t, raw.Control(func(n uintptr) { fd, err = syscall.Dup(int(n)) }))
	check(t, err)
	given, err := syscall.Dup(fd)
	check(t, err)
	failed, err := Inherit(given, path, 0o666)
	check(t, err)
	check(t, failed.Close())
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a process that did not take over has changed the file: %v", err)
	}
	second, err := Inherit(fd, path, 0o660)
	check(t, err)
	check(t, Own(second))
	check(t, Own(first))
	Leave(first)
	check(t, first.Close())
	c, err := net.Dial("unix", path)
	check(t, err)
	c.Close()
	accepted, err := second.Accept()
	check(t, err)
	accepted.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the mode is not the new one: %v", err)
	}
	check(t, second.Close())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is there still: %v", err)
	}
	for name, bad := range map[string]func() (net.Listener, error){
		"a Unix socket for TCP": func() (net.Listener, error) {
			l, err := ListenUnix(t.Context(), path, 0o600)
			check(t, err)
			defer l.Close()
			raw, err := l.(*unixListener).SyscallConn()
			check(t, err)
			check(t, raw.Control(func(n uintptr) { fd, err = syscall.Dup(int(n)) }))
			check(t, err)
			return Inherit(fd, "", 0)
		},
		"nothing": func() (net.Listener, error) { return Inherit(1<<20, path, 0o600) },
	} {
		if l, err := bad(); err == nil {
			l.Close()
			t.Errorf("%s was inherited", name)
		}
	}
}
