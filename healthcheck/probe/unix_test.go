package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
)

// unixTarget serves a Unix socket until the test ends.
func unixTarget(t *testing.T) (*net.UnixListener, healthcheck.Target) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l, healthcheck.Target{ID: "a", Path: path}
}

// TestUnixTarget holds that checks over TCP work over Unix sockets, and which host they name.
func TestUnixTarget(t *testing.T) {
	l, to := unixTarget(t)
	host := make(chan string, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { host <- r.Host })}
	go server.Serve(l)
	defer server.Close()
	for name, c := range map[string]healthcheck.Checker{
		"tcp": TCP{}, "from a source": From{Checker: TCP{}}, "http": HTTP{Path: "/"},
	} {
		if _, err := c.Check(deadlineIn(t, patience), to); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	select {
	case got := <-host:
		if got != "localhost" {
			t.Errorf("the header Host is %q", got)
		}
	default:
		t.Error("no request came")
	}
	env := Exec{}.environment(to)
	for _, want := range []string{
		"LIMELOAD_ADDRESS=unix:" + to.Path, "LIMELOAD_HOST=" + to.Path, "LIMELOAD_PORT=",
	} {
		if env[len(env)-1] != want && env[len(env)-2] != want && env[len(env)-3] != want {
			t.Errorf("the environment of a program is %q, without %s", env, want)
		}
	}
}

// TestUnixProxied holds that a Unix socket gets the PROXY header of a check.
func TestUnixProxied(t *testing.T) {
	l, to := unixTarget(t)
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 99)
		n, _ := c.Read(buf)
		got <- string(buf[:n])
	}()
	_, err := Proxied{Checker: TCP{}, Version: 1}.Check(deadlineIn(t, patience), to)
	must(t, err)
	if text := <-got; text != "PROXY UNKNOWN\r\n" {
		t.Errorf("the backend got %q", text)
	}
}

func TestUnixTargetFails(t *testing.T) {
	l, to := unixTarget(t)
	at := func(path string) healthcheck.Target { return healthcheck.Target{ID: "a", Path: path} }
	failure := func(c healthcheck.Checker, t *testing.T, to healthcheck.Target) error {
		_, err := c.Check(deadlineIn(t, patience), to)
		return err
	}
	failsWith(t, failure(TCP{}, t, at(to.Path+"-")), "there is no such Unix socket", syscall.ENOENT)
	failsWith(t, failure(TCP{Port: 80}, t, to), "cannot check: a Unix socket has no ports, and the check is for one",
		healthcheck.ErrInconclusive)
	failsWith(t, failure(UDP{}, t, to), "cannot check: a Unix socket has no IP address", healthcheck.ErrInconclusive)

	datagrams := filepath.Join(t.TempDir(), "d")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: datagrams})
	must(t, err)
	defer c.Close()
	failsWith(t, failure(TCP{}, t, at(datagrams)), "not a Unix socket of streams", syscall.EPROTOTYPE)

	must(t, os.Chmod(to.Path, 0o700))
	denied := make(chan error)
	go func() { // as a user that is not root, on a thread that ends with it
		runtime.LockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		_, err := TCP{}.Check(context.Background(), to)
		denied <- err
	}()
	failsWith(t, <-denied, "not permitted to connect to the Unix socket", syscall.EACCES)

	l.SetUnlinkOnClose(false)
	l.Close()
	failsWith(t, failure(TCP{}, t, to), "connect refused", syscall.ECONNREFUSED)

	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(fd)
	full := filepath.Join(t.TempDir(), "f")
	must(t, errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: full}), syscall.Listen(fd, 0)))
	for err = nil; err == nil; {
		var c net.Conn
		if c, err = net.Dial("unix", full); err == nil {
			defer c.Close()
		}
	}
	failsWith(t, failure(TCP{}, t, at(full)), "the Unix socket's queue of new connections is full", syscall.EAGAIN)
}
