package l4_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestHandOverSessions holds that sessions at rest go on in another process with what they had, that their listener's address
// stays, and that the one that hands over ends without waiting.
func TestHandOverSessions(t *testing.T) {
	for _, loops := range [][2]int{{1, 1}, {2, 2}, {2, 1}, {1, 3}, {3, 2}} {
		at := backend(t, echo)
		before := descriptors(t)
		from := start(t, l4.Options{Loops: loops[0]}, spec(newPool(t, at)))
		const sessions = 20
		var clients []*net.TCPConn
		for range sessions {
			c := dial(t, address(from))
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		old := listOf(t, from, l4.SessionFilter{})
		p := newPool(t, at)
		u := l4test.BeginHandOver(t, from, l4.Options{Loops: loops[1]}, spec(p))
		if address(u.To) != address(from) {
			t.Errorf("%s became %s", address(from), address(u.To))
		}
		u.Pause(0)
		u.MoveAll(l4.TCP, sessions)
		if n := from.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		if n := u.To.Sessions(); n != sessions {
			t.Errorf("%d sessions are there, want %d", n, sessions)
		}
		if b := p.Backends()[0]; b.Leases != sessions {
			t.Errorf("%d leases, want %d", b.Leases, sessions)
		}
		now := listOf(t, u.To, l4.SessionFilter{})
		byID := make(map[l4.SessionID]l4.SessionInfo)
		for _, b := range now.Sessions {
			byID[b.ID] = b
		}
		for _, a := range old.Sessions {
			b := byID[a.ID]
			if a.ID != b.ID || a.Client != b.Client || a.Backend != b.Backend || a.BytesIn != b.BytesIn ||
				a.BytesOut != b.BytesOut || a.Phase != b.Phase || b.Accepted.Sub(a.Accepted).Abs() > 5*time.Second ||
				b.Connected.Sub(a.Connected).Abs() > 5*time.Second || b.Age < a.Age {
				t.Errorf("%+v became %+v", a, b)
			}
		}
		clients = append(clients, dial(t, address(from)))
		for _, c := range clients {
			if err := ask(c); err != nil {
				t.Error(err)
			}
		}
		u.Finish()
		for _, c := range append(clients, dial(t, address(u.To))) {
			if err := ask(c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		eventually(t, "all have ended", func() bool { return u.To.Sessions() == 0 })
		i := info(u.To)
		if i.Accepted != sessions+2 || i.Ended[tally.ClientClosed] != sessions+2 || i.Duration.Count != sessions+2 ||
			i.ConnectTime.Count != sessions+2 {
			t.Errorf("%+v", i)
		}
		if err := u.To.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before })
	}
}

// TestHandOverBusy holds that a transfer comes to rest, and that no byte of it is lost, doubled or changed.
func TestHandOverBusy(t *testing.T) {
	const size = 64 << 20
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	at := backend(t, func(c *net.TCPConn) {
		buf := bytes.NewBuffer(nil)
		_, _ = io.CopyN(buf, c, 1)
		for range size / len(data) {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	})
	server := start(t, l4.Options{Loops: 2}, spec(newPool(t, at)))
	c := dial(t, address(server))
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	sum := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if _, err := io.Copy(h, c); err != nil {
			t.Error(err)
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	hops := 0
	for sent := uint64(0); sent < size/2; hops++ {
		more := sent + 1<<20
		eventually(t, "bytes move", func() bool {
			list := listOf(t, server, l4.SessionFilter{})
			if len(list.Sessions) > 0 {
				sent = list.Sessions[0].BytesOut
			}
			return sent >= more
		})
		u := l4test.BeginHandOver(t, server, l4.Options{Loops: 2}, spec(newPool(t, at)))
		u.Pause(0)
		eventually(t, "the session moves", func() bool {
			moved, _ := u.Move(l4.TCP, 10)
			return moved > 0
		})
		u.Finish()
		server = u.To
	}
	t.Logf("%d times", hops)
	want := sha256.New()
	for range size / len(data) {
		want.Write(data)
	}
	if got := <-sum; got != [32]byte(want.Sum(nil)) {
		t.Error("the client has got something else")
	}
	c.Close()
	eventually(t, "it has ended", func() bool { return server.Sessions() == 0 })
	if i := info(server); i.BytesOut != size || i.BytesIn != 1 || i.Accepted != 1 || i.Duration.Count != 1 {
		t.Errorf("%d bytes out, %d in, %d accepted, %d ended", i.BytesOut, i.BytesIn, i.Accepted, i.Duration.Count)
	}
}

// TestHandOverHalfClosed holds that a session goes on of which one side has sent its FIN, and ends with the other's.
func TestHandOverHalfClosed(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	at := backend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		close(asked)
		<-answer
		_, _ = c.Write([]byte("answer"))
	})
	ls := spec(newPool(t, at))
	ls.HalfCloseTimeout = time.Minute
	from := start(t, l4.Options{Loops: 2}, ls)
	c := dial(t, address(from))
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	<-asked
	ls.Pool = newPool(t, at)
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, ls)
	u.Pause(0)
	u.MoveAll(l4.TCP, 1)
	u.Finish()
	close(answer)
	if got, err := io.ReadAll(c); string(got) != "answer" || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	eventually(t, "it has ended", func() bool { return u.To.Sessions() == 0 })
	if i := info(u.To); i.Ended[tally.ClientClosed] != 1 || i.BytesIn != 8 || i.BytesOut != 6 {
		t.Errorf("%+v", i)
	}
}

