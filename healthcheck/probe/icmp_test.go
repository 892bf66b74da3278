package probe

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// hosts are targets that answer on every machine.
var hosts = []string{"127.0.0.1", "::1"}

// host returns a target with an unused port.
func host(addr string) healthcheck.Target {
	return healthcheck.Target{ID: "a", Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}
}

// errBroken is the error with which these tests break a socket.
var errBroken = errors.New("broken")

// newICMP returns a checker that is closed at the end of the test. If the machine does not allow ICMP, the first check
// says what it needs.
func newICMP(t testing.TB, kinds ...icmpKind) *ICMP {
	c := NewICMP()
	c.kinds = kinds
	t.Cleanup(c.Close)
	return c
}

// openSockets returns how many sockets c has open.
func openSockets(c *ICMP) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sockets)
}

func TestICMPReply(t *testing.T) {
	c := newICMP(t)
	if openSockets(c) != 0 {
		t.Error("NewICMP opens sockets")
	}
	for _, addr := range []string{"127.0.0.1", "::1", "127.0.0.77", "::ffff:127.0.0.1"} {
		got, err := c.Check(deadlineIn(t, patience), host(addr))
		if err != nil || got.Detail != "echo reply" || got.Latency <= 0 || got.Latency > patience {
			t.Errorf("%s: %+v, %v, want a reply", addr, got, err)
		}
	}
	_, err := c.Check(t.Context(), host("::1%lo")) // without a deadline
	must(t, err)
	_, err = c.Check(deadlineIn(t, patience), host("fe80::1%nonexistent"))
	failsWith(t, err, "no network interface nonexistent")
	if n := openSockets(c); n != 2 {
		t.Errorf("%d sockets are open, want one for each family", n)
	}
}

// TestICMPMany runs 2,000 checks at once, on one socket.
func TestICMPMany(t *testing.T) {
	for _, addr := range hosts {
		c := newICMP(t)
		var checks sync.WaitGroup
		for i := range 2000 {
			a := netip.MustParseAddr(addr)
			if a.Is4() {
				a = netip.AddrFrom4([4]byte{127, 1, byte(i / 250), byte(1 + i%250)})
			}
			checks.Go(func() {
				if _, err := c.Check(deadlineIn(t, patience), host(a.String())); err != nil {
					t.Errorf("%v: %v", a, err)
				}
			})
		}
		checks.Wait()
		if n := openSockets(c); n != 1 {
			t.Errorf("%d sockets are open, want one", n)
		}
		for _, s := range c.sockets {
			if n := len(s.waiting); n != 0 {
				t.Errorf("%d echoes still wait", n)
			}
		}
	}
}

// TestICMPReopens breaks the socket, first below its checker and then in the same way as send.
func TestICMPReopens(t *testing.T) {
	for _, addr := range hosts {
		c := newICMP(t)
		for _, breakSocket := range []func(s *icmpSocket){
			func(s *icmpSocket) { must(t, s.file.Close()) },
			func(s *icmpSocket) { s.close(); s.fail(errBroken) },
		} {
			_, err := c.Check(deadlineIn(t, patience), host(addr))
			must(t, err)
			s, err := c.socket(addr == "::1")
			must(t, err)
			e, err := s.begin(netip.MustParseAddr("192.0.2.1"), nil)
			must(t, err)
			breakSocket(s)
			out := harness.Receive(t, "the end of the echo", e.done)
			failsWith(t, out.err, "cannot check: the icmp socket (broke|was closed)", healthcheck.ErrInconclusive)
			s.forget(e)
			_, err = c.Check(deadlineIn(t, patience), host(addr))
			must(t, err)
		}
	}
}

