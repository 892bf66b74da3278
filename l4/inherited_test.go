package l4_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// inheritable opens n listening sockets of one address, as whoever starts the daemon would, and a descriptor of each to
// be given away.
func inheritable(t *testing.T, n int) (address string, fds []int) {
	t.Helper()
	at := netip.MustParseAddrPort("127.0.0.1:0")
	for i := range n {
		fd, err := sock.Listen(at, sock.ListenOptions{Backlog: 512}, i == 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sock.Close(fd) })
		if at, err = sock.LocalAddr(fd); err != nil {
			t.Fatal(err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 0); err != nil {
			t.Fatal(err)
		}
		given, err := sock.Duplicate(fd)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, given)
	}
	return at.String(), fds
}

// TestInherited holds that sockets which somebody else has opened serve like one's own, be they fewer or more than the
// loops: no client waits while a loop is free, changes keep them, and the last one gives them back.
func TestInherited(t *testing.T) {
	for sockets := 1; sockets <= 5; sockets++ {
		t.Run(fmt.Sprintf("%d sockets", sockets), func(t *testing.T) {
			p := newPool(t, backend(t, echo))
			s := start(t, l4.Options{Loops: 2})
			before := descriptors(t)
			at, fds := inheritable(t, sockets)
			early := dial(t, at)
			ls := l4.ListenerSpec{Name: "inherits", Pool: p, Inherited: fds}
			if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
				t.Fatal(err)
			}
			if shared := l4.BindingOf(s, "inherits").Shared; shared != (sockets < len(s.Loops())) {
				t.Errorf("loops share sockets: %v", shared)
			}
			if got := address(s); got != at {
				t.Errorf("the listener is at %s, want %s", got, at)
			}
			if err := ask(early); err != nil {
				t.Error(err)
			}
			noDelay := make(chan int, 2)
			for i := range s.Loops() {
				l4test.OnLoop(s, i, func() {
					l4test.RoomsOf(s).Sessions[i].Some(0, func(one *session.Session) {
						v, _ := syscall.GetsockoptInt(clientSocket(one), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
						noDelay <- v
					})
				})
			}
			if v := <-noDelay; v == 0 {
				t.Error("a client that had connected before has no TCP_NODELAY")
			}
			early.Close()
			eventually(t, "the first session has ended", func() bool { return s.Sessions() == 0 })

			const clients, rounds = 16, 50
			var running sync.WaitGroup
			for range clients {
				running.Go(func() {
					for range rounds {
						c, err := net.Dial("tcp", at)
						if err == nil {
							c.SetDeadline(time.Now().Add(20 * time.Second))
							err = ask(c)
							c.Close()
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			for i := range 20 {
				ls.Backlog = 100 + i
				if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
					t.Fatal(err)
				}
			}
			running.Wait()
			eventually(t, "all sessions have ended", func() bool { return s.Sessions() == 0 })
			if n := s.Listeners()[0].Accepted; n != clients*rounds+1 {
				t.Errorf("%d sessions were accepted, want %d", n, clients*rounds+1)
			}
			if err := s.Apply(l4.Plan{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the descriptors given are closed", func() bool {
				return openDescriptors(t) == before+sockets
			})
			waits := dial(t, at) // at a socket that whoever opened it still has, and no loop any more
			waits.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if err := ask(waits); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a client of a listener that was removed: %v", err)
			}
			for i := range s.Loops() {
				if n := socketEvents(s, i); n != 0 {
					t.Errorf("loop %d has %d events of sockets that it has closed", i, n)
				}
			}
		})
	}
}

// TestInheritedWithStuckLoop holds that a client of a shared socket does not wait for the loop that is busy.
func TestInheritedWithStuckLoop(t *testing.T) {
	address, fds := inheritable(t, 1)
	ls := l4.ListenerSpec{Name: "inherits", Pool: newPool(t, backend(t, echo)), Inherited: fds}
	s := start(t, l4.Options{Loops: 2}, ls)
	for loop := range s.Loops() {
		release := hold(t, s, loop)
		for range 50 {
			c := dial(t, address)
			if err := ask(c); err != nil {
				t.Fatalf("with loop %d busy: %v", loop, err)
			}
			c.Close()
			eventually(t, "the session has ended", func() bool { return s.Sessions() == 0 })
		}
		release()
	}
}

// TestInheritedNonsense holds that a descriptor which is no listening socket, or is in use already, is refused and
// stays open.
func TestInheritedNonsense(t *testing.T) {
	p := newPool(t)
	_, fds := inheritable(t, 2)
	_, others := inheritable(t, 1)
	s := start(t, l4.Options{Loops: 3}, l4.ListenerSpec{Name: "inherits", Pool: p, Inherited: fds[:1]})
	bound := l4.BindingOf(s, "inherits")
	connection, e := sock.Connect(bound.Address)
	if e != 0 && e != sock.InProgress {
		t.Fatal(e)
	}
	defer sock.Close(connection)
	defer sock.Close(fds[1])
	defer sock.Close(others[0])
	before := descriptors(t)
	for name, inherited := range map[string][]int{
		"no descriptor":     {1 << 20},
		"no socket":         {0},
		"not listening":     {connection},
		"owned":             {fds[0]},
		"owned duplicate":   {bound.Sockets[1][0]},
		"twice":             {fds[1], fds[1]},
		"another address":   {others[0], fds[1]},
		"one address twice": {fds[1]},
	} {
		keeps := l4.ListenerSpec{Name: "inherits", Pool: p, Inherited: fds[:1]}
		var listen *l4.ListenError
		second := l4.ListenerSpec{Name: "second", Pool: p, Inherited: inherited}
		_, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{keeps, second}})
		if err == nil || name != "one address twice" && !errors.As(err, &listen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}

// TestInheritedDiscard holds that sockets which were to be inherited by a change that does not come are as before: one
// that does come takes them, with the client that waits.
func TestInheritedDiscard(t *testing.T) {
	address, fds := inheritable(t, 1)
	s := start(t, l4.Options{Loops: 2})
	p := newPool(t, backend(t, echo))
	plan := l4.Plan{Listeners: []l4.ListenerSpec{{Name: "inherits", Pool: p, Inherited: fds}}}
	c, err := s.Prepare(plan)
	if err != nil {
		t.Fatal(err)
	}
	waits := dial(t, address)
	c.Discard()
	if err := s.Apply(plan); err != nil {
		t.Fatal(err)
	}
	if err := ask(waits); err != nil {
		t.Error(err)
	}
	waits.CloseWrite()
	if _, err := io.ReadAll(waits); err != nil {
		t.Error(err)
	}
}
