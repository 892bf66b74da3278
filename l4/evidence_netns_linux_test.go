//go:build netns

package l4_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// setSysctl sets a value of this network namespace until the test ends.
func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	file := "/proc/sys/net/" + name
	old, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(file, old, 0) })
}

// breaking returns a pool of these backends, whose breakers work until the test ends, and a way to have its clock go
// on.
func breaking(t *testing.T, algorithm string, checked bool, addrs ...string) (p *pool.Pool, pass func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	began := time.Now()
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: algorithm, Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
		Checked: checked,
		Clock:   func() time.Duration { return time.Since(began) + time.Duration(ahead.Load()) },
		Breaker: pool.BreakerOptions{
			Failures: 5, OpenFor: time.Hour, MaxOpenFor: time.Hour, Trials: 1, MaxOpenShare: 0.5,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range addrs {
		if err := p.Add(pool.Spec{ID: fmt.Sprint("b", i+1), Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p, func(d time.Duration) { ahead.Add(int64(d)) }
}

// TestNetnsNoIPv6 has a backend of a family that this host has disabled, as discovery may name one: no client notices,
// datagrams and sessions go to the other, and the breaker learns that nothing goes there.
func TestNetnsNoIPv6(t *testing.T) {
	ip(t, "link", "set", "lo", "up")
	setSysctl(t, "ipv6/conf/all/disable_ipv6", "1")
	const clients = 60
	t.Run("udp", func(t *testing.T) {
		b := startUDP(t, naming("b"))
		p, _ := breaking(t, "round_robin", true, "[::1]:53", b.Address())
		s := start(t, l4.Options{Loops: 1}, flowSpec(p))
		for i := range clients {
			c := dialUDP(t, address(s))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 10)
			if n, ok := readUDP(t, c, buf, 20*time.Second); !ok || string(buf[:n]) != "b" {
				t.Fatalf("client %d: its first datagram is lost", i)
			}
		}
		for why, n := range info(s).Dropped {
			if n > 0 {
				t.Errorf("%d are dropped: %v", n, l4.Drop(why))
			}
		}
		wantLearned(t, p)
	})
	t.Run("tcp", func(t *testing.T) {
		p, _ := breaking(t, "round_robin", true, "[::1]:53", backend(t, echo))
		s := start(t, l4.Options{Loops: 1}, spec(p))
		for range clients {
			if err := ask(dial(t, address(s))); err != nil {
				t.Fatal(err)
			}
		}
		wantLearned(t, p)
	})
	t.Run("dns", func(t *testing.T) {
		b := startUDP(t, l4test.Answering(t, 60))
		p, _ := breaking(t, "round_robin", true, "[::1]:53", b.Address())
		s := start(t, l4.Options{Loops: 1}, l4test.DNSSpec(p))
		c := dialUDP(t, address(s))
		for i := range clients {
			wantAnswer(t, c, uint16(i))
		}
		wantLearned(t, p)
	})
}

// wantAnswer asks a DNS question of an id, once, and wants its answer.
func wantAnswer(t *testing.T, c *net.UDPConn, id uint16) {
	t.Helper()
	name := l4test.NameOf(int(id))
	l4test.WantAddress(t, l4test.Exchange(t, c, l4test.DNSQuery(t, id, name, dns.TypeA)), id, name)
}

// wantLearned wants the first backend's breaker to have opened for want of a way there, and nothing said against the
// second.
func wantLearned(t *testing.T, p *pool.Pool) {
	t.Helper()
	eventually(t, "the breaker has learned it", func() bool { return p.Backends()[0].Breaker == pool.Open })
	if o := p.Backends()[0].Outcomes; o[pool.ConnectUnreachable] < 5 || o[pool.Neutral]+o[pool.Served] > 0 {
		t.Errorf("outcomes are %v", o)
	}
}

// TestNetnsFewPorts has local ports run out for one backend: sessions go to another, for which there are as many, and
// nothing is held against the first.
func TestNetnsFewPorts(t *testing.T) {
	ip(t, "link", "set", "lo", "up")
	const ports = 8
	first, second := backend(t, echo), backend(t, echo)
	p, _ := breaking(t, "first", true, first, second)
	s := start(t, l4.Options{Loops: 1}, spec(p))
	setSysctl(t, "ipv4/ip_local_port_range", fmt.Sprintf("40000 %d", 40000+ports-1))
	const own = 10000
	refused := 0
	for i := range 3 * ports {
		again := func(_, _ string, c syscall.RawConn) error { // whatever a test before has left of it
			return c.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
		}
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: own + i} // that the kernel gives to nobody
		d := net.Dialer{Control: again, LocalAddr: from}
		c, err := d.Dial("tcp", address(s))
		if errors.Is(err, syscall.ECONNRESET) { // refused so soon
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := ask(c.(*net.TCPConn)); err != nil {
			refused++
		}
	}
	a, b := p.Backends()[0], p.Backends()[1]
	if a.Leases != ports || b.Leases != ports || refused != ports {
		t.Errorf("%d sessions at the first, %d at the second and %d refused, want %d each",
			a.Leases, b.Leases, refused, ports)
	}
	eventually(t, "those are counted as refused for want of ports", func() bool {
		return info(s).Ended[tally.NoDescriptors] == ports
	})
	for _, x := range []pool.BackendInfo{a, b} {
		for o, n := range x.Outcomes {
			if n > 0 && pool.Outcome(o) != pool.Neutral || x.Breaker != pool.Closed {
				t.Errorf("%s: %v is told %d times, and its breaker is %v", x.ID, pool.Outcome(o), n, x.Breaker)
			}
		}
	}
}

// inside calls do in the far end's namespace: sockets that it makes stay there. The thread comes back: if it ended, so
// would the processes that it has started (PR_SET_PDEATHSIG).
func (f farEnd) inside(t *testing.T, do func() error) {
	t.Helper()
	runtime.LockOSThread()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := os.Open("/proc/" + f.pid + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(os.NewSyscallError("setns", err))
	}
	failure := do()
	if err := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(os.NewSyscallError("setns", err)) // and the thread stays locked
	}
	runtime.UnlockOSThread()
	if failure != nil {
		t.Fatal(failure)
	}
}

// startResolver answers questions at the far end, but those whose name begins with "nobody".
func (f farEnd) startResolver(t *testing.T, address string) {
	t.Helper()
	var c *net.UDPConn
	f.inside(t, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		return err
	})
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			answer, err := l4test.DNSAnswer(buf[:n], 60)
			if err != nil || strings.HasPrefix(strings.ToLower(answer.Question[0].Name), "nobody") {
				continue
			}
			if wire, err := answer.Pack(); err == nil {
				_, _ = c.WriteToUDPAddrPort(wire, from)
			}
		}
	})
	t.Cleanup(func() {
		c.Close()
		running.Wait()
	})
}

