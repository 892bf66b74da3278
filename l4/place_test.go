package l4_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// at is a free port of an address of this host.
func at(t *testing.T, address string) l4.Place {
	t.Helper()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l4.Place{Address: l.Addr().(*net.TCPAddr).AddrPort()}
}

// on returns a spec of the listener at these places.
func on(spec l4.ListenerSpec, places ...l4.Place) l4.ListenerSpec {
	spec.Address, spec.DualStack, spec.Inherited = places[0].Address, places[0].DualStack, places[0].Inherited
	spec.More = places[1:]
	return spec
}

// listenerNamed is what the server says of the listener of a name, and of TCP if there are two.
func listenerNamed(t *testing.T, s *l4.Server, name string) l4.ListenerInfo {
	t.Helper()
	all := s.Listeners()
	i := slices.IndexFunc(all, func(l l4.ListenerInfo) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("there is no listener %q", name)
	}
	return all[i]
}

// TestSeveralAddresses holds that a listener serves at all its addresses, of both families, with one set of counters,
// and that flows answer from the address that they were sent to.
func TestSeveralAddresses(t *testing.T) {
	places := []l4.Place{at(t, "127.0.0.1"), at(t, "[::1]"), at(t, "127.0.0.2")}
	one := on(spec(newPool(t, backend(t, echo))), places...)
	udp := on(flowSpec(newPool(t, l4test.StartUDP(t, l4test.EchoUDP).Address())), places...)
	udp.Name = "udp"
	s := start(t, l4.Options{Loops: 2}, one, udp)
	for _, p := range places {
		c := dial(t, p.Address.String())
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		u := dialUDP(t, p.Address.String())
		answer := make([]byte, 8)
		u.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := u.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Read(answer); err != nil { // it is connected: an answer from elsewhere would not come
			t.Fatal(err)
		}
	}
	for _, name := range []string{"test", "udp"} {
		info := listenerNamed(t, s, name)
		want := []pool.Address{pool.At(places[0].Address), pool.At(places[1].Address), pool.At(places[2].Address)}
		if info.Accepted != 3 || !slices.Equal(info.Addresses, want) || info.Address != want[0] {
			t.Errorf("%s has accepted %d at %v, want 3 at %v", name, info.Accepted, info.Addresses, want)
		}
	}
}

// TestAddressesComeAndGo holds that adding or removing one address keeps the sockets of the others, in any order, that
// no client is lost meanwhile, and that a removed address is free.
func TestAddressesComeAndGo(t *testing.T) {
	stays, comes, last := at(t, "127.0.0.1"), at(t, "127.0.0.2"), at(t, "127.0.0.1")
	ls := spec(newPool(t, backend(t, echo)))
	s := start(t, l4.Options{Loops: 2}, on(ls, stays, last))
	socket := l4.BindingOf(s, "test")
	var lost, done atomic.Int64
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		running.Go(func() {
			for ctx.Err() == nil {
				c, err := net.Dial("tcp", stays.Address.String())
				if err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Second))
					err = ask(c)
					c.Close()
				}
				if done.Add(1); err != nil {
					lost.Add(1)
				}
			}
		})
	}
	kept := dial(t, last.Address.String())
	for i, places := range [][]l4.Place{{stays, last, comes}, {comes, stays}, {stays}, {comes, last, stays}} {
		plan := l4.Plan{Listeners: []l4.ListenerSpec{on(ls, places...)}}
		change := s.Compare(plan)[0]
		if change.Fate != l4.Rebound || len(change.To) != len(places) || change.To[0].AddrPort != places[0].Address {
			t.Errorf("change %d: %+v", i, change)
		}
		if err := s.Apply(plan); err != nil {
			t.Fatal(err)
		}
		if fate := s.Compare(plan)[0].Fate; fate != l4.Kept {
			t.Errorf("change %d, then the same again: %v", i, fate)
		}
		for _, p := range places {
			c := dial(t, p.Address.String())
			if err := ask(c); err != nil {
				t.Errorf("change %d: at %s: %v", i, p.Address, err)
			}
			c.Close()
		}
		if slices.Equal(placesOf(places), placesOf([]l4.Place{stays})) {
			l, err := net.Listen("tcp", comes.Address.String())
			if err != nil {
				t.Errorf("a removed address is not free: %v", err)
			} else {
				l.Close()
			}
		}
	}
	if err := ask(kept); err != nil {
		t.Errorf("a session by an address that went: %v", err)
	}
	stop()
	running.Wait()
	if n := lost.Load(); n > 0 || done.Load() == 0 {
		t.Errorf("%d of %d clients were lost", n, done.Load())
	}
	reordered := l4.Plan{Listeners: []l4.ListenerSpec{on(ls, stays, comes, last)}}
	if fate := s.Compare(reordered)[0].Fate; fate != l4.Kept {
		t.Errorf("the same addresses in another order: %v", fate)
	}
	if err := s.Apply(reordered); err != nil {
		t.Fatal(err)
	}
	if now := l4.BindingOf(s, "test"); now != socket {
		t.Error("the address that stayed has other sockets")
	}
}

