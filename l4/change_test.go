package l4_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// TestSpecsDiffer holds that no field of a spec is forgotten when two are compared.
func TestSpecsDiffer(t *testing.T) {
	spec := spec(newPool(t))
	for _, field := range reflect.VisibleFields(reflect.TypeFor[l4.ListenerSpec]()) {
		if field.Name == "KeepAlive" {
			continue // below
		}
		other := spec
		v := reflect.ValueOf(&other).Elem().FieldByIndex(field.Index)
		switch field.Name {
		case "Address":
			other.Address = netip.MustParseAddrPort("127.0.0.2:0")
		case "Unix":
			other.Unix.Mode = 0o600 // compared as a whole
		case "Inherited":
			other.Inherited = []int{3}
		case "More":
			other.More = []l4.Place{{Address: netip.MustParseAddrPort("127.0.0.2:0")}}
		case "Pool":
			other.Pool = newPool(t)
		case "Flows":
			other.Flows.Responses = 1 // compared as a whole
		case "Proxy":
			for _, p := range []l4.ProxySettings{
				{Versions: 1}, {Timeout: 1}, {Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
			} {
				other.Proxy = p
				if l4.Equal(&spec, &other) {
					t.Errorf("specs that differ in %+v pass for the same", p)
				}
			}
		case "Postgres":
			other.Postgres.Timeout = 1 // compared as a whole
		case "Routes":
			other.Routes = []l4.Route{{Pool: spec.Pool}}
		case "TLS":
			other.TLS = new(l4.TLSServer)
		case "Access":
			other.Access = l4.NewAccessList(false)
		case "Limits":
			other.Limits.DryRun = true // compared as a whole
		case "DNS":
			other.DNS = new(l4.DNSSettings)
		default:
			switch v.Kind() {
			case reflect.String:
				v.SetString("other")
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Int, reflect.Int64:
				v.SetInt(7)
			case reflect.Uint8:
				v.SetUint(1)
			default:
				t.Fatalf("field %s is of a kind that this test does not know", field.Name)
			}
		}
		if l4.SameSockets(&spec, &other) && l4.Equal(&spec, &other) {
			t.Errorf("specs that differ in %s pass for the same", field.Name)
		}
	}
	for _, k := range []l4.KeepAlive{{Idle: 1}, {Interval: 1}, {Count: 1}} {
		other := spec
		other.KeepAlive = k
		if sockets, equal := l4.SameSockets(&spec, &other), l4.Equal(&spec, &other); !sockets || equal {
			t.Errorf("other keepalive, %+v: same sockets %v, equal %v", k, sockets, equal)
		}
	}
	if same := spec; !l4.SameSockets(&spec, &same) || !l4.Equal(&spec, &same) {
		t.Error("a spec differs from itself")
	}
}

// TestCompare holds that Compare and Change.Listeners say what Commit then makes of each listener, and that Compare opens
// no descriptor.
func TestCompare(t *testing.T) {
	p := newPool(t, backend(t, echo))
	named := func(name string) l4.ListenerSpec {
		s := spec(p)
		s.Name = name
		return s
	}
	stays, changes, moves := named("stays"), named("changes"), named("moves")
	goes, leaves := named("goes"), named("also goes")
	s := start(t, l4.Options{Loops: 2}, stays, changes, goes, leaves, moves)
	at := make(map[string]netip.AddrPort)
	for _, l := range s.Listeners() {
		at[l.Name] = l.Address.AddrPort
	}
	c := dial(t, at["goes"].String())
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	changes.Backlog = 7
	moves.Address = netip.MustParseAddrPort(refusing(t))
	comes := named("comes")
	comes.Address = netip.MustParseAddrPort(refusing(t))
	plan := l4.Plan{Listeners: []l4.ListenerSpec{comes, moves, stays, changes}}
	only := func(a netip.AddrPort) []pool.Address { return []pool.Address{pool.At(a)} }
	want := []l4.ListenerChange{
		{Name: "comes", Fate: l4.Added, To: only(comes.Address)},
		{Name: "moves", Fate: l4.Rebound, From: only(at["moves"]), To: only(moves.Address)},
		{Name: "stays", Fate: l4.Kept, From: only(at["stays"]), To: only(at["stays"])},
		{Name: "changes", Fate: l4.Updated, From: only(at["changes"]), To: only(at["changes"])},
		{Name: "also goes", Fate: l4.Removed, From: only(at["also goes"])},
		{Name: "goes", Fate: l4.Removed, From: only(at["goes"]), Sessions: 1},
	}
	addrs := cmp.Comparer(func(a, b pool.Address) bool { return a == b })
	before := descriptors(t)
	if diff := cmp.Diff(want, s.Compare(plan), addrs); diff != "" {
		t.Errorf("Compare (-want +got):\n%s", diff)
	}
	if after := descriptors(t); after != before {
		t.Errorf("Compare made %d descriptors of %d", after, before)
	}
	change, err := s.Prepare(plan)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, change.Listeners, addrs); diff != "" {
		t.Errorf("Change.Listeners (-want +got):\n%s", diff)
	}
	change.Commit()
	for _, c := range s.Compare(plan) {
		if c.Fate != l4.Kept || pool.At(at[c.Name]) == c.To[0] && c.Name == "moves" {
			t.Errorf("after Commit: %+v", c)
		}
	}
	if n := len(s.Listeners()); n != 4 {
		t.Errorf("%d listeners, want 4", n)
	}
}

