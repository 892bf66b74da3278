package dnscache

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRejected sends messages that are not the answer. The flight continues each time, and the true answer is still
// accepted.
func TestRejected(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	f := forward(t, r, ask("www.example.com.", dns.TypeA, withEDNS(4096, false, subnetOption("192.0.2.0", 24, 0))), 1,
		0)
	query := f.AppendQuery(nil, flightID)
	answer := func(change func(*dns.Msg)) []byte {
		return reply(t, query, func(m *dns.Msg) {
			usualAnswer(t)(m)
			change(m)
		})
	}
	good := answer(func(*dns.Msg) {})
	other := func(option *dns.EDNS0_SUBNET) []byte {
		return answer(func(m *dns.Msg) { m.IsEdns0().Option = []dns.EDNS0{option} })
	}
	var wrong uint64
	reject := func(name string, message []byte) {
		t.Helper()
		wrong++
		if got, ok := r.Answered(f, flightID, message, 0); ok || got.Len() != 0 {
			t.Errorf("%s: taken, expected it rejected", name)
		}
	}
	for name, change := range map[string]func(*dns.Msg){
		"other id":      func(m *dns.Msg) { m.Id++ },
		"other name":    func(m *dns.Msg) { m.Question[0].Name = "wwx.example.com." },
		"longer name":   func(m *dns.Msg) { m.Question[0].Name = "a.www.example.com." },
		"other type":    func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"other class":   func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"a query":       func(m *dns.Msg) { m.Response = false },
		"other opcode":  func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"no question":   func(m *dns.Msg) { m.Question = nil },
		"two questions": func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"two opt":       func(m *dns.Msg) { m.SetEdns0(512, false) },
		"opt elsewhere": func(m *dns.Msg) { m.Ns, m.Extra = m.Extra, nil },
		"opt of a name": func(m *dns.Msg) { m.IsEdns0().Hdr.Name = "example.com." },
	} {
		reject(name, answer(change))
	}
	reject("other subnet", other(subnetOption("192.0.3.0", 24, 24)))
	reject("other length", other(subnetOption("192.0.2.0", 25, 24)))
	reject("other family", other(subnetOption("2001:db8::", 24, 24)))
	for i := range good {
		reject("cut", good[:i])
	}
	reject("header alone without a failure", answer(func(m *dns.Msg) { *m = dns.Msg{MsgHdr: m.MsgHdr} }))
	if n := r.cache.Counters(); n.Rejected != wrong || n.Stored != 0 {
		t.Errorf("%+v, expected %d rejected", n, wrong)
	}
	answers, ok := r.Answered(f, flightID, good, 0)
	if !ok || answers.Len() != 1 {
		t.Fatalf("the true answer: %v, %d clients", ok, answers.Len())
	}
	if again, ok := r.Answered(f, flightID, good, 0); ok || again.Len() != 0 {
		t.Error("answered twice")
	}
	if n := r.cache.Counters(); n.Rejected != wrong || n.Stored != 1 || n.Waiting != 0 {
		t.Errorf("%+v, expected one stored and nobody waiting", n)
	}
}

// raw returns an answer to www.example.com A with these counts of records, and these bytes behind the question.
func raw(answers, additional uint16, rest ...byte) []byte {
	message := binary.BigEndian.AppendUint16(nil, flightID)
	message = append(message, 0x81, 0x80, 0, 1)
	message = binary.BigEndian.AppendUint16(message, answers)
	message = append(message, 0, 0)
	message = binary.BigEndian.AppendUint16(message, additional)
	message = append(message, "\x03www\x07example\x03com\x00\x00\x01\x00\x01"...)
	return append(message, rest...)
}