// An icmpForger sends ICMP errors from the far end, from whatever address it likes.
type icmpForger struct{ fd int }

func (f farEnd) icmpForger(t *testing.T) *icmpForger {
	t.Helper()
	g := new(icmpForger)
	f.inside(t, func() (err error) {
		g.fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
		return os.NewSyscallError("socket", err)
	})
	t.Cleanup(func() { syscall.Close(g.fd) })
	return g
}

// portClosed tells us, as from, that the port is closed to which a datagram of ours went from a local port.
func (g *icmpForger) portClosed(t *testing.T, from, ours, to netip.Addr, localPort, port uint16) {
	t.Helper()
	header := func(b []byte, source, destination netip.Addr, protocol byte, length int) []byte {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(h[2:], uint16(length))
		copy(h[12:], source.AsSlice())
		copy(h[16:], destination.AsSlice())
		return append(b, h...)
	}
	icmp := []byte{3, 3, 0, 0, 0, 0, 0, 0} // destination unreachable, port unreachable
	icmp = header(icmp, ours, to, syscall.IPPROTO_UDP, 28)
	icmp = binary.BigEndian.AppendUint16(icmp, localPort)
	icmp = binary.BigEndian.AppendUint16(icmp, port)
	icmp = append(icmp, 0, 8, 0, 0)
	var sum uint32
	for i := 0; i < len(icmp); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(icmp[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum+sum>>16))
	packet := append(header(nil, from, ours, syscall.IPPROTO_ICMP, 20+len(icmp)), icmp...)
	for {
		err := syscall.Sendto(g.fd, packet, 0, &syscall.SockaddrInet4{Addr: ours.As4()})
		if err == nil {
			return
		}
		if err != syscall.EINTR && err != syscall.ENOBUFS {
			t.Fatal(err)
		}
	}
}