// TestDiscard holds that a change which does not come leaves descriptors, listeners and clients as they were, of a
// server that runs and of one that does not yet.
func TestDiscard(t *testing.T) {
	for _, runs := range []bool{false, true} {
		t.Run(fmt.Sprintf("runs %v", runs), func(t *testing.T) {
			p := newPool(t, backend(t, echo))
			s, err := l4.New(l4.Options{Loops: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Shutdown(done(t)) }()
			if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(p)}}); err != nil {
				t.Fatal(err)
			}
			if runs {
				s.Start()
			}
			stolen, err := sock.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sock.ListenOptions{Backlog: 1}, true)
			if err != nil {
				t.Fatal(err)
			}
			defer sock.Close(stolen)
			busy, err := sock.LocalAddr(stolen)
			if err != nil {
				t.Fatal(err)
			}
			moved, other, taken, inherits := spec(p), spec(p), spec(p), spec(p)
			moved.Address = netip.MustParseAddrPort(refusing(t))
			before := descriptors(t)
			other.Name, taken.Name, inherits.Name = "other", "taken", "inherits"
			taken.Address = busy
			inherits.Inherited = []int{stolen}
			for _, plan := range []l4.Plan{
				{}, {Listeners: []l4.ListenerSpec{moved, other}}, {Listeners: []l4.ListenerSpec{spec(p), inherits}},
			} {
				c, err := s.Prepare(plan)
				if err != nil {
					t.Fatal(err)
				}
				c.Discard()
				c.Discard()
				c.Commit() // too late
			}
			plan := l4.Plan{Listeners: []l4.ListenerSpec{moved, other, taken}}
			if _, err := s.Prepare(plan); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("an address in use: %v", err)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors, and %d before", after, before)
			}
			if n := s.Listeners(); len(n) != 1 || n[0].Name != "test" {
				t.Errorf("listeners are %v", n)
			}
			s.Start()
			if err := ask(dial(t, address(s))); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDiscardServesClients holds that clients which found the sockets of a change that does not come are served all the
// same, when they were on their way to a listener that stays.
func TestDiscardServesClients(t *testing.T) {
	p := newPool(t, backend(t, echo))
	all := spec(p)
	all.Address = netip.MustParseAddrPort("0.0.0.0:0")
	s := start(t, l4.Options{Loops: 2}, all)
	one := spec(newPool(t)) // would refuse them
	one.Name = "one"
	one.Address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Listeners()[0].Address.Port())
	c, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{all, one}})
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 20 {
		clients = append(clients, dial(t, one.Address.String()))
	}
	c.Discard()
	for i, c := range clients {
		if err := ask(c); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if n := s.Listeners()[0].Accepted; n != 20 {
		t.Errorf("the listener took %d clients, want 20", n)
	}
}

// TestOneChange holds that a change waits for the one before, and that a shutdown waits for none.
func TestOneChange(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t)))
	for _, end := range []func(*l4.Change){(*l4.Change).Commit, (*l4.Change).Discard} {
		first, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t))}})
		if err != nil {
			t.Fatal(err)
		}
		applied := make(chan error)
		go func() { applied <- s.Apply(l4.Plan{}) }()
		select {
		case <-applied:
			t.Fatal("a second change came between")
		case <-time.After(20 * time.Millisecond): // proves little when slow, and never fails wrongly
		}
		end(first)
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		if n := len(s.Listeners()); n != 0 {
			t.Fatalf("%d listeners, want the second change's none", n)
		}
	}
	late, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t))}})
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	late.Commit()
	// Beside the change's socket: epoll and mailbox of the loop.
	if after := descriptors(t); after != before-3 || len(s.Listeners()) != 0 {
		t.Errorf("a change after the end: %d of %d descriptors, listeners %v", after, before, s.Listeners())
	}
	if _, err := s.Prepare(l4.Plan{}); !errors.Is(err, l4.ErrShutdown) {
		t.Errorf("prepare after the end: %v", err)
	}
}

