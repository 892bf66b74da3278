package dns_test

import (
	"testing"

	"github.com/limeload/limeload-l4/l4"
)

// TestDNSSettingsValidated holds which settings are refused.
func TestDNSSettingsValidated(t *testing.T) {
	p := newPool(t)
	s := start(t, l4.Options{Loops: 1})
	for name, change := range map[string]func(*l4.ListenerSpec){
		"TCP":         func(s *l4.ListenerSpec) { s.Protocol, s.DNS.Cache.MaxEntries = l4.TCP, 0 },
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
		change, err := s.Prepare(l4.Plan{Listeners: []l4.ListenerSpec{spec}})
		if (err == nil) != valid {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			change.Discard()
		}
	}
}
