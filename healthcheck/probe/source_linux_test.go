package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// sourcesOf parses addresses.
func sourcesOf(texts ...string) (sources []netip.Addr) {
	for _, s := range texts {
		sources = append(sources, netip.MustParseAddr(s))
	}
	return sources
}

// TestFrom holds that checks come from the first source that can be used, over TCP and UDP, and that without one
// nothing is said of the target.
func TestFrom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tcp := healthcheck.Target{Addr: netip.MustParseAddrPort(l.Addr().String())}
	udp := healthcheck.Target{Addr: netip.MustParseAddrPort(u.LocalAddr().String())}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()

	sources := sourcesOf("2001:db8::1", "192.0.2.1", "127.0.0.6", "127.0.0.7")
	check := From{Sources: sources, Checker: TCP{}}
	from := make(chan net.Addr, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			from <- nil
			return
		}
		from <- c.RemoteAddr()
		c.Close()
	}()
	if _, err := check.Check(ctx, tcp); err != nil {
		t.Errorf("a tcp check: %v", err)
	}
	if at := netip.MustParseAddrPort((<-from).String()); at.Addr() != sources[2] {
		t.Errorf("the tcp check comes from %v", at)
	}
	if _, err := (From{Sources: sources, Checker: UDP{Payload: []byte("x")}}).Check(ctx, udp); err != nil {
		t.Errorf("a udp check: %v", err)
	}
	_ = u.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, at, err := u.ReadFrom(make([]byte, 10)); err != nil || netip.MustParseAddrPort(at.String()).Addr() != sources[2] {
		t.Errorf("the udp check comes from %v (%v)", at, err)
	}

	for _, c := range []healthcheck.Checker{TCP{}, UDP{Payload: []byte("x")}} {
		_, err := (From{Sources: sourcesOf("192.0.2.1"), Checker: c}).Check(ctx, tcp)
		failsWith(t, err, "cannot check: no source address can be used: cannot assign requested address")
		_, err = (From{Sources: sourcesOf("::1"), Checker: c}).Check(ctx, tcp)
		failsWith(t, err, "cannot check: no source address is of the target's family")
		if !errors.Is(err, healthcheck.ErrInconclusive) {
			t.Errorf("%v says something of the target", err)
		}
	}
}

// TestFromCost holds that a check costs what it costs without sources.
func TestFromCost(t *testing.T) {
	all := AllOf{TCP{}, TCP{}}
	sockets, programs := From{Checker: all}.Cost()
	if wantSockets, wantPrograms := all.Cost(); sockets != wantSockets || programs != wantPrograms {
		t.Errorf("it costs %d and %d, want %d and %d", sockets, programs, wantSockets, wantPrograms)
	}
}