// TestChangesLoseNobody applies plans back and forth beside a stream of short sessions, and holds that not one is
// refused at the listener that stays, whatever else of it and around it changes, and that its counters go on.
func TestChangesLoseNobody(t *testing.T) {
	const applies, clients = 200, 4
	p, other := newPool(t, backend(t, echo)), newPool(t, backend(t, echo))
	stays, comes := spec(p), spec(p)
	comes.Name = "also"
	s := start(t, l4.Options{Loops: 2}, stays)
	address := address(s)
	ended := make(chan struct{})
	var total atomic.Uint64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				c, err := net.Dial("tcp", address)
				if err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Second))
					err = ask(c)
					c.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
				total.Add(1)
			}
		})
	}
	for i := range applies {
		plan := l4.Plan{Listeners: []l4.ListenerSpec{stays}}
		changed := &plan.Listeners[0]
		switch i % 4 {
		case 1:
			changed.Backlog, changed.KeepAlive = 128, l4.KeepAlive{Idle: time.Minute, Interval: time.Second, Count: 3}
		case 2:
			changed.Pool = other
		case 3:
			plan.Listeners = append(plan.Listeners, comes)
		}
		so := total.Load()
		if err := s.Apply(plan); err != nil {
			t.Fatal(err)
		}
		eventually(t, "sessions go on", func() bool { return t.Failed() || total.Load() > so })
	}
	close(ended)
	running.Wait()
	eventually(t, "all sessions have ended", func() bool { return s.Sessions() == 0 })
	info := s.Listeners()[1]
	if want := total.Load(); info.Accepted != want || info.BytesIn != want || info.Duration.Count != want {
		t.Errorf("%d sessions; accepted %d, bytes in %d, durations %d",
			want, info.Accepted, info.BytesIn, info.Duration.Count)
	}
	if other.Backends()[0].BytesIn == 0 {
		t.Error("no session went to the other pool: the changes came to nothing")
	}
	if n := l4.FollowedPools(s); n != 2 {
		t.Errorf("the server follows %d pools, want 2", n)
	}
	slots := 0
	for i := range s.Loops() {
		slots = max(slots, socketPlaces(s, i))
	}
	if slots > 2 {
		t.Errorf("%d places for the sockets of two listeners", slots)
	}
}

// TestPoolsAreForgotten holds that a server which is given new pools again and again does not keep the old ones.
func TestPoolsAreForgotten(t *testing.T) {
	s := start(t, l4.Options{Loops: 1})
	const pools = 50
	for range pools {
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t))}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the pools are forgotten", func() bool {
		runtime.GC()
		if err := s.Apply(l4.Plan{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t))}}); err != nil {
			t.Fatal(err)
		}
		return l4.FollowedPools(s) < pools/2
	})
}

// TestMoveServesWaiting holds that clients which wait at the old sockets when a listener moves to overlapping ones are
// served, each once, and that the listener's counters go on.
func TestMoveServesWaiting(t *testing.T) {
	p := newPool(t, backend(t, echo))
	one := spec(p)
	one.Address = netip.MustParseAddrPort("0.0.0.0:0") // its port is then free at all addresses
	s := start(t, l4.Options{Loops: 2}, one)
	one.Address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Listeners()[0].Address.Port())
	if err := ask(dial(t, one.Address.String())); err != nil {
		t.Fatal(err)
	}
	release := []func(){hold(t, s, 0), hold(t, s, 1)}
	var clients []net.Conn
	for range 50 {
		clients = append(clients, dial(t, one.Address.String()))
	}
	c, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{one}})
	if err != nil {
		t.Fatal(err)
	}
	if f := c.Listeners[0].Fate; f != l4.Rebound {
		t.Fatalf("the listener is to be %v", f)
	}
	for _, f := range release {
		f()
	}
	c.Commit()
	clients = append(clients, dial(t, address(s)))
	for i, c := range clients {
		if err := ask(c); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if info := s.Listeners()[0]; info.Accepted != 52 || info.Sessions != 52 || info.Address.AddrPort != one.Address {
		t.Errorf("the listener at %s has accepted %d and holds %d, want 52", info.Address, info.Accepted, info.Sessions)
	}
}

// TestCommitRefusesOptions holds that options the kernel does not take are found out by Prepare, also where no socket
// is new.
func TestCommitRefusesOptions(t *testing.T) {
	ls := spec(newPool(t))
	s := start(t, l4.Options{Loops: 1}, ls)
	ls.KeepAlive = l4.KeepAlive{Idle: 48 * time.Hour, Interval: time.Second, Count: 3} // tcp(7): 32767 s at most
	var listen *l4.ListenError
	_, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{ls}})
	if !errors.As(err, &listen) || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("keepalive after two days: %v", err)
	}
}

// TestUpdateInPlace holds that other options reach sockets that stay, with the clients that wait there.
func TestUpdateInPlace(t *testing.T) {
	ls := spec(newPool(t, backend(t, echo)))
	ls.KeepAlive = l4.KeepAlive{Idle: time.Minute, Interval: time.Second, Count: 3}
	s := start(t, l4.Options{Loops: 1}, ls)
	option := func(level, name int) int {
		t.Helper()
		v, err := syscall.GetsockoptInt(l4.BindingOf(s, "test").Sockets[0][0], level, name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 1 {
		t.Error("keepalive is off")
	}
	release := hold(t, s, 0)
	waits := dial(t, address(s))
	fd := l4.BindingOf(s, "test").Sockets[0][0]
	ls.KeepAlive, ls.Backlog = l4.KeepAlive{}, 5
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
		t.Fatal(err)
	}
	now, keepAlive := l4.BindingOf(s, "test").Sockets[0][0], option(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	if now != fd || keepAlive != 0 {
		t.Errorf("the socket is %d and was %d, its keepalive %d", now, fd, keepAlive)
	}
	release()
	if err := ask(waits); err != nil {
		t.Error(err)
	}
}
