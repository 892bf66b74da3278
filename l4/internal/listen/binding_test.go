package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// loopback is a free port of 127.0.0.1.
var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// specOf is a spec of a listener on a free port.
func specOf(p sock.Protocol) *Spec {
	return &Spec{Protocol: p, Address: loopback, Stream: sock.ListenOptions{Backlog: 128}}
}

// open opens the sockets of a spec until the test ends.
func open(t *testing.T, spec *Spec, loops int, beside bool) *Binding {
	t.Helper()
	b, err := Open(spec, loops, beside, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// inheritable opens n sockets of one address, as whoever starts the process would.
func inheritable(t *testing.T, p sock.Protocol, n int) (at netip.AddrPort, fds []int) {
	t.Helper()
	at = loopback
	for i := range n {
		var fd int
		var err error
		if p == sock.UDP {
			fd, err = sock.ListenDatagram(at, sock.DatagramOptions{}, i == 0)
		} else {
			fd, err = sock.Listen(at, sock.ListenOptions{Backlog: 16}, i == 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sock.Close(fd) })
		if at, err = sock.LocalAddr(fd); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return at, fds
}

// isOpen reports whether a descriptor is a socket of an address.
func isOpen(fd int, at netip.AddrPort) bool {
	bound, err := sock.LocalAddr(fd)
	return err == nil && bound == at
}

// TestOpen holds that each loop gets a socket of its own, all of one address, that nobody else gets that address unless
// the process has the port already, and that a binding which is closed leaves none open.
func TestOpen(t *testing.T) {
	for _, p := range []sock.Protocol{sock.TCP, sock.UDP} {
		for _, steered := range []bool{false, true} {
			t.Run(fmt.Sprint(p, " steered ", steered), func(t *testing.T) {
				spec := specOf(p)
				spec.Steered = steered
				b := open(t, spec, 3, false)
				if b.Protocol != p || b.Address.Port() == 0 || b.Address.Addr() != loopback.Addr() || b.Shared ||
					b.Size() != 3 {
					t.Errorf("%d sockets of protocol %v at %s, shared %v", b.Size(), b.Protocol, b.Address, b.Shared)
				}
				seen := make(map[int]bool)
				for i, fds := range b.Sockets {
					if len(fds) != 1 || seen[fds[0]] || !isOpen(fds[0], b.Address) {
						t.Errorf("loop %d has sockets %v", i, fds)
					}
					seen[fds[0]] = true
				}
				again := specOf(p)
				again.Address = b.Address
				if _, err := Open(again, 3, false, nil); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("an address that is taken: %v", err)
				}
				open(t, again, 3, true)
			})
		}
	}
}

// TestOpenFails holds that sockets which were opened before one that fails are closed.
func TestOpenFails(t *testing.T) {
	_, fds := inheritable(t, sock.TCP, 1)
	// The next descriptor is the lowest one that is free, and so is the one after all of that is closed.
	next := func() int {
		fd, err := sock.Duplicate(fds[0])
		if err != nil {
			t.Fatal(err)
		}
		sock.Close(fd)
		return fd
	}
	before := next()
	spec := specOf(sock.TCP)
	// tcp(7): 32767 s at most
	spec.Stream.KeepAlive = sock.KeepAlive{Idle: 48 * time.Hour, Interval: time.Second, Count: 3}
	if b, err := Open(spec, 2, false, nil); err == nil {
		b.Close()
		t.Error("a keepalive after two days is taken")
	}
	if after := next(); after != before {
		t.Errorf("the next descriptor is %d, and was %d before", after, before)
	}
}

// TestInheritSpreads holds which loops get inherited sockets. Of TCP each loop has one at least, by a descriptor of its
// own where there are too few; a socket of UDP is one loop's. Closing leaves open what was inherited.
func TestInheritSpreads(t *testing.T) {
	for _, tt := range []struct {
		protocol       sock.Protocol
		sockets, loops int
		want           []int // sockets of each loop
		shared         bool
	}{
		{sock.TCP, 1, 1, []int{1}, false},
		{sock.TCP, 1, 3, []int{1, 1, 1}, true},
		{sock.TCP, 2, 3, []int{1, 1, 1}, true},
		{sock.TCP, 2, 2, []int{1, 1}, false},
		{sock.TCP, 3, 2, []int{2, 1}, false},
		{sock.TCP, 5, 2, []int{3, 2}, false},
		{sock.UDP, 1, 1, []int{1}, false},
		{sock.UDP, 1, 3, []int{1, 0, 0}, false},
		{sock.UDP, 2, 3, []int{1, 1, 0}, false},
		{sock.UDP, 3, 2, []int{2, 1}, false},
	} {
		t.Run(fmt.Sprint(tt.protocol, " ", tt.sockets, " for ", tt.loops), func(t *testing.T) {
			at, fds := inheritable(t, tt.protocol, tt.sockets)
			b, err := Open(&Spec{Protocol: tt.protocol, Inherited: fds}, tt.loops, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b.Address != at || b.Shared != tt.shared || b.Size() != max(tt.sockets, sum(tt.want)) {
				t.Errorf("%d sockets at %s, shared %v; want %s and %v", b.Size(), b.Address, b.Shared, at, tt.shared)
			}
			seen := make(map[int]bool)
			var duplicates []int
			for i, mine := range b.Sockets {
				if len(mine) != tt.want[i] {
					t.Errorf("loop %d has sockets %v, want %d", i, mine, tt.want[i])
				}
				for _, fd := range mine {
					if seen[fd] || !isOpen(fd, at) {
						t.Errorf("loop %d: socket %d is another's, too, or not of %s", i, fd, at)
					}
					seen[fd] = true
					if !slices.Contains(fds, fd) {
						duplicates = append(duplicates, fd)
					}
				}
			}
			for _, fd := range fds {
				if !seen[fd] {
					t.Errorf("no loop has socket %d", fd)
				}
			}
			b.Close()
			for _, fd := range fds {
				if !isOpen(fd, at) {
					t.Errorf("inherited socket %d is closed", fd)
				}
			}
			for _, fd := range duplicates {
				if isOpen(fd, at) {
					t.Errorf("descriptor %d of an inherited socket is open", fd)
				}
			}
		})
	}
}

func sum(numbers []int) (n int) {
	for _, i := range numbers {
		n += i
	}
	return n
}

// TestInheritRefuses holds that descriptors which are no sockets of one address and of the listener's protocol are
// refused, and stay open.
func TestInheritRefuses(t *testing.T) {
	at, fds := inheritable(t, sock.TCP, 1)
	otherAt, others := inheritable(t, sock.TCP, 1)
	datagramAt, datagrams := inheritable(t, sock.UDP, 1)
	for name, spec := range map[string]*Spec{
		"another address":   {Protocol: sock.TCP, Inherited: []int{fds[0], others[0]}},
		"another protocol":  {Protocol: sock.TCP, Inherited: []int{fds[0], datagrams[0]}},
		"TCP for UDP":       {Protocol: sock.UDP, Inherited: []int{fds[0]}},
		"no descriptor":     {Protocol: sock.TCP, Inherited: []int{fds[0], 1 << 20}},
		"no descriptor UDP": {Protocol: sock.UDP, Inherited: []int{datagrams[0], 1 << 20}},
	} {
		if b, err := Open(spec, 4, false, nil); err == nil {
			b.Close()
			t.Errorf("%s: it was taken", name)
		}
	}
	if !isOpen(fds[0], at) || !isOpen(others[0], otherAt) || !isOpen(datagrams[0], datagramAt) {
		t.Error("a descriptor that was refused is closed")
	}
}

// TestOnEmpty holds that the sockets of a binding that every loop has left are closed by the function that was given,
// which learns which binding it is.
func TestOnEmpty(t *testing.T) {
	var empty []*Binding
	b, err := Open(specOf(sock.UDP), 2, false, func(b *Binding) { empty = append(empty, b) })
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.Ending.Hold()
	b.Ending.Left()
	b.Ending.Left()
	if len(empty) != 0 {
		t.Error("it is closed while a flow holds it")
	}
	b.Ending.Release()
	if len(empty) != 1 || empty[0] != b {
		t.Errorf("%d bindings are closed, want this one", len(empty))
	}
}

// TestDepartureOf holds beside which sockets others depart: those that serve, over which the kernel spreads clients
// together with them.
func TestDepartureOf(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:80")
	all := netip.MustParseAddrPort("[::]:80")
	for _, tt := range []struct {
		name           string
		leaves, serves *Binding
		stays          bool
	}{
		{"the same address", &Binding{Address: at}, &Binding{Address: at}, true},
		{"another port", &Binding{Address: at}, &Binding{Address: netip.MustParseAddrPort("192.0.2.1:81")}, false},
		{"another address", &Binding{Address: at}, &Binding{Address: netip.MustParseAddrPort("0.0.0.0:80")}, false},
		{"another protocol", &Binding{Address: at}, &Binding{Address: at, Protocol: sock.UDP}, false},
		{"both families", &Binding{Address: all, DualStack: true}, &Binding{Address: all, DualStack: true}, true},
		{"one family of both", &Binding{Address: all}, &Binding{Address: all, DualStack: true}, false},
		{"it was inherited", &Binding{Address: at, Inherited: []int{3}}, &Binding{Address: at}, false},
		{"the other was inherited", &Binding{Address: at}, &Binding{Address: at, Inherited: []int{3}}, false},
	} {
		other := &Binding{Address: netip.MustParseAddrPort("198.51.100.1:80")}
		d := DepartureOf(tt.leaves, []*Binding{other, tt.serves, tt.leaves}, true)
		var want *Binding
		if tt.stays {
			want = tt.serves
		}
		if d.Binding != tt.leaves || d.stays != want || !d.older {
			t.Errorf("%s: it departs beside %v, want %v", tt.name, d.stays, want)
		}
	}
}

// TestDepart holds that a departure ends new clients' way to sockets that go, to those that stay if there are some, and
// that it leaves alone inherited ones.
func TestDepart(t *testing.T) {
	connects := func(at netip.AddrPort) error {
		c, err := net.DialTimeout("tcp", at.String(), 10*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	t.Run("alone", func(t *testing.T) {
		b := open(t, specOf(sock.TCP), 2, false)
		d := []Departure{DepartureOf(b, []*Binding{b}, false)}
		Depart(context.Background(), d)
		if err := connects(b.Address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a client of sockets that go: %v", err)
		}
		d[0].Gone()
	})
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprint("beside others, these older ", older), func(t *testing.T) {
			first := open(t, specOf(sock.TCP), 2, false)
			spec := specOf(sock.TCP)
			spec.Address = first.Address
			second := open(t, spec, 2, true)
			leaves, stays := first, second
			if older {
				leaves, stays = second, first
			}
			d := []Departure{DepartureOf(leaves, []*Binding{stays}, older)}
			Depart(context.Background(), d)
			for range 20 {
				if err := connects(first.Address); err != nil {
					t.Fatal(err)
				}
			}
			if n := waiting(leaves); n != 0 {
				t.Errorf("%d clients came to sockets that go", n)
			}
			leaves.Close()
			d[0].Gone()
			for i := range leaves.Sockets { // they are closed
				leaves.Sockets[i] = nil
			}
			for range 20 {
				if err := connects(first.Address); err != nil {
					t.Fatal(err)
				}
			}
			if n := waiting(stays); n != 40 {
				t.Errorf("%d clients came to sockets that stay, want 40", n)
			}
		})
	}
	t.Run("inherited", func(t *testing.T) {
		at, fds := inheritable(t, sock.TCP, 1)
		b, err := Open(&Spec{Protocol: sock.TCP, Inherited: fds}, 1, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		Depart(context.Background(), []Departure{DepartureOf(b, nil, false)})
		if err := connects(at); err != nil {
			t.Errorf("a client of an inherited socket: %v", err)
		}
	})
}

// waiting accepts the clients that wait at the sockets of a binding, and returns how many they were.
func waiting(b *Binding) (n int) {
	b.Each(func(fd int) {
		for {
			client, _, e := sock.Accept(fd)
			if e != 0 {
				return
			}
			sock.Close(client)
			n++
		}
	})
	return n
}
