package conf

import "testing"

// TestMetricsAddress makes one mistake at a time in the table metrics; want "" means that there is none.
func TestMetricsAddress(t *testing.T) {
	const needs = `; needs "IP:PORT", "[IPV6]:PORT", ":PORT" for all addresses, "unix:PATH", or "" for none`
	for _, tt := range []struct{ line, want string }{
		{`address = ""`, ``},
		{`address = ":9180"`, ``},
		{`address = "0.0.0.0:9180"`, ``},
		{`address = "[::1]:9180"`, ``},
		{`address = "unix:/run/limeload/metrics.sock"`, ``},
		{`address = "9180"`, `found "9180"; the port is missing` + needs},
		{`address = 9180`, `found the integer 9180; needs a string`},
		{`address = "10.0.0.1"`, `found "10.0.0.1"; the port is missing` + needs},
		{`address = "lb1:9180"`, `found "lb1:9180"; "lb1" is a host name` + needs},
		{`address = ":0"`, `found ":0"; the port is "0"; allowed is 1 to 65535`},
		{`address = "unix:"`, `found "unix:"` + needs},
		{`address = "224.0.0.1:9180"`, `found "224.0.0.1:9180"; a multicast or broadcast address is of no use here`},
		{`address = "127.0.0.1:6379"`, `found "127.0.0.1:6379"; listener.a listens there; needs an address of its own`},
		{`address = "unix:/run/limeload/admin.sock"`,
			`found "unix:/run/limeload/admin.sock"; the control API, which has /metrics too, listens there; needs an address of its own`},
		{`token_file = "t"`, `unknown key; allowed here: address`},
	} {
		doc := "[metrics]\n" + tt.line + "\n[listener.a]\naddress = \"127.0.0.1:6379\"\npool = \"p\"\n" +
			"[pool.p]\nbackends = [{ address = \"10.0.0.1:1\" }]\n"
		if tt.want == "" {
			wantErrors(t, doc)
			continue
		}
		path := "metrics.address: "
		if tt.want[0] == 'u' { // the key is unknown
			path = "metrics.token_file: "
		}
		wantErrors(t, doc, "lb.toml:2: "+path+tt.want)
	}
	cfg, err := Parse("lb.toml", []byte("[metrics]\naddress = ':9180'\n[listener.a]\naddress = ':9180'\nprotocol = 'udp'\n"+
		"pool = 'p'\n[pool.p]\nbackends = ['10.0.0.1:1']\n"))
	if err != nil || !cfg.Metrics.DualStack || cfg.Metrics.Bind.String() != "[::]:9180" {
		t.Errorf("beside a UDP listener of the same port: %+v, %v", cfg, err)
	}
}