// TestHostilePointers has compressed names that point into rewritten bytes, or never end.
func TestHostilePointers(t *testing.T) {
	t.Parallel()
	const records = headerLen + 17 + questionLen // offset of the first record
	a := "\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x01"
	pointer := func(to int) string { return string([]byte{0xc0 | byte(to>>8), byte(to)}) }
	record := func(name, data string) string {
		return name + "\x00\x02\x00\x01\x00\x00\x01\x2c\x00" + string([]byte{byte(len(data))}) + data
	}
	opaque := func(name, data string) string {
		return name + "\x00\x10\x00\x01\x00\x00\x01\x2c\x00" + string([]byte{byte(len(data))}) + data
	}
	chain := func(length int) string { // each pointer points to the one before, the first to the question
		var data strings.Builder
		data.WriteString(pointer(headerLen))
		for i := range length - 1 {
			data.WriteString(pointer(records + 12 + 2*i))
		}
		return data.String()
	}
	for name, c := range map[string]struct {
		records []string
		want    bool
	}{
		"to the question":  {[]string{pointer(headerLen) + a}, true},
		"to a label of it": {[]string{pointer(headerLen+4) + a}, true},
		"to a record's name": {[]string{"\x01x" + pointer(headerLen+4) + a, pointer(records) + a},
			true},
		"to a record's pointer": {[]string{pointer(headerLen+4) + a, pointer(records) + a}, true},
		"to a record's data": {[]string{record(pointer(headerLen), "\x02ns"+pointer(headerLen+4)),
			pointer(records+12) + a}, true},
		"to a label in opaque data": {[]string{opaque(pointer(headerLen), "\x02ns\x00"),
			pointer(records+12) + a}, true},
		"to the question's root": {[]string{pointer(headerLen+16) + a}, true},
		"to itself":              {[]string{pointer(records) + a}, false},
		"forward":                {[]string{pointer(records+20) + a, pointer(headerLen) + a}, false},
		"to the header":          {[]string{pointer(0) + a}, false},
		"to the counts":          {[]string{pointer(4) + a}, false},
		"into a label":           {[]string{pointer(headerLen+1) + a}, false},
		"to the question's type": {[]string{pointer(headerLen+17) + a}, false},
		"as many pointers as a name may have": {[]string{opaque(pointer(headerLen), chain(126)),
			pointer(records+12+2*125) + a}, true},
		"too many pointers": {[]string{opaque(pointer(headerLen), chain(127)),
			pointer(records+12+2*126) + a}, false},
		"to a TTL":  {[]string{pointer(headerLen) + a, pointer(records+6) + a}, false},
		"to a type": {[]string{pointer(headerLen) + a, pointer(records+2) + a}, false},
		"out of the data": {[]string{opaque(pointer(headerLen), "\x05ns"), pointer(records+12) + a},
			false},
		"a name beyond its data": {[]string{record(pointer(headerLen), "\x02ns"), pointer(headerLen) + a},
			false},
		"data whose pointer loops": {[]string{record(pointer(headerLen), pointer(records+12))}, false},
		"reserved label":           {[]string{"\x80" + a}, false},
		"reserved label in opaque data": {[]string{opaque(pointer(headerLen), "\x40ns\x00"),
			pointer(records+12) + a}, false},
		"longer than a name may be": {[]string{strings.Repeat("\x01a", 118) + "\x02bb" + pointer(headerLen) +
			a}, false},
		"as long as a name may be": {[]string{strings.Repeat("\x01a", 119) + pointer(headerLen) + a}, true},
	} {
		r := newTestResolver(testOptions())
		f := forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
		_, got := r.Answered(f, flightID, raw(uint16(len(c.records)), 0, []byte(strings.Join(c.records, ""))...), 0)
		if got != c.want {
			t.Errorf("%s: taken is %v, expected %v", name, got, c.want)
		}
	}
}

// TestLabelsOfAnotherAnswer checks that a name must not point to labels of an earlier answer.
func TestLabelsOfAnotherAnswer(t *testing.T) {
	t.Parallel()
	const records = headerLen + 17 + questionLen
	r := newTestResolver(testOptions())
	f := forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
	rest := "\x01x\x01x\x01x\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc0\x00\x02\x01"
	if _, ok := r.Answered(f, flightID, raw(1, 0, []byte(rest)...), 0); !ok {
		t.Fatal("the first answer is rejected")
	}
	f = forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
	rest = "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc0\x00\x02\x01\xc0" + string([]byte{records + 4}) +
		"\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc0\x00\x02\x01"
	if _, ok := r.Answered(f, flightID, raw(2, 0, []byte(rest)...), 0); ok {
		t.Error("a name points to where another answer had a label")
	}
}

