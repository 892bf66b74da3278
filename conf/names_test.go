package conf

import (
	"slices"
	"strings"
	"testing"
)

// brokers returns a configuration with a listener and a pool that have these lines.
func brokers(listener, pool string) string {
	return "[listener.a]\naddress = ':1883'\npool = 'p'\n" + listener +
		"\n[pool.p]\nbackends = ['10.0.0.1:1883', '10.0.0.2:1883']\n" + pool + "\n"
}

// TestNames holds which name counts for a pool, and which listeners read MQTT client identifiers for it.
func TestNames(t *testing.T) {
	const routes = "routes = [{ sni = ['a.b'], pool = 'p' }]"
	const hash = "algorithm = 'maglev'\nhash_key = 'mqtt_client_id'"
	const stick = "sticky = { ttl = '1h', key = 'mqtt_client_id' }"
	const byAddress = "its clients go by their IP address"
	for _, tt := range []struct {
		listener, pool, named string
		reads                 bool
		warnings              []string // what each contains
	}{
		{"", "", "", false, nil},
		{"", "sticky = { ttl = '1h' }", "", false, nil},
		{"", hash, "mqtt_client_id", true, nil},
		{"", stick, "mqtt_client_id", true, nil},
		{"", hash + "\n" + stick, "mqtt_client_id", true, nil},
		{"inspect_timeout = '1s'", stick, "mqtt_client_id", true, nil},
		{routes, "algorithm = 'maglev'\nhash_key = 'sni'", "sni", false, nil},
		{routes, "sticky = { ttl = '1h', key = 'sni' }", "sni", false, nil},
		{routes, "algorithm = 'maglev'\nhash_key = 'sni'\nsticky = { ttl = '1h' }", "sni", false, nil},
		{"", "hash_key = 'mqtt_client_id'", "", false, []string{`pool.p.hash_key: found "mqtt_client_id"; algorithm "least_conn" does not hash: this key changes nothing`}},
		{"", "sticky = { key = 'mqtt_client_id' }", "", false, []string{`pool.p.sticky.key: found "mqtt_client_id"; ttl is "0s": this key changes nothing`}},
		{"", "sticky = { ttl = '1h', key = 'sni' }", "sni", false, []string{`pool.p.sticky.key: found "sni"; listener.a has neither routes nor tls and reads no ClientHello: ` + byAddress}},
		{"protocol = 'udp'", stick, "mqtt_client_id", false, []string{"listener.a has clients that do not speak MQTT: " + byAddress}},
		{routes, hash, "mqtt_client_id", true, []string{"listener.a has routes, and what its clients send is encrypted: " + byAddress}},
		{"inspect_timeout = '1s'", "", "", false, []string{`inspect_timeout: found "1s"; the listener has no routes, reads no MQTT client identifier, and profile is not "postgres": this key changes nothing`}},
	} {
		c := mustParse(t, brokers(tt.listener, tt.pool))
		if got, reads := c.Pools[0].NamedBy(), c.ReadsMQTT(&c.Listeners[0]); got != tt.named || reads != tt.reads {
			t.Errorf("%q, %q: named by %q, reads MQTT %v", tt.listener, tt.pool, got, reads)
		}
		got := c.Warnings()
		if len(got) != len(tt.warnings) || !slices.EqualFunc(got, tt.warnings, strings.Contains) {
			t.Errorf("%q, %q: warnings %q, want %q", tt.listener, tt.pool, got, tt.warnings)
		}
	}
}

// TestNamesMistaken holds that a pool has one kind of name.
func TestNamesMistaken(t *testing.T) {
	wantErrors(t, brokers("", "hash_key = 'sni'\nsticky = { key = 'mqtt_client_id' }"),
		`lb.toml:8: pool.p.sticky.key: found "mqtt_client_id"; hash_key is "sni"; needs "sni", or "client_ip" in one of the two`)
	for _, keys := range []string{"hash_key = 'sni'\nsticky = { key = 'sni' }",
		"hash_key = 'client'\nsticky = { key = 'sni' }", "hash_key = 'mqtt_client_id'"} {
		wantErrors(t, brokers("", keys))
	}
	for wrong, right := range map[string]string{
		"hash_key = 'mqtt_preread_clientid'": "mqtt_client_id", "sticky = { key = 'src' }": "client_ip",
	} {
		_, err := Parse("lb.toml", []byte(brokers("", wrong)))
		if err == nil || !strings.Contains(err.Error(), `did you mean "`+right+`"?`) {
			t.Errorf("%s: error %v", wrong, err)
		}
	}
}

// TestNamesCompared holds that a reload sees another key of sticky.
func TestNamesCompared(t *testing.T) {
	from := mustParse(t, brokers("", "sticky = { ttl = '1h' }"))
	to := mustParse(t, brokers("", "sticky = { ttl = '1h', key = 'mqtt_client_id' }"))
	if got := from.Compare(to); len(got) != 1 || strings.Join(got[0].Keys, ".") != "pool.p.sticky.key" {
		t.Errorf("%+v", got)
	}
}
