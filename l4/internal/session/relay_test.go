package session_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

func TestEcho(t *testing.T) {
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, echo))))
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
	}
}

// TestBothWays sends random bytes both ways at once, in writes of random sizes, so that a session goes through
// copying, kept remainders, splicing and back.
func TestBothWays(t *testing.T) {
	const size = 64 << 20
	sums := make(chan [32]byte, 2)
	exchange := func(c *net.TCPConn, seed uint64) (sent [32]byte, err error) {
		var wg sync.WaitGroup
		wg.Go(func() {
			h := sha256.New()
			io.Copy(h, c)
			sums <- [32]byte(h.Sum(nil))
		})
		r := rand.New(rand.NewPCG(seed, 1))
		h, left := sha256.New(), size
		buf := make([]byte, 512<<10)
		for left > 0 {
			n := min(left, 1+r.IntN(1<<r.IntN(19)))
			for i := 0; i < n; i += 8 {
				buf[i] = byte(r.Uint32())
			}
			h.Write(buf[:n])
			if _, err := c.Write(buf[:n]); err != nil {
				return sent, err
			}
			left -= n
		}
		c.CloseWrite()
		wg.Wait()
		return [32]byte(h.Sum(nil)), nil
	}
	fromBackend := make(chan [32]byte, 1)
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
		sum, err := exchange(c, 1)
		if err != nil {
			t.Error(err)
		}
		fromBackend <- sum
	}))))
	c := dial(t, address(s))
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	fromClient, err := exchange(c, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := map[[32]byte]bool{fromClient: true, <-fromBackend: true}
	for range 2 {
		if sum := <-sums; !want[sum] {
			t.Error("bytes arrived that were not sent")
		}
	}
}

// TestResets holds that a reset on either side is a reset on the other.
func TestResets(t *testing.T) {
	t.Run("backend", func(t *testing.T) {
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		}))))
		c := dial(t, address(s))
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v, not a reset", err)
		}
	})
	t.Run("client", func(t *testing.T) {
		got := make(chan error, 1)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
			c.Write([]byte("x"))
			_, err := c.Read(make([]byte, 1))
			got <- err
		}))))
		c := dial(t, address(s))
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
		c.Close()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v, not a reset", err)
		}
	})
}

// TestResetAfterHalfClose holds that a reset is noticed on a side that has said all it had to say, and whose
// end nobody reads any more.
func TestResetAfterHalfClose(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		halfClosed := make(chan struct{})
		got := make(chan error, 1)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
			io.ReadAll(c)
			close(halfClosed)
			for { // a FIN was read: only a write shows the reset
				if _, err := c.Write([]byte("x")); err != nil {
					got <- err
					return
				}
			}
		}))))
		c := dial(t, address(s))
		c.CloseWrite()
		<-halfClosed
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
		c.Close()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write: %v, not a reset", err)
		}
	})
	t.Run("quiet client", func(t *testing.T) {
		lines, log := newCapture()
		s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(newPool(t, backend(t, nil))))
		c := dial(t, address(s))
		c.CloseWrite()
		eventually(t, "the FIN is passed on", func() bool { return anySession(s, session.PassedEnd) })
		c.SetLinger(0)
		c.Close()
		if line := lines.Next(t); line.Reason != tally.Probe.String() {
			t.Fatalf("ended as %+v", line)
		}
	})
	t.Run("backend", func(t *testing.T) {
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
			c.CloseWrite()
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		}))))
		c := dial(t, address(s))
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("x"))
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Fatalf("write: %v, not a reset", err)
				}
				return
			}
		}
	})
}

// TestEarlyAnswer holds that an answer is not lost when the backend closes without reading all of the request:
// its kernel then sends a reset right behind the answer.
func TestEarlyAnswer(t *testing.T) {
	answer := bytes.Repeat([]byte("no\n"), 1000)
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		c.Write(answer)
	}))))
	for range 20 {
		c := dial(t, address(s))
		go c.Write(make([]byte, 8<<20))
		got, _ := io.ReadAll(c)
		if !bytes.Equal(got, answer) {
			t.Fatalf("got %d bytes of an answer of %d", len(got), len(answer))
		}
	}
}

