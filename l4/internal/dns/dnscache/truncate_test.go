package dnscache

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestTruncate checks that a shortened answer still answers its question, with TC and its OPT record.
func TestTruncate(t *testing.T) {
	t.Parallel()
	query := pack(t, ask("www.example.com.", dns.TypeTXT, withEDNS(4096, true)))
	large := func(change func(*dns.Msg)) []byte {
		return reply(t, query, func(m *dns.Msg) {
			for range 20 {
				m.Answer = append(m.Answer, &dns.TXT{
					Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 9},
					Txt: []string{strings.Repeat("x", 250)},
				})
			}
			change(m)
		})
	}
	for name, c := range map[string]struct {
		message []byte
		options int // -1 = no OPT record
	}{
		"usual": {large(func(*dns.Msg) {}), 0},
		"with an option": {large(func(m *dns.Msg) { m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 3}} }),
			1},
		"with many": {large(func(m *dns.Msg) {
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 2000)}}
		}), 0},
		"no EDNS": {large(func(m *dns.Msg) { m.Extra = nil }), -1},
		"OPT not last": {large(func(m *dns.Msg) { m.Extra = append(m.Extra, records(t, "a. 9 IN A 192.0.2.1")...) }),
			0},
		"a long question": {large(func(m *dns.Msg) {
			m.Question[0].Name = strings.Repeat(strings.Repeat("y", 61)+".",
				4)
		}), 0},
	} {
		before := unpack(t, c.message)
		cut := Truncate(append([]byte(nil), c.message...), 512)
		m := unpack(t, cut)
		if len(cut) > 512 || !m.Truncated || m.Id != before.Id || m.Question[0] != before.Question[0] ||
			len(m.Answer)+len(m.Ns) > 0 || m.Rcode != before.Rcode {
			t.Errorf("%s: %d bytes, %v", name, len(cut), m)
		}
		if opt := m.IsEdns0(); (opt == nil) != (c.options < 0) || opt != nil &&
			(len(opt.Option) != c.options || !opt.Do()) {
			t.Errorf("%s: %v", name, opt)
		}
		if same := Truncate(append([]byte(nil), c.message...), len(c.message)); !bytes.Equal(same, c.message) {
			t.Errorf("%s: cut though it fits", name)
		}
	}
}

// FuzzTruncate shortens any bytes.
func FuzzTruncate(f *testing.F) {
	f.Add(hostileAnswer())
	f.Add(bytes.Repeat([]byte{63}, 600))
	f.Add(append(pack(f, ask("www.example.com.", dns.TypeTXT, withEDNS(4096, true))), make([]byte, 600)...))
	f.Fuzz(func(t *testing.T, message []byte) {
		good := readable(message)
		cut := Truncate(append([]byte(nil), message...), 512)
		if len(cut) > 512 || good && !readable(cut) {
			t.Fatalf("%d bytes %x of %x", len(cut), cut, message)
		}
	})
}
