//go:build netns

package l4_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// manyPorts gives this network namespace the usual local ports, of which a test before may have left few.
func manyPorts(t *testing.T) {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	setSysctl(t, "ipv4/ip_local_port_range", "20000 60999")
}

// fewPorts leaves this network namespace so many local ports. Each test has its own, since connections of a test before
// may still be in TIME_WAIT.
func fewPorts(t *testing.T, first, ports int) {
	t.Helper()
	setSysctl(t, "ipv4/ip_local_port_range", fmt.Sprintf("%d %d", first, first+ports-1))
}

// setSource says where the connections of a pool come from.
func setSource(t *testing.T, p *pool.Pool, sources ...string) {
	t.Helper()
	o := pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
	}
	for _, s := range sources {
		o.Source = append(o.Source, netip.MustParseAddr(s))
	}
	if err := p.Reconfigure(o); err != nil {
		t.Fatal(err)
	}
}

// sessionFrom makes a session whose client has this port of its own, and reports whether it is served.
func sessionFrom(t *testing.T, s *l4.Server, port int) (c net.Conn, served bool) {
	t.Helper()
	again := func(_, _ string, c syscall.RawConn) error { // whatever a test before has left of it
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}
	from := &net.TCPAddr{IP: net.IPv4(127, 9, 9, 9), Port: port}
	c, err := (&net.Dialer{Control: again, LocalAddr: from, Timeout: 20 * time.Second}).Dial("tcp", address(s))
	if errors.Is(err, syscall.ECONNRESET) {
		return nil, false // refused so soon
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, ask(c) == nil
}

// TestNetnsSourcePorts holds that two sources give one backend twice the sessions, that the next one is tried when one
// has no port left, that clients are refused when none has, and that ports which are free again are used.
func TestNetnsSourcePorts(t *testing.T) {
	const ports = 8
	manyPorts(t)
	listening := backend(t, echo)
	p := newPool(t, listening)
	setSource(t, p, "127.0.0.2", "127.0.0.3")
	s := start(t, l4.Options{Loops: 1}, spec(p))
	fewPorts(t, 61000, ports)
	var sessions []net.Conn
	for i := range 2 * ports {
		c, served := sessionFrom(t, s, 10000+i)
		if !served {
			eventually(t, "it is over", func() bool { return s.Sessions() == i })
			t.Fatalf("session %d of %d is not served: %v", i+1, 2*ports, info(s).Ended)
		}
		sessions = append(sessions, c)
	}
	for i := range 3 {
		if _, served := sessionFrom(t, s, 11000+i); served {
			t.Error("there is a session more than there are ports")
		}
	}
	eventually(t, "those are counted", func() bool { return info(s).Ended[tally.NoDescriptors] == 3 })
	b := p.Backends()[0]
	for o, n := range b.Outcomes {
		if o := pool.Outcome(o); n > 0 && o != pool.Neutral && o != pool.Served {
			t.Errorf("%v was said of the backend %d times", o, n)
		}
	}
	// The clients reset two sessions, so that the ports are free without TIME_WAIT.
	for _, c := range sessions[:2] {
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	eventually(t, "they are over", func() bool { return s.Sessions() == 2*ports-2 })
	time.Sleep(120 * time.Millisecond) // a source without a port comes last for so long
	for i := range 2 {
		if _, served := sessionFrom(t, s, 12000+i); !served {
			t.Error("a port that is free again is not used")
		}
	}
}

// TestNetnsSourcePortsOfBackends holds that one source has as many ports for each backend.
func TestNetnsSourcePortsOfBackends(t *testing.T) {
	const ports = 8
	manyPorts(t)
	p := newPool(t, backend(t, echo), backend(t, echo))
	setSource(t, p, "127.0.0.2")
	s := start(t, l4.Options{Loops: 1}, spec(p))
	fewPorts(t, 61100, ports)
	for i := range 2 * ports {
		if _, served := sessionFrom(t, s, 13000+i); !served {
			eventually(t, "it is over", func() bool { return s.Sessions() == i })
			t.Fatalf("session %d of %d is not served: %v", i+1, 2*ports, info(s).Ended)
		}
	}
	for i, b := range p.Backends() {
		if b.Leases != ports {
			t.Errorf("backend %d has %d sessions, want %d", i+1, b.Leases, ports)
		}
	}
}

// TestNetnsSourceFlows holds that two sources make room for more flows than there are ports.
func TestNetnsSourceFlows(t *testing.T) {
	const ports = 32
	manyPorts(t)
	fewPorts(t, 61200, ports)
	b, err := net.ListenPacket("udp4", "127.0.0.1:30000")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		buf := make([]byte, 100)
		for {
			n, from, err := b.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = b.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() {
		b.Close()
		<-served
	})
	p := newPool(t, "127.0.0.1:30000")
	setSource(t, p, "127.0.0.2", "127.0.0.3")
	one := flowSpec(p)
	one.Address = netip.MustParseAddrPort("127.0.0.1:30001")
	one.Flows.Timeout = time.Hour
	s := start(t, l4.Options{Loops: 1}, one)
	const flows = 2*ports - 2*ports/16 // a sixteenth is left to the host
	for i := range flows {
		from := &net.UDPAddr{IP: net.IPv4(127, 9, 9, 9), Port: 10000 + i}
		c, err := net.DialUDP("udp4", from, net.UDPAddrFromAddrPort(one.Address))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("flow %d of %d: %v; dropped: %v", i+1, flows, err, info(s).Dropped)
		}
	}
	if n := s.Flows(); n != flows {
		t.Errorf("there are %d flows, want %d", n, flows)
	}
}

// TestNetnsSourceComes holds that a source which comes later is used from then on, and one that goes is not, as
// keepalived moves them; also where addresses that are not there can be bound (ip_nonlocal_bind), as it wants it.
func TestNetnsSourceComes(t *testing.T) {
	for _, nonlocal := range []string{"0", "1"} {
		for _, one := range []struct{ source, mask, at string }{
			{"10.99.0.1", "/32", "127.0.0.1:0"}, {"2001:db8:99::1", "/128", "[::1]:0"},
		} {
			t.Run(one.source+" "+nonlocal, func(t *testing.T) {
				ip(t, "link", "set", "lo", "up")
				setSysctl(t, "ipv4/ip_nonlocal_bind", nonlocal)
				setSysctl(t, "ipv6/ip_nonlocal_bind", nonlocal)
				l, err := net.Listen("tcp", one.at)
				if err != nil {
					t.Fatal(err)
				}
				from := make(chan netip.Addr, 10)
				accepting := make(chan struct{})
				go func() {
					defer close(accepting)
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						from <- netip.MustParseAddrPort(c.RemoteAddr().String()).Addr()
						go func() {
							defer c.Close()
							_, _ = io.Copy(c, c)
						}()
					}
				}()
				t.Cleanup(func() {
					l.Close()
					<-accepting
				})
				p := newPool(t, l.Addr().String())
				setSource(t, p, one.source)
				s := start(t, l4.Options{Loops: 1}, spec(p))
				refuse := func(n uint64) {
					t.Helper()
					if !refusedWithReset(t, address(s)) {
						t.Error("the client got an orderly end")
					}
					eventually(t, "it has ended", func() bool { return s.Sessions() == 0 })
					if got := info(s).Ended[tally.NoSource]; got != n {
						t.Errorf("%d are counted, want %d: %v", got, n, info(s).Ended)
					}
				}
				refuse(1)
				ip(t, "address", "add", one.source+one.mask, "dev", "lo")
				eventually(t, "the address is used", func() bool {
					c, err := net.Dial("tcp", address(s))
					if err != nil {
						return false
					}
					defer c.Close()
					return ask(c) == nil
				})
				if got := <-from; got.String() != one.source {
					t.Errorf("the session comes from %v", got)
				}
				refused := info(s).Ended[tally.NoSource]
				ip(t, "address", "del", one.source+one.mask, "dev", "lo")
				eventually(t, "it is not used any more", func() bool {
					c, err := net.Dial("tcp", address(s))
					if err == nil {
						_ = c.SetDeadline(time.Now().Add(5 * time.Second))
						_ = ask(c)
						c.Close()
					}
					return info(s).Ended[tally.NoSource] > refused
				})
			})
		}
	}
}
