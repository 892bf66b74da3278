package daemon

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// TestPurgeDNS checks what can be purged, which requests are refused, and the events.
func TestPurgeDNS(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte(metricsConfig+`
[listener.asks]
address = "127.0.0.1:7994"
protocol = "udp"
profile = "dns"
pool = "mail"
`))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	events, stop := d.Events()
	defer stop()
	for _, tc := range []struct {
		what admin.DNSPurge
		text string
	}{
		{admin.DNSPurge{Name: "Example.com"}, "listener names forgot 0 answers: Example.com"},
		{admin.DNSPurge{Name: "example.com.", Below: true},
			"listener names forgot 0 answers: example.com. and all below it"},
		{admin.DNSPurge{All: true}, "listener names forgot 0 answers: all"},
	} {
		if n, err := d.PurgeDNS("names", tc.what); n != 0 || err != nil {
			t.Errorf("%+v: %d, %v", tc.what, n, err)
			continue
		}
		if e := <-events; e.Kind != "dns_purged" || e.Text != tc.text || e.At.IsZero() {
			t.Errorf("%+v: the event is %+v", tc.what, e)
		}
	}
	for listener, want := range map[string]error{"none": admin.ErrUnknownListener, "web": admin.ErrNoDNSCache,
		"asks": admin.ErrNoDNSCache} {
		if _, err := d.PurgeDNS(listener, admin.DNSPurge{All: true}); !errors.Is(err, want) {
			t.Errorf("listener %s: %v, want %v", listener, err, want)
		}
	}
	for _, name := range []string{"", "a..b", `\999`} {
		var refused *admin.RequestError
		if _, err := d.PurgeDNS("names", admin.DNSPurge{Name: name}); !errors.As(err, &refused) ||
			refused.Field != "name" || refused.Value != name {
			t.Errorf("%q: %v", name, err)
		}
	}
	if len(events) > 0 {
		t.Errorf("what was refused has the event %+v", <-events)
	}
	for _, l := range d.Listeners() {
		asks, keeps := l.DNS != nil, l.DNS != nil && l.DNS.Cache != nil
		if want := l.Name == "names" || l.Name == "asks"; asks != want {
			t.Errorf("listener %s has DNS numbers: %t, want %t", l.Name, asks, want)
		}
		if want := l.Name == "names"; keeps != want {
			t.Errorf("listener %s has numbers of a cache: %t, want %t", l.Name, keeps, want)
		}
	}
}

// TestDNSNumbers: every number of the data plane is in the API under its own name, and in one metric.
func TestDNSNumbers(t *testing.T) {
	var info l4.DNSInfo
	want := make(map[string]float64) // by name in JSON
	number := func(v reflect.Value, name string) {
		n := float64(len(want) + 1)
		want[strings.ToLower(regexp.MustCompile(`\B[A-Z]`).ReplaceAllString(name, "_$0"))] = n
		v.Set(reflect.ValueOf(n).Convert(v.Type()))
	}
	for _, v := range []reflect.Value{reflect.ValueOf(&info).Elem(), reflect.ValueOf(&info.Cache).Elem()} {
		for i := range v.NumField() {
			if v.Field(i).Kind() != reflect.Struct {
				number(v.Field(i), v.Type().Field(i).Name)
			}
		}
	}
	text, err := json.Marshal(dnsAnswer(&info, true))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	all, _ := got["cache"].(map[string]any)
	delete(got, "cache")
	maps.Copy(all, got)
	for name, n := range want {
		if all[name] != n {
			t.Errorf("%s is %v, want %v", name, all[name], n)
		}
	}
	if len(all) != len(want) {
		t.Errorf("there are %d numbers, want %d: %s", len(all), len(want), text)
	}

	var c catalog
	asking, cache, listener := c.ofDNSQuestions(), c.ofDNSCaches(), label("listener", "names")
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{series: c, parts: []part{func(to sink) {
		asking.put(protocolSink{sink: to}, listener, &info)
		cache.put(to, listener, &info.Cache)
	}}})
	metrics := numbers(scrape(t, newHandler(r, nil), textForm))
	for name, n := range want {
		found := ""
		for key, value := range metrics {
			if value == n {
				found += key
			}
		}
		if name == "asked" {
			name = "tries" // numbers that count each try are named so
		}
		if strings.Count(found, "{") != 1 || !strings.Contains(found, name) {
			t.Errorf("%s is in the metrics %q", name, found)
		}
	}
}
