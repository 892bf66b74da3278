package session_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

func echoUnix(c *net.UnixConn) { _, _ = io.Copy(c, c) }

// TestUnixEcho holds that bytes and the ends of both ways pass between TCP and a Unix socket.
func TestUnixEcho(t *testing.T) {
	path := l4test.UnixBackend(t, func(c *net.UnixConn) {
		all, err := io.ReadAll(c) // it answers after the client's end
		if err != nil {
			t.Error(err)
		}
		_, _ = c.Write(all)
	})
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(l4test.NewUnixPool(t, pool.Options{}, path)))
	for range 50 {
		c := dial(t, address(s))
		want := []byte("hello")
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %q, %v", got, err)
		}
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() || line.Backend != "unix:"+path {
			t.Fatalf("the session ended as %+v", line)
		}
	}
}

// exchangeRandom sends size random bytes in writes of random sizes, and reads to the end meanwhile. It returns the
// hashes of both.
func exchangeRandom(c net.Conn, size int, seed uint64) (sent, read [32]byte, err error) {
	var reading sync.WaitGroup
	reading.Go(func() {
		h := sha256.New()
		_, _ = io.Copy(h, c)
		read = [32]byte(h.Sum(nil))
	})
	r, h := rand.New(rand.NewPCG(seed, 1)), sha256.New()
	buf := make([]byte, 512<<10)
	for left := size; left > 0 && err == nil; {
		n := min(left, 1+r.IntN(1<<r.IntN(19)))
		for i := 0; i < n; i += 8 {
			buf[i] = byte(r.Uint32())
		}
		h.Write(buf[:n])
		_, err = c.Write(buf[:n])
		left -= n
	}
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	reading.Wait()
	return [32]byte(h.Sum(nil)), read, err
}

// TestUnixBothWays sends random bytes both ways at once: through copies, kept remainders and pipes.
func TestUnixBothWays(t *testing.T) {
	const size = 32 << 20
	type end struct{ sent, read [32]byte }
	ofBackend := make(chan end, 1)
	path := l4test.UnixBackend(t, func(c *net.UnixConn) {
		sent, read, err := exchangeRandom(c, size, 1)
		if err != nil {
			t.Error(err)
		}
		ofBackend <- end{sent, read}
	})
	s := start(t, l4.Options{Loops: 2}, spec(l4test.NewUnixPool(t, pool.Options{}, path)))
	c := dial(t, address(s))
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	sent, read, err := exchangeRandom(c, size, 2)
	if err != nil {
		t.Fatal(err)
	}
	if b := <-ofBackend; b.sent != read || b.read != sent {
		t.Error("bytes arrived that were not sent")
	}
}

// TestUnixBackendVanishes holds that a backend which closes with bytes unread is one that has reset the connection, and
// that what it had said before still reaches the client.
func TestUnixBackendVanishes(t *testing.T) {
	lines, log := newCapture()
	path := l4test.UnixBackend(t, func(c *net.UnixConn) {
		_, _ = io.ReadFull(c, make([]byte, 1)) // of five
		_, _ = c.Write([]byte("no"))
	})
	s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(l4test.NewUnixPool(t, pool.Options{}, path)))
	c := dial(t, address(s))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if string(got) != "no" && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %q, %v", got, err)
	}
	if line := lines.Next(t); line.Reason != tally.BackendReset.String() || line.Out != 2 {
		t.Errorf("the session ended as %+v", line)
	}
}

// staleUnix returns a path where nobody listens any more.
func staleUnix(t *testing.T) string {
	t.Helper()
	path := l4test.UnixPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return path
}

// fullUnix returns the path of a socket whose queue of clients is full.
func fullUnix(t *testing.T) string {
	t.Helper()
	path := l4test.UnixPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		c, e := sock.ConnectUnix(path)
		if e == sock.QueueFull {
			return path
		}
		if e != 0 {
			t.Fatal(e)
		}
		t.Cleanup(func() { sock.Close(c) })
	}
	t.Fatal("the queue does not fill")
	return ""
}

// TestUnixConnectFails holds that each failure to connect is an outcome of the backend, and that another one is tried.
func TestUnixConnectFails(t *testing.T) {
	file := l4test.UnixPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		text string
		want pool.Outcome
	}{
		"missing":         {l4test.UnixPath(t), "no such file or directory", pool.ConnectRefused},
		"stale":           {staleUnix(t), "connection refused", pool.ConnectRefused},
		"no socket":       {file, "connection refused", pool.ConnectRefused},
		"full":            {fullUnix(t), "its queue of new connections is full", pool.ConnectRefused},
		"below a file":    {file + "/s", "not a directory", pool.ConnectUnreachable},
		"a path too long": {"/" + strings.Repeat("x", 106), "no such file or directory", pool.ConnectRefused},
	} {
		t.Run(name, func(t *testing.T) {
			lines, log := newCapture()
			p := l4test.NewUnixPool(t, pool.Options{Retries: 1}, test.path)
			s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
			if !refusedWithReset(t, address(s)) {
				t.Error("the client is not refused with a reset")
			}
			if b := p.Backends()[0]; b.Outcomes[test.want] != 1 {
				t.Errorf("outcomes: %v, want %v", b.Outcomes, test.want)
			}
			line := string(<-lines.Lines())
			if !strings.Contains(line, `"err":"`+test.text+`"`) || !strings.Contains(line, tally.ConnectFailed.String()) {
				t.Errorf("logged %s", line)
			}
			good := pool.Address{Path: l4test.UnixBackend(t, echoUnix)}
			if err := p.Add(pool.Spec{ID: "good", Addr: good, Weight: 1}); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				if err := ask(dial(t, address(s))); err != nil {
					t.Errorf("with another backend: %v", err)
				}
			}
		})
	}
}

// TestUnixSlowReceiver holds that half_close_timeout spares a backend that has yet to read what was sent.
func TestUnixSlowReceiver(t *testing.T) {
	const size = 1 << 20
	slow, got := make(chan struct{}), make(chan int64, 1)
	path := l4test.UnixBackend(t, func(c *net.UnixConn) {
		<-slow
		n, _ := io.Copy(io.Discard, c)
		got <- n
	})
	ls := spec(l4test.NewUnixPool(t, pool.Options{}, path))
	ls.HalfCloseTimeout, ls.UserTimeout = 100*time.Millisecond, 200*time.Millisecond
	s := start(t, l4.Options{Loops: 1}, ls)
	c := dial(t, address(s))
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	time.Sleep(time.Second)
	close(slow)
	if n := <-got; n != size {
		t.Errorf("the backend got %d bytes of %d", n, size)
	}
}