func placesOf(places []l4.Place) (all []string) {
	for _, p := range places {
		all = append(all, p.Address.String())
	}
	return all
}

// TestAddressesThatCannotBe holds that an address which cannot be opened, or stands there twice, is an error that says
// which one it is, and that nothing has changed then.
func TestAddressesThatCannotBe(t *testing.T) {
	good, other := at(t, "127.0.0.1"), at(t, "127.0.0.2")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	theirs := l4.Place{Address: taken.Addr().(*net.TCPAddr).AddrPort()}
	p := newPool(t, backend(t, echo))
	s := start(t, l4.Options{Loops: 2}, on(spec(p), good))
	before := descriptors(t)
	apply := func(places ...l4.Place) error {
		return s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{on(spec(p), places...)}})
	}
	err = apply(good, other, theirs)
	var listen *l4.ListenError
	if !errors.As(err, &listen) || listen.Place != 2 || listen.Address.AddrPort != theirs.Address {
		t.Errorf("error %v, want one of the third address", err)
	}
	if err := apply(good, other, good); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("an address twice: %v", err)
	}
	many := make([]l4.Place, l4.MaxPlaces+1)
	for i := range many {
		many[i] = l4.Place{Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 20000+i))}
	}
	if err := apply(many...); err == nil || !strings.Contains(err.Error(), "1024 are allowed") {
		t.Errorf("too many addresses: %v", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	c := dial(t, good.Address.String())
	if err := ask(c); err != nil {
		t.Error(err)
	}
}

// TestTwoProtocolsOfOneName holds that a plan may have a listener of TCP and one of UDP with one name, that each keeps
// its sockets and counters when the other comes or goes, and that both get the same port if any will do.
func TestTwoProtocolsOfOneName(t *testing.T) {
	tcp := spec(newPool(t, backend(t, echo)))
	udp := flowSpec(newPool(t, l4test.StartUDP(t, l4test.EchoUDP).Address()))
	udp.Name = tcp.Name
	s := start(t, l4.Options{Loops: 2}, tcp, udp)
	both := s.Listeners()
	if len(both) != 2 || both[0].Protocol != l4.TCP || both[1].Protocol != l4.UDP || both[0].Address != both[1].Address {
		t.Fatalf("listeners %+v", both)
	}
	c := dial(t, both[0].Address.String())
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		specs []l4.ListenerSpec
		fates []l4.Fate
	}{
		{[]l4.ListenerSpec{tcp}, []l4.Fate{l4.Kept, l4.Removed}},
		{[]l4.ListenerSpec{udp, tcp}, []l4.Fate{l4.Added, l4.Kept}},
		{[]l4.ListenerSpec{udp}, []l4.Fate{l4.Kept, l4.Removed}},
		{[]l4.ListenerSpec{tcp}, []l4.Fate{l4.Rebound}}, // the one listener of the name, with another protocol
	} {
		var fates []l4.Fate
		for _, c := range s.Compare(l4.Plan{Listeners: step.specs}) {
			fates = append(fates, c.Fate)
		}
		if !slices.Equal(fates, step.fates) {
			t.Errorf("fates %v, want %v", fates, step.fates)
		}
		if err := s.Apply(l4.Plan{Listeners: step.specs}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{tcp, tcp}}); err == nil {
		t.Error("a plan with one listener twice passes")
	}
}