// TestReasons provokes ends of all kinds and reads the access line.
func TestReasons(t *testing.T) {
	talk := func(c *net.TCPConn) { c.Write([]byte("hi")); io.ReadFull(c, make([]byte, 2)) }
	wait := func(c *net.TCPConn) { io.Copy(io.Discard, c) }
	greet := func(c *net.TCPConn) { c.Write([]byte("hi")); wait(c) }
	for _, test := range []struct {
		name    string
		backend func(*net.TCPConn)
		client  func(*net.TCPConn)
		change  func(*l4.ListenerSpec)
		want    l4.Reason
	}{
		{"client closes", echo, talk, nil, tally.ClientClosed},
		{"client sends nothing", echo, func(*net.TCPConn) {}, nil, tally.Probe},
		{"client sends nothing and resets", echo, func(c *net.TCPConn) { c.SetLinger(0) }, nil, tally.Probe},
		{"client resets at a greeting", greet,
			func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 2)); c.SetLinger(0) }, nil, tally.Probe},
		{"client takes a greeting", greet,
			func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 2)) }, nil, tally.ClientClosed},
		{"client comes to be told", func(c *net.TCPConn) { wait(c); c.Write([]byte("hi")) },
			func(c *net.TCPConn) { c.CloseWrite(); wait(c) }, nil, tally.ClientClosed},
		{"backend closes", func(c *net.TCPConn) { talk(c) },
			func(c *net.TCPConn) { c.Write([]byte("hi")); io.ReadAll(c) }, nil, tally.BackendClosed},
		{"backend closes at once", func(*net.TCPConn) {}, wait, nil, tally.BackendClosed},
		{"client resets", echo, func(c *net.TCPConn) { talk(c); c.SetLinger(0) }, nil, tally.ClientReset},
		{"backend resets", func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 2)); c.SetLinger(0) },
			talk, nil, tally.BackendReset},
		{"idle", echo, wait, func(s *l4.ListenerSpec) { s.IdleTimeout = 100 * time.Millisecond }, tally.Idle},
		{"half close", nil, func(c *net.TCPConn) { c.CloseWrite(); wait(c) },
			func(s *l4.ListenerSpec) { s.HalfCloseTimeout = 100 * time.Millisecond }, tally.HalfClose},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines, log := newCapture()
			ls := spec(newPool(t, backend(t, test.backend)))
			if test.change != nil {
				test.change(&ls)
			}
			s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, ls)
			c := dial(t, address(s))
			test.client(c)
			c.Close()
			if got := lines.Next(t); got.Reason != test.want.String() {
				t.Fatalf("ended as %+v, want %v", got, test.want)
			}
		})
	}
}

// TestProbesUnlogged holds that clients who say nothing and leave are counted and not logged, if so set, and that
// others are logged; and that this is one of the settings that change at run time.
func TestProbesUnlogged(t *testing.T) {
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 1, Access: true, NoProbes: true, Log: log}, spec(newPool(t, backend(t, echo))))
	probe := func() { dial(t, address(s)).Close() }
	probes := func() uint64 { return s.Listeners()[0].Ended[tally.Probe] }
	probe()
	eventually(t, "the probe is over", func() bool { return probes() == 1 })
	c := dial(t, address(s))
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if line := lines.Next(t); line.Reason != tally.ClientClosed.String() {
		t.Errorf("the first line is %+v", line)
	}
	settings := s.Settings()
	settings.NoProbes = false
	s.Set(settings)
	probe()
	if line := lines.Next(t); line.Reason != tally.Probe.String() {
		t.Errorf("the next line is %+v", line)
	}
}
