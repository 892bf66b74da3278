package sock

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nowhere is an address that no host has (RFC 5737).
var nowhere = netip.MustParseAddr("192.0.2.1")

func TestConnectWithSource(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := netip.MustParseAddrPort(l.Addr().String())
	from := netip.MustParseAddr("127.0.0.7")
	var bound netip.AddrPort
	for _, o := range []ConnectOptions{
		{From: from},
		{From: from, CongestionControl: "no_such_thing"}, // which is ignored
		{From: from, Bound: func(at netip.AddrPort) { bound = at }},
	} {
		fd, e := ConnectWith(to, o)
		if e != 0 && e != InProgress {
			t.Fatal(e)
		}
		defer Close(fd)
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer := netip.MustParseAddrPort(c.RemoteAddr().String())
		if peer.Addr() != from {
			t.Errorf("the connection comes from %v, want %v", peer, from)
		}
		if o.Bound != nil && bound != peer {
			t.Errorf("Bound got %v, and the connection comes from %v", bound, peer)
		}
	}
}

// TestNoSource holds that an address which cannot be used is told apart, and is nobody's fault.
func TestNoSource(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	if _, e := ConnectWith(to, ConnectOptions{From: nowhere}); e != NoSource {
		t.Errorf("TCP: %v, want NoSource", e)
	}
	if _, e := ConnectDatagramFrom(nowhere, to); e != NoSource {
		t.Errorf("UDP: %v, want NoSource", e)
	}
	if CauseOf(NoSource) != OurWant {
		t.Errorf("the cause of NoSource is %v", CauseOf(NoSource))
	}
	if Text(NoSource) == NoSource.Error() || Text(ConnRefused) != ConnRefused.Error() {
		t.Errorf("the words are %q and %q", Text(NoSource), Text(ConnRefused))
	}
}

func TestConnectDatagramFrom(t *testing.T) {
	b, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	from := netip.MustParseAddr("127.0.0.7")
	fd, e := ConnectDatagramFrom(from, netip.MustParseAddrPort(b.LocalAddr().String()))
	if e != 0 {
		t.Fatal(e)
	}
	defer Close(fd)
	if e := SendDatagram(fd, []byte("x")); e != 0 {
		t.Fatal(e)
	}
	_ = b.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, peer, err := b.ReadFrom(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	if at := netip.MustParseAddrPort(peer.String()); at.Addr() != from {
		t.Errorf("the datagram comes from %v, want %v", at, from)
	}
}

// TestConnectAllocatesNothing holds for all options but Bound.
func TestConnectAllocatesNothing(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	o := ConnectOptions{From: netip.MustParseAddr("127.0.0.7"), CongestionControl: "reno"}
	if n := testing.AllocsPerRun(100, func() {
		if fd, e := ConnectWith(to, o); e == 0 || e == InProgress {
			Close(fd)
		}
		if fd, e := ConnectDatagramFrom(o.From, to); e == 0 {
			Close(fd)
		}
	}); n != 0 {
		t.Errorf("a connect from a source makes %v allocations", n)
	}
}

// TestListenExtras sets TCP Fast Open and an algorithm, and takes both back. Accepted sockets have the algorithm.
func TestListenExtras(t *testing.T) {
	usual, other := systemCongestionControl(), "reno" // every kernel has it
	if usual == other {
		t.Skip("reno is the system's algorithm here")
	}
	if LoopbackCongestionControl() == other {
		usual, other = other, usual
	}
	o := ListenOptions{Backlog: 77, FastOpen: true, CongestionControl: other}
	if err := CheckListenOptions(o); err != nil {
		t.Fatal(err)
	}
	fd, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	wantExtras(t, fd, 77, other)
	o.FastOpen, o.CongestionControl = false, ""
	if err := Tune(fd, o); err != nil {
		t.Fatal(err)
	}
	wantExtras(t, fd, 0, usual)
	whole, err := Listen(netip.MustParseAddrPort("0.0.0.0:0"), o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(whole)
	if got, want := CongestionControl(whole), systemCongestionControl(); got != want {
		t.Errorf("a socket of all interfaces has %q, want %q", got, want)
	}
}

func wantExtras(t *testing.T, fd, queue int, algorithm string) {
	t.Helper()
	if n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN); err != nil || n != queue {
		t.Errorf("the queue of TCP Fast Open is %d (%v), want %d", n, err, queue)
	}
	at, err := LocalAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		accepted, _, e := Accept(fd)
		if e == Again {
			time.Sleep(time.Millisecond)
			continue
		}
		if e != 0 {
			t.Fatal(e)
		}
		defer Close(accepted)
		if got := CongestionControl(accepted); got != algorithm {
			t.Errorf("an accepted socket has %q, want %q", got, algorithm)
		}
		return
	}
}

func TestCongestionError(t *testing.T) {
	if err := CheckCongestionControl("reno"); err != nil {
		t.Errorf("reno: %v", err)
	}
	err := CheckCongestionControl("no_such_thing")
	var unknown *CongestionError
	if !errors.As(err, &unknown) || unknown.Name != "no_such_thing" || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("an unknown algorithm: %v", err)
	}
	if text := err.Error(); !strings.Contains(text, "net.ipv4.tcp_available_congestion_control allows ") ||
		!strings.Contains(text, "reno") {
		t.Errorf("the error does not say what is allowed: %s", text)
	}
	forbidden := (&CongestionError{Name: "x", Err: unix.EPERM}).Error()
	if !strings.Contains(forbidden, "net.ipv4.tcp_allowed_congestion_control allows ") {
		t.Errorf("without the right to it: %s", forbidden)
	}
	if err := CheckListenOptions(ListenOptions{CongestionControl: "no_such_thing"}); !errors.As(err, &unknown) {
		t.Errorf("as an option of listening: %v", err)
	}
}
