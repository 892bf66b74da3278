package gate

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// newGate makes a gate with room for so many sessions, and that many local ports, and its listeners of TCP and UDP.
func newGate(t *testing.T, room, ports int64, listeners ...*Sharer) *Gate {
	t.Helper()
	g, _, err := New(Options{Started: time.Now(), Reserve: 32, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	var among []Sharer
	for i, s := range listeners {
		s.Listener = g.NewListener(string(rune('a'+i)), dial.ListenerID(i+1), 1)
		s.Listener.Set(Settings{MaxFlows: 1 << 30})
		among = append(among, *s)
	}
	g.Share(among, 0)
	g.capacity.Store(room)
	g.ports.Store(ports)
	g.portsMost.Store(ports)
	return g
}

// plenty is more than any test here takes.
const plenty = 1 << 20

// someone is a client that is no socket of ours.
func someone() *Client { return &Client{Addr: netip.MustParseAddrPort("192.0.2.1:4000")} }

// TestAdmitSession holds that sessions are admitted up to the limits of their listener and of the process, that one
// that is refused counts nowhere, and that one that leaves makes room for another.
func TestAdmitSession(t *testing.T) {
	for _, tt := range []struct {
		name              string
		listener, process int // limits
		admitted          int
		why               Reason
	}{
		{"no limit", 0, 0, 1000, Admitted},
		{"listener", 3, 0, 3, ListenerFull},
		{"process", 0, 3, 3, ProcessFull},
		{"both, the listener's below", 3, 4, 3, ListenerFull},
		{"both, the process's below", 4, 3, 3, ProcessFull},
		{"one", 1, 1, 1, ListenerFull},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Sharer
			g := newGate(t, plenty, plenty, &s)
			ls := s.Listener
			ls.Set(Settings{MaxSessions: tt.listener})
			g.SetMaxSessions(tt.process)
			if n := g.MaxSessions(); n != tt.process {
				t.Errorf("the limit is %d, want %d", n, tt.process)
			}
			for i := range tt.admitted {
				if why := ls.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
					t.Fatalf("session %d: reason %d", i, why)
				}
			}
			counted := func(n int) {
				t.Helper()
				if ls.Sessions() != n || g.Sessions() != n {
					t.Fatalf("%d sessions of the listener and %d of all, want %d", ls.Sessions(), g.Sessions(), n)
				}
			}
			counted(tt.admitted)
			if tt.why != Admitted {
				for range 3 {
					if why := ls.AdmitSession(someone(), new(Place), false, 0); why != tt.why {
						t.Errorf("one too many: reason %d, want %d", why, tt.why)
					}
				}
				counted(tt.admitted)
			}
			ls.LeaveSession(0, netip.Addr{})
			counted(tt.admitted - 1)
			if why := ls.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
				t.Errorf("after one has left: reason %d", why)
			}
			for range tt.admitted {
				ls.LeaveSession(0, netip.Addr{})
			}
			counted(0)
		})
	}
}

// TestSessionsOfTwoListeners holds that a listener's limit is its own, and the process's is all listeners'.
func TestSessionsOfTwoListeners(t *testing.T) {
	var a, b Sharer
	g := newGate(t, plenty, plenty, &a, &b)
	a.Listener.Set(Settings{MaxSessions: 2})
	g.SetMaxSessions(3)
	for i, tt := range []struct {
		at   *Listener
		want Reason
	}{
		{a.Listener, Admitted}, {a.Listener, Admitted}, {a.Listener, ListenerFull}, {b.Listener, Admitted},
		{b.Listener, ProcessFull}, {a.Listener, ListenerFull},
	} {
		if why := tt.at.AdmitSession(someone(), new(Place), false, 0); why != tt.want {
			t.Errorf("%d: reason %d, want %d", i, why, tt.want)
		}
	}
	g.SetMaxSessions(1) // those that are there stay
	if g.Sessions() != 3 || b.Listener.AdmitSession(someone(), new(Place), false, 0) != ProcessFull {
		t.Errorf("with a lower limit: %d sessions", g.Sessions())
	}
	a.Listener.Set(Settings{}) // from now on
	g.SetMaxSessions(0)
	if why := a.Listener.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
		t.Errorf("without limits: reason %d", why)
	}
}

