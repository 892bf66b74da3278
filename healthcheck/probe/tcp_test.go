package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// listen returns a listener on a free loopback port, closed with the test.
func listen(t *testing.T, addr string) (net.Listener, healthcheck.Target) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l, healthcheck.Target{ID: "a", Addr: netip.MustParseAddrPort(l.Addr().String())}
}

// refusing returns a target on whose port nothing listens.
func refusing(t *testing.T) healthcheck.Target {
	t.Helper()
	return healthcheck.Target{ID: "a", Addr: netip.MustParseAddrPort(harness.FreeAddress(t))}
}

func TestTCPAccepted(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		_, to := listen(t, addr)
		got, err := TCP{}.Check(deadlineIn(t, patience), to)
		if err != nil || got.Latency <= 0 || got.Latency > finishTime || got.Detail != "connected" {
			t.Errorf("check of %s = %+v, %v, want it connected, and the parting not counted", addr, got, err)
		}
	}
}

func TestTCPOtherPort(t *testing.T) {
	_, accepts := listen(t, "127.0.0.1:0")
	refuses := refusing(t)
	if _, err := (TCP{Port: accepts.Addr.Port()}).Check(deadlineIn(t, patience), refuses); err != nil {
		t.Errorf("check of the other port: %v", err)
	}
	if _, err := (TCP{Port: refuses.Addr.Port()}).Check(deadlineIn(t, patience), accepts); err == nil {
		t.Error("check of the other port, which refuses, succeeded")
	}
}

func TestTCPRefused(t *testing.T) {
	_, err := TCP{}.Check(deadlineIn(t, patience), refusing(t))
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, healthcheck.ErrInconclusive) ||
		err.Error() != "connect refused" {
		t.Errorf("error %v, want %q wrapping ECONNREFUSED", err, "connect refused")
	}
}

// TestTCPPartsInOrder checks a server that speaks first, as SSH and MySQL do. It must see an end, and not a reset.
func TestTCPPartsInOrder(t *testing.T) {
	l, to := listen(t, "127.0.0.1:0")
	var server sync.WaitGroup
	server.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("SSH-2.0-greeting\r\n")); err != nil {
			t.Errorf("greeting: %v", err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the server reads %v, want EOF", err)
		}
		if _, err := conn.Write([]byte("bye\r\n")); err != nil {
			t.Errorf("farewell: %v", err)
		}
		if _, err := conn.Write([]byte("bye\r\n")); err != nil { // had the check closed for good, the first got a reset
			t.Errorf("second farewell: %v", err)
		}
	})
	_, err := TCP{}.Check(deadlineIn(t, patience), to)
	must(t, err)
	server.Wait()
}

// TestTCPOfATalker checks a server that sends without end, until a write fails.
func TestTCPOfATalker(t *testing.T) {
	l, to := listen(t, "127.0.0.1:0")
	var server sync.WaitGroup
	server.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for buf := make([]byte, 32<<10); err == nil; {
			_, err = conn.Write(buf)
		}
	})
	_, err := TCP{}.Check(deadlineIn(t, patience), to)
	must(t, err)
	server.Wait()
}

func TestTCPCancelled(t *testing.T) {
	_, to := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := TCP{}.Check(ctx, to)
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}
