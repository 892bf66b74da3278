package l4_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestApply walks a server through plans: what stays the same keeps its socket and sessions, what goes stops
// accepting while its sessions go on, and a plan that fails changes nothing.
func TestApply(t *testing.T) {
	p := newPool(t, backend(t, echo))
	one, two := spec(p), spec(p)
	one.Name, two.Name = "one", "two"
	s := start(t, l4.Options{Loops: 2}, one, two)
	address := func(name string) string {
		for _, l := range s.Listeners() {
			if l.Name == name {
				return l.Address.String()
			}
		}
		t.Fatalf("no listener %q", name)
		return ""
	}
	at1, at2 := address("one"), address("two")
	c1, c2 := dial(t, at1), dial(t, at2)
	talk := func(c net.Conn) {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	talk(c1)
	talk(c2)

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	three := spec(p)
	three.Name, three.Address = "three", netip.MustParseAddrPort(busy.Addr().String())
	var listen *l4.ListenError
	err = s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{three}})
	if !errors.As(err, &listen) || listen.Listener != "three" || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("apply with a port in use: %v", err)
	}
	talk(dial(t, at1))
	talk(dial(t, at2))

	one.Refuse = l4.RefuseClose // a setting that needs no other socket
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{one}}); err != nil {
		t.Fatal(err)
	}
	if got := address("one"); got != at1 {
		t.Errorf("the listener that stayed moved from %s to %s", at1, got)
	}
	talk(dial(t, at1))
	talk(c1)
	talk(c2)
	eventually(t, "the removed listener refuses", func() bool {
		c, err := net.Dial("tcp", at2)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	talk(c2)
}

// TestWildcardBesideAddress holds that a listener on all addresses may stand beside one on one of them, in either
// order, and that each gets its own clients.
func TestWildcardBesideAddress(t *testing.T) {
	p := newPool(t, backend(t, echo))
	one, all := spec(p), spec(p)
	one.Name, all.Name = "one", "all"
	one.Address = netip.MustParseAddrPort(refusing(t))
	all.Address = netip.AddrPortFrom(netip.IPv4Unspecified(), one.Address.Port())
	for _, specs := range [][]l4.ListenerSpec{{one, all}, {all, one}} {
		lines, log := newCapture()
		s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, specs...)
		for _, to := range []struct{ host, listener string }{{"127.0.0.1", "one"}, {"127.0.0.2", "all"}} {
			dial(t, netip.AddrPortFrom(netip.MustParseAddr(to.host), one.Address.Port()).String()).Close()
			if line := lines.Next(t); line.Listener != to.listener {
				t.Errorf("a client of %s came to listener %s", to.host, line.Listener)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestApplyRefusesNonsense(t *testing.T) {
	p := newPool(t)
	s := start(t, l4.Options{Loops: 1})
	good := spec(p)
	here, there := spec(p), spec(p)
	here.Address = netip.MustParseAddrPort(refusing(t))
	there.Address, there.Name = here.Address, "there"
	for name, plan := range map[string]l4.Plan{
		"no name":    {[]l4.ListenerSpec{{Address: good.Address, Pool: p}}},
		"no pool":    {[]l4.ListenerSpec{{Name: "x", Address: good.Address}}},
		"no address": {[]l4.ListenerSpec{{Name: "x", Pool: p}}},
		"twice":      {[]l4.ListenerSpec{good, good}},
		"one port":   {[]l4.ListenerSpec{here, there}},
	} {
		if err := s.Apply(plan); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if n := len(s.Listeners()); n != 0 {
		t.Errorf("%d listeners came of it", n)
	}
}

func TestShutdownDrains(t *testing.T) {
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(newPool(t, backend(t, echo))))
	at := address(s)
	c := dial(t, at)
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	eventually(t, "new clients are refused", func() bool {
		late, err := net.Dial("tcp", at)
		if err == nil {
			late.Close()
		}
		return err != nil
	})
	select {
	case err := <-ended:
		t.Fatalf("ended before its session: %v", err)
	default:
	}
	c.Write([]byte("y"))
	io.ReadFull(c, make([]byte, 1))
	c.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for {
		line := lines.Next(t)
		if line.In == 2 && line.Reason == tally.ClientClosed.String() {
			break
		}
	}
	if err := s.Apply(l4.Plan{}); !errors.Is(err, l4.ErrShutdown) {
		t.Errorf("apply after the end: %v", err)
	}
}

func TestShutdownCuts(t *testing.T) {
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(newPool(t, backend(t, echo))))
	c := dial(t, address(s))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !reset(t, c) {
		t.Error("a cut session ended like an orderly one")
	}
	if line := lines.Next(t); line.Reason != tally.Drained.String() {
		t.Errorf("ended as %+v", line)
	}
}

// TestNeverStarted holds that clients wait until Start, and that a server may be given up before it.
func TestNeverStarted(t *testing.T) {
	s, err := l4.New(l4.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(newPool(t))}}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, address(s))
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !reset(t, c) {
		t.Error("the waiting client saw an orderly end")
	}
}

// TestNeverStartedServesNobody holds the same for clients that could be served: they are reset, and no session
// begins on a loop that does not run.
func TestNeverStartedServesNobody(t *testing.T) {
	p := newPool(t, backend(t, nil))
	s, err := l4.New(l4.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec(p)}}); err != nil {
		t.Fatal(err)
	}
	var clients []*net.TCPConn
	for range 40 {
		clients = append(clients, dial(t, address(s)))
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if !reset(t, c) {
			t.Fatal("a waiting client saw an orderly end")
		}
	}
	if s.Sessions() != 0 || p.Backends()[0].Leases != 0 {
		t.Errorf("%d sessions, %d leases", s.Sessions(), p.Backends()[0].Leases)
	}
}

