package dnscache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestPass(t *testing.T) {
	t.Parallel()
	tsig := func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 1_700_000_000) }
	flags := func(set func(*dns.MsgHdr)) func(*dns.Msg) { return func(m *dns.Msg) { set(&m.MsgHdr) } }
	for name, m := range map[string]*dns.Msg{
		"notify": ask("example.com.", dns.TypeSOA,
			flags(func(h *dns.MsgHdr) { h.Opcode = dns.OpcodeNotify })),
		"update": ask("example.com.", dns.TypeSOA,
			flags(func(h *dns.MsgHdr) { h.Opcode = dns.OpcodeUpdate })),
		"an answer":     ask("example.com.", dns.TypeA, flags(func(h *dns.MsgHdr) { h.Response = true })),
		"truncated":     ask("example.com.", dns.TypeA, flags(func(h *dns.MsgHdr) { h.Truncated = true })),
		"authoritative": ask("example.com.", dns.TypeA, flags(func(h *dns.MsgHdr) { h.Authoritative = true })),
		"with a code":   ask("example.com.", dns.TypeA, flags(func(h *dns.MsgHdr) { h.Rcode = dns.RcodeRefused })),
		"reserved bit":  ask("example.com.", dns.TypeA, flags(func(h *dns.MsgHdr) { h.Zero = true })),
		"axfr":          ask("example.com.", dns.TypeAXFR),
		"ixfr": ask("example.com.", dns.TypeIXFR,
			func(m *dns.Msg) { m.Ns = records(t, "example.com. 0 IN SOA a. b. 1 2 3 4 5") }),
		"ixfr without soa": ask("example.com.", dns.TypeIXFR),
		"any":              ask("example.com.", dns.TypeANY),
		"type opt":         ask("example.com.", dns.TypeOPT),
		"type 0":           ask("example.com.", 0),
		"chaos": ask("version.bind.", dns.TypeTXT,
			func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
		"class any": ask("example.com.", dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }),
		"two questions": ask("example.com.", dns.TypeA,
			func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		"no question":   {},
		"tsig":          ask("example.com.", dns.TypeA, tsig),
		"edns and tsig": ask("example.com.", dns.TypeA, withEDNS(1232, false), tsig),
		"records": ask("example.com.", dns.TypeA,
			func(m *dns.Msg) { m.Answer = records(t, "example.com. 1 IN A 192.0.2.1") }),
		"edns version 1": ask("example.com.", dns.TypeA, withEDNS(1232, false),
			func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }),
		"edns flag": ask("example.com.", dns.TypeA, withEDNS(1232, false),
			func(m *dns.Msg) { m.IsEdns0().SetZ(1) }),
		"two opt": ask("example.com.", dns.TypeA, withEDNS(1232, false), withEDNS(1232, false)),
		"nsid": ask("example.com.", dns.TypeA,
			withEDNS(1232, false, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})),
		"unknown option": ask("example.com.", dns.TypeA,
			withEDNS(1232, false, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}})),
		"two subnets": ask("example.com.", dns.TypeA,
			withEDNS(1232, false, subnetOption("192.0.2.0", 24, 0), subnetOption("192.0.2.0", 24, 0))),
		"subnet with scope": ask("example.com.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0", 24, 24))),
		"subnet of no family": ask("example.com.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_LOCAL{
			Code: dns.EDNS0SUBNET, Data: []byte{0, 3, 0, 0},
		})),
		"subnet with bits behind": ask("example.com.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_LOCAL{
			Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 20, 0, 192, 0, 0x1f},
		})),
		"subnet too long": ask("example.com.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_LOCAL{
			Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 33, 0, 192, 0, 2, 1, 0},
		})),
		"subnet too long, IPv6": ask("example.com.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_LOCAL{
			Code: dns.EDNS0SUBNET, Data: append([]byte{0, 2, 129, 0}, make([]byte, 17)...),
		})),
		"subnet without a prefix": ask("example.com.", dns.TypeA,
			withEDNS(1232, false, &dns.EDNS0_LOCAL{Code: dns.EDNS0SUBNET, Data: []byte{0, 1}})),
		"subnet too short": ask("example.com.", dns.TypeA, withEDNS(1232, false, &dns.EDNS0_LOCAL{
			Code: dns.EDNS0SUBNET, Data: []byte{0, 1, 24, 0, 192, 0},
		})),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestResolver(testOptions())
			for _, transport := range []Transport{UDP, TCP} {
				if got := r.Ask(pack(t, m), transport, 1, 0, nil); got.Verdict != Pass || got.Flight != nil ||
					got.Answer != nil {
					t.Errorf("%+v, expected pass", got)
				}
			}
			if n := r.cache.Counters(); n.Passed != 2 || n.Waiting != 0 {
				t.Errorf("%+v, expected 2 passed", n)
			}
		})
	}
}

