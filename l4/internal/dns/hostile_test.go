package dns_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestDNSFlees holds that a question is asked anew from another port, once, when somebody tries ids at its port, and
// fails if that happens again.
func TestDNSFlees(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(10)
		b := startUDP(t, hold)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		guess := func(at askedOnce, guesses int) {
			m, err := dnsAnswer(at.query, 60)
			if err != nil {
				t.Fatal(err)
			}
			for i := range guesses {
				m.Id = idOfMessage(at.query) ^ uint16(1+i)
				sendDNS(t, b, at.from, m)
			}
		}
		ask := func(name string) askedOnce {
			if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			return <-held
		}
		first := ask("www.example.com.")
		guess(first, room.Suspicious-1)
		eventually(t, "the guesses are counted", func() bool { return dnsInfo(s).Mismatched == room.Suspicious-1 })
		if n := dnsInfo(s).Asked; n != 1 {
			t.Fatalf("asked %d times", n)
		}
		guess(first, 1)
		again := <-held
		if again.from == first.from || idOfMessage(again.query) == idOfMessage(first.query) && dnsInfo(s).Sockets != 1 {
			t.Errorf("asked again from %s with id %x, before from %s with %x",
				again.from, again.query[:2], first.from, first.query[:2])
		}
		answer(t, b, again)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "www.example.com.")

		first = ask("other.example.com.")
		guess(first, room.Suspicious)
		guess(<-held, room.Suspicious)
		wantCode(t, dnsUnpack(t, awaitUDP(t, c)), 1, dns.RcodeServerFailure)
		if info := dnsInfo(s); info.InFlight != 0 || info.Failed != 1 || info.Sockets != 0 {
			t.Errorf("%+v", info)
		}
		if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
			t.Errorf("%d leases", leases)
		}
	})
}

// TestDNSLateAnswers holds that answers which come twice, or late, are no guesses: the socket stays.
func TestDNSLateAnswers(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	ask := func(name string) askedOnce {
		if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		return <-held
	}
	first := ask("www.example.com.")
	answer(t, b, first)
	awaitUDP(t, c)
	second := ask("other.example.com.")
	for range 2 * room.Suspicious {
		answer(t, b, first)
	}
	eventually(t, "they are counted", func() bool { return dnsInfo(s).Mismatched == 2*room.Suspicious })
	if third := ask("third.example.com."); third.from != second.from {
		t.Errorf("asked from %s, and before from %s", third.from, second.from)
	}
}

// TestDNSMisdirected holds that an answer from a client goes nowhere, nor a question from a backend, and that both are
// counted.
func TestDNSMisdirected(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		b := startUDP(t, echoUDP)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		answer := dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) { m.Response = true })
		for _, datagram := range [][]byte{answer, {}, answer[:11]} {
			if _, err := c.Write(datagram); err != nil {
				t.Fatal(err)
			}
		}
		awaitDropped(t, s, tally.DropMisdirected, 3)
		if n := b.Got.Load(); n != 0 || s.Flows() != 0 {
			t.Errorf("%d went to the backend, %d flows", n, s.Flows())
		}
		if _, err := c.Write(dnsQuery(t, 1, "example.com.", dns.TypeANY)); err != nil { // which comes back as it is
			t.Fatal(err)
		}
		awaitDropped(t, s, tally.DropMisdirected, 4)
		if li := info(s); li.DatagramsIn != 4 {
			t.Errorf("%+v", li)
		}
	})
}

// TestDNSAmplification holds that nobody gets more by UDP than the listener allows: from the cache, by a shared socket,
// or by a flow.
func TestDNSAmplification(t *testing.T) {
	large := func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		m := new(dns.Msg)
		if err := m.Unpack(query); err != nil {
			t.Error(err)
			return
		}
		m.SetReply(m)
		for range 14 {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
				Txt: []string{strings.Repeat("x", 250)},
			})
		}
		sendDNS(t, b, from, m)
	}
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		for _, most := range []int{0, 4096} {
			ls := spec(newPool(t, startUDP(t, large).Address()))
			ls.DNS.MaxUDP = most
			s := start(t, l4.Options{Loops: 1}, ls)
			c := dialUDP(t, address(s))
			for _, typ := range []uint16{dns.TypeTXT, dns.TypeTXT, dns.TypeANY} {
				takesAll := func(m *dns.Msg) { m.SetEdns0(65535, false) }
				if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", typ, takesAll)); err != nil {
					t.Fatal(err)
				}
				wire := awaitUDP(t, c)
				m := dnsUnpack(t, wire)
				cut := most == 0
				if m.Id != 1 || m.Truncated != cut || cut && (len(wire) > room.DefaultMaxUDP || len(m.Question) != 1) ||
					!cut && len(m.Answer) != 14 {
					t.Errorf("at most %d: %s is answered with %d bytes, TC is %v", most, dns.TypeToString[typ], len(wire), m.Truncated)
				}
			}
		}
	})
}

