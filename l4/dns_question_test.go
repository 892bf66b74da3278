package l4

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// TestPlainQuery holds what goes by a shared socket without a cache; TestDNSPasses has more of what does not.
func TestPlainQuery(t *testing.T) {
	plain := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	longest := dnsQuery(t, 1, strings.Repeat(strings.Repeat("x", 61)+".", 4)+"xxxxx.", dns.TypeA) // 255 bytes: 4 * 62 + 6 + 1
	for _, tc := range []struct {
		name string
		wire []byte
		want bool
	}{
		{"plain", plain, true},
		{"root", dnsQuery(t, 1, ".", dns.TypeNS), true},
		{"EDNS", dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, true) }), true},
		{"EDNS with options of any kind", dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_PADDING{Padding: make([]byte, 100)})
		}), true},
		{"another class", dnsQuery(t, 1, "version.bind.", dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), true},
		{"more behind it", append(slices.Clone(plain), 0), false},
		{"the longest name", longest, true},
		{"a longer one", slices.Concat(longest[:12], []byte{1, 'x'}, longest[12:]), false},
		{"IXFR", dnsPack(t, new(dns.Msg).SetIxfr("example.com.", 1, "ns.", "admin.")), false},
		{"TKEY", dnsQuery(t, 1, "example.com.", dns.TypeTKEY), false},
		{"compressed", append(slices.Clone(plain[:12]), 0xc0, 0x0c, 0, 1, 0, 1), false},
		{"long", dnsQuery(t, 1, "www.example.com.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 500)})
		}), false},
	} {
		if got := plainQuery(tc.wire); got != tc.want {
			t.Errorf("%s is plain: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// FuzzPlainQuery holds that any message can be looked at, and that what is plain can be told SERVFAIL: with its id and question.
func FuzzPlainQuery(f *testing.F) {
	f.Add(dnsQuery(f, 1, "www.example.com.", dns.TypeA))
	f.Add(dnsQuery(f, 2, ".", dns.TypeNS, func(m *dns.Msg) { m.SetEdns0(1232, true) }))
	f.Add(dnsQuery(f, 3, "example.com.", dns.TypeSOA, func(m *dns.Msg) { m.RecursionDesired, m.CheckingDisabled = false, true }))
	f.Fuzz(func(t *testing.T, wire []byte) {
		before := bytes.Clone(wire)
		if !plainQuery(wire) {
			return
		}
		var m dns.Msg
		failure := appendServFail([]byte("x"), wire)[1:]
		if !bytes.Equal(wire, before) {
			t.Fatalf("%x became %x", before, wire)
		}
		end := questionEnd(wire)
		if !bytes.Equal(failure[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0}) || !bytes.Equal(failure[12:], wire[12:end]) || !bytes.Equal(failure[:2], wire[:2]) {
			t.Fatalf("%x is answered by %x", wire, failure)
		}
		if err := m.Unpack(failure); err != nil {
			t.Fatalf("%x: %v", failure, err)
		}
		wanted := wire[2]&1 != 0
		if m.Rcode != dns.RcodeServerFailure || !m.Response || m.RecursionDesired != wanted || m.RecursionAvailable != wanted ||
			len(m.Answer)+len(m.Ns)+len(m.Extra) != 0 || m.CheckingDisabled != (wire[3]&0x10 != 0) {
			t.Fatalf("%x is answered by\n%v", wire, &m)
		}
	})
}

// TestDNSList holds that a list is its questions in the order in which they came, whichever are taken out, and is not in the way of another list.
func TestDNSList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := [dnsOrders]dnsList{{order: bySent}, {order: byBegun}}
		var want [dnsOrders][]*dnsQuestion
		all := make([]dnsQuestion, 5)
		for i := range all {
			all[i].began = time.Duration(i)
		}
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			q := &all[rapid.IntRange(0, len(all)-1).Draw(t, "question")]
			order := rapid.IntRange(0, dnsOrders-1).Draw(t, "order")
			if at := slices.Index(want[order], q); at >= 0 {
				want[order] = slices.Delete(want[order], at, at+1)
				lists[order].remove(q)
			} else if rapid.Bool().Draw(t, "push") {
				want[order] = append(want[order], q)
				lists[order].push(q)
			} else {
				lists[order].remove(q) // which is not in
			}
			for order := range lists {
				var there []*dnsQuestion
				for q := lists[order].first; q != nil; q = q.links[order].next {
					there = append(there, q)
				}
				if !slices.Equal(there, want[order]) {
					t.Fatalf("order %d: %d listed, want %d", order, len(there), len(want[order]))
				}
				if n := len(there); n > 0 && lists[order].last != there[n-1] || n == 0 && lists[order].last != nil {
					t.Fatalf("order %d: the last is another", order)
				}
			}
		}
	})
}

// TestDNSSettingsValidated holds which settings are refused.
func TestDNSSettingsValidated(t *testing.T) {
	p := newPool(t)
	for name, change := range map[string]func(*ListenerSpec){
		"TCP":         func(s *ListenerSpec) { s.Protocol, s.DNS.Cache.MaxEntries = TCP, 0 },
		"proxy":       func(s *ListenerSpec) { s.Flows.SendProxy = true },
		"timeout":     func(s *ListenerSpec) { s.DNS.Timeout = -1 },
		"sockets":     func(s *ListenerSpec) { s.DNS.Sockets = -1 },
		"entries":     func(s *ListenerSpec) { s.DNS.Cache.MaxEntries = -1 },
		"bytes":       func(s *ListenerSpec) { s.DNS.Cache.MaxBytes = -1 },
		"min TTL":     func(s *ListenerSpec) { s.DNS.Cache.MinTTL = -1 },
		"max TTL":     func(s *ListenerSpec) { s.DNS.Cache.MaxTTL = -1 },
		"negative":    func(s *ListenerSpec) { s.DNS.Cache.NegativeTTL = -1 },
		"stale":       func(s *ListenerSpec) { s.DNS.Cache.StaleTTL = -1 },
		"as it is":    nil,
		"zero values": func(s *ListenerSpec) { *s.DNS = DNSSettings{} },
	} {
		spec := dnsSpec(p)
		if change != nil {
			change(&spec)
		}
		valid := change == nil || *spec.DNS == DNSSettings{}
		if err := spec.validate(); (err == nil) != valid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