// TestHandOverRefused holds that sessions whose backend the other process does not have go on where they are, and that
// the others move.
func TestHandOverRefused(t *testing.T) {
	one, other := backend(t, echo), backend(t, echo)
	from := start(t, l4.Options{Loops: 2}, spec(newPool(t, one, other)))
	var clients []*net.TCPConn
	for range 10 {
		c := dial(t, address(from))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, spec(newPool(t, one)))
	u.Pause(0)
	moved, refused := 0, 0
	for range 10 {
		m, r := u.Move(l4.TCP, 10)
		moved, refused = moved+m, refused+r
	}
	if moved != 5 || refused != 5 || from.Sessions() != 5 || u.To.Sessions() != 5 {
		t.Errorf("%d moved, %d refused", moved, refused)
	}
	if left, err := u.H.Left(t.Context()); left["refused"] != 5 || len(left) != 1 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, c := range clients {
		if err := ask(c); err != nil {
			t.Error(err)
		}
	}
	ended := make(chan error)
	u.To.AddCounters(u.H.Counters())
	u.H.Finish()
	go func() { ended <- from.Shutdown(context.Background()) }()
	for _, c := range append(clients, dial(t, address(u.To))) {
		if err := ask(c); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	u.To.AddCounters(u.H.Counters())
	eventually(t, "all have ended", func() bool { return u.To.Sessions() == 0 })
	if i := info(u.To); i.Accepted != 11 || i.Ended[tally.ClientClosed] != 11 || i.BytesIn != 31 {
		t.Errorf("%d accepted, %v ended, %d bytes", i.Accepted, i.Ended, i.BytesIn)
	}
}

// TestHandOverGivenUp holds that a process that gives a hand-over up serves all clients as before: those that have come
// meanwhile, those that are on their way, and those of other settings.
func TestHandOverGivenUp(t *testing.T) {
	at := backend(t, echo)
	ls := spec(newPool(t, at))
	from := start(t, l4.Options{Loops: 2}, ls)
	c := dial(t, address(from))
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	for range 3 {
		other := ls
		other.Pool, other.Backlog = newPool(t, at), 7
		u := l4test.BeginHandOver(t, from, l4.Options{Loops: 1}, other)
		if _, err := from.HandOver(); !errors.Is(err, l4.ErrHandingOver) {
			t.Errorf("a second one: %v", err)
		}
		u.H.Pause()
		waits := dial(t, address(from))
		if m := u.H.Detach(l4.TCP, 10); len(m) != 1 {
			t.Fatalf("%d were detached", len(m))
		} else {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			u.H.Returned(m)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := u.To.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		applied := make(chan error)
		go func() {
			next := ls
			next.Backlog = 100
			applied <- from.Apply(l4.Plan{Listeners: []l4.ListenerSpec{next}})
		}()
		select {
		case err := <-applied:
			t.Errorf("a change was made meanwhile: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		u.H.Resume()
		if err := <-applied; err != nil {
			t.Error(err)
		}
		late := dial(t, address(from))
		for _, c := range []*net.TCPConn{c, waits, late} {
			if err := ask(c); err != nil {
				t.Error(err)
			}
		}
		late.Close()
		waits.Close()
		eventually(t, "one session is left", func() bool { return from.Sessions() == 1 })
	}
	c.Close()
	eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before })
}

// TestHandOverShutdown holds that a server which is shut down in the middle of a hand-over ends as always, and tells
// changes that wait.
func TestHandOverShutdown(t *testing.T) {
	at := backend(t, echo)
	from := start(t, l4.Options{Loops: 2}, spec(newPool(t, at)))
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, spec(newPool(t, at)))
	u.H.Pause()
	waits := dial(t, address(from))
	applied := make(chan error)
	go func() { applied <- from.Apply(l4.Plan{}) }()
	ended := make(chan error)
	go func() { ended <- from.Shutdown(t.Context()) }()
	if err := ask(waits); err != nil {
		t.Error(err)
	}
	waits.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-applied; !errors.Is(err, l4.ErrShutdown) {
		t.Errorf("a change that waited: %v", err)
	}
	if _, err := from.HandOver(); !errors.Is(err, l4.ErrShutdown) {
		t.Errorf("a hand-over after the end: %v", err)
	}
}

// TestHandOverUnix holds that a Unix socket and its file pass to the process that takes over, which removes the file.
func TestHandOverUnix(t *testing.T) {
	at := backend(t, echo)
	ls := l4test.UnixSpec(t, newPool(t, at))
	from := l4test.StartUnix(t, l4.Options{Loops: 2}, ls)
	c := l4test.DialUnix(t, ls.Unix.Path)
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	early := listOf(t, from, l4.SessionFilter{})
	ls.Pool, ls.Unix.Mode = newPool(t, at), 0o660
	gaveUp := l4test.BeginHandOver(t, from, l4.Options{Loops: 1}, ls)
	gaveUp.H.Pause()
	if err := gaveUp.To.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	gaveUp.H.Resume()
	other := l4test.DialUnix(t, ls.Unix.Path)
	if err := ask(other); err != nil {
		t.Errorf("after a hand-over that was given up: %v", err)
	}
	other.Close()
	eventually(t, "one session is left", func() bool { return from.Sessions() == 1 })
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 3}, ls)
	u.Pause(0)
	u.MoveAll(l4.TCP, 1)
	u.Finish()
	now := listOf(t, u.To, l4.SessionFilter{})
	if len(now.Sessions) != 1 || now.Sessions[0].ClientText() != early.Sessions[0].ClientText() {
		t.Errorf("%+v became %+v", early, now)
	}
	for _, c := range []net.Conn{c, l4test.DialUnix(t, ls.Unix.Path)} {
		if err := ask(c); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if file, err := os.Lstat(ls.Unix.Path); err != nil || file.Mode().Perm() != 0o660 {
		t.Errorf("the file is %v, %v", file, err)
	}
	if err := u.To.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(ls.Unix.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the socket: %v", err)
	}
}

