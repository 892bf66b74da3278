package test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// draining starts a balancer with one established session and shuts it down; it returns when new connects are refused.
func draining(t *testing.T, timeout string) (*harness.Balancer, *net.TCPConn) {
	t.Helper()
	backend := harness.Serve(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}, Global: []string{`drain_timeout = "` + timeout + `"`}}.start(t)
	c := b.Dial(t, "main")
	check(t, harness.PingPong(c, 1, 1))
	b.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, "new connects are refused", func() error {
		other, err := net.DialTimeout("tcp", b.Address(t, "main"), harness.Patience)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			other.Close()
			err = errors.New("connected")
		}
		return err
	})
	return b, c
}

func endsWithZero(t *testing.T, b *harness.Balancer) {
	t.Helper()
	if code := b.Wait(t); code != 0 {
		t.Errorf("exit code %d, expected 0", code)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	t.Run("ends with the last session", func(t *testing.T) {
		t.Parallel()
		b, c := draining(t, "1h")
		check(t, harness.PingPong(c, 100, 1000)) // established sessions go on
		check(t, c.Close())
		endsWithZero(t, b)
		oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "client_closed")
	})
	t.Run("ends what is left after drain_timeout", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		b, c := draining(t, "2s")
		check(t, harness.PingPong(c, 1, 1))
		endsWithZero(t, b)
		if took := time.Since(start); took < 2*time.Second {
			t.Errorf("ended after %v, before drain_timeout", took)
		}
		endOf(t, c)
		oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "drained")
	})
	t.Run("ends at once without sessions", func(t *testing.T) {
		t.Parallel()
		backend := harness.Serve(t, harness.Echo)
		b := world{Backends: []string{backend.Address()}, Global: []string{`drain_timeout = "1h"`}}.start(t)
		b.Signal(t, syscall.SIGTERM)
		endsWithZero(t, b)
	})
	for _, second := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run("ends at once by a second signal, "+second.String(), func(t *testing.T) {
			t.Parallel()
			b, c := draining(t, "1h")
			check(t, harness.PingPong(c, 1, 1))
			b.Signal(t, second)
			endsWithZero(t, b)
			endOf(t, c)
			oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "drained")
		})
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}, Global: []string{`drain_timeout = "1h"`}}.start(t)
	c := b.Dial(t, "main")
	check(t, harness.PingPong(c, 1, 1))
	b.Signal(t, syscall.SIGINT)
	endsWithZero(t, b)
	endOf(t, c)
	oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "drained")
}
