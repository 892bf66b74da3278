package dnscache

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// forwardable returns a query in wire format.
func forwardable(t testing.TB, id uint16, name string, typ uint16, changes ...func(*dns.Msg)) []byte {
	t.Helper()
	return pack(t, ask(name, typ, append(changes, withID(id))...))
}

// TestForwardable checks which queries use a shared socket without a cache; TestDNSPasses of l4 has more that do not.
func TestForwardable(t *testing.T) {
	plain := forwardable(t, 1, "www.example.com.", dns.TypeA)
	// 255 bytes: 4 * 62 + 6 + 1
	longest := forwardable(t, 1, strings.Repeat(strings.Repeat("x", 61)+".", 4)+"xxxxx.", dns.TypeA)
	for _, tc := range []struct {
		name string
		wire []byte
		want bool
	}{
		{"plain", plain, true},
		{"root", forwardable(t, 1, ".", dns.TypeNS), true},
		{"EDNS", forwardable(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) }), true},
		{"EDNS with options of any kind", forwardable(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option,
				&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_PADDING{Padding: make([]byte, 100)})
		}), true},
		{"another class", forwardable(t, 1, "version.bind.", dns.TypeTXT, func(m *dns.Msg) {
			m.Question[0].Qclass = dns.ClassCHAOS
		}), true},
		{"more behind it", append(slices.Clone(plain), 0), false},
		{"the longest name", longest, true},
		{"a longer one", slices.Concat(longest[:12], []byte{1, 'x'}, longest[12:]), false},
		{"IXFR", pack(t, new(dns.Msg).SetIxfr("example.com.", 1, "ns.", "admin.")), false},
		{"TKEY", forwardable(t, 1, "example.com.", dns.TypeTKEY), false},
		{"compressed", append(slices.Clone(plain[:12]), 0xc0, 0x0c, 0, 1, 0, 1), false},
		{"long", forwardable(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 500)})
		}), false},
	} {
		if got := Forwardable(tc.wire); got != tc.want {
			t.Errorf("%s is plain: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// FuzzForwardable checks that Forwardable can read any message, and that each plain query gets a SERVFAIL with its id
// and question.
func FuzzForwardable(f *testing.F) {
	f.Add(forwardable(f, 1, "www.example.com.", dns.TypeA))
	f.Add(forwardable(f, 2, ".", dns.TypeNS, func(m *dns.Msg) { m.SetEdns0(1232, true) }))
	f.Add(forwardable(f, 3, "example.com.", dns.TypeSOA, func(m *dns.Msg) {
		m.RecursionDesired, m.CheckingDisabled = false, true
	}))
	f.Fuzz(func(t *testing.T, wire []byte) {
		before := bytes.Clone(wire)
		if !Forwardable(wire) {
			return
		}
		var m dns.Msg
		failure := AppendServFail([]byte("x"), wire)[1:]
		if !bytes.Equal(wire, before) {
			t.Fatalf("%x became %x", before, wire)
		}
		end := headerLen + lowerName(make([]byte, maxNameLen), wire[headerLen:]) + questionLen
		if !bytes.Equal(failure[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0}) || !bytes.Equal(failure[12:], wire[12:end]) ||
			!bytes.Equal(failure[:2], wire[:2]) {
			t.Fatalf("%x is answered by %x", wire, failure)
		}
		if err := m.Unpack(failure); err != nil {
			t.Fatalf("%x: %v", failure, err)
		}
		wanted := wire[2]&1 != 0
		if m.Rcode != dns.RcodeServerFailure || !m.Response ||
			m.RecursionDesired != wanted || m.RecursionAvailable != wanted ||
			len(m.Answer)+len(m.Ns)+len(m.Extra) != 0 || m.CheckingDisabled != (wire[3]&0x10 != 0) {
			t.Fatalf("%x is answered by\n%v", wire, &m)
		}
	})
}