// events counts the events of a loop. It is a loop.Part.
type events struct{ atomic.Int64 }

func (e *events) AfterEvents()               {}
func (e *events) OnTime()                    {}
func (e *events) EndTurn(n int)              { e.Add(int64(n)) }
func (e *events) Due() (time.Duration, bool) { return 0, false }
func (e *events) Close()                     {}

// TestHandOverSilent holds that nothing that happens to what was handed over wakes the loops of the process that has
// handed it over, although that lives on for another session.
func TestHandOverSilent(t *testing.T) {
	at, other := backend(t, echo), backend(t, echo)
	answering := startUDP(t, echoUDP)
	specs := func(to ...string) []l4.ListenerSpec {
		udp := flowSpec(newPool(t, answering.Address()))
		udp.Name = "udp"
		return []l4.ListenerSpec{spec(newPool(t, to...)), udp}
	}
	from, err := l4.New(l4.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = from.Shutdown(done(t)) })
	var seen events
	l4test.RoomsOf(from).Loops[0].Attach(&seen)
	if err := from.Apply(l4.Plan{Listeners: specs(at, other)}); err != nil {
		t.Fatal(err)
	}
	from.Start()
	tcp, udp := from.Listeners()[0].Address.String(), from.Listeners()[1].Address.String()
	one, stays, asks := dial(t, tcp), dial(t, tcp), dialUDP(t, udp)
	if err := errors.Join(ask(one), ask(stays)); err != nil {
		t.Fatal(err)
	}
	askUDP(t, asks, "x")
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 1}, specs(at)...)
	u.Pause(1)
	if moved, refused := u.Move(l4.TCP, 10); moved != 1 || refused != 1 {
		t.Fatalf("%d moved, %d refused", moved, refused)
	}
	u.H.Finish()
	before := seen.Load()
	const times = 300 // each is eight events or more
	for range times {
		if err := ask(one); err != nil {
			t.Fatal(err)
		}
		askUDP(t, asks, "x")
		c := dial(t, tcp)
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if n := seen.Load() - before; n > 3 { // messages of Finish
		t.Errorf("%d events of what happens elsewhere", n)
	}
	if err := ask(stays); err != nil {
		t.Error(err)
	}
}