// TestMalformedData has options and data that do not fit into their records.
func TestMalformedData(t *testing.T) {
	t.Parallel()
	opt := func(options string) string {
		return "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00" + string([]byte{byte(len(options))}) + options
	}
	data := func(typ byte, data string) string {
		return "\xc0\x0c\x00" + string([]byte{typ}) + "\x00\x01\x00\x00\x01\x2c\x00" + string([]byte{byte(len(data))}) +
			data
	}
	for name, c := range map[string]struct {
		record string
		want   bool
	}{
		"an option":                {opt("\x00\x03\x00\x01a"), true},
		"half an option":           {opt("\x00\x03\x00"), false},
		"an option that is longer": {opt("\x00\x03\x00\x02a"), false},
		"half a subnet":            {opt("\x00\x08\x00\x02\x00\x01"), false},
		"two subnets":              {opt("\x00\x08\x00\x04\x00\x01\x00\x00\x00\x08\x00\x04\x00\x01\x00\x00"), false},
		"an MX":                    {data(15, "\x00\x01\x00"), true},
		"half an MX":               {data(15, "\x00"), false},
		"an MX without a name":     {data(15, "\x00\x01"), false},
		"a NAPTR":                  {data(typeNAPTR, "\x00\x01\x00\x01\x01s\x00\x00\x00"), true},
		"a NAPTR cut in its texts": {data(typeNAPTR, "\x00\x01\x00\x01\x01s"), false},
		"a NAPTR without a name":   {data(typeNAPTR, "\x00\x01\x00\x01\x01s\x00\x00"), false},
		"an SOA":                   {data(typeSOA, "\x00\x00"+strings.Repeat("\x00", 20)), true},
		"an SOA that is too long":  {data(typeSOA, "\x00\x00"+strings.Repeat("\x00", 21)), false},
		"an SOA that is too short": {data(typeSOA, "\x00\x00"+strings.Repeat("\x00", 19)), false},
	} {
		r := newTestResolver(testOptions())
		f := forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
		if _, got := r.Answered(f, flightID, raw(0, 1, []byte(c.record)...), 0); got != c.want {
			t.Errorf("%s: taken is %v, expected %v", name, got, c.want)
		}
	}
}

// TestOptInTheMiddle has names that point across the OPT record, which is removed.
func TestOptInTheMiddle(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	q := ask("www.example.com.", dns.TypeMX)
	var sent *dns.Msg
	got := fill(t, r, q, 0, func(m *dns.Msg) {
		m.Answer = records(t, "www.example.com. 300 IN MX 5 mx.example.net.")
		m.SetEdns0(1232, false)
		m.Extra = append(m.Extra, records(t,
			"mx.example.net. 200 IN A 192.0.2.1", "late.example.org. 100 IN A 192.0.2.2",
			"late.example.org. 100 IN NS ns.late.example.org.",
			"ns.late.example.org. 50 IN A 192.0.2.3", "www.example.com. 60 IN SRV 1 2 3 ns.late.example.org.")...)
		sent = m.Copy()
	})
	sent.Extra = sent.Extra[1:]
	sent.Id = q.Id
	if got.String() != sent.String() {
		t.Errorf("answered\n%v\nexpected\n%v", got, sent)
	}
	for _, rr := range sent.Answer {
		rr.Header().Ttl -= 40
	}
	for _, rr := range sent.Extra {
		rr.Header().Ttl -= 40
	}
	if hit := wantVerdict(t, r, q, 40*time.Second, Hit); hit.String() != sent.String() {
		t.Errorf("from the cache\n%v\nexpected\n%v", hit, sent)
	}
}

// TestTrailingBytes checks that bytes behind the last record are not part of the answer.
func TestTrailingBytes(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	q := ask("www.example.com.", dns.TypeA)
	f := forward(t, r, q, 1, 0)
	message := reply(t, f.AppendQuery(nil, flightID), usualAnswer(t))
	answers, ok := r.Answered(f, flightID, append(message, "more"...), 0)
	if !ok {
		t.Fatal("rejected")
	}
	got := answers.Append(nil, 0)
	if len(got) != len(message) || bytes.Contains(got, []byte("more")) {
		t.Errorf("%q goes on", got)
	}
}

