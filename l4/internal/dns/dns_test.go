package dns_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestDNSServer holds that clients have the answers that a real server gives, by a few sockets and no flow, and that with a cache the
// second client is answered without it.
func TestDNSServer(t *testing.T) {
	server := harness.StartDNS(t)
	server.SetZone(t, "www 300 A 192.0.2.1\nwww 300 AAAA 2001:db8::1\nalias 300 CNAME www\nmail 300 MX 10 www\n"+kept("text", 300))
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		ls := spec(newPool(t, server.Address))
		cached := ls.DNS.Cache.MaxEntries > 0
		s := start(t, l4.Options{Loops: 2}, ls)
		c := dialUDP(t, address(s))
		questions := 0
		for _, q := range []struct {
			name string
			typ  uint16
		}{
			{"www", dns.TypeA}, {"WWW", dns.TypeAAAA}, {"alias", dns.TypeA}, {"mail", dns.TypeMX}, {"text", dns.TypeTXT},
			{"nothing", dns.TypeA}, {"www", dns.TypeTXT},
		} {
			name := q.name + "." + harness.DNSZone
			want, err := dns.Exchange(new(dns.Msg).SetQuestion(name, q.typ), server.Address)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				questions++
				want.Id = uint16(questions)
				got := exchange(t, c, dnsQuery(t, want.Id, name, q.typ))
				if got.String() != want.String() {
					t.Errorf("want\n%v\ngot\n%v", want, got)
				}
			}
		}
		got := dnsInfo(s)
		asked := uint64(questions)
		if cached {
			asked-- // the text
			if got.Cache.Hit != 1 || got.Cache.Miss != asked {
				t.Errorf("%+v", got.Cache)
			}
		}
		if got.Asked != asked || got.Answered != asked || got.InFlight != 0 || got.Sockets != 1 || got.Mismatched != 0 {
			t.Errorf("%d questions: %+v", questions, got)
		}
		li := info(s)
		if s.Flows() != 0 || li.DatagramsIn != uint64(questions) || li.DatagramsOut != uint64(questions) || len(li.Dropped) != 0 {
			t.Errorf("%+v", li)
		}
		b := firstPool(s).Backends()[0]
		if b.Outcomes[pool.Served] != asked || b.Leases != 0 || b.BytesOut == 0 || li.FirstByteTime.Count != asked {
			t.Errorf("%+v", b)
		}
	})
}

// kept is a record of NSD's that may be kept: with each answer that leaves room NSD also gives the zone's name servers, which
// the harness has with a TTL of 0. This one leaves none, of 512 bytes.
func kept(name string, ttl int) string {
	return fmt.Sprintf("%s %d TXT %s %s\n", name, ttl, strings.Repeat("x", 233), strings.Repeat("y", 233))
}