func TestMalformedPasses(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	good := pack(t, ask("www.example.com.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0", 24, 0))))
	for i := range good {
		if got := r.Ask(good[:i], UDP, 1, 0, nil).Verdict; got != Pass {
			t.Errorf("%d of %d bytes: %v, expected pass", i, len(good), got)
		}
	}
	if got := r.Ask(append(bytes.Clone(good), 0), UDP, 1, 0, nil).Verdict; got != Pass {
		t.Errorf("a byte too many: %v, expected pass", got)
	}
	for _, name := range []string{"\xc0\x0c", "\x03www\xc0\x0c", "\x40" + strings.Repeat("a", 64) + "\x00",
		strings.Repeat("\x01a", 127) + "\x01"} {
		query := fmt.Sprintf("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00%s\x00\x01\x00\x01", name)
		if got := r.Ask([]byte(query), UDP, 1, 0, nil).Verdict; got != Pass {
			t.Errorf("name %q: %v, expected pass", name, got)
		}
	}
	for name, options := range map[string]string{"half an option": "\x00\x0a\x00",
		"an option that is longer": "\x00\x0a\x00\x02a"} {
		query := bytes.Clone(pack(t, ask("www.example.com.", dns.TypeA, withEDNS(1232, false))))
		query = append(query, options...)
		query[len(query)-len(options)-1] = byte(len(options))
		if got := r.Ask(query, UDP, 1, 0, nil).Verdict; got != Pass {
			t.Errorf("%s: %v, expected pass", name, got)
		}
	}
	longest := ask(strings.Repeat("a.", 127), dns.TypeA)
	if got := r.Ask(pack(t, longest), UDP, 1, 0, nil).Verdict; got != Forward {
		t.Errorf("a name of 255 bytes: %v, expected forward", got)
	}
}

// TestKeys checks whether the queries of each pair share an answer.
func TestKeys(t *testing.T) {
	t.Parallel()
	cookie := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}
	padding := &dns.EDNS0_PADDING{Padding: make([]byte, 30)}
	keepalive := &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}
	base := func() *dns.Msg { return ask("www.example.com.", dns.TypeA) }
	for name, c := range map[string]struct {
		a, b *dns.Msg
		same bool
	}{
		"case":      {base(), ask("wWw.EXAMPLE.com.", dns.TypeA), true},
		"id":        {base(), ask("www.example.com.", dns.TypeA, withID(7)), true},
		"edns":      {base(), ask("www.example.com.", dns.TypeA, withEDNS(4096, false)), true},
		"cookie":    {base(), ask("www.example.com.", dns.TypeA, withEDNS(4096, false, cookie)), true},
		"padding":   {base(), ask("www.example.com.", dns.TypeA, withEDNS(4096, false, padding)), true},
		"keepalive": {base(), ask("www.example.com.", dns.TypeA, withEDNS(4096, false, keepalive)), true},
		"type":      {base(), ask("www.example.com.", 65281), false},
		"high type": {base(), ask("www.example.com.", 0x0101), false},
		"name":      {base(), ask("www.example.org.", dns.TypeA), false},
		"labels":    {ask(`a\.b.example.`, dns.TypeA), ask("a.b.example.", dns.TypeA), false},
		"parent":    {base(), ask("example.com.", dns.TypeA), false},
		"rd": {base(), ask("www.example.com.", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired = false }),
			false},
		"cd": {base(), ask("www.example.com.", dns.TypeA, func(m *dns.Msg) { m.CheckingDisabled = true }),
			false},
		"ad": {base(), ask("www.example.com.", dns.TypeA, func(m *dns.Msg) { m.AuthenticatedData = true }),
			false},
		"do":           {base(), ask("www.example.com.", dns.TypeA, withEDNS(4096, true)), false},
		"not a letter": {ask("a[.example.", dns.TypeA), ask("a{.example.", dns.TypeA), false},
		"beyond ascii": {ask("\\196\\132.example.", dns.TypeA), ask("\\228\\164.example.", dns.TypeA), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c.a.Id = range []uint16{1, 2} { // both ways
				r := newTestResolver(testOptions())
				fill(t, r, c.a, 0, func(m *dns.Msg) { m.Answer = []dns.RR{anyRecord(m)} })
				want := Forward
				if c.same {
					want = Hit
				}
				wantVerdict(t, r, c.b, 0, want)
				c.a, c.b = c.b, c.a
			}
		})
	}
}

