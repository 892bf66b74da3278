package dial_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// sourced makes a pool of healthy backends whose connections come from these addresses.
func sourced(t *testing.T, sources []string, addrs ...string) *pool.Pool {
	t.Helper()
	p := newPool(t, addrs...)
	setSource(t, p, sources...)
	return p
}

// setSource changes where the connections of a pool come from.
func setSource(t *testing.T, p *pool.Pool, sources ...string) {
	t.Helper()
	o := pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
	}
	for _, s := range sources {
		o.Source = append(o.Source, netip.MustParseAddr(s))
	}
	if err := p.Reconfigure(o); err != nil {
		t.Fatal(err)
	}
}

// peers counts the addresses that clients come from.
type peers struct {
	mu    sync.Mutex
	count map[string]int
}

func (p *peers) note(at net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == nil {
		p.count = make(map[string]int)
	}
	p.count[netip.MustParseAddrPort(at.String()).Addr().String()]++
}

// want wants so many clients from each of these addresses, and none from elsewhere.
func (p *peers) want(t *testing.T, each int, addrs ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		if p.count[a] != each {
			t.Errorf("%d come from %s, want %d: %v", p.count[a], a, each, p.count)
		}
	}
	if len(p.count) != len(addrs) {
		t.Errorf("they come from %v, want %v", p.count, addrs)
	}
}

// noting is an echo server that notes where its clients come from.
func (p *peers) noting(c *net.TCPConn) {
	p.note(c.RemoteAddr())
	echo(c)
}

// wantNothingSaid wants that nothing was held against the backends.
func wantNothingSaid(t *testing.T, p *pool.Pool) {
	t.Helper()
	for _, b := range p.Backends() {
		for o, n := range b.Outcomes {
			if o := pool.Outcome(o); n > 0 && o != pool.Neutral && o != pool.Served {
				t.Errorf("%s: %v was said %d times", b.ID, o, n)
			}
		}
	}
}

// TestSourcesTakeTurns holds that sessions to each backend come from each source alike, though the backends take turns
// too.
func TestSourcesTakeTurns(t *testing.T) {
	var first, second peers
	sources := []string{"127.0.0.2", "127.0.0.3", "::1"} // the last one is of no use here
	p := sourced(t, sources, backend(t, first.noting), backend(t, second.noting))
	s := start(t, l4.Options{Loops: 2}, spec(p))
	for range 8 {
		if err := ask(dial(t, l4test.Address(s))); err != nil {
			t.Fatal(err)
		}
	}
	first.want(t, 2, sources[:2]...)
	second.want(t, 2, sources[:2]...)
}

// TestSourceNotHere holds that an address which this host does not have is passed over; that clients are refused with
// a reason of its own when there is no other, which says nothing about the backend; and that it is used as soon as it
// is there.
func TestSourceNotHere(t *testing.T) {
	var from peers
	p := sourced(t, []string{"192.0.2.1", "127.0.0.2"}, backend(t, from.noting))
	s := start(t, l4.Options{Loops: 1}, spec(p))
	for range 4 {
		if err := ask(dial(t, l4test.Address(s))); err != nil {
			t.Fatal(err)
		}
	}
	from.want(t, 4, "127.0.0.2")

	for _, none := range []string{"192.0.2.1", "2001:db8::1", "::1"} {
		t.Run(none, func(t *testing.T) {
			p := sourced(t, []string{none}, backend(t, echo), backend(t, echo))
			capture, log := l4test.NewCapture()
			s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
			for range 3 {
				if !refusedWithReset(t, l4test.Address(s)) {
					t.Error("a client got an orderly end")
				}
			}
			eventually(t, "they are counted", func() bool { return l4test.Info(s).Ended[tally.NoSource] == 3 })
			line := string(l4test.Line(t, capture))
			if !strings.Contains(line, `"reason":"no_source","err":"the source address cannot be used"`) {
				t.Errorf("the access line is %s", line)
			}
			wantNothingSaid(t, p)
			if none == "192.0.2.1" {
				setSource(t, p, "127.0.0.3")
				if err := ask(dial(t, l4test.Address(s))); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestSourceOfFlows holds of flows what the tests above do of sessions.
func TestSourceOfFlows(t *testing.T) {
	var from peers
	b := l4test.StartUDP(t, func(b *l4test.UDPBackend, client netip.AddrPort, datagram []byte) {
		from.note(net.UDPAddrFromAddrPort(client))
		l4test.EchoUDP(b, client, datagram)
	})
	sources := []string{"127.0.0.2", "192.0.2.1", "127.0.0.3"}
	s := start(t, l4.Options{Loops: 1}, flowSpec(sourced(t, sources, b.Address())))
	for range 6 { // a turn of the address that is not there goes to the next one
		l4test.AskUDP(t, dialUDP(t, l4test.Address(s)), "x")
	}
	from.mu.Lock()
	if from.count["127.0.0.2"] != 2 || from.count["127.0.0.3"] != 4 {
		t.Errorf("the flows come from %v", from.count)
	}
	from.mu.Unlock()

	p := sourced(t, []string{"192.0.2.1"}, b.Address())
	s = start(t, l4.Options{Loops: 1}, flowSpec(p))
	for range 3 {
		if _, err := dialUDP(t, l4test.Address(s)).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	l4test.AwaitDropped(t, s, tally.DropNoSource, 3)
	wantNothingSaid(t, p)
}

// TestSourceOfQuestions holds of DNS questions that they come from the source, and that without one clients get
// SERVFAIL.
func TestSourceOfQuestions(t *testing.T) {
	l4test.EitherWay(t, func(t *testing.T, make func(*pool.Pool) l4.ListenerSpec) {
		var from peers
		b := l4test.StartUDP(t, func(b *l4test.UDPBackend, client netip.AddrPort, datagram []byte) {
			from.note(net.UDPAddrFromAddrPort(client))
			l4test.Answering(t, 60)(b, client, datagram)
		})
		s := start(t, l4.Options{Loops: 1}, make(sourced(t, []string{"127.0.0.2"}, b.Address())))
		c := dialUDP(t, l4test.Address(s))
		question := l4test.DNSQuery(t, 7, l4test.NameOf(0), dns.TypeA)
		l4test.WantAddress(t, l4test.Exchange(t, c, question), 7, l4test.NameOf(0))
		from.want(t, 1, "127.0.0.2")

		p := sourced(t, []string{"192.0.2.1"}, b.Address())
		s = start(t, l4.Options{Loops: 1}, make(p))
		c = dialUDP(t, l4test.Address(s))
		question = l4test.DNSQuery(t, 8, l4test.NameOf(1), dns.TypeA)
		l4test.WantCode(t, l4test.Exchange(t, c, question), 8, dns.RcodeServerFailure)
		wantNothingSaid(t, p)
	})
}

// TestLoopWithSource holds that a session which comes back to its listener is refused there, whatever its source is.
func TestLoopWithSource(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			specs := looped(t, way.listeners, spec, netip.MustParseAddr(way.at))
			for _, one := range specs {
				setSource(t, one.Pool, "127.0.0.9")
			}
			s := start(t, l4.Options{Loops: 2, MaxSessions: 500}, specs...)
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), specs[0].Address.Port())
			if !refusedWithReset(t, at.String()) {
				t.Error("the client got an orderly end")
			}
			eventually(t, "all sessions are over", func() bool { return s.Sessions() == 0 })
			refused := uint64(0)
			for _, ls := range s.Listeners() {
				refused += ls.Ended[tally.Loop]
			}
			if refused != 1 {
				t.Errorf("%d sessions were refused as loops, want 1", refused)
			}
		})
	}
}