// TestDNSCoalesces holds that 10,000 clients that ask one cold name cost one question, and that each has its answer: on
// whichever loop, with its id and its spelling.
func TestDNSCoalesces(t *testing.T) {
	const sockets, each = 100, 100
	held, hold := holding(sockets * each)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 2}, dnsSpec(newPool(t, b.Address())))
	spelling := []string{"www.example.com.", "WWW.example.COM."}
	var clients []*net.UDPConn
	for range sockets {
		c := dialUDP(t, address(s))
		clients = append(clients, c)
		for id := range each {
			if _, err := c.Write(dnsQuery(t, uint16(id), spelling[id%2], dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		n := len(clients) * each
		eventually(t, "all wait", func() bool { return dnsInfo(s).Cache.Waiting == n })
	}
	one := <-held
	if dnsInfo(s).InFlight != 1 || info(s).DNS.Asked != 1 {
		t.Fatalf("%+v", dnsInfo(s))
	}
	answer(t, b, one)
	for _, c := range clients {
		got := make(map[uint16]bool)
		err := collect(c, each, func(m []byte) error {
			id := idOfMessage(m)
			wantAddress(t, dnsUnpack(t, m), id, spelling[id%2])
			got[id] = true
			return nil
		})
		if err != nil || len(got) != each {
			t.Fatalf("%d different answers; %v", len(got), err)
		}
	}
	if info := dnsInfo(s); info.Cache.Coalesced != sockets*each-1 || info.Cache.Waiting != 0 || info.Asked != 1 {
		t.Errorf("%+v", info)
	}
	if got := b.Got.Load(); got != 1 {
		t.Errorf("%d questions came to the backend", got)
	}
}

// TestDNSStale holds that clients have an expired answer when the backend is gone: at once when the kernel says so, and that a backend that
// comes back is asked again.
func TestDNSStale(t *testing.T) {
	server := harness.StartDNS(t)
	server.SetZone(t, kept("text", 1))
	spec := dnsSpec(newPool(t, server.Address))
	spec.DNS.Cache.StaleTTL = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "text."+harness.DNSZone, dns.TypeTXT)
	if m := exchange(t, c, query); m.Answer[0].Header().Ttl != 1 {
		t.Fatalf("%v", m)
	}
	server.Stop(t)
	const staleTTL = 30 // seconds, RFC 8767, 4
	eventually(t, "the answer has expired", func() bool { return exchange(t, c, query).Answer[0].Header().Ttl == staleTTL })
	info := dnsInfo(s)
	if info.Cache.Stale == 0 || info.Unreachable == 0 || info.Failed == 0 {
		t.Errorf("%+v", info)
	}
	if o := firstPool(s).Backends()[0].Outcomes; o[pool.ConnectRefused] != info.Unreachable {
		t.Errorf("%v", o)
	}
	if m := exchange(t, c, dnsQuery(t, 2, "unknown."+harness.DNSZone, dns.TypeA)); m.Id != 2 || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
	server.Restart(t)
	if m := exchange(t, c, dnsQuery(t, 3, "ns."+harness.DNSZone, dns.TypeA)); m.Rcode != dns.RcodeSuccess {
		t.Errorf("%v", m)
	}
}

// TestDNSLate holds that clients have an expired answer when the backend is late, and that its late answer is taken.
func TestDNSLate(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	spec := dnsSpec(newPool(t, b.Address()))
	spec.DNS.Cache.StaleTTL = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	const name = "www.example.com."
	ask := func(id uint16) *dns.Msg { return exchange(t, c, dnsQuery(t, id, name, dns.TypeA)) }
	if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	one := <-held
	answering(t, 1)(b, one.from, one.query)
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, name)
	var again askedOnce
	eventually(t, "the answer has expired, and a backend is asked", func() bool {
		wantAddress(t, ask(2), 2, name)
		select {
		case again = <-held:
			return true
		default:
			return false
		}
	})
	info := dnsInfo(s)
	if info.Cache.Stale == 0 || info.InFlight != 1 || info.Failed != 0 {
		t.Errorf("%+v", info)
	}
	answer(t, b, again)
	eventually(t, "it has answered", func() bool { return dnsInfo(s).InFlight == 0 })
	m := ask(3)
	wantAddress(t, m, 3, name)
	if ttl := m.Answer[0].Header().Ttl; ttl < 40 || ttl > 60 {
		t.Errorf("the late answer has a TTL of %d", ttl)
	}
	if n := b.Got.Load(); n != 2 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// TestDNSShutdownDoesNotWait holds that a question which nobody waits for holds no shut down up, and that its lease is given back.
func TestDNSShutdownDoesNotWait(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	spec := dnsSpec(newPool(t, b.Address()))
	spec.DNS.Cache.StaleTTL = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	const name = "www.example.com."
	query := dnsQuery(t, 1, name, dns.TypeA)
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	one := <-held
	answering(t, 1)(b, one.from, one.query)
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, name)
	for len(held) == 0 { // until it has expired, and the client has waited for long enough
		wantAddress(t, exchange(t, c, query), 1, name)
	}
	if info := dnsInfo(s); info.InFlight != 1 || info.Cache.Waiting != 0 {
		t.Errorf("%+v", info)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
		t.Errorf("%d leases", leases)
	}
}

// TestDNSRetriesAreBounded holds that no more backends are asked than retries allow.
func TestDNSRetriesAreBounded(t *testing.T) {
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort(refusing(t)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, dnsSpec(p))
	wantCode(t, exchange(t, dialUDP(t, address(s)), dnsQuery(t, 1, "www.example.com.", dns.TypeA)), 1, dns.RcodeServerFailure)
	if info := dnsInfo(s); info.Asked != 2 || info.Unreachable != 2 || info.Failed != 1 {
		t.Errorf("%+v", info)
	}
}