// TestNetnsForgedICMP has a stranger forge ICMP errors for all local ports, again and again, while it keeps a resolver
// busy with questions that nobody can answer: they move questions, are told as hints, and open no breaker, as long as
// backends are checked, or answer somebody now and then. Not even those that claim to come from this host.
func TestNetnsForgedICMP(t *testing.T) {
	f := connectFarEnd(t)
	f.run(t, "ip", "address", "add", "10.77.0.3/24", "dev", "there")
	f.run(t, "ip", "address", "add", "10.77.0.66/24", "dev", "there")
	const firstPort, lastPort = 40000, 40999
	setSysctl(t, "ipv4/ip_local_port_range", fmt.Sprintf("%d %d", firstPort, lastPort))
	f.startResolver(t, "10.77.0.2:53")
	f.startResolver(t, "10.77.0.3:53")
	ours, victim := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.2")
	for _, tt := range []struct {
		name    string
		checked bool
		from    string
		hits    bool
	}{
		{"a stranger, checked", true, "10.77.0.66", true},
		{"as the backend, checked", true, "10.77.0.2", true},
		{"as the backend, unchecked, which answers others", false, "10.77.0.2", true},
		{"as this host", false, "10.77.0.1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, pass := breaking(t, "first", tt.checked, "10.77.0.2:53", "10.77.0.3:53")
			s := start(t, l4.Options{Loops: 1}, l4test.DNSSpec(p))
			g := f.icmpForger(t)
			c, attacker := dialUDP(t, address(s)), dialUDP(t, address(s))
			id, sent := uint16(0), 0
			for range 10 {
				for range 8 {
					id++
					query := l4test.DNSQuery(t, id, fmt.Sprintf("nobody%d.example.com.", id), dns.TypeA)
					if _, err := attacker.Write(query); err != nil {
						t.Fatal(err)
					}
				}
				id++
				wantAnswer(t, c, id)
				for port := firstPort; port <= lastPort; port++ {
					g.portClosed(t, netip.MustParseAddr(tt.from), ours, victim, uint16(port), 53)
					sent++
				}
				pass(2 * time.Second)
			}
			id++ // after what was forged, the answer comes
			wantAnswer(t, c, id)
			hits := l4test.DNSInfo(s).Unreachable
			t.Logf("%d forged errors, %d questions moved; outcomes %v; breakers %v, %v",
				sent, hits, p.Backends()[0].Outcomes, p.Backends()[0].Breaker, p.Backends()[1].Breaker)
			if hits > 0 != tt.hits {
				t.Errorf("%d questions were hit", hits)
			}
			for _, b := range p.Backends() {
				failures := b.Outcomes[pool.ConnectRefused] + b.Outcomes[pool.ConnectUnreachable]
				if b.Breaker != pool.Closed || b.Openings > 0 || failures > 0 {
					t.Errorf("%+v", b)
				}
			}
		})
	}
}

// TestNetnsAddressGone has this host lose the address that a socket sends from: a flow, or questions, go on from
// another one, with the same backend, of which nothing bad is said.
func TestNetnsAddressGone(t *testing.T) {
	for name, spec := range map[string]func(*pool.Pool) l4.ListenerSpec{"flow": flowSpec, "dns": l4test.DNSSpec} {
		t.Run(name, func(t *testing.T) {
			f := connectFarEnd(t)
			setSysctl(t, "ipv4/conf/here/promote_secondaries", "1")
			f.startResolver(t, "10.77.0.2:53")
			p := newPool(t, "10.77.0.2:53")
			s := start(t, l4.Options{Loops: 1}, spec(p))
			c := dialUDP(t, address(s))
			wantAnswer(t, c, 1)
			ip(t, "address", "del", "10.77.0.1/24", "dev", "here") // 10.77.0.11 is left
			wantAnswer(t, c, 2)
			for o, n := range p.Backends()[0].Outcomes {
				if o := pool.Outcome(o); n > 0 && o != pool.Neutral && o != pool.Served {
					t.Errorf("%v is told %d times", o, n)
				}
			}
		})
	}
}
