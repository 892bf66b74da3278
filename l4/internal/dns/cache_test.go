package dns_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

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

// TestDNSStale holds that clients have an expired answer when the backend is gone: at once when the kernel says so, and
// that a backend is asked again when it comes back.
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
	eventually(t, "the answer has expired", func() bool {
		return exchange(t, c, query).Answer[0].Header().Ttl == staleTTL
	})
	info := dnsInfo(s)
	if info.Cache.Stale == 0 || info.Unreachable == 0 || info.Failed == 0 {
		t.Errorf("%+v", info)
	}
	if o := firstPool(s).Backends()[0].Outcomes; o[pool.ConnectRefused] != info.Unreachable {
		t.Errorf("%v", o)
	}
	m := exchange(t, c, dnsQuery(t, 2, "unknown."+harness.DNSZone, dns.TypeA))
	if m.Id != 2 || m.Rcode != dns.RcodeServerFailure {
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
		{l4.DNSPurge{Name: "A.example.com"}, 1}, {l4.DNSPurge{Name: "example.com."}, 1},
		{l4.DNSPurge{Name: "example.com", Below: true}, 3},
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
		_, err := start(t, l4.Options{Loops: 1}, ls).PurgeDNS("test", l4.DNSPurge{Name: "."})
		if !errors.Is(err, l4.ErrNoDNSCache) {
			t.Errorf("%+v: %v", ls.DNS, err)
		}
	}
}