// TestDNSRetries holds that another backend is asked when one is silent or refuses, that the pool is told, and that clients
// are told when none answers.
func TestDNSRetries(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, tc := range []struct {
			name    string
			first   func(t testing.TB) string
			outcome pool.Outcome
			asked   uint64 // in all: by one that is alone again, if it may not have heard
		}{
			{"silent", func(t testing.TB) string { return startUDP(t, nil).Address() }, pool.NoAnswer, 4},
			{"refusing", refusing, pool.ConnectRefused, 3},
		} {
			t.Run(tc.name, func(t *testing.T) {
				p, err := pool.New(pool.Options{Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 1})
				if err != nil {
					t.Fatal(err)
				}
				good := startUDP(t, answering(t, 60))
				for i, a := range []string{tc.first(t), good.Address()} {
					if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort(a), Weight: 1}); err != nil {
						t.Fatal(err)
					}
				}
				ls := spec(p)
				setDNSTimeout(ls.DNS, time.Second)
				s := start(t, l4.Options{Loops: 1}, ls)
				c := dialUDP(t, address(s))
				wantAddress(t, exchange(t, c, dnsQuery(t, 7, "www.example.com.", dns.TypeA)), 7, "www.example.com.")
				bs := p.Backends()
				if bs[0].Outcomes[tc.outcome] != 1 || bs[1].Outcomes[pool.Served] != 1 || bs[0].Leases+bs[1].Leases != 0 {
					t.Errorf("%+v", bs)
				}
				if info := dnsInfo(s); info.Asked != 2 || info.TimedOut+info.Unreachable != 1 || info.Answered != 1 || info.Failed != 0 {
					t.Errorf("%+v", info)
				}
				if err := p.Remove("1"); err != nil {
					t.Fatal(err)
				}
				wantCode(t, exchange(t, c, dnsQuery(t, 8, "mail.example.com.", dns.TypeA)), 8, dns.RcodeServerFailure)
				if err := p.Remove("0"); err != nil {
					t.Fatal(err)
				}
				wantCode(t, exchange(t, c, dnsQuery(t, 9, "none.example.com.", dns.TypeA)), 9, dns.RcodeServerFailure)
				if info := dnsInfo(s); info.Asked != tc.asked || info.Failed != 2 || info.InFlight != 0 {
					t.Errorf("%+v", info)
				}
			})
		}
	})
}

// TestDNSLost holds that a lone backend is asked once more when nothing comes back.
func TestDNSLost(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		answer, asked := answering(t, 60), 0
		b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
			if asked++; asked > 1 {
				answer(b, from, query)
			}
		})
		ls := spec(newPool(t, b.Address()))
		setDNSTimeout(ls.DNS, time.Second)
		s := start(t, l4.Options{Loops: 1}, ls)
		wantAddress(t, exchange(t, dialUDP(t, address(s)), dnsQuery(t, 7, "www.example.com.", dns.TypeA)), 7, "www.example.com.")
		if info := dnsInfo(s); info.Asked != 2 || info.TimedOut != 1 || info.Answered != 1 || info.Failed != 0 {
			t.Errorf("%+v", info)
		}
	})
}

// TestDNSLeastTime holds that the pool learns how long answers take.
func TestDNSLeastTime(t *testing.T) {
	quick := startUDP(t, answering(t, 0))
	slow := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		query = append([]byte(nil), query...)
		time.AfterFunc(200*time.Millisecond, func() { answering(t, 0)(b, from, query) })
	})
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "least_time", Initial: pool.Healthy})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []*l4test.UDPBackend{slow, quick} {
		if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort(b.Address()), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, dnsSpec(p))
	c := dialUDP(t, address(s))
	for i := range uint16(30) {
		wantAddress(t, exchange(t, c, dnsQuery(t, i, "www.example.com.", dns.TypeA)), i, "www.example.com.")
	}
	if slow, quick := slow.Got.Load(), quick.Got.Load(); slow == 0 || quick < 4*slow {
		t.Errorf("%d questions to the slow backend, %d to the quick one", slow, quick)
	}
}

