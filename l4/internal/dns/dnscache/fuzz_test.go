package dnscache

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// readable reports whether another library reads a message.
func readable(wire []byte) bool { return new(dns.Msg).Unpack(wire) == nil }

// FuzzAsk sends any bytes as a query. If the query is readable, so are the forwarded query and the answer. The answer
// is within the client's limit and has the query's id and question, byte for byte.
func FuzzAsk(f *testing.F) {
	for _, m := range []*dns.Msg{
		ask("www.Example.com.", dns.TypeA), ask(".", dns.TypeNS, withEDNS(0, true)), ask("a.example.", dns.TypeAXFR),
		ask("www.example.com.", dns.TypeTXT, withEDNS(1232, false,
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}, subnetOption("192.0.2.0", 24, 0))),
		ask("www.example.com.", dns.TypeTXT, withEDNS(1232, false, subnetOption("2001:db8::", 57, 0),
			&dns.EDNS0_PADDING{Padding: make([]byte, 5)})),
		ask("www.example.com.", dns.TypeA, func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 1) }),
	} {
		f.Add(pack(f, m), false)
		f.Add(pack(f, m), true)
	}
	f.Fuzz(func(t *testing.T, query []byte, tcp bool) {
		transport := UDP
		if tcp {
			transport = TCP
		}
		r := newTestResolver(testOptions())
		got := r.Ask(query, transport, 1, 0, nil)
		if got.Verdict == Pass {
			return
		}
		if got.Verdict != Forward {
			t.Fatalf("%v from an empty cache", got.Verdict)
		}
		forwarded := got.Flight.AppendQuery(nil, flightID)
		if readable(query) && !readable(forwarded) {
			t.Fatalf("forwarded %x", forwarded)
		}
		question := query[headerLen : headerLen+len(r.query.name)+questionLen]
		message := binary.BigEndian.AppendUint16(nil, flightID)
		message = append(message, 0x81, 0x80, 0, 1, 0, 40, 0, 0, 0, 0)
		message = append(message, question...)
		for range 40 {
			message = append(message, 0xc0, headerLen)
			message = append(message, question[len(question)-questionLen:]...)
			message = append(message, 0, 0, 1, 0, 0, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
		}
		answers, ok := r.Answered(got.Flight, flightID, message, 0)
		if !ok {
			if _, names := dataNames(binary.BigEndian.Uint16(question[len(question)-questionLen:])); names == 0 {
				t.Fatal("a good answer is rejected")
			}
			answers = r.Failed(got.Flight, 0)
		}
		check := func(answer []byte) {
			limit := 512
			if opt := r.query.opt; opt > 0 {
				limit = max(limit, int(binary.BigEndian.Uint16(query[opt+3:])))
			}
			if !tcp && len(answer) > limit {
				t.Fatalf("%d bytes, expected at most %d", len(answer), limit)
			}
			if string(answer[:2]) != string(query[:2]) ||
				string(answer[headerLen:headerLen+len(question)]) != string(question) {
				t.Fatalf("answer %x", answer)
			}
			// The other library may reject record data, but nothing else.
			if m := new(dns.Msg); ok && readable(message) && readable(query) && m.Unpack(answer) != nil {
				t.Fatalf("answer %x", answer)
			}
		}
		check(answers.Append(nil, 0))
		if again := r.Ask(query, transport, 1, time.Second, nil); ok {
			if again.Verdict != Hit {
				t.Fatalf("%v, expected a hit", again.Verdict)
			}
			check(again.Answer)
		}
	})
}

