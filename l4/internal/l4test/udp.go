package l4test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// FlowSpec is a UDP listener on a free port of 127.0.0.1.
func FlowSpec(p *pool.Pool) l4.ListenerSpec {
	s := Spec(p)
	s.Protocol = l4.UDP
	return s
}

// StartUDP serves datagrams with handle; nil says nothing.
func StartUDP(t testing.TB, handle func(b *UDPBackend, from netip.AddrPort, datagram []byte)) *UDPBackend {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	b := &UDPBackend{UDPConn: c}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			b.Got.Add(1)
			if handle != nil {
				handle(b, from, buf[:n])
			}
		}
	})
	t.Cleanup(func() {
		c.Close()
		running.Wait()
	})
	return b
}

// EchoUDP sends each datagram back.
func EchoUDP(b *UDPBackend, from netip.AddrPort, datagram []byte) {
	_, _ = b.WriteToUDPAddrPort(datagram, from)
}

// Naming answers each datagram with a name.
func Naming(name string) func(*UDPBackend, netip.AddrPort, []byte) {
	return func(b *UDPBackend, from netip.AddrPort, _ []byte) {
		_, _ = b.WriteToUDPAddrPort([]byte(name), from)
	}
}

// DialUDP is a client of an address.
func DialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// DialUDPFrom is a client at an address, on a port that no flow wants.
func DialUDPFrom(t testing.TB, from, address string) *net.UDPConn {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// AskUDP sends a datagram and returns what comes back, asking again while nothing does: a datagram may be lost.
func AskUDP(t testing.TB, c *net.UDPConn, datagram string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	for range 20 {
		if _, err := c.Write([]byte(datagram)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if n, ok := ReadUDP(t, c, buf, time.Second); ok {
			return string(buf[:n])
		}
	}
	t.Fatalf("no answer to %q", datagram)
	return ""
}

// ReadUDP reads a datagram if one comes in time.
func ReadUDP(t testing.TB, c *net.UDPConn, buf []byte, patience time.Duration) (int, bool) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}

// SendTrain sends datagrams of one size in one go, cut by the kernel.
func SendTrain(t testing.TB, c *net.UDPConn, datagrams [][]byte) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	w := &sock.DatagramWriter{Trains: true}
	for _, d := range datagrams {
		w.Add(nil, nil, nil, d, true)
	}
	var e sock.Errno
	err = raw.Write(func(fd uintptr) bool {
		e = w.Send(int(fd))
		return e != sock.Again
	})
	if err != nil || e != 0 {
		t.Fatal(err, e)
	}
}

// A UDPBackend is a socket whose datagrams are handled one after another until the test ends.
type UDPBackend struct {
	*net.UDPConn
	Got atomic.Int64 // datagrams
}

// Address is where the backend listens.
func (b *UDPBackend) Address() string { return b.LocalAddr().String() }

// EndOne ends the flow that is the n-th oldest.
func EndOne(t testing.TB, s *l4.Server, n int) {
	t.Helper()
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := s.End(t.Context(), l4.SessionFilter{ID: list.Sessions[n].ID}); ended != 1 || err != nil {
		t.Fatalf("%d ended, %v", ended, err)
	}
}

// AwaitDropped waits until so many datagrams were dropped for that reason.
func AwaitDropped(t testing.TB, s *l4.Server, why l4.Drop, n uint64) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d datagrams dropped as %s", n, why), func() bool { return Info(s).Dropped[why] >= n })
	if got := Info(s).Dropped[why]; got != n {
		t.Errorf("%d datagrams dropped as %s, want %d", got, why, n)
	}
}

// AwaitFlows waits until there are so many flows.
func AwaitFlows(t testing.TB, s *l4.Server, n int) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d flows", n), func() bool { return s.Flows() == n && Info(s).Sessions == n })
}
