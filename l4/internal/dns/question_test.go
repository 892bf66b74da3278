package dns_test

import (
	"slices"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"pgregory.net/rapid"
)

// TestDNSList holds that a list is its questions in the order in which they came, whichever are taken out, and is not
// in the way of another list.
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
	for name, change := range map[string]func(*l4.ListenerSpec){
		"l4.TCP":      func(s *l4.ListenerSpec) { s.Protocol, s.DNS.Cache.MaxEntries = l4.TCP, 0 },
		"proxy":       func(s *l4.ListenerSpec) { s.Flows.SendProxy = true },
		"entries":     func(s *l4.ListenerSpec) { s.DNS.Cache.MaxEntries = -1 },
		"bytes":       func(s *l4.ListenerSpec) { s.DNS.Cache.MaxBytes = -1 },
		"min TTL":     func(s *l4.ListenerSpec) { s.DNS.Cache.MinTTL = -1 },
		"max TTL":     func(s *l4.ListenerSpec) { s.DNS.Cache.MaxTTL = -1 },
		"negative":    func(s *l4.ListenerSpec) { s.DNS.Cache.NegativeTTL = -1 },
		"stale":       func(s *l4.ListenerSpec) { s.DNS.Cache.StaleTTL = -1 },
		"as it is":    nil,
		"zero values": func(s *l4.ListenerSpec) { *s.DNS = l4.DNSSettings{} },
	} {
		spec := dnsSpec(p)
		if change != nil {
			change(&spec)
		}
		valid := change == nil || *spec.DNS == l4.DNSSettings{}
		if err := spec.validate(); (err == nil) != valid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