// TestRoom holds that there is room for a session while there are two descriptors for it, whatever sessions and flows
// the others went to. Room does not count.
func TestRoom(t *testing.T) {
	a, b := Sharer{Protocol: sock.TCP}, Sharer{Protocol: sock.UDP}
	g := newGate(t, 12, plenty, &a, &b) // 24 descriptors, of which 6 are promised: 3 to each listener
	flows := b.Listener.NewFlows()
	var place FlowPlace
	for range 7 {
		if why := enter(flows, &place, someone().Addr.Addr(), 0); why != Admitted {
			t.Fatalf("reason %d", why)
		}
		flows.Answered(&place)
	}
	for i := range 8 {
		for range 2 {
			if !a.Listener.Room() {
				t.Fatalf("no room for session %d", i)
			}
		}
		if why := a.Listener.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
			t.Fatalf("reason %d", why)
		}
	}
	if n := g.descriptorsLeft(); n != 1 || a.Listener.Room() || b.Listener.Room() {
		t.Errorf("%d descriptors are left, and room for a session is %v", n, a.Listener.Room())
	}
	a.Listener.LeaveSession(0, netip.Addr{})
	if !a.Listener.Room() {
		t.Error("no room after a session has left")
	}
}

// TestReasons holds that each reason to refuse a session has the end of a session, each to refuse a datagram the drop
// of one, and that one which does not occur there has none.
func TestReasons(t *testing.T) {
	for _, tt := range []struct {
		why  Reason
		end  tally.Reason
		drop tally.Drop
	}{
		{Admitted, tally.NoReason, tally.NoDrop},
		{ListenerFull, tally.MaxSessions, tally.DropTableFull},
		{ProcessFull, tally.MaxSessions, tally.NoDrop}, // of sessions alone
		{ClientFull, tally.ClientSessions, tally.DropClientLimit},
		{ClientOften, tally.ClientRate, tally.DropClientRate},
		{Often, tally.Rate, tally.DropRate},
		{Denied, tally.Denied, tally.DropDenied},
		{QuestionsFull, tally.NoReason, tally.DropQueueFull}, // of questions alone
		{NoDescriptors, tally.NoDescriptors, tally.DropNoDescriptors},
		{Loop, tally.Loop, tally.DropLoop},
	} {
		if end, drop := tt.why.Ends(), tt.why.Drops(); end != tt.end || drop != tt.drop {
			t.Errorf("reason %d: a session's end is %v and a datagram's drop %v, want %v and %v",
				tt.why, end, drop, tt.end, tt.drop)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("there is a reason after Loop, which this test does not know")
		}
	}()
	(Loop + 1).Ends()
}

