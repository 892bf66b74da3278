package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// listen returns a listener on a free loopback port, closed with the test.
func listen(t *testing.T, addr string) (net.Listener, Target) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l, Target{ID: "a", Addr: netip.MustParseAddrPort(l.Addr().String())}
}

// refusing returns a target that nothing listens on.
func refusing(t *testing.T) Target {
	t.Helper()
	l, to := listen(t, "127.0.0.1:0")
	must(t, l.Close())
	return to
}

func TestTCPAccepted(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		_, to := listen(t, addr)
		got, err := TCP{}.Check(t.Context(), to)
		if err != nil || got.Latency <= 0 || got.Latency > partingTime || got.Detail != "connected" {
			t.Errorf("check of %s = %+v, %v, want it connected, and the parting not counted", addr, got, err)
		}
	}
}

func TestTCPOtherPort(t *testing.T) {
	_, accepts := listen(t, "127.0.0.1:0")
	refuses := refusing(t)
	if _, err := (TCP{Port: accepts.Addr.Port()}).Check(t.Context(), refuses); err != nil {
		t.Errorf("check of the other port: %v", err)
	}
	if _, err := (TCP{Port: refuses.Addr.Port()}).Check(t.Context(), accepts); err == nil {
		t.Error("check of the other port, which refuses, succeeded")
	}
}

func TestTCPRefused(t *testing.T) {
	_, err := TCP{}.Check(t.Context(), refusing(t))
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, ErrInconclusive) || err.Error() != "connect refused" {
		t.Errorf("error %v, want %q wrapping ECONNREFUSED", err, "connect refused")
	}
}

// TestTCPPartsInOrder has a server that greets first, as SSH and MySQL do. It must see the end as an end, not as a reset.
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
	_, err := TCP{}.Check(t.Context(), to)
	must(t, err)
	server.Wait()
}

// TestTCPOfATalker has a server that sends without end and closes only when it is cut off.
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
	_, err := TCP{}.Check(t.Context(), to)
	must(t, err)
	server.Wait()
}

func TestTCPCancelled(t *testing.T) {
	_, to := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (TCP{}).Check(ctx, to); err == nil {
		t.Error("a cancelled check succeeded")
	}
}

func TestConnectErrorsInWords(t *testing.T) {
	syscallError := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	for _, tt := range []struct {
		err          error
		want         string
		inconclusive bool
	}{
		{syscallError(syscall.ECONNREFUSED), "connect refused", false},
		{syscallError(syscall.ECONNRESET), "connect reset", false},
		{syscallError(syscall.EHOSTUNREACH), "no route to host", false},
		{syscallError(syscall.ENETUNREACH), "network unreachable", false},
		{syscallError(syscall.ETIMEDOUT), "connect timed out after 2m0s", false},
		{syscallError(syscall.EMFILE), "cannot check: too many open files", true},
		{syscallError(syscall.ENFILE), "cannot check: too many open files in system", true},
		{syscallError(syscall.EADDRNOTAVAIL), "cannot check: cannot assign requested address", true},
		{syscallError(syscall.EACCES), "connect: dial tcp: connect: permission denied", false},
	} {
		got := connectError(t.Context(), time.Now().Add(-2*time.Minute), tt.err)
		if got.Error() != tt.want || !errors.Is(got, tt.err) || errors.Is(got, ErrInconclusive) != tt.inconclusive {
			t.Errorf("%v in words is %q (inconclusive: %v), want %q (%v)",
				tt.err, got, errors.Is(got, ErrInconclusive), tt.want, tt.inconclusive)
		}
	}
	if got := connectError(t.Context(), time.Now(), net.ErrClosed).Error(); !strings.HasPrefix(got, "connect: ") {
		t.Errorf("another error in words is %q, want it after \"connect: \"", got)
	}
}
