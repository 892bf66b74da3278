package l4_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestRoutedSpecs holds which specs with routes are refused, and that a plan keeps its own copy of them.
func TestRoutedSpecs(t *testing.T) {
	p := newPool(t)
	good := func() l4.ListenerSpec {
		ls := spec(nil)
		ls.InspectTimeout = time.Second
		ls.Routes = []l4.Route{{ServerNames: []string{"a.example.com"}, Pool: p}}
		return ls
	}
	for want, change := range map[string]func(*l4.ListenerSpec){
		"has no pool": func(ls *l4.ListenerSpec) { ls.Routes = nil },
		"routes need TCP": func(ls *l4.ListenerSpec) {
			ls.Protocol, ls.Flows = l4.UDP, l4.FlowSettings{Timeout: time.Second, Max: 1}
		},
		"exclude each other":    func(ls *l4.ListenerSpec) { ls.Pool, ls.DNS = p, new(l4.DNSSettings) },
		"inspect timeout of 0s": func(ls *l4.ListenerSpec) { ls.InspectTimeout = 0 },
		"identifiers need TCP": func(ls *l4.ListenerSpec) {
			ls.Protocol, ls.Flows = l4.UDP, l4.FlowSettings{Timeout: time.Second, Max: 1}
			ls.Pool, ls.Routes, ls.MQTT = p, nil, true
		},
		"inspect timeout of -1ns": func(ls *l4.ListenerSpec) {
			ls.Pool, ls.Routes, ls.MQTT, ls.InspectTimeout = p, nil, true, -1
		},
		"route 0 has no pool": func(ls *l4.ListenerSpec) { ls.Routes[0].Pool = nil },
		"":                    func(*l4.ListenerSpec) {},
	} {
		ls := good()
		change(&ls)
		s := start(t, l4.Options{Loops: 1})
		err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{ls}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("error %v, want %q", err, want)
		}
		if want != "" {
			continue
		}
		ls.Routes[0].ServerNames = nil
		for _, name := range []string{"a.example.com", "A.Example.COM"} {
			if to, err := s.PoolFor("test", name, nil); to != p || err != nil {
				t.Errorf("%s goes to %v, error %v", name, to, err)
			}
		}
		if to, err := s.PoolFor("test", "b.example.com", nil); to != nil || err != nil {
			t.Errorf("b.example.com goes to %v, error %v", to, err)
		}
		if _, err := s.PoolFor("other", "", nil); !errors.Is(err, l4.ErrUnknownListener) {
			t.Errorf("error %v for an unknown listener", err)
		}
		if info := s.Listeners()[0]; info.Pool != "" {
			t.Errorf("the listener has the pool %q", info.Pool)
		}
	}
}