// TestReadd holds that an address is free as soon as Apply has taken its listener away.
func TestReadd(t *testing.T) {
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t)))
	again := spec(newPool(t))
	again.Name, again.Address = "again", s.Listeners()[0].Address.AddrPort
	for range 50 {
		if err := s.Apply(l4.Plan{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{again}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListenersTakeDescriptors holds that the sockets of listeners are reckoned with.
func TestListenersTakeDescriptors(t *testing.T) {
	s := start(t, l4.Options{Loops: 2})
	before := capacity(s)
	a, b := spec(newPool(t)), spec(newPool(t))
	a.Name, b.Name = "a", "b"
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{a, b}}); err != nil {
		t.Fatal(err)
	}
	if after := capacity(s); before-after != 2 {
		t.Errorf("room for %d sessions, and for %d beside four sockets of two listeners", before, after)
	}
}

// TestStall holds that timers do not judge sessions whose bytes have come while the loop was held up, although there
// are more of them than one wait brings.
func TestStall(t *testing.T) {
	const sessions = 2*sock.EventBatch + 50
	ls := spec(newPool(t, backend(t, echo)))
	ls.IdleTimeout = time.Minute
	s := start(t, l4.Options{Loops: 1}, ls)
	var clients []*net.TCPConn
	for range sessions {
		c := dial(t, address(s))
		c.Write([]byte("x"))
		io.ReadFull(c, make([]byte, 1))
		clients = append(clients, c)
	}
	held, release := make(chan struct{}), make(chan struct{})
	first := l4test.RoomsOf(s).Loops[0]
	first.Post(func() {
		close(held)
		<-release
		first.Started = first.Started.Add(-2 * time.Minute) // the loop is the only one to read it
	})
	<-held
	for _, c := range clients {
		c.Write([]byte("y"))
	}
	close(release)
	for i, c := range clients {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
}

// TestRefuseCloseReads holds that a client that has spoken sees a FIN too when it is to see one.
func TestRefuseCloseReads(t *testing.T) {
	ls := spec(newPool(t))
	ls.Refuse = l4.RefuseClose
	s, err := l4.New(l4.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, address(s))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	s.Start()
	if reset(t, c) {
		t.Error("it saw a reset")
	}
}

// TestHandOver holds that long-lived sessions do not all sit on one loop, although the kernel may give all
// of their clients to one socket.
func TestHandOver(t *testing.T) {
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, echo))))
	for range 8 {
		c := dial(t, address(s))
		c.Write([]byte("x"))
		io.ReadFull(c, make([]byte, 1))
	}
	for _, l := range s.Loops() {
		if n := l.Sessions; n < 2 || n > 6 {
			t.Errorf("loop %d has %d of 8 sessions", l.Index, n)
		}
	}
}