// TestICMPBreaksUnderway breaks the sockets again and again while checks run. The checks may succeed or be
// inconclusive.
func TestICMPBreaksUnderway(t *testing.T) {
	c := newICMP(t)
	var checks sync.WaitGroup
	for i := range 8 {
		checks.Go(func() {
			for range 200 {
				if _, err := c.Check(deadlineIn(t, patience), host(hosts[i%2])); err != nil &&
					!errors.Is(err, healthcheck.ErrInconclusive) {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		if s, err := c.socket(i%2 == 0); err == nil {
			s.close()
		}
	}
	checks.Wait()
}

// TestICMPCloseUnderAFlood closes a socket that always has more messages. Its reader must stop.
func TestICMPCloseUnderAFlood(t *testing.T) {
	c := newICMP(t)
	_, err := c.Check(deadlineIn(t, patience), host("127.0.0.1"))
	must(t, err)
	s, err := c.socket(false)
	must(t, err)
	s.closing.Store(true)
	if err := s.receive(-1, &s.sendBuf, 1<<30); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a closing socket receives: %v, want fs.ErrClosed", err)
	}
}

func TestICMPClose(t *testing.T) {
	c := newICMP(t)
	_, err := c.Check(deadlineIn(t, patience), host("127.0.0.1"))
	must(t, err)
	s, err := c.socket(false)
	must(t, err)
	e, err := s.begin(netip.MustParseAddr("192.0.2.1"), nil)
	must(t, err)
	c.Close()
	c.Close()
	failsWith(t, harness.Receive(t, "the end of the echo", e.done).err, "cannot check: the icmp socket was closed",
		healthcheck.ErrInconclusive, fs.ErrClosed)
	_, err = c.Check(deadlineIn(t, patience), host("127.0.0.1"))
	failsWith(t, err, "cannot check: the check is closed: use of closed network connection",
		healthcheck.ErrInconclusive, net.ErrClosed)
	NewICMP().Close() // which nobody used
}

func TestICMPCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newICMP(t).Check(ctx, host("192.0.2.1"))
	// on a machine without a network
	if err == nil || !errors.Is(err, healthcheck.ErrInconclusive) && err.Error() != "network unreachable" {
		t.Errorf("error %v, want it inconclusive", err)
	}
}

// TestEchoTable has replies and errors about another echo, or about another check.
func TestEchoTable(t *testing.T) {
	to, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	table := newEchoTable(7)
	wait := func() (*echo, echoMessage) {
		e := &echo{to: to, token: echoToken{1, 2, 3}, done: make(chan echoOutcome, 1)}
		must(t, table.add(e))
		return e, echoMessage{id: 7, seq: e.seq, token: e.token, whole: true}
	}
	e, good := wait()
	for name, settle := range map[string]func(m echoMessage){
		"address": func(m echoMessage) { table.settle(other, m, nil) },
		"family":  func(m echoMessage) { table.settle(netip.MustParseAddr("::1"), m, nil) },
		"id":      func(m echoMessage) { m.id++; table.settle(to, m, nil) },
		"seq":     func(m echoMessage) { m.seq++; table.settle(to, m, nil) },
		"token":   func(m echoMessage) { m.token[0]++; table.settle(to, m, nil) },
	} {
		settle(good)
		select {
		case <-e.done:
			t.Fatalf("a message with another %s was taken", name)
		default:
		}
	}
	table.settle(to, good, nil)
	table.settle(to, good, errBroken) // again, and late
	if out := <-e.done; out.err != nil {
		t.Errorf("the reply is %v", out.err)
	}
	e, good = wait()
	good.whole, good.token = false, echoToken{} // as routers may send an echo back
	table.settle(to, good, errBroken)
	if out := <-e.done; !errors.Is(out.err, errBroken) {
		t.Errorf("the error is %v", out.err)
	}
	late, good := wait()
	table.forget(late)
	table.settle(to, good, nil)
	table.forget(late)
	if len(late.done) != 0 || len(table.waiting) != 0 {
		t.Error("a forgotten echo was settled, or waits still")
	}
	for range 1<<15 + 1 {
		e, _ = wait()
	}
	if err := table.add(&echo{}); err == nil || err.Error() != "too many echoes at once" {
		t.Errorf("error %v, want there to be too many", err)
	}
	table.fail(errBroken)
	failsWith(t, (<-e.done).err, "cannot check: the icmp socket broke", healthcheck.ErrInconclusive, errBroken)
	if err := table.add(&echo{}); !errors.Is(err, fs.ErrClosed) || !errors.Is(err, errBroken) {
		t.Errorf("error %v of a failed table", err)
	}
}

// packEcho returns the packet of an echo.
func packEcho(t testing.TB, v6 bool, m echoMessage) []byte {
	t.Helper()
	b, err := marshalEcho(v6, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// icmpNumber returns the number of the type of a family.
func icmpNumber(v6 bool, four ipv4.ICMPType, six ipv6.ICMPType) byte {
	if v6 {
		return byte(six)
	}
	return byte(four)
}

// unreachable, timeExceeded and echoReply are the types of ICMP messages.
func unreachable(v6 bool) byte {
	return icmpNumber(v6, ipv4.ICMPTypeDestinationUnreachable, ipv6.ICMPTypeDestinationUnreachable)
}

func timeExceeded(v6 bool) byte {
	return icmpNumber(v6, ipv4.ICMPTypeTimeExceeded, ipv6.ICMPTypeTimeExceeded)
}

func echoReply(v6 bool) byte { return icmpNumber(v6, ipv4.ICMPTypeEchoReply, ipv6.ICMPTypeEchoReply) }

// quoteEcho returns an ICMP error about an echo that was sent to an address.
func quoteEcho(t testing.TB, typ, code byte, to netip.Addr, m echoMessage) []byte {
	b := []byte{typ, code, 0, 0, 0, 0, 0, 0}
	if to.Is4() {
		b = append(b, 0x45, 0, 0, 44, 0, 0, 0, 0, 64, syscall.IPPROTO_ICMP, 0, 0, 127, 0, 0, 1)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 24, syscall.IPPROTO_ICMPV6, 64)
		b = append(b, make([]byte, 16)...)
	}
	b = append(append(b, to.AsSlice()...), packEcho(t, !to.Is4(), m)...)
	if to.Is4() {
		sum := internetChecksum(b)
		b[2], b[3] = byte(sum>>8), byte(sum)
	}
	return b
}

// quoteWithExtension returns an ICMP error with an extension: the MPLS label of the echo (RFC 4884, RFC 4950).
func quoteWithExtension(t testing.TB, to netip.Addr, m echoMessage) []byte {
	v6 := !to.Is4()
	body := &icmp.DstUnreach{
		Data: quoteEcho(t, unreachable(v6), 1, to, m)[8:],
		Extensions: []icmp.Extension{&icmp.MPLSLabelStack{Class: 1, Type: 1,
			Labels: []icmp.MPLSLabel{{Label: 16014, S: true}}}},
	}
	b, err := (&icmp.Message{Type: icmpType(v6, unreachable(v6)), Code: 1, Body: body}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestICMPMessages(t *testing.T) {
	m := echoMessage{id: 0x1234, seq: 0xabcd, token: echoToken(bytes.Repeat([]byte("lime"), 4)), whole: true}
	for _, addr := range hosts {
		to := netip.MustParseAddr(addr)
		v6 := to.Is6()
		echo := packEcho(t, v6, m)
		if !v6 && internetChecksum(echo) != 0 {
			t.Errorf("the checksum is wrong: %x", echo)
		}
		if _, ok := parseEchoReply(echo, v6); ok {
			t.Error("a request is taken for a reply")
		}
		echo[0] = echoReply(v6)
		if got, ok := parseEchoReply(echo, v6); !ok || got != m {
			t.Errorf("the reply is %+v, want %+v", got, m)
		}
		if _, ok := parseEchoReply(append(echo, 0), v6); ok {
			t.Error("a reply with more in it than we sent was taken")
		}
		typ := unreachable(v6)
		whole := quoteEcho(t, typ, 1, to, m)
		if got, ok := parseICMPError(whole, v6); !ok || got != (icmpError{m, to, icmpType(v6, typ), 1}) {
			t.Errorf("the error is %+v", got)
		}
		if got, ok := parseICMPError(append(whole, make([]byte, 100)...), v6); !ok || got.echo != m { // RFC 4884
			t.Errorf("the error with an extension is %+v", got)
		}
		labelled := quoteWithExtension(t, to, m)
		if got, ok := parseICMPError(labelled, v6); !ok || got != (icmpError{m, to, icmpType(v6, typ), 1}) {
			t.Errorf("the error with a label is %+v", got)
		}
		labelled[len(labelled)-8] = 0xff // the extension is longer than the message
		if got, ok := parseICMPError(labelled, v6); !ok || got.echo != m {
			t.Errorf("the error with a garbled extension is %+v", got)
		}
		short := whole[:len(whole)-tokenBytes]
		if got, ok := parseICMPError(short, v6); !ok || got.echo != (echoMessage{id: m.id, seq: m.seq}) {
			t.Errorf("the error with less of the echo is %+v", got)
		}
		for n := range len(short) {
			if _, ok := parseICMPError(short[:n], v6); ok {
				t.Errorf("an error of %d bytes was taken", n)
			}
		}
		for typ := range 256 {
			for code := range 256 {
				if words := icmpWords(icmpType(v6, byte(typ)), code); len(words) > 40 {
					t.Errorf("type %d, code %d is %q", typ, code, words)
				}
			}
		}
	}
	if got := internetChecksum([]byte{0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
		0, 0xc7}); got != 0xb861 {
		t.Errorf("the checksum is %x", got)
	}
	if internetChecksum([]byte{1, 2, 3}) != internetChecksum([]byte{1, 2, 3, 0}) {
		t.Error("the checksum of an odd length is wrong")
	}
}

func TestICMPWords(t *testing.T) {
	for _, tt := range []struct {
		v6   bool
		typ  byte
		code int
		want string
	}{
		{false, 3, 0, "network unreachable"},
		{false, 3, 1, "host unreachable"},
		{false, 3, 2, "protocol unreachable"},
		{false, 3, 3, "port unreachable"},
		{false, 3, 4, ""},
		{false, 3, 13, "administratively prohibited"},
		{false, 11, 0, "time to live exceeded on the way"},
		{false, 8, 0, ""},
		{true, 1, 0, "network unreachable"},
		{true, 1, 1, "administratively prohibited"},
		{true, 1, 3, "host unreachable"},
		{true, 1, 4, "port unreachable"},
		{true, 3, 0, "time to live exceeded on the way"},
		{true, 3, 1, ""},
		{true, 2, 0, ""},
	} {
		if got := icmpWords(icmpType(tt.v6, tt.typ), tt.code); got != tt.want {
			t.Errorf("type %d, code %d (IPv6: %v) is %q, want %q", tt.typ, tt.code, tt.v6, got, tt.want)
		}
	}
}

// FuzzICMP gives a socket arbitrary messages. Only the reply may make the check succeed.
func FuzzICMP(f *testing.F) {
	m := echoMessage{id: 7, seq: 1, token: echoToken{1, 2, 3}, whole: true}
	for _, addr := range hosts {
		to := netip.MustParseAddr(addr)
		v6 := to.Is6()
		reply := packEcho(f, v6, m)
		reply[0] = echoReply(v6)
		f.Add(v6, false, reply)
		f.Add(v6, false, quoteEcho(f, unreachable(v6), 1, to, m))
		f.Add(v6, false, quoteEcho(f, timeExceeded(v6), 0, to, m))
		f.Add(v6, false, quoteWithExtension(f, to, m))
		ip := append([]byte{0x45, 0, 0, 44, 0, 0, 0, 0, 64, syscall.IPPROTO_ICMP, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1},
			reply...)
		f.Add(v6, true, ip)
	}
	f.Fuzz(func(t *testing.T, v6, raw bool, b []byte) {
		s := &icmpSocket{echoTable: newEchoTable(7), v6: v6}
		s.next = 1
		if raw {
			s.kind = rawSocket
		}
		to := netip.MustParseAddr(map[bool]string{false: "127.0.0.1", true: "::1"}[v6])
		e := &echo{to: to, token: m.token, done: make(chan echoOutcome, 1)}
		must(t, s.add(e))
		s.deliver(to, b)
		select {
		case out := <-e.done:
			if out.err == nil && !bytes.HasSuffix(b, m.token[:]) {
				t.Errorf("%q is a reply", b)
			}
			if out.err != nil {
				failsWith(t, out.err, "[a-z ]+")
			}
		default:
		}
		s.settle(to, m, nil)
		_, _, _ = extendedError(b)
	})
}

// BenchmarkICMP measures one check over loopback.
func BenchmarkICMP(b *testing.B) {
	c := newICMP(b)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	for b.Loop() {
		if _, err := c.Check(ctx, host("127.0.0.1")); err != nil {
			b.Fatal(err)
		}
	}
}