// TestDNSForgeries holds that an answer is believed from the backend that was asked alone, and with the id and the question that
// it was asked with.
func TestDNSForgeries(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b, stranger := startUDP(t, hold), startUDP(t, nil)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		one := <-held
		forged := func(change func(*dns.Msg)) *dns.Msg {
			m, err := dnsAnswer(one.query, 60)
			if err != nil {
				t.Fatal(err)
			}
			m.Answer[0].(*dns.A).A = net.IPv4(6, 6, 6, 6)
			change(m)
			return m
		}
		sendDNS(t, stranger, one.from, forged(func(*dns.Msg) {}))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Id++ }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Question[0].Name = "other.example.com." }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }))
		sendDNS(t, b, one.from, forged(func(m *dns.Msg) { m.Response = false }))
		if _, err := b.WriteToUDPAddrPort([]byte("x"), one.from); err != nil {
			t.Fatal(err)
		}
		answer(t, b, one)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
		answer(t, b, one) // again, and nobody waits
		eventually(t, "all forgeries are counted", func() bool { return dnsInfo(s).Mismatched == 6 })
		if got := dnsInfo(s); got.Answered != 1 || info(s).DatagramsOut != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestManyDNSQuestions holds that 20,000 questions are in flight at once over the sockets that are allowed, and each has its answer.
func TestManyDNSQuestions(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		const clients, each, loops = 100, 200, 2 // what a client waits for fits the smallest buffer
		held, hold := holding(clients * each)
		b := startUDP(t, hold)
		ls := spec(newPool(t, b.Address()))
		setDNSTimeout(ls.DNS, time.Minute)
		s := start(t, l4.Options{Loops: loops}, ls)
		name := func(client int, id uint16) string { return fmt.Sprintf("name-%d-%d.example.com.", client, id) }
		var conns []*net.UDPConn
		for i := range clients {
			c := dialUDP(t, address(s))
			conns = append(conns, c)
			for id := range uint16(each) {
				if _, err := c.Write(dnsQuery(t, id, name(i, id), dns.TypeA)); err != nil {
					t.Fatal(err)
				}
			}
			n := int64(len(conns) * each)
			eventually(t, "the backend has them", func() bool { return b.Got.Load() == n })
		}
		info := dnsInfo(s)
		if info.InFlight != clients*each || info.Asked != clients*each {
			t.Fatalf("%+v", info)
		}
		if limit := 2 * loops * room.DefaultSockets; info.Sockets <= loops || info.Sockets > limit {
			t.Errorf("%d sockets, at most %d are allowed", info.Sockets, limit)
		}
		var reading sync.WaitGroup
		for i, c := range conns {
			reading.Go(func() {
				got := make(map[uint16]bool)
				err := collect(c, each, func(wire []byte) error {
					m := new(dns.Msg)
					if err := m.Unpack(wire); err != nil {
						return err
					}
					if want := name(i, m.Id); m.Question[0].Name != want || !m.Answer[0].(*dns.A).A.Equal(addressOf(want)) {
						return fmt.Errorf("asked for %s, got %v", want, m)
					}
					got[m.Id] = true
					return nil
				})
				if err != nil || len(got) != each {
					t.Errorf("client %d has %d answers: %v", i, len(got), err)
				}
			})
		}
		for i := range uint64(clients * each) {
			answer(t, b, <-held)
			if i%200 == 0 { // no buffer is to overflow
				eventually(t, "answers are taken", func() bool { return dnsInfo(s).Answered+200 >= i })
			}
		}
		reading.Wait()
		if info := dnsInfo(s); info.InFlight != 0 || info.Answered != clients*each || info.Mismatched != 0 {
			t.Errorf("%+v", info)
		}
		if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
			t.Errorf("%d leases", leases)
		}
	})
}

