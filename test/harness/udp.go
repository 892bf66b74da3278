package harness

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// MaxDatagram is the longest payload that IPv4 carries: 65,535 bytes less the headers (RFC 768, RFC 791).
const MaxDatagram = 65_507

// A DatagramHandler gets each datagram of a UDPBackend, one after the other, and may answer through c. It must not keep
// datagram.
type DatagramHandler func(c *net.UDPConn, from netip.AddrPort, datagram []byte)

// A UDPBackend is a UDP server inside the test process. Its methods may be called from any goroutine.
type UDPBackend struct {
	// set once, then read-only
	conn    *net.UDPConn
	handle  DatagramHandler
	serving sync.WaitGroup

	// mu guards the fields below
	mu      sync.Mutex
	sources map[netip.AddrPort]int // datagrams by source address
}

// ServeUDP starts a UDP server on a free port of 127.0.0.1. It is closed at the end of the test.
func ServeUDP(t testing.TB, handle DatagramHandler) *UDPBackend {
	t.Helper()
	return ServeUDPOn(t, FreeAddress(t), handle)
}

// ServeUDPOn is ServeUDP on an address of the caller's choice, for IPv6 or a server that comes back.
func ServeUDPOn(t testing.TB, address string, handle DatagramHandler) *UDPBackend {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	return startUDP(t, c.(*net.UDPConn), handle)
}

func startUDP(t testing.TB, c *net.UDPConn, handle DatagramHandler) *UDPBackend {
	b := &UDPBackend{conn: c, handle: handle, sources: map[netip.AddrPort]int{}}
	// as much as the kernel allows; tests with few datagrams do not depend on it
	_ = b.conn.SetReadBuffer(1 << 20)
	t.Cleanup(b.Close)
	b.serving.Go(b.serve)
	return b
}

func (b *UDPBackend) serve() {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := b.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed: an unconnected socket gets no other error
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		b.mu.Lock()
		b.sources[from]++
		b.mu.Unlock()
		b.handle(b.conn, from, buffer[:n])
	}
}

// Address returns the address that the backend receives on.
func (b *UDPBackend) Address() string { return b.conn.LocalAddr().String() }

// Received returns the number of datagrams so far.
func (b *UDPBackend) Received() int {
	n := 0
	for _, count := range b.Sources() {
		n += count
	}
	return n
}

// Sources returns how many datagrams came from each address so far: behind a balancer, one for each of its flows.
func (b *UDPBackend) Sources() map[netip.AddrPort]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.sources)
}

// Close closes the socket, so that the kernel refuses datagrams, and returns when the last handler has returned. A
// second call does nothing.
func (b *UDPBackend) Close() {
	b.conn.Close()
	b.serving.Wait()
}

// EchoDatagrams sends each datagram back.
func EchoDatagrams(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
	_, _ = c.WriteToUDPAddrPort(datagram, from) // a lost answer is for the test to notice
}

// SilentDatagrams never answers.
func SilentDatagrams(*net.UDPConn, netip.AddrPort, []byte) {}

// NameDatagrams returns a handler that answers each datagram with name, so that a client learns which backend it has.
func NameDatagrams(name string) DatagramHandler {
	return func(c *net.UDPConn, from netip.AddrPort, _ []byte) { _, _ = c.WriteToUDPAddrPort([]byte(name), from) }
}

// DialUDP makes a connected UDP socket, which receives datagrams from that address only. It is closed at the end of the
// test, and its reads and writes fail after Patience.
func DialUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	return DialUDPFrom(t, "", address)
}

// DialUDPFrom is DialUDP from an IP address of this machine, "" for any.
func DialUDPFrom(t testing.TB, from, address string) *net.UDPConn {
	t.Helper()
	d := net.Dialer{Timeout: Patience}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * Patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// AskUDP sends a datagram and returns the next one that comes, for any goroutine.
func AskUDP(c net.Conn, message []byte) ([]byte, error) {
	if _, err := c.Write(message); err != nil {
		return nil, fmt.Errorf("send %d bytes: %w", len(message), err)
	}
	answer := make([]byte, 1<<16)
	n, err := c.Read(answer)
	if err != nil {
		return nil, fmt.Errorf("answer to %d bytes: %w", len(message), err)
	}
	return answer[:n], nil
}