// FuzzAnswered sends any bytes as a backend's answer to a good question. Reading them takes a number of steps that is
// linear in their length. If they are readable, so are the clients' answers, at any age, and these are within the
// limit.
func FuzzAnswered(f *testing.F) {
	query := pack(f, ask("www.example.com.", dns.TypeMX, withID(flightID),
		withEDNS(4096, true, subnetOption("192.0.2.0", 24, 0))))
	question := headerLen + 17 + questionLen
	add := func(change func(*dns.Msg)) {
		wire := reply(f, query, change)
		f.Add(wire[2:headerLen], wire[question:], uint16(17))
	}
	add(func(*dns.Msg) {})
	add(func(m *dns.Msg) {
		m.Answer = records(f, "www.example.com. 300 IN MX 5 mx.example.com.",
			"www.example.com. 90 IN RRSIG MX 8 3 300 20300101000000 20200101000000 1 example.com. AAAA")
		m.Ns = records(f, "example.com. 300 IN NS ns.example.com.")
		m.Extra = append(records(f, "ns.example.com. 300 IN A 192.0.2.1"), m.Extra...)
	})
	add(func(m *dns.Msg) {
		m.Rcode, m.Ns = dns.RcodeNameError, records(f,
			"example.com. 300 IN SOA ns.example.com. root.example.com. 1 2 3 4 5")
		m.IsEdns0().Option = []dns.EDNS0{subnetOption("192.0.2.0", 24, 20), &dns.EDNS0_EDE{InfoCode: 3}}
		m.Extra = append(m.Extra, records(f, "x.example.org. 300 IN A 192.0.2.1",
			"x.example.org. 300 IN NAPTR 1 2 \"s\" \"a\" \"b\" x.example.org.")...)
	})
	add(func(m *dns.Msg) { m.Rcode, m.Truncated = dns.RcodeServerFailure, true })
	hostile := hostileAnswer() // it is for another question, but its pointers fit
	f.Add(hostile[2:headerLen], hostile[question:], uint16(17))
	f.Fuzz(func(t *testing.T, head, rest []byte, age uint16) {
		if len(head) != headerLen-2 {
			return
		}
		message := binary.BigEndian.AppendUint16(nil, flightID)
		message = append(message, head...)
		message = append(message, query[headerLen:question]...)
		message = append(message, rest...)
		o := testOptions()
		o.StaleTTL = 10 * time.Hour
		r := newTestResolver(o)
		flight := r.Ask(query, UDP, 1, 0, nil).Flight
		clients := []*dns.Msg{
			ask("wWw.example.com.", dns.TypeMX, withID(1), withEDNS(600, true, subnetOption("192.0.2.0", 24, 0))),
			ask("WWW.EXAMPLE.COM.", dns.TypeMX, withID(2), withEDNS(4096, true, subnetOption("192.0.2.0", 24, 0))),
		}
		for _, q := range clients {
			if got := r.Ask(pack(t, q), UDP, 1, 0, nil).Verdict; got != Wait {
				t.Fatal(got)
			}
		}
		check := func(q *dns.Msg, answer []byte) {
			m := new(dns.Msg)
			if err := m.Unpack(answer); err != nil && readable(message) {
				t.Fatalf("%x from %x: %v", answer, message, err)
			}
			if len(answer) > int(q.IsEdns0().UDPSize()) || m.Id != q.Id && readable(message) {
				t.Fatalf("%d bytes with id %d for %v", len(answer), m.Id, q)
			}
		}
		answers, ok := r.Answered(flight, flightID, message, 0)
		if steps := r.answer.steps; steps > 2*len(message) {
			t.Fatalf("%d steps for %d bytes", steps, len(message))
		}
		if !ok {
			answers = r.Failed(flight, 0)
		}
		for i, q := range clients {
			check(q, answers.Append(nil, i+1))
		}
		for _, q := range clients {
			now := time.Duration(age) * time.Second
			got := r.Ask(pack(t, q), UDP, 1, now, nil)
			if got.Verdict == Hit {
				check(q, got.Answer)
			}
			if got.Flight != nil {
				answers := r.Failed(got.Flight, now)
				for i := range answers.Len() {
					check(q, answers.Append(nil, i))
				}
			}
		}
	})
}
