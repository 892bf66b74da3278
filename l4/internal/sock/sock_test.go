package sock

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait polls until f returns true. Everything here is loopback and takes microseconds.
func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

// pair returns a client's socket and the accepted socket, connected over addr.
func pair(t *testing.T, addr string, o ListenOptions) (client, accepted int, peer netip.AddrPort) {
	t.Helper()
	o.Backlog = 16
	l, err := Listen(netip.MustParseAddrPort(addr), o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(l)
	to, err := LocalAddr(l)
	if err != nil {
		t.Fatal(err)
	}
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
	}
	client, e := Connect(to)
	if e != 0 && e != InProgress {
		t.Fatal(e)
	}
	wait(t, "accept", func() bool {
		accepted, peer, e = Accept(l)
		return e == 0
	})
	t.Cleanup(func() { Close(client); Close(accepted) })
	return client, accepted, peer
}

func TestAcceptTellsThePeer(t *testing.T) {
	for _, test := range []struct {
		addr string
		dual bool
		want string
	}{
		{"127.0.0.1:0", false, "127.0.0.1"},
		{"[::1]:0", false, "::1"},
		{"[::]:0", true, "127.0.0.1"}, // an IPv4 client of a dual-stack listener is an IPv4 client
	} {
		client, _, peer := pair(t, test.addr, ListenOptions{DualStack: test.dual})
		local, err := LocalAddr(client)
		if err != nil {
			t.Fatal(err)
		}
		if peer != local || peer.Addr().String() != test.want {
			t.Errorf("%s: client %v was reported as %v, want %v", test.addr, local, peer, test.want)
		}
	}
}

// TestInherited checks an assumption of the design: on Linux accepted sockets inherit these options of the listening
// socket.
func TestInherited(t *testing.T) {
	_, accepted, _ := pair(t, "127.0.0.1:0", ListenOptions{
		UserTimeout: 5 * time.Second, KeepAlive: KeepAlive{Idle: 7 * time.Second, Interval: 1500 * time.Millisecond,
			Count: 3},
	})
	for _, o := range []struct{ level, name, want int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 7},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
	} {
		if got, err := unix.GetsockoptInt(accepted, o.level, o.name); err != nil || got != o.want {
			t.Errorf("option %d of level %d: %d (%v), want %d", o.name, o.level, got, err, o.want)
		}
	}
}

// TestListenFirst checks that only one process can have an address, and that its sockets share it.
func TestListenFirst(t *testing.T) {
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{Backlog: 1}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(l)
	addr, err := LocalAddr(l)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Listen(addr, ListenOptions{Backlog: 1}, false)
	if err != nil {
		t.Fatalf("a second socket of ours: %v", err)
	}
	defer Close(second)
	if third, err := Listen(addr, ListenOptions{Backlog: 1}, true); !errors.Is(err, unix.EADDRINUSE) {
		Close(third)
		t.Errorf("another's first socket: %v", err)
	}
	got := make(map[int]int)
	for range 64 {
		c, e := Connect(addr)
		if e != 0 && e != InProgress {
			t.Fatal(e)
		}
		defer Close(c)
		wait(t, "accept", func() bool {
			for _, fd := range []int{l, second} {
				if a, _, e := Accept(fd); e == 0 {
					Close(a)
					got[fd]++
					return true
				}
			}
			return false
		})
	}
	if got[l] == 0 || got[second] == 0 {
		t.Errorf("clients went to %v, not to both sockets", got)
	}
}

func TestConnectError(t *testing.T) {
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{Backlog: 1}, true)
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := LocalAddr(l)
	Close(l)
	fd, e := Connect(addr)
	if e == InProgress {
		wait(t, "refusal", func() bool { e = ConnectError(fd); return e != 0 })
		Close(fd)
	}
	if e != ConnRefused {
		t.Fatalf("connect to a closed port: %v", e)
	}
}

func TestReadWrite(t *testing.T) {
	client, accepted, _ := pair(t, "127.0.0.1:0", ListenOptions{})
	buf := make([]byte, 64)
	if _, e := Read(accepted, buf); e != Again {
		t.Fatalf("read of nothing: %v", e)
	}
	if n, e := Write(client, []byte("last"), true); n != 4 || e != 0 {
		t.Fatal(n, e)
	}
	ShutdownWrite(client)
	var got []byte
	wait(t, "FIN", func() bool {
		n, e := Read(accepted, buf)
		got = append(got, buf[:n]...)
		return n == 0 && e == 0
	})
	if string(got) != "last" {
		t.Fatalf("got %q", got)
	}
	Reset(accepted)
	wait(t, "reset", func() bool {
		_, e := Read(client, buf)
		return e == ConnReset
	})
}

func TestPipe(t *testing.T) {
	fromClient, from, _ := pair(t, "127.0.0.1:0", ListenOptions{})
	to, toClient, _ := pair(t, "127.0.0.1:0", ListenOptions{})
	p, err := NewPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, e := p.Fill(from, 1<<20); e != Again {
		t.Fatalf("fill from nothing: %v", e)
	}
	want := bytes.Repeat([]byte("0123456789"), 1000)
	if n, e := Write(fromClient, want, false); n != len(want) || e != 0 {
		t.Fatal(n, e)
	}
	ShutdownWrite(fromClient)
	var got []byte
	buf := make([]byte, 4096)
	wait(t, "all bytes", func() bool {
		n, e := p.Fill(from, 1<<20)
		if e != 0 && e != Again {
			t.Fatal(e)
		}
		if n > 0 && p.Held() != n {
			t.Fatalf("filled %d, holds %d", n, p.Held())
		}
		if p.Held() > 0 {
			if _, e := p.Drain(to); e != 0 {
				t.Fatal(e)
			}
		}
		if n, e := Read(toClient, buf); e == 0 {
			got = append(got, buf[:n]...)
		}
		return len(got) >= len(want)
	})
	if !bytes.Equal(got, want) {
		t.Fatal("other bytes came out than went in")
	}
	wait(t, "FIN", func() bool { n, e := p.Fill(from, 1<<20); return n == 0 && e == 0 })
}

// TestNoAllocation checks that the calls of the data path do not allocate.
func TestNoAllocation(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	l, err := Listen(addr, ListenOptions{Backlog: 16}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(l)
	addr, _ = LocalAddr(l)
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	buf := make([]byte, 16)
	n := testing.AllocsPerRun(100, func() {
		c, e := Connect(addr)
		if e != 0 && e != InProgress {
			t.Fatal(e)
		}
		s, _, e := Accept(l)
		for e == Again {
			s, _, e = Accept(l)
		}
		p.Add(s, 1, 1)
		Write(c, buf, false)
		p.Wait(time.Second)
		Read(s, buf)
		ConnectError(s)
		SetNoDelay(c)
		ShutdownWrite(c)
		Reset(s)
		Close(c)
	})
	if n != 0 {
		t.Errorf("%v allocations for a connection, want none", n)
	}
}

// TestLocalPorts checks that the kernel chooses a port from the range.
func TestLocalPorts(t *testing.T) {
	first, last, ok := LocalPorts()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if port := c.LocalAddr().(*net.UDPAddr).Port; !ok || port < first || port > last {
		t.Errorf("%d to %d, %v; the kernel has chosen %d", first, last, ok, port)
	}
}