// ownSocket connects a socket by the gate's chains to a listener of this process, for a client of the listener by, and
// returns its address.
func ownSocket(t *testing.T, g *Gate, p sock.Protocol, by dial.ListenerID) netip.AddrPort {
	t.Helper()
	var at netip.AddrPort
	if p == sock.TCP {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		at = l.Addr().(*net.TCPAddr).AddrPort()
	} else {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		at = c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	g.Chains.Listen([]dial.Address{{Protocol: p, At: at}})
	var link *dial.Link
	lease := leaseOf(t, at)
	fd, e := dial.NewDialer(&g.Chains).Dial(0, p, lease.pool, lease.Backend(), dial.Client{By: by, Link: &link})
	if e != 0 && e != sock.InProgress {
		t.Fatal(e)
	}
	t.Cleanup(func() {
		g.Chains.Forget(link)
		sock.Close(fd)
	})
	from, err := sock.LocalAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// TestAdmitNamed holds that a session is counted once, whoever is named as its client, and stays so at a limit.
func TestAdmitNamed(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("a", 1, 1)
	ls.Set(Settings{MaxSessions: 1})
	if why := ls.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
		t.Fatal(why)
	}
	if why := ls.AdmitNamed(netip.MustParseAddrPort("[2001:db8::7]:4711"), new(Place), 0); why != Admitted || g.Sessions() != 1 {
		t.Errorf("reason %d, %d sessions", why, g.Sessions())
	}
	ls.LeaveSession(0, netip.Addr{})
	if n := g.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A poolLease is a lease, and the pool that it is of.
type poolLease struct {
	pool.Lease
	pool *pool.Pool
}

// leaseOf returns a lease on a backend at an address.
func leaseOf(t *testing.T, at netip.AddrPort) poolLease {
	t.Helper()
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy})
	if err == nil {
		err = p.Add(pool.Spec{ID: "b", Addr: pool.At(at), Weight: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	lease, err := p.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lease.Release(pool.Neutral) })
	return poolLease{lease, p}
}

// TestLoopsAreRefused holds that a client which has come by a listener before is refused there, whatever it wants, and
// admitted at another listener, which then knows where it has come from. A session that comes back counts, until it
// leaves.
func TestLoopsAreRefused(t *testing.T) {
	var log bytes.Buffer
	g := newGate(t, plenty, plenty)
	g.log = zerolog.New(&log)
	a, b := g.NewListener("a", 1, 1), g.NewListener("b", 2, 1)
	for _, ls := range []*Listener{a, b} {
		ls.Set(Settings{Pool: "web", MaxFlows: 10})
	}
	g.Share([]Sharer{{Listener: a, Protocol: sock.UDP}, {Listener: b, Protocol: sock.UDP}}, 0)
	admit := map[string]func(ls *Listener, c *Client) Reason{
		"session": func(ls *Listener, c *Client) Reason { return ls.AdmitSession(c, new(Place), false, 0) },
		"flow": func(ls *Listener, c *Client) Reason {
			f := ls.NewFlows()
			if why := f.Admit(new(FlowPlace), c, 0); why != Admitted {
				return why
			}
			return f.Enter(0)
		},
		"question": func(ls *Listener, c *Client) Reason { return ls.NewQuestions().Admit(c, 0) },
	}
	for what, f := range admit {
		p := sock.UDP
		if what == "session" {
			p = sock.TCP
		}
		c := Client{Addr: ownSocket(t, g, p, a.ID)}
		if why := f(a, &c); why != Loop || c.From != nil {
			t.Errorf("%s: it came back for reason %d, from %v", what, why, c.From)
		}
		if why := f(b, &c); why != Admitted || c.From == nil {
			t.Errorf("%s: it came to another listener for reason %d, from %v", what, why, c.From)
		}
		other := Client{Addr: c.Addr}
		if p == sock.TCP { // the same address and port, of another protocol, is somebody else
			if why := b.NewFlows().Admit(new(FlowPlace), &other, 0); why != Admitted || other.From != nil {
				t.Errorf("%s: the client of another protocol for reason %d, from %v", what, why, other.From)
			}
		}
	}
	if a.Sessions() != 1 || a.Flows() != 0 || b.Sessions() != 1 || b.Flows() != 1 {
		t.Errorf("at a %d sessions and %d flows, at b %d and %d", a.Sessions(), a.Flows(), b.Sessions(), b.Flows())
	}
	if n := strings.Count(log.String(), "clients refused that come from this listener"); n != 1 ||
		!strings.Contains(log.String(), `"listener":"a"`) || !strings.Contains(log.String(), `"pool":"web"`) {
		t.Errorf("the log is %s", &log)
	}
}

// TestRefusalsAreLogged holds that the first refusal at a limit is logged at once, those that follow with the next
// line, and none twice.
func TestRefusalsAreLogged(t *testing.T) {
	var log bytes.Buffer
	g := newGate(t, plenty, plenty)
	g.log = zerolog.New(&log)
	ls := g.NewListener("web", 1, 2)
	refuse := func() { ls.NoteRefusal(ListenerFull, netip.MustParseAddr("192.0.2.1")) }
	want := func(what, line string) {
		t.Helper()
		got := log.String()
		if line == "" && got != "" || !strings.Contains(got, line) || strings.Count(got, "\n") > 1 {
			t.Errorf("%s: the log is %q, want %q", what, got, line)
		}
		log.Reset()
	}
	ls.NoteRefusals()
	want("before the first", "")
	refuse()
	want("the first", `"client":"192.0.2.1","refused":1,"refused_since_start":1,"event":"clients_refused","message":"clients refused at max_sessions"`)
	refuse()
	refuse()
	want("two more at once", "")
	g.started = g.started.Add(-noteEvery)
	refuse()
	want("another one later", `"refused":3,"refused_since_start":4`)
	refuse()
	want("one right after", "")
	ls.NoteRefusals()
	want("at the end", `"refused":1,"refused_since_start":5`)
	ls.NoteRefusals()
	want("after the end", "")
}

// TestDrain holds that a drain is over when the last session and the last flow have left, and at once if there is none.
func TestDrain(t *testing.T) {
	over := func(empty <-chan struct{}) bool {
		select {
		case <-empty:
			return true
		default:
			return false
		}
	}
	if g := newGate(t, plenty, plenty); !over(g.Drain()) {
		t.Error("an empty gate drains")
	}
	for _, flowLast := range []bool{false, true} {
		s := Sharer{Protocol: sock.UDP}
		g := newGate(t, plenty, plenty, &s)
		flows := s.Listener.NewFlows()
		var place FlowPlace
		if why := enter(flows, &place, someone().Addr.Addr(), 0); why != Admitted {
			t.Fatalf("reason %d", why)
		}
		if why := s.Listener.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
			t.Fatalf("reason %d", why)
		}
		leave := []func(){
			func() { flows.Leave(&place, someone().Addr.Addr()) },
			func() { s.Listener.LeaveSession(0, netip.Addr{}) },
		}
		if flowLast {
			leave[0], leave[1] = leave[1], leave[0]
		}
		empty := g.Drain()
		for i, f := range leave {
			if over(empty) {
				t.Errorf("it is over when %d of 2 have left", i)
			}
			f()
		}
		if !over(empty) || !over(g.Drain()) {
			t.Error("it is not over when both have left")
		}
	}
}