// TestHandOverNamed holds that a client that a PROXY header has named stays that one, and so its backend's header.
func TestHandOverNamed(t *testing.T) {
	headers := make(chan string, 10)
	at := backend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		headers <- line
		_, _ = io.Copy(c, r)
	})
	ls := func() l4.ListenerSpec {
		p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy,
			ConnectTimeout: time.Second, SendProxy: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(pool.Spec{ID: "one", Addr: pool.At(netip.MustParseAddrPort(at)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
		ls := spec(p)
		ls.Proxy = l4.ProxySettings{Versions: l4.ProxyV1, Timeout: time.Minute,
			Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		ls.Limits.ClientSessions = 1
		return ls
	}
	from := start(t, l4.Options{Loops: 2}, ls())
	const header = "PROXY TCP4 192.0.2.1 198.51.100.1 1000 2000\r\n"
	c := dial(t, address(from))
	if _, err := io.WriteString(c, header); err != nil {
		t.Fatal(err)
	}
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	if got := <-headers; got != header {
		t.Errorf("the backend got %q", got)
	}
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, ls())
	u.Pause(0)
	u.MoveAll(l4.TCP, 1)
	u.Finish()
	list := listOf(t, u.To, l4.SessionFilter{})
	if s := list.Sessions[0]; s.Client != netip.MustParseAddrPort("192.0.2.1:1000") || s.Via.String() != c.LocalAddr().String() {
		t.Errorf("%+v", s)
	}
	second := dial(t, address(u.To))
	if _, err := io.WriteString(second, header); err != nil {
		t.Fatal(err)
	}
	if !reset(t, second) {
		t.Error("the client has one session more than it may have")
	}
	c.Close()
	eventually(t, "it has ended", func() bool { return u.To.Sessions() == 0 })
	third := dial(t, address(u.To))
	if _, err := io.WriteString(third, header); err != nil {
		t.Fatal(err)
	}
	if err := ask(third); err != nil {
		t.Error(err)
	}
}

// TestHandOverChain holds that what was taken over is handed over again, reloads between included, also when a listener
// moves and comes back.
func TestHandOverChain(t *testing.T) {
	at := backend(t, echo)
	ls := spec(newPool(t, at))
	server := start(t, l4.Options{Loops: 2}, ls)
	where := address(server)
	before := descriptors(t)
	c := dial(t, where)
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		next := ls
		next.Pool, next.Backlog = newPool(t, at), 10+i
		u := l4test.BeginHandOver(t, server, l4.Options{Loops: 1 + i%3}, next)
		u.Pause(0)
		u.MoveAll(l4.TCP, 1)
		u.Finish()
		server = u.To
		v, err := syscall.GetsockoptInt(l4.BindingOf(server, "test").Sockets[0][0], syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err != nil || v != 1 || address(server) != where {
			t.Errorf("%v, %v: it listens at %s", v, err, address(server))
		}
		next.Backlog = 100
		next.More = []l4.Place{{Address: netip.MustParseAddrPort("127.0.0.1:0")}}
		if err := server.Apply(l4.Plan{Listeners: []l4.ListenerSpec{next}}); err != nil {
			t.Fatal(err)
		}
		next.More = nil
		if err := server.Apply(l4.Plan{Listeners: []l4.ListenerSpec{next}}); err != nil {
			t.Fatal(err)
		}
		other := dial(t, where)
		if err := errors.Join(ask(c), ask(other)); err != nil {
			t.Error(err)
		}
		other.Close()
		eventually(t, "one session is left", func() bool { return server.Sessions() == 1 })
	}
	if n := info(server).Accepted; n != 7 {
		t.Errorf("%d were accepted", n)
	}
	if err := server.Apply(l4.Plan{}); err != nil { // the address is free then
		t.Fatal(err)
	}
	refusedNow, err := net.Dial("tcp", where)
	if err == nil {
		refusedNow.Close()
		t.Error("somebody listens there still")
	}
	c.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before })
}

// TestHandOverInherited holds that sockets which somebody else has opened are handed over, and stay that one's.
func TestHandOverInherited(t *testing.T) {
	at := backend(t, echo)
	where, fds := inheritable(t, 1)
	ls := l4.ListenerSpec{Name: "inherits", Pool: newPool(t, at), Inherited: fds}
	from := start(t, l4.Options{Loops: 2}, ls)
	c := dial(t, where)
	if err := ask(c); err != nil {
		t.Fatal(err)
	}
	ls.Inherited, ls.Address, ls.Pool = nil, netip.MustParseAddrPort(where), newPool(t, at)
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, ls)
	u.Pause(0)
	u.MoveAll(l4.TCP, 1)
	u.Finish()
	if err := errors.Join(ask(c), ask(dial(t, where))); err != nil {
		t.Error(err)
	}
	if err := u.To.Apply(l4.Plan{}); err != nil {
		t.Fatal(err)
	}
	dial(t, where) // whoever has opened it has it still
}