// anyRecord returns a record for the question's type.
func anyRecord(m *dns.Msg) dns.RR {
	q := m.Question[0]
	return &dns.RFC3597{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 300, Rdlength: 4},
		Rdata: "c0000201"}
}

// TestForwardedQuery checks what backends receive: the query without the options that are between the client and us.
func TestForwardedQuery(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	plain := ask("wWw.example.com.", dns.TypeA, func(m *dns.Msg) { m.CheckingDisabled = true })
	got := unpack(t, forward(t, r, plain, 1, 0).AppendQuery(nil, 4711))
	if plain.Id = 4711; got.String() != plain.String() {
		t.Errorf("plain query forwarded as\n%v", got)
	}
	q := ask("wWw.example.org.", dns.TypeA, withEDNS(1400, true,
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}, subnetOption("192.0.2.0", 24, 0),
		&dns.EDNS0_PADDING{Padding: make([]byte, 30)}, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}))
	f := forward(t, r, q, 1, 0)
	wire := f.AppendQuery([]byte("before"), 17)
	if !bytes.HasPrefix(wire, []byte("before")) {
		t.Fatalf("AppendQuery does not append: %q", wire)
	}
	got = unpack(t, wire[len("before"):])
	q.Id = 17
	q.IsEdns0().SetUDPSize(maxMessage) // our own limit
	q.IsEdns0().Option = q.IsEdns0().Option[1:2]
	if got.String() != q.String() {
		t.Errorf("forwarded\n%v\nexpected\n%v", got, q)
	}
	if again := f.AppendQuery(nil, 18); binary.BigEndian.Uint16(again) != 18 ||
		!bytes.Equal(again[2:], wire[len("before")+2:]) {
		t.Errorf("the second query differs: %x", again)
	}
}

func TestSameQuestion(t *testing.T) {
	t.Parallel()
	query := pack(t, ask("www.Example.com.", dns.TypeANY))
	answer := func(change func(*dns.Msg)) []byte { return reply(t, query, change) }
	for name, c := range map[string]struct {
		message []byte
		want    bool
	}{
		"same":          {answer(func(*dns.Msg) {}), true},
		"other case":    {answer(func(m *dns.Msg) { m.Question[0].Name = "wWW.eXAMPLE.com." }), false},
		"other id":      {answer(func(m *dns.Msg) { m.Id++ }), true},
		"other name":    {answer(func(m *dns.Msg) { m.Question[0].Name = "ww.Example.com." }), false},
		"other type":    {answer(func(m *dns.Msg) { m.Question[0].Qtype++ }), false},
		"other class":   {answer(func(m *dns.Msg) { m.Question[0].Qclass++ }), false},
		"a query":       {query, false},
		"no question":   {answer(func(m *dns.Msg) { m.Question = nil }), false},
		"header alone":  {answer(func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeFormatError }), true},
		"cut":           {answer(func(*dns.Msg) {})[:20], false},
		"nothing":       {nil, false},
		"two questions": {answer(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), false},
	} {
		if got := SameQuestion(query, c.message); got != c.want {
			t.Errorf("%s: %v, expected %v", name, got, c.want)
		}
	}
	if !SameQuestion(pack(t, &dns.Msg{}), answer(func(*dns.Msg) {})) ||
		SameQuestion(query[:5], answer(func(*dns.Msg) {})) {
		t.Error("a query without a question, or that is none")
	}
}

func TestParseName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a.", 127)
	for text, want := range map[string]string{
		"":                       "\x00",
		".":                      "\x00",
		"example.com":            "\x07example\x03com\x00",
		"EXAMPLE.com.":           "\x07example\x03com\x00",
		`a\.b.c`:                 "\x03a.b\x01c\x00",
		`\065\046.c`:             "\x02a.\x01c\x00",
		`a\\.`:                   "\x02a\\\x00",
		`a\1.`:                   "\x02a1\x00",
		long:                     strings.Repeat("\x01a", 127) + "\x00",
		strings.Repeat("b", 63):  "\x3f" + strings.Repeat("b", 63) + "\x00",
		"\xff":                   "\x01\xff\x00",
		"xn--mnchen-3ya.example": "\x0exn--mnchen-3ya\x07example\x00",
	} {
		got, err := parseName(text)
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, expected %q", text, got, err, want)
		}
	}
	for _, text := range []string{"..", ".a", "a..b", "a..", `\256`, long + "a", strings.Repeat("b", 64),
		strings.Repeat("b", 64) + ".c"} {
		if got, err := parseName(text); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%q: %q, %v, expected ErrInvalidName", text, got, err)
		}
	}
}