// TestPurgeDNS holds that a name, a suffix and all can be purged, and what is refused.
func TestPurgeDNS(t *testing.T) {
	b := startUDP(t, answering(t, 3600))
	s := start(t, l4.Options{Loops: 2}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	names := []string{"a.example.com.", "b.example.com.", "example.com.", "example.org."}
	fill := func() {
		for _, name := range names {
			wantAddress(t, exchange(t, c, dnsQuery(t, 1, name, dns.TypeA)), 1, name)
		}
	}
	for _, tc := range []struct {
		what l4.DNSPurge
		want int
	}{
		{l4.DNSPurge{Name: "A.example.com"}, 1}, {l4.DNSPurge{Name: "example.com."}, 1}, {l4.DNSPurge{Name: "example.com", Below: true}, 3},
		{l4.DNSPurge{Name: ".", Below: true}, 4}, {l4.DNSPurge{Name: "."}, 0},
	} {
		fill()
		before := b.Got.Load()
		n, err := s.PurgeDNS("test", tc.what)
		if n != tc.want || err != nil {
			t.Errorf("%+v: %d, %v; want %d", tc.what, n, err, tc.want)
		}
		fill()
		if asked := b.Got.Load() - before; asked != int64(tc.want) {
			t.Errorf("%+v: %d were asked for again, want %d", tc.what, asked, tc.want)
		}
	}
	for _, tc := range []struct {
		listener string
		what     l4.DNSPurge
		want     error
	}{
		{"other", l4.DNSPurge{Name: "."}, l4.ErrUnknownListener},
		{"test", l4.DNSPurge{}, l4.ErrInvalidDNSName},
		{"test", l4.DNSPurge{Below: true}, l4.ErrInvalidDNSName},
		{"test", l4.DNSPurge{Name: "a..b"}, l4.ErrInvalidDNSName},
	} {
		if n, err := s.PurgeDNS(tc.listener, tc.what); n != 0 || !errors.Is(err, tc.want) {
			t.Errorf("%q %+v: %d, %v", tc.listener, tc.what, n, err)
		}
	}
	off := flowSpec(firstPool(s))
	off.DNS = &l4.DNSSettings{}
	for _, ls := range []l4.ListenerSpec{off, flowSpec(firstPool(s))} {
		if _, err := start(t, l4.Options{Loops: 1}, ls).PurgeDNS("test", l4.DNSPurge{Name: "."}); !errors.Is(err, l4.ErrNoDNSCache) {
			t.Errorf("%+v: %v", ls.DNS, err)
		}
	}
}

// TestDNSReload holds that the cache survives a change of what is not its own, that its own settings begin another one, and that DNS
// settings come and go while datagrams pass.
func TestDNSReload(t *testing.T) {
	b := startUDP(t, answering(t, 3600))
	p := newPool(t, b.Address())
	spec := dnsSpec(p)
	s := start(t, l4.Options{Loops: 2}, spec)
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	ask := func(wantAsked int64) {
		t.Helper()
		before := b.Got.Load()
		wantAddress(t, exchange(t, c, query), 1, "www.example.com.")
		if n := b.Got.Load() - before; n != wantAsked {
			t.Errorf("the backend was asked %d times, want %d", n, wantAsked)
		}
	}
	apply := func(change func(*l4.ListenerSpec), want l4.Fate) {
		t.Helper()
		dns := *spec.DNS
		spec.DNS = &dns // what was given to Apply is the server's
		change(&spec)
		plan := l4.Plan{Listeners: []l4.ListenerSpec{spec}}
		if got := s.Compare(plan)[0].Fate; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if err := s.Apply(plan); err != nil {
			t.Fatal(err)
		}
		onEach(s, func(*room.Loop) {}) // they have their mail
	}
	ask(1)
	ask(0)
	apply(func(*l4.ListenerSpec) {}, l4.Kept)
	ask(0)
	apply(func(ls *l4.ListenerSpec) { ls.Flows.Timeout = time.Minute }, l4.Updated)
	ask(0)
	apply(func(ls *l4.ListenerSpec) { ls.DNS.Cache.MaxEntries++ }, l4.Updated)
	ask(1)
	ask(0)
	if n := dnsInfo(s).Asked; n != 1 {
		t.Errorf("the new cache asked %d times", n)
	}
	apply(func(ls *l4.ListenerSpec) {
		ls.Address = netip.MustParseAddrPort("127.0.0.1:0")
		ls.Inherited = nil
		ls.DualStack = true
	}, l4.Rebound)
	c = dialUDP(t, address(s))
	ask(0)
	with := spec.DNS
	spec.DNS = nil
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	onEach(s, func(*room.Loop) {})
	if info(s).DNS != nil {
		t.Errorf("%+v", info(s).DNS)
	}
	ask(1)
	ask(1)
	awaitFlows(t, s, 1)
	spec.DNS = with
	apply(func(*l4.ListenerSpec) {}, l4.Updated)
	ask(1)
	ask(0)
	onEach(s, func(l *room.Loop) {
		if n := len(room.Forwarders(l)); n != 1 {
			t.Errorf("loop %d still has %d forwarders", l.Index, n)
		}
	})
}

// TestDNSSettingsAreCopied holds that a plan's settings are the server's own from Apply on.
func TestDNSSettingsAreCopied(t *testing.T) {
	spec := dnsSpec(newPool(t, startUDP(t, nil).Address()))
	s := start(t, l4.Options{Loops: 1}, spec)
	spec.DNS.Cache.MaxEntries++
	if got := s.Compare(l4.Plan{Listeners: []l4.ListenerSpec{spec}})[0].Fate; got != l4.Updated {
		t.Errorf("a changed setting makes it %s", got)
	}
}

// TestDNSListenerLeaves holds that a question that is being asked when its listener moves or goes is answered from where it was asked,
// and that then nothing is left.
func TestDNSListenerLeaves(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b := startUDP(t, hold)
		ls := spec(newPool(t, b.Address()))
		other := flowSpec(ls.Pool)
		other.Name = "other"
		s := start(t, l4.Options{Loops: 2}, ls, other)
		before := descriptors(t)
		ask := func() (*net.UDPConn, askedOnce) {
			c := dialUDP(t, listenerInfo(s, "test").Address.String())
			if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			return c, <-held
		}
		moved, first := ask()
		ls.DualStack = true // another socket
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls, other}}); err != nil {
			t.Fatal(err)
		}
		if ls.DNS.Cache.MaxEntries > 0 {
			if _, err := s.PurgeDNS("test", l4.DNSPurge{Name: ".", Below: true}); err != nil { // so that it is asked again
				t.Fatal(err)
			}
		}
		answer(t, b, first)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, moved)), 1, "www.example.com.")
		gone, second := ask()
		onEach(s, func(l *room.Loop) { // age is not to be what closes the sockets
			room.SetSweepAt(room.Forwarders(l)[0], l.Now+time.Hour)
		})
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{other}}); err != nil {
			t.Fatal(err)
		}
		answer(t, b, second)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, gone)), 1, "www.example.com.")
		moved.Close()
		gone.Close()
		eventually(t, "nothing of it is left", func() bool {
			left := 0
			onEach(s, func(l *room.Loop) {
				left += len(room.Forwarders(l)) + l4test.OpenSockets(s, l.Index, "test")
			})
			return left == 0
		})
		if now := descriptors(t); now != before-len(loops(s)) { // its sockets
			t.Errorf("%d descriptors, were %d", now, before)
		}
	})
}

