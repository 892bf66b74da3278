package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// serveUDP returns a target that calls handle for each datagram, until the test ends.
func serveUDP(
	t testing.TB, addr string, handle func(c *net.UDPConn, from netip.AddrPort, b []byte),
) healthcheck.Target {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := conn.(*net.UDPConn)
	over := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-over })
	go func() {
		defer close(over)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // or else an ICMP error for a client that is gone
				handle(c, from, buf[:n])
			}
		}
	}()
	return targetAt(c.LocalAddr().String())
}

// sayUDP returns a handler that answers each datagram with all of answers.
func sayUDP(answers ...string) func(*net.UDPConn, netip.AddrPort, []byte) {
	return func(c *net.UDPConn, from netip.AddrPort, _ []byte) {
		for _, a := range answers {
			_, _ = c.WriteToUDPAddrPort([]byte(a), from)
		}
	}
}

func echoUDP(c *net.UDPConn, from netip.AddrPort, b []byte) { _, _ = c.WriteToUDPAddrPort(b, from) }

// closedUDP returns a target with an unused port.
func closedUDP(t testing.TB, host string) healthcheck.Target {
	t.Helper()
	return targetAt(net.JoinHostPort(host, strconv.Itoa(harness.FreePort(t))))
}

func TestUDPAnswered(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		to := serveUDP(t, host, echoUDP)
		for _, check := range []UDP{
			{},
			{Payload: []byte("ping")},
			{Payload: []byte("ping"), RequireAnswer: true},
			{RequireAnswer: true}, // by an empty datagram
			{Payload: []byte("ping"), Expect: []byte("in")},
			{Payload: []byte(strings.Repeat("x", 9000) + "end"), Expect: []byte("end")},
		} {
			got, err := check.Check(deadlineIn(t, patience), to)
			if err != nil || got.Detail != "answered" || got.Latency <= 0 {
				t.Errorf("%.60v: %+v, %v, want it answered", check, got, err)
			}
		}
	}
	to := serveUDP(t, "127.0.0.1:0", sayUDP("no", "nor this", "but that"))
	_, err := UDP{Expect: []byte("that")}.Check(deadlineIn(t, patience), to)
	must(t, err)
	_, err = UDP{Port: to.Addr.Port(), Expect: []byte("that")}.Check(deadlineIn(t, patience), closedUDP(t, "127.0.0.1"))
	must(t, err)
	_, err = UDP{Expect: []byte("that")}.Check(t.Context(), to) // without a deadline
	must(t, err)
}

func TestUDPUnreachable(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, check := range []UDP{{}, {Payload: []byte("ping"), RequireAnswer: true}} {
			_, err := check.Check(deadlineIn(t, patience), closedUDP(t, host))
			failsWith(t, err, "port unreachable", syscall.ECONNREFUSED)
		}
	}
}

// TestUDPSilence checks a server that takes all datagrams and never answers.
func TestUDPSilence(t *testing.T) {
	var datagrams atomic.Int64
	to := serveUDP(t, "127.0.0.1:0", func(*net.UDPConn, netip.AddrPort, []byte) { datagrams.Add(1) })
	start := time.Now()
	got, err := UDP{}.Check(deadlineIn(t, patience), to)
	if err != nil || got.Detail != "no answer, and no objection" || got.Latency != 0 {
		t.Errorf("%+v, %v, want silence to be fine", got, err)
	}
	if took := time.Since(start); took < longestQuiet || took > patience/2 {
		t.Errorf("the check took %v, want %v", took, longestQuiet)
	}
	if n := datagrams.Load(); n != 2 {
		t.Errorf("%d datagrams, want one and its repetition", n)
	}
	_, err = UDP{RequireAnswer: true}.Check(deadlineIn(t, hurry), to)
	failsWith(t, err, "timed out waiting for the answer after [0-9]+ms", context.DeadlineExceeded)
	if got := quietUntil(deadlineIn(t, time.Second), start).Sub(start); got > longestQuiet {
		t.Errorf("silence has to last %v", got)
	}
}

// TestUDPLostOnce loses the first datagram.
func TestUDPLostOnce(t *testing.T) {
	seen := 0
	to := serveUDP(t, "127.0.0.1:0", func(c *net.UDPConn, from netip.AddrPort, b []byte) {
		if seen++; seen == 2 {
			echoUDP(c, from, b)
		}
	})
	_, err := UDP{Payload: []byte("ping"), Expect: []byte("ping")}.Check(deadlineIn(t, 3*time.Second), to)
	must(t, err)
}

func TestUDPOtherAnswers(t *testing.T) {
	check := UDP{Expect: []byte("well")}
	for answer, want := range map[string]string{
		"ill":                                   `answered "ill", wanted "well"`,
		"":                                      `answered nothing, wanted "well"`,
		"\x00" + strings.Repeat("\xff", 60_000): `answered "\\x00(\\xff){24}"\.\.\., wanted "well"`,
	} {
		_, err := check.Check(deadlineIn(t, hurry), serveUDP(t, "127.0.0.1:0", sayUDP(answer)))
		failsWith(t, err, want)
	}
	flood := make([]string, 3*mostStrays)
	for i := range flood {
		flood[i] = "ill"
	}
	start := time.Now()
	_, err := check.Check(deadlineIn(t, patience), serveUDP(t, "127.0.0.1:0", sayUDP(flood...)))
	failsWith(t, err, `answered "ill", wanted "well"`)
	if took := time.Since(start); took > patience/4 {
		t.Errorf("the check of a target that floods it took %v", took)
	}
}

// TestUDPFromElsewhere checks a server that answers from another port.
func TestUDPFromElsewhere(t *testing.T) {
	to := serveUDP(t, "127.0.0.1:0", func(_ *net.UDPConn, from netip.AddrPort, b []byte) {
		other, err := net.Dial("udp", from.String())
		if err != nil {
			t.Error(err)
			return
		}
		defer other.Close()
		_, _ = other.Write(b)
	})
	_, err := UDP{Payload: []byte("ping"), RequireAnswer: true}.Check(deadlineIn(t, hurry), to)
	failsWith(t, err, "timed out waiting for the answer after [0-9]+ms")
}

func TestUDPCancelled(t *testing.T) {
	for _, required := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		to := serveUDP(t, "127.0.0.1:0", func(*net.UDPConn, netip.AddrPort, []byte) { cancel() })
		_, err := UDP{RequireAnswer: required}.Check(ctx, to)
		failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
		_, err = UDP{RequireAnswer: required}.Check(ctx, to)
		failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
	}
}

func TestUDPErrorsInWords(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ECONNREFUSED: "port unreachable",
		syscall.EHOSTUNREACH: "host unreachable",
		syscall.ENETUNREACH:  "network unreachable",
		syscall.ENOPROTOOPT:  "protocol unreachable",
		syscall.EACCES:       "administratively prohibited",
		syscall.EPERM:        "not permitted by a firewall of this machine",
		syscall.ENOBUFS:      "cannot check: no buffer space available",
		net.ErrClosed:        "exchange: use of closed network connection",
	} {
		failsWith(t, udpError(t.Context(), err), want, err)
	}
	_, err := UDP{Payload: make([]byte, 70_000)}.Check(deadlineIn(t, patience), closedUDP(t, "127.0.0.1"))
	failsWith(t, err, "exchange: message too long", syscall.EMSGSIZE)
}
