package l4

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

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// flowSpec is a UDP listener on a free port of 127.0.0.1.
func flowSpec(p *pool.Pool) ListenerSpec {
	s := spec(p)
	s.Protocol = UDP
	return s
}

// A udpBackend is a socket whose datagrams are handled one after another until the test ends.
type udpBackend struct {
	*net.UDPConn
	got atomic.Int64 // datagrams
}

// startUDP serves datagrams with handle; nil says nothing.
func startUDP(t testing.TB, handle func(b *udpBackend, from netip.AddrPort, datagram []byte)) *udpBackend {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	b := &udpBackend{UDPConn: c}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			b.got.Add(1)
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

func (b *udpBackend) address() string { return b.LocalAddr().String() }

// echoUDP sends each datagram back.
func echoUDP(b *udpBackend, from netip.AddrPort, datagram []byte) {
	_, _ = b.WriteToUDPAddrPort(datagram, from)
}

// naming answers each datagram with a name.
func naming(name string) func(*udpBackend, netip.AddrPort, []byte) {
	return func(b *udpBackend, from netip.AddrPort, _ []byte) {
		_, _ = b.WriteToUDPAddrPort([]byte(name), from)
	}
}

// dialUDP is a client of an address.
func dialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// askUDP sends a datagram and returns what comes back, asking again while nothing does: a datagram may be lost.
func askUDP(t testing.TB, c *net.UDPConn, datagram string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	for range 20 {
		if _, err := c.Write([]byte(datagram)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if n, ok := readUDP(t, c, buf, time.Second); ok {
			return string(buf[:n])
		}
	}
	t.Fatalf("no answer to %q", datagram)
	return ""
}

// readUDP reads a datagram if one comes in time.
func readUDP(t testing.TB, c *net.UDPConn, buf []byte, patience time.Duration) (int, bool) {
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

// endOne ends the flow that is the n-th oldest.
func (s *Server) endOne(t testing.TB, n int) {
	t.Helper()
	list, err := s.List(t.Context(), SessionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if ended, err := s.End(t.Context(), SessionFilter{ID: list.Sessions[n].ID}); ended != 1 || err != nil {
		t.Fatalf("%d ended, %v", ended, err)
	}
}

// info is the server's first listener's.
func (s *Server) info() ListenerInfo { return s.Listeners()[0] }

// dropped waits until so many datagrams were dropped for that reason.
func (s *Server) awaitDropped(t testing.TB, why Drop, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d datagrams dropped as %s", n, why), func() bool { return s.info().Dropped[why] >= n })
	if got := s.info().Dropped[why]; got != n {
		t.Errorf("%d datagrams dropped as %s, want %d", got, why, n)
	}
}

// awaitFlows waits until there are so many flows.
func (s *Server) awaitFlows(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d flows", n), func() bool { return s.Flows() == n && s.info().Sessions == n })
}

// withOffload runs f with the kernel's ways to move trains, and without each.
func withOffload(t *testing.T, f func(t *testing.T, o sock.Offload)) {
	t.Helper()
	has, err := sock.DetectOffload()
	if err != nil {
		t.Fatal(err)
	}
	if !has.GRO || !has.GSO {
		t.Fatalf("this kernel has not what these tests need: UDP_GRO (%v) and UDP_SEGMENT (%v), Linux 5.0", has.GRO, has.GSO)
	}
	for _, o := range []sock.Offload{{GRO: true, GSO: true}, {GRO: true}, {GSO: true}, {}} {
		t.Run(fmt.Sprintf("GRO %v GSO %v", o.GRO, o.GSO), func(t *testing.T) { f(t, o) })
	}
}

// startWith is start with some of the kernel's ways to move trains.
func startWith(t testing.TB, offload sock.Offload, o Options, specs ...ListenerSpec) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(done(t)) })
	s.offload = offload
	if err := s.Apply(Plan{Listeners: specs}); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// sendTrain sends datagrams of one size in one go, cut by the kernel.
func sendTrain(t testing.TB, c *net.UDPConn, datagrams [][]byte) {
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

// pool is the first listener's.
func (s *Server) pool() *pool.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ls := range s.listeners {
		return ls.spec.Load().Pool
	}
	return nil
}

// onFirstLoop runs f on the first loop and waits for it.
func (s *Server) onFirstLoop(f func(l *loop)) {
	l := s.loops[0]
	done := make(chan struct{})
	l.mailbox.post(message{do: func() {
		f(l)
		close(done)
	}})
	<-done
}

// oneFlow is the first loop's flow; there must be one.
func (l *loop) oneFlow() (found *flow) {
	l.flows.store.all(func(f *flow) { found = f })
	return found
}

// dialUDPFrom is a client at an address, on a port that no flow wants.
func dialUDPFrom(t testing.TB, from, address string) *net.UDPConn {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
