package sock

import (
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unixListener returns a listener and its path.
func unixListener(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

// TestConnectUnix holds that a connect allocates nothing, and that Sent knows what the peer has not read.
func TestConnectUnix(t *testing.T) {
	l, path := unixListener(t)
	if n := testing.AllocsPerRun(10, func() {
		fd, e := ConnectUnix(path)
		if e != 0 {
			t.Fatal(e)
		}
		Close(fd)
	}); n != 0 {
		t.Errorf("%v allocations for a connect", n)
	}
	fd, e := ConnectUnix(path)
	if e != 0 {
		t.Fatal(e)
	}
	defer Close(fd)
	if _, e := Write(fd, []byte("hello"), false); e != 0 {
		t.Fatal(e)
	}
	if s, e := Sent(fd); e != 0 || !s.Outstanding || s.Full {
		t.Errorf("unread bytes are %+v, %v", s, e)
	}
	for range 12 { // those of AllocsPerRun come first
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		c.Read(make([]byte, 9))
		defer c.Close()
	}
	if s, e := Sent(fd); e != 0 || s.Outstanding {
		t.Errorf("read bytes are %+v, %v", s, e)
	}
}

// TestConnectUnixFails holds what each failure says about the other end.
func TestConnectUnixFails(t *testing.T) {
	_, path := unixListener(t)
	datagrams := filepath.Join(t.TempDir(), "d")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: datagrams})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	denied := func() Errno { // as a user that is not root, on a thread that ends with it
		e := make(chan Errno)
		go func() {
			runtime.LockOSThread()
			unix.RawSyscall(unix.SYS_SETFSUID, 65534, 0, 0)
			_, got := ConnectUnix(path)
			e <- got
		}()
		return <-e
	}
	if err := unix.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	connect := func(path string) Errno { _, e := ConnectUnix(path); return e }
	for _, tt := range []struct {
		got, want Errno
		cause     Cause
	}{
		{connect(path + "-"), unix.ENOENT, OtherEnd},
		{connect(path + "/s"), unix.ENOTDIR, NoWay},
		{connect("/" + strings.Repeat("x", 107)), unix.ENAMETOOLONG, NoWay},
		{connect(datagrams), unix.EPROTOTYPE, OtherEnd},
		{denied(), unix.EACCES, NoWay},
		{QueueFull, QueueFull, OtherEnd},
	} {
		if tt.got != tt.want || CauseOf(tt.got) != tt.cause {
			t.Errorf("got %v, cause %v, want %v, cause %v", tt.got, CauseOf(tt.got), tt.want, tt.cause)
		}
	}
}