// TestDNSAtDrainingSocket holds that a socket which is only open for an answer takes no further question: it is another listener's that has the
// address now, or dropped.
func TestDNSAtDrainingSocket(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b := startUDP(t, hold)
		p := newPool(t, b.Address())
		ls, wide := spec(p), spec(p)
		s := start(t, l4.Options{Loops: 2}, ls)
		at := info(s).Address
		c := dialUDP(t, at.String())
		ask := func(id uint16) {
			if _, err := c.Write(dnsQuery(t, id, fmt.Sprintf("name-%d.example.com.", id), dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		ask(1)
		first := <-held
		ls.DualStack = true // another socket
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}}); err != nil {
			t.Fatal(err)
		}
		ask(2)
		awaitDropped(t, s, tally.DropDraining, 1)
		wide.Name, wide.Address = "wide", netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls, wide}}); err != nil {
			t.Fatal(err)
		}
		ask(3)
		answer(t, b, <-held)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 3, "name-3.example.com.")
		answer(t, b, first)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "name-1.example.com.")
		if n := listenerInfo(s, "wide").DNS.Answered; n != 1 {
			t.Errorf("the listener that has the address has answered %d", n)
		}
	})
}

// TestDNSShutdown holds that Shutdown waits for answers, and at its end tells clients that there will be none.
func TestDNSShutdown(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, patient := range []bool{true, false} {
			t.Run(fmt.Sprintf("patient %v", patient), func(t *testing.T) {
				before := descriptors(t)
				held, hold := holding(10)
				b := startUDP(t, hold)
				s := start(t, l4.Options{Loops: 2}, spec(newPool(t, b.Address())))
				c := dialUDP(t, address(s))
				if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
					t.Fatal(err)
				}
				one := <-held
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Shutdown(ctx) }()
				eventually(t, "it is shutting down", func() bool { return l4test.ShuttingDown(s) })
				var err error
				if patient {
					answer(t, b, one)
					wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
					err = <-ended
				} else {
					cancel()
					wantCode(t, dnsUnpack(t, awaitUDP(t, c)), 1, dns.RcodeServerFailure)
					if err = <-ended; errors.Is(err, context.Canceled) {
						err = nil
					}
				}
				cancel()
				if err != nil {
					t.Error(err)
				}
				if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
					t.Errorf("%d leases", leases)
				}
				c.Close()
				b.Close()
				if now := descriptors(t); now != before {
					t.Errorf("%d descriptors, were %d", now, before)
				}
			})
		}
	})
}

