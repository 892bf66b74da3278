package session_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestReaderPauses holds that whoever stops reading for a long time, and then goes on, gets all there is and an orderly
// end, either way and also when the other side has said all, however the bytes wait: in the kernel alone, or in a
// session that cannot pass them on.
func TestReaderPauses(t *testing.T) {
	const userTimeout, pause = time.Second, 5 * time.Second
	for _, bytes := range []int{300 << 10, 16 << 20} {
		for _, toBackend := range []bool{false, true} {
			for _, timeout := range []time.Duration{userTimeout, 0} {
				name := fmt.Sprintf("%dKiB/to backend %v/user timeout %v", bytes>>10, toBackend, timeout)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					accepted := make(chan *net.TCPConn, 1)
					release := make(chan struct{})
					spec := spec(newPool(t, backend(t, func(c *net.TCPConn) {
						accepted <- c
						<-release
					})))
					spec.UserTimeout, spec.HalfCloseTimeout = timeout, time.Second
					spec.KeepAlive = l4.KeepAlive{}
					lines, log := newCapture()
					s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec)
					defer close(release)
					from, to := dial(t, address(s)), <-accepted
					reason := "client_closed"
					if !toBackend {
						from, to = to, from
						reason = "backend_closed"
					}
					sent := make(chan error, 1)
					go func() {
						_, err := from.Write(make([]byte, bytes))
						if err == nil {
							err = from.CloseWrite()
						}
						sent <- err
					}()
					select {
					case line := <-lines.Lines():
						t.Fatalf("the session has ended: %s", line)
					case <-time.After(pause):
					}
					from.SetDeadline(time.Now().Add(20 * time.Second))
					to.SetDeadline(time.Now().Add(20 * time.Second))
					if n, err := io.Copy(io.Discard, to); err != nil || n != int64(bytes) {
						t.Fatalf("%d of %d bytes came: %v", n, bytes, err)
					}
					if err := <-sent; err != nil {
						t.Fatal(err)
					}
					if err := to.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					if line := lines.Next(t); line.Reason != reason {
						t.Errorf("the session has ended with %s", line.Reason)
					}
				})
			}
		}
	}
}

// TestLooksEnd holds that a session looks at its connections while it is in use, and not at rest.
func TestLooksEnd(t *testing.T) {
	spec := spec(newPool(t, backend(t, echo)))
	spec.UserTimeout = 2 * session.SettleAfter
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dial(t, address(s))
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	atRest := func() bool {
		return anySession(s, func(one *session.Session) bool { return !session.HasDeadline(one) })
	}
	if atRest() {
		t.Error("a session in use has no timer")
	}
	eventually(t, "it is at rest", atRest)
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	if atRest() {
		t.Error("a session in use again has no timer")
	}
	eventually(t, "it is at rest again", atRest)
}

// TestSent holds what the kernel says of a reader that takes no more.
func TestSent(t *testing.T) {
	accepted := make(chan *net.TCPConn, 1)
	address := backend(t, func(c *net.TCPConn) { accepted <- c; <-t.Context().Done() })
	c := dial(t, address)
	peer := <-accepted
	sent := func() (s sock.SentState) {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { s, _ = sock.Sent(int(fd)) }); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := sent(); got.Full || got.Outstanding {
		t.Errorf("before anything was sent: %+v", got)
	}
	written := 0
	eventually(t, "the reader is full", func() bool {
		c.SetWriteDeadline(time.Now().Add(time.Millisecond))
		n, _ := c.Write(make([]byte, 1<<20))
		written += n
		return sent().Full
	})
	if _, err := io.CopyN(io.Discard, peer, int64(written)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is acknowledged", func() bool { s := sent(); return !s.Full && !s.Outstanding })
}
