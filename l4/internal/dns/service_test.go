package dns_test

import (
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
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestDNSServer holds that clients get the answers of a real server, by a few sockets and no flow, and that a cache
// answers the second question without the server.
func TestDNSServer(t *testing.T) {
	server := harness.StartDNS(t)
	server.SetZone(t, "www 300 A 192.0.2.1\nwww 300 AAAA 2001:db8::1\nalias 300 CNAME www\nmail 300 MX 10 www\n"+
		kept("text", 300))
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
		n := uint64(questions)
		if s.Flows() != 0 || li.DatagramsIn != n || li.DatagramsOut != n || len(li.Dropped) != 0 {
			t.Errorf("%+v", li)
		}
		b := firstPool(s).Backends()[0]
		if b.Outcomes[pool.Served] != asked || b.Leases != 0 || b.BytesOut == 0 || li.FirstByteTime.Count != asked {
			t.Errorf("%+v", b)
		}
	})
}

// kept is a record that a cache may keep. NSD adds the zone's name servers to each answer that leaves room for them,
// and the harness has those with a TTL of 0. This record leaves no room in 512 bytes.
func kept(name string, ttl int) string {
	return fmt.Sprintf("%s %d TXT %s %s\n", name, ttl, strings.Repeat("x", 233), strings.Repeat("y", 233))
}

// TestManyDNSQuestions holds that 20,000 questions are in flight at once over the sockets that are allowed, and each
// has its answer.
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

// TestDNSPasses holds that a datagram that is no plain question goes to a backend untouched, by a flow, and so does the
// answer.
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
		signed := func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 0) }
		twice := func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }
		for name, datagram := range map[string][]byte{
			"garbage":       []byte("this is not DNS"),
			"header":        slices.Clone(plain[:12]),
			"half a name":   slices.Clone(plain[:20]),
			"AXFR":          dnsQuery(t, 1, "example.com.", dns.TypeAXFR),
			"ANY":           dnsQuery(t, 1, "example.com.", dns.TypeANY),
			"update":        dnsPack(t, new(dns.Msg).SetUpdate("example.com.")),
			"notify":        dnsPack(t, new(dns.Msg).SetNotify("example.com.")),
			"TSIG":          dnsQuery(t, 1, "www.example.com.", dns.TypeA, signed),
			"two questions": dnsQuery(t, 1, "www.example.com.", dns.TypeA, twice),
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
				if m.Truncated != (tc.records == 0) || tc.records > 0 && len(m.Answer) != tc.records ||
					len(wire) > max(512, int(tc.edns)) {
					t.Errorf("EDNS size %d: %d records in %d bytes, TC %v", tc.edns, len(m.Answer), len(wire), m.Truncated)
				}
				if (m.IsEdns0() != nil) != (tc.edns > 0) {
					t.Errorf("EDNS size %d: %v", tc.edns, m.IsEdns0())
				}
			}
		}
	})
}

// TestDNSQuestionsAndAnswers holds that no client ever gets an answer to a question that it did not ask: many clients
// with random names, spellings, sizes and ids, a backend that answers in any order, twice, or not as it was asked.
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