// TestAllTypes checks that records of all types for which miekg/dns has an example are returned unchanged, with names
// compressed wherever that is allowed.
func TestAllTypes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"www.example.com. 300 IN NAPTR 100 50 \"s\" \"SIP+D2U\" \"\" _sip._udp.www.example.com.",
		"www.example.com. 300 IN SRV 1 2 3 host.example.com.",
		"www.example.com. 300 IN RP mbox.example.com. txt.example.com.",
		"www.example.com. 300 IN MINFO a.example.com. b.example.com.",
		"www.example.com. 300 IN PX 10 a.example.com. b.example.com.",
		"www.example.com. 300 IN DNAME other.example.com.",
		"www.example.com. 300 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1",
		"www.example.com. 300 IN SVCB 2 svc.example.com. port=53",
		"www.example.com. 300 IN NSEC a.example.com. A AAAA RRSIG",
		"www.example.com. 300 IN RRSIG A 8 3 300 20300101000000 20200101000000 1 example.com. AAAA",
		"www.example.com. 300 IN DS 1 8 2 00112233", "www.example.com. 300 IN TXT \"a\" \"b\"",
		"www.example.com. 300 IN CAA 0 issue \"x\"",
		"www.example.com. 300 IN SOA ns.example.com. root.example.com. 1 2 3 4 5",
		"www.example.com. 300 IN KX 10 kx.example.com.",
		"www.example.com. 300 IN AFSDB 1 a.example.com.", "www.example.com. 300 IN RT 1 a.example.com.",
		"www.example.com. 300 IN LP 1 a.example.com.",
		"www.example.com. 300 IN PTR host.example.com.", "www.example.com. 300 IN MG a.example.com.",
		"www.example.com. 300 IN HINFO \"a\" \"b\"",
		"www.example.com. 300 IN LOC 51 30 12 N 0 7 39 W 0m 10m 100m 10m",
		"www.example.com. 300 IN TYPE65400 \\# 3 c00c01",
		"www.example.com. 300 IN TALINK a.example.com. b.example.com.",
		"www.example.com. 300 IN NSEC3 1 0 0 - 2vptu5timamqttgl4luu9kg21e0aor3s A",
	} {
		r := newTestResolver(testOptions())
		rr := records(t, text)[0]
		q := ask("wWw.example.com.", rr.Header().Rrtype)
		var sent *dns.Msg
		first := fill(t, r, q, 0, func(m *dns.Msg) {
			m.Answer = []dns.RR{rr, rr}
			sent = m.Copy()
		})
		sent.Id = q.Id
		for _, got := range []*dns.Msg{first, wantVerdict(t, r, q, 0, Hit)} {
			if !strings.EqualFold(got.String(), sent.String()) {
				t.Errorf("answered\n%v\nexpected\n%v", got, sent)
			}
		}
	}
}

// TestSecondNamePointsToFirst has an SOA record as name servers write it: its second name is compressed with the first
// one.
func TestSecondNamePointsToFirst(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} { // the OPT record
		r := newTestResolver(testOptions())
		f := forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
		opt := []byte{0, 0, typeOPT, 4, 208, 0, 0, 0, 0, 0, 0}
		message := raw(0, 1)
		if first {
			message = append(message, opt...)
		}
		at := len(message) + 2 + recordLen
		soa := append([]byte{0xc0, headerLen + 4, 0, typeSOA, 0, classIN, 0, 0, 1, 44, 0, 39},
			"\x02ns\x04host\x03net\x00\x01a"...)
		soa = append(soa, 0xc0, byte(at+3))
		soa = append(soa, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 60)
		soa[11] = byte(len(soa) - 12)
		message = append(message, soa...)
		if first {
			message[11] = 2
		} else {
			message[9], message[11] = 1, 1 // the usual place
			message = append(message, opt...)
		}
		answers, ok := r.Answered(f, flightID, message, 0)
		if !ok {
			t.Fatalf("OPT record in front is %v: rejected", first)
		}
		got := unpack(t, answers.Append(nil, 0))
		if rr := append(got.Ns, got.Extra...)[0].(*dns.SOA); rr.Ns != "ns.host.net." || rr.Mbox != "a.host.net." {
			t.Errorf("OPT record in front is %v: %v", first, rr)
		}
	}
}