// TestDNSPasses holds that what is no plain question goes to a backend untouched, by a flow, and so does what comes back.
func TestDNSPasses(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
			query[2] |= answerBit
			_, _ = b.WriteToUDPAddrPort(query, from)
		})
		ls := spec(newPool(t, b.Address()))
		ls.DNS.MaxUDP = wire.MaxDNSMessage
		s := start(t, l4.Options{Loops: 1}, ls)
		c := dialUDP(t, address(s))
		plain := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
		for name, datagram := range map[string][]byte{
			"garbage":       []byte("this is not DNS"),
			"header":        slices.Clone(plain[:12]),
			"half a name":   slices.Clone(plain[:20]),
			"AXFR":          dnsQuery(t, 1, "example.com.", dns.TypeAXFR),
			"ANY":           dnsQuery(t, 1, "example.com.", dns.TypeANY),
			"update":        dnsPack(t, new(dns.Msg).SetUpdate("example.com.")),
			"notify":        dnsPack(t, new(dns.Msg).SetNotify("example.com.")),
			"TSIG":          dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 0) }),
			"two questions": dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
			"long":          []byte(strings.Repeat("x", 60_000)),
		} {
			if _, err := c.Write(datagram); err != nil {
				t.Fatal(err)
			}
			datagram[2] |= answerBit
			if got := awaitUDP(t, c); string(got) != string(datagram) {
				t.Errorf("%s: %x came back as %x", name, datagram, got)
			}
		}
		if info := dnsInfo(s); s.Flows() != 1 || info.Asked != 0 {
			t.Errorf("%d flows, %+v", s.Flows(), info)
		}
	})
}

// TestDNSSizes holds that an answer is as large as its client takes, or truncated.
func TestDNSSizes(t *testing.T) {
	server := harness.StartDNS(t)
	var zone strings.Builder
	for i := range 60 {
		fmt.Fprintf(&zone, "many 300 A 192.0.2.%d\n", i)
	}
	server.SetZone(t, zone.String())
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		ls := spec(newPool(t, server.Address))
		ls.DNS.MaxUDP = 1400
		s := start(t, l4.Options{Loops: 1}, ls)
		c := dialUDP(t, address(s))
		for range 2 {
			for _, tc := range []struct {
				edns    uint16
				records int
			}{{0, 0}, {512, 0}, {1400, 60}, {0, 0}} {
				query := dnsQuery(t, 1, "many."+harness.DNSZone, dns.TypeA, func(m *dns.Msg) {
					if tc.edns > 0 {
						m.SetEdns0(tc.edns, false)
					}
				})
				if _, err := c.Write(query); err != nil {
					t.Fatal(err)
				}
				wire := awaitUDP(t, c)
				m := dnsUnpack(t, wire)
				if m.Truncated != (tc.records == 0) || tc.records > 0 && len(m.Answer) != tc.records || len(wire) > max(512, int(tc.edns)) {
					t.Errorf("EDNS size %d: %d records in %d bytes, TC %v", tc.edns, len(m.Answer), len(wire), m.Truncated)
				}
				if (m.IsEdns0() != nil) != (tc.edns > 0) {
					t.Errorf("EDNS size %d: %v", tc.edns, m.IsEdns0())
				}
			}
		}
	})
}