// TestDNSClientLimit holds that client_flows bounds what a client has in flight, apart from what the cache knows, and
// nobody else.
func TestDNSClientLimit(t *testing.T) {
	const most = 5
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		held, hold := holding(100)
		b := startUDP(t, hold)
		ls := spec(newPool(t, b.Address()))
		ls.Flows.ClientMax = most
		s := start(t, l4.Options{Loops: 2}, ls)
		c := dialUDP(t, address(s))
		ask := func(c *net.UDPConn, name string) {
			if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		ask(c, "known.example.com.")
		answer(t, b, <-held)
		awaitUDP(t, c)
		for i := range most + 3 {
			ask(c, nameOf(i))
		}
		awaitDropped(t, s, tally.DropClientLimit, 3)
		if ls.DNS.Cache.MaxEntries > 0 {
			wantAddress(t, exchange(t, c, dnsQuery(t, 7, "known.example.com.", dns.TypeA)), 7, "known.example.com.")
		}
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address(s)))
		other, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, to)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		ask(other, "other.example.com.")
		for range most + 1 {
			answer(t, b, <-held)
		}
		wantAddress(t, dnsUnpack(t, awaitUDP(t, other)), 1, "other.example.com.")
		for range most {
			awaitUDP(t, c)
		}
		ask(c, "next.example.com.")
		answer(t, b, <-held)
		wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "next.example.com.")
		onEach(s, func(l *room.Loop) {
			for _, f := range room.Forwarders(l) {
				if n := l4test.CountedClients(room.Entrance(f)); n != 0 {
					t.Errorf("%d clients are counted though nobody waits", n)
				}
			}
		})
	})
}

// TestDNSFailureIsRemembered holds that a name whose question is not answered costs no further one for a while.
func TestDNSFailureIsRemembered(t *testing.T) {
	b := startUDP(t, nil)
	ls := dnsSpec(newPool(t, b.Address()))
	ls.DNS.Cache.FailureTTL = time.Hour
	setDNSTimeout(ls.DNS, 50*time.Millisecond)
	s := start(t, l4.Options{Loops: 1}, ls)
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	eventually(t, "it is answered from memory", func() bool {
		wantCode(t, exchange(t, c, query), 1, dns.RcodeServerFailure)
		return dnsInfo(s).Cache.Hit >= 5
	})
}

// TestDNSDeliversInTurns holds that thousands of clients of one answer are given it in several turns, and all of them.
func TestDNSDeliversInTurns(t *testing.T) {
	const clients = 3*room.ClientsInTurn + 10
	held, hold := holding(1)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	for i := range uint64(clients) {
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 { // no buffer is to overflow
			eventually(t, "questions are taken", func() bool { return info(s).DatagramsIn+200 >= i })
		}
	}
	eventually(t, "all wait", func() bool { return dnsInfo(s).Cache.Waiting == clients })
	one := <-held
	answer, err := dnsAnswer(one.query, 60)
	if err != nil {
		t.Fatal(err)
	}
	wire := dnsPack(t, answer)
	onFirst(s, func(l *room.Loop, f *room.Forwarder) {
		_, socket := room.FirstAsked(f)
		room.Take(f, socket, wire)
		if at, due := l.Due(); room.Deliveries(l) != 1 || !due || at > l.Now {
			t.Errorf("%d deliveries are left over, and it would sleep %v", room.Deliveries(l), at-l.Now)
		}
		if n := l4test.CountedClients(room.Entrance(f)); n != 1 {
			t.Errorf("%d clients are counted", n)
		}
	})
	eventually(t, "all are answered", func() bool { return info(s).DatagramsOut == clients })
	onFirst(s, func(l *room.Loop, f *room.Forwarder) {
		if n := l4test.CountedClients(room.Entrance(f)); n != 0 || room.Deliveries(l) != 0 {
			t.Errorf("%d clients are counted, %d deliveries", n, room.Deliveries(l))
		}
	})
}

// TestDNSManyVariants holds that a client who asks one name in thousands of variants has a handful of questions in
// flight at most.
func TestDNSManyVariants(t *testing.T) {
	held, hold := holding(1000)
	s := start(t, l4.Options{Loops: 2}, dnsSpec(newPool(t, startUDP(t, hold).Address())))
	c := dialUDP(t, address(s))
	for i := range uint16(5000) {
		query := dnsQuery(t, i, "www.example.com.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(512+i, false)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{
				Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: net.IPv4(10, 0, byte(i>>8), byte(i)).To4(),
			})
		})
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 {
			eventually(t, "questions are taken", func() bool { return info(s).DatagramsIn+200 >= uint64(i) })
		}
	}
	eventually(t, "all are seen", func() bool { return info(s).DatagramsIn == 5000 })
	if n := dnsInfo(s).InFlight; n > 8 {
		t.Errorf("%d questions for one name are in flight", n)
	}
	<-held
}

// TestDNSListenersFaceEachOther holds that what one client sends does not go to and fro between two listeners that are
// each other's backends.
func TestDNSListenersFaceEachOther(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		free, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		place := free.LocalAddr().(*net.UDPAddr).AddrPort()
		free.Close()
		one := start(t, l4.Options{Loops: 1}, spec(newPool(t, place.String())))
		ls := spec(newPool(t, address(one)))
		ls.Address = place
		other := start(t, l4.Options{Loops: 1}, ls)
		c := dialUDP(t, address(one))
		const answers = 5
		response := dnsQuery(t, 1, "example.com.", dns.TypeANY, func(m *dns.Msg) { m.Response = true })
		for range answers {
			if _, err := c.Write(response); err != nil {
				t.Fatal(err)
			}
		}
		awaitDropped(t, one, tally.DropMisdirected, answers)
		if n, m := info(one).DatagramsIn, info(other).DatagramsIn; n != answers || m != 0 || one.Flows() != 0 {
			t.Errorf("%d datagrams came to the one, %d to the other, %d flows", n, m, one.Flows())
		}
	})
}
