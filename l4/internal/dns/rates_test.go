package dns_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/rate"
)

// TestQuestionRates holds that a client asks no more questions than its rate allows, from the cache or not, that others
// are not concerned, and that it is told so only if the listener tells.
func TestQuestionRates(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, over := range []l4.Over{l4.OverReset, l4.OverTell} {
			b := startUDP(t, answering(t, 60))
			ls := spec(newPool(t, b.Address()))
			ls.Limits = l4.Limits{ClientRate: rate.Limit{Every: time.Hour, Burst: 3}, Over: over}
			s := start(t, l4.Options{Loops: 2}, ls)
			c := dialUDP(t, address(s))
			for id := range uint16(3) {
				name := nameOf(int(id) % 2) // the last one is in the cache
				wantAddress(t, exchange(t, c, dnsQuery(t, id, name, dns.TypeA)), id, name)
			}
			query := dnsQuery(t, 7, nameOf(0), dns.TypeA)
			if over == l4.OverTell {
				wantCode(t, exchange(t, c, query), 7, dns.RcodeRefused)
			} else if _, err := c.Write(query); err != nil {
				t.Fatal(err)
			}
			l4test.AwaitDropped(t, s, dropNamed(t, "client_rate"), 1)
			other := l4test.DialUDPFrom(t, "127.0.0.9", address(s))
			wantAddress(t, exchange(t, other, dnsQuery(t, 8, nameOf(0), dns.TypeA)), 8, nameOf(0))
		}
	})
}

// dropNamed is the drop of a name.
func dropNamed(t *testing.T, name string) l4.Drop {
	t.Helper()
	for _, d := range l4.Drops() {
		if d.String() == name {
			return d
		}
	}
	t.Fatalf("no drop %q", name)
	return 0
}

// TestQuestionRatesOfSessions holds that a connection counts once at the rate, with its first question, and each further
// question again; and that one that is too many gets REFUSED, and the connection goes on.
func TestQuestionRatesOfSessions(t *testing.T) {
	ls := talkSpec(newPool(t, startAnswering(t).address))
	ls.Limits.ClientRate = rate.Limit{Every: time.Hour, Burst: 4}
	s := start(t, l4.Options{Loops: 2}, ls)
	ask := func(c interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}, id uint16) *dns.Msg {
		if _, err := c.Write(framed(dnsQuery(t, id, nameOf(1), dns.TypeA))); err != nil {
			t.Fatal(err)
		}
		m, err := readFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		return dnsUnpack(t, m)
	}
	first, second := dial(t, address(s)), dial(t, address(s))
	wantAddress(t, ask(first, 1), 1, nameOf(1))
	wantAddress(t, ask(first, 2), 2, nameOf(1))
	wantAddress(t, ask(second, 3), 3, nameOf(1))
	wantAddress(t, ask(second, 4), 4, nameOf(1))
	wantCode(t, ask(second, 5), 5, dns.RcodeRefused)
	wantCode(t, ask(first, 6), 6, dns.RcodeRefused)
	if n := s.Sessions(); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

// TestQuestionAccess holds that a client which may not come in gets no answer, and another one does.
func TestQuestionAccess(t *testing.T) {
	b := startUDP(t, answering(t, 60))
	ls := dnsSpec(newPool(t, b.Address()))
	ls.Access = l4.NewAccessList(false)
	ls.Access.Deny(netip.MustParsePrefix("127.0.0.1/32"))
	s := start(t, l4.Options{Loops: 1}, ls)
	if _, err := dialUDP(t, address(s)).Write(dnsQuery(t, 1, nameOf(1), dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	l4test.AwaitDropped(t, s, dropNamed(t, "denied"), 1)
	other := l4test.DialUDPFrom(t, "127.0.0.9", address(s))
	wantAddress(t, exchange(t, other, dnsQuery(t, 8, nameOf(0), dns.TypeA)), 8, nameOf(0))
}