func TestRefusals(t *testing.T) {
	full := spec(newPool(t, backend(t, echo)))
	full.MaxSessions = 1
	closing := full
	closing.Refuse = l4.RefuseClose
	for _, test := range []struct {
		name  string
		spec  l4.ListenerSpec
		o     l4.Options
		hold  int // sessions open already
		reset bool
		want  l4.Reason
	}{
		{"listener full", full, l4.Options{}, 1, true, tally.MaxSessions},
		{"listener full, close", closing, l4.Options{}, 1, false, tally.MaxSessions},
		{"process full", spec(full.Pool), l4.Options{MaxSessions: 1}, 1, true, tally.MaxSessions},
		{"no backend", spec(newPool(t)), l4.Options{}, 0, true, tally.NoBackend},
		{"all refuse", spec(newPool(t, refusing(t), refusing(t))), l4.Options{}, 0, true, tally.ConnectFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.o.Loops = 2
			s := start(t, test.o, test.spec)
			for range test.hold {
				c := dial(t, address(s))
				c.Write([]byte("x"))
				io.ReadFull(c, make([]byte, 1))
			}
			if got := refusedWithReset(t, address(s)); got != test.reset {
				t.Errorf("refused with a reset: %v, want %v", got, test.reset)
			}
			eventually(t, "the refusal is counted", func() bool { return s.Listeners()[0].Ended[test.want] == 1 })
			eventually(t, fmt.Sprintf("%d sessions are left", test.hold), func() bool {
				return s.Listeners()[0].Sessions == test.hold
			})
		})
	}
}

// TestRetries holds that a backend that refuses, or one that answers no SYN, costs a client nothing but time, and
// that none is tried twice.
func TestRetries(t *testing.T) {
	lines, log := newCapture()
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, Retries: 2,
		ConnectTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{refusing(t), swallowing(t), backend(t, echo)} {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
	tried := 0
	for range 9 {
		c := dial(t, address(s))
		c.Write([]byte("early")) // waits in the kernel until a backend is connected
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "early" {
			t.Fatalf("got %q, %v", got, err)
		}
		line := lines.Next(t)
		if line.Retries > 2 || line.Reason != tally.ClientClosed.String() {
			t.Fatalf("ended as %+v", line)
		}
		tried += line.Retries
	}
	if tried == 0 {
		t.Error("no backend that fails was ever tried")
	}
	for _, b := range p.Backends() {
		if b.Leases != 0 {
			t.Errorf("%s still has %d leases", b.ID, b.Leases)
		}
	}
}

// TestSessionSize holds what an idle session costs: memory is promised to stay below 1 KiB for each.
func TestSessionSize(t *testing.T) {
	if n := unsafe.Sizeof(session.Session{}); n > 512 {
		t.Errorf("a session takes %d bytes, want at most 512", n)
	}
}

// TestSessionAllocations holds that a session's whole life allocates nothing, once its loop has served a few.
func TestSessionAllocations(t *testing.T) {
	ends, err := sock.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sock.ListenOptions{Backlog: 16}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close(ends)
	at, _ := sock.LocalAddr(ends)
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, at.String())))
	front := s.Listeners()[0].Address
	buf := make([]byte, 64)
	await := func(f func() sock.Errno) {
		for {
			e := f()
			if e == 0 {
				return
			}
			if e != sock.Again {
				t.Fatal(e)
			}
			runtime.Gosched()
		}
	}
	serve := func() {
		client, e := sock.Connect(front.AddrPort)
		if e != 0 && e != sock.InProgress {
			t.Fatal(e)
		}
		await(func() sock.Errno { _, e := sock.Write(client, buf, false); return e })
		server := -1
		await(func() (e sock.Errno) { server, _, e = sock.Accept(ends); return e })
		await(func() sock.Errno { _, e := sock.Read(server, buf); return e })
		sock.Write(server, buf, false)
		await(func() sock.Errno { _, e := sock.Read(client, buf); return e })
		sock.Close(client)
		await(func() sock.Errno { _, e := sock.Read(server, buf); return e })
		sock.Close(server)
	}
	serve()
	const sessions = 500
	if n := allocations(sessions, serve); n > sessions/10 {
		t.Errorf("%d allocations for %d sessions, want next to none", n, sessions)
	}
}