// TestDNSRevoked holds that a question at a backend that is removed is asked at another.
func TestDNSRevoked(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		silent := startUDP(t, hold)
		p, err := pool.New(pool.Options{
			Name: "pool", Algorithm: "first", Initial: pool.Healthy, Retries: 0, CloseOnRemove: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		good := startUDP(t, answering(t, 60))
		for i, a := range []string{silent.Address(), good.Address()} {
			if err := p.Add(pool.Spec{ID: fmt.Sprint(i), Addr: netip.MustParseAddrPort(a), Weight: 1}); err != nil {
				t.Fatal(err)
			}
		}
		s := start(t, l4.Options{Loops: 1}, spec(p))
		c := dialUDP(t, address(s))
		if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		<-held
		if err := p.Remove("0"); err != nil {
			t.Fatal(err)
		}
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")
		if info := dnsInfo(s); info.Sockets != 1 || info.Asked != 2 {
			t.Errorf("%+v", info)
		}
	})
}

// TestDNSQuestionsAndAnswers holds that no client ever gets an answer to a question that it did not ask: many clients with random
// names, spellings, sizes and ids, a backend that answers in any order, twice, or not as it was asked.
func TestDNSQuestionsAndAnswers(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		const clients, rounds, burst = 20, 60, 8
		var last askedOnce // the backend's goroutine alone
		guesses := 0       // fewer than a question has to flee from twice, see flee
		b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
			answer, err := dnsAnswer(query, uint32(rand.IntN(3)))
			if err != nil {
				t.Error(err)
				return
			}
			switch rand.IntN(6) {
			case 0:
				if guesses++; guesses < 2*room.Suspicious {
					wrong := answer.Copy()
					wrong.Id, wrong.Question[0].Name = uint16(rand.Uint32()), "other.example.com."
					sendDNS(t, b, from, wrong)
				}
			case 1:
				if last.from == from {
					answering(t, 1)(b, from, last.query)
				}
			case 2:
				sendDNS(t, b, from, answer) // twice
			case 3:
				if last.query != nil {
					answering(t, 1)(b, last.from, last.query)
				}
			}
			sendDNS(t, b, from, answer)
			last = askedOnce{from, append([]byte(nil), query...)}
		})
		s := start(t, l4.Options{Loops: 2}, spec(newPool(t, b.Address())))
		var running sync.WaitGroup
		for range clients {
			c := dialUDP(t, address(s))
			running.Go(func() {
				for range rounds {
					if err := askBurst(c, burst); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		running.Wait()
		if info := dnsInfo(s); info.InFlight != 0 || info.Mismatched == 0 || info.Cache.Waiting != 0 {
			t.Errorf("%+v", info)
		}
	})
}

// askBurst asks some questions at once, with random ids, and checks what comes back.
func askBurst(c *net.UDPConn, burst int) error {
	asked := make(map[uint16]*dns.Msg)
	for len(asked) < burst {
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("%c%d.example.com.", "abAB"[rand.IntN(4)], rand.IntN(10)), dns.TypeA)
		m.Id = uint16(rand.Uint32())
		m.RecursionDesired = rand.IntN(2) == 0
		m.CheckingDisabled = rand.IntN(4) == 0
		if rand.IntN(2) == 0 {
			m.SetEdns0(uint16(rand.IntN(4096)), rand.IntN(2) == 0)
		}
		if asked[m.Id] != nil {
			continue
		}
		asked[m.Id] = m
		wire, err := m.Pack()
		if err == nil {
			_, err = c.Write(wire)
		}
		if err != nil {
			return err
		}
	}
	return collect(c, burst, func(wire []byte) error {
		m := new(dns.Msg)
		if err := m.Unpack(wire); err != nil {
			return err
		}
		q := asked[m.Id]
		if q == nil {
			return fmt.Errorf("an answer with the id %d, which nothing was asked with or is answered already: %v", m.Id, m)
		}
		delete(asked, m.Id)
		name := q.Question[0].Name
		if m.Question[0] != q.Question[0] || len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(addressOf(name)) ||
			m.RecursionDesired != q.RecursionDesired || (m.IsEdns0() != nil) != (q.IsEdns0() != nil) {
			return fmt.Errorf("asked\n%v\ngot\n%v", q, m)
		}
		return nil
	})
}
