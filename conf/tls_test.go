package conf

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestTLS reads both tables, with defaults and without.
func TestTLS(t *testing.T) {
	read := func(listener, pool string) (*ListenerTLS, *PoolTLS) {
		t.Helper()
		doc, _ := with("listener.a", "tls = "+listener)
		c, err := Parse("lb.toml", []byte(strings.Replace(doc, "[pool.p]", "[pool.p]\ntls = "+pool, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return c.Listeners[0].TLS, c.Pools[0].TLS
	}
	certs := []Certificate{{Cert: "a.crt", Key: "a.key"}}
	l, p := read(`{ certificates = [{ cert = "a.crt", key = "a.key" }] }`, `{}`)
	if want := (ListenerTLS{Certificates: certs, MinVersion: "1.2", MaxVersion: "1.3", ClientAuth: "none",
		Required: true, HandshakeTimeout: Duration(10 * time.Second), KernelTLS: "auto"}); !reflect.DeepEqual(*l, want) {
		t.Errorf("got %+v, want %+v", *l, want)
	}
	if want := (PoolTLS{Mode: "verify", KernelTLS: "auto"}); *p != want || !p.On() {
		t.Errorf("got %+v, want %+v", *p, want)
	}
	l, p = read(`{ certificates = [{ cert = "a.crt", key = "a.key" }], min_version = "1.3", strict_sni = true, `+
		`client_auth = "optional", client_ca = "ca", client_crl = "crl", starttls = "postgres", required = false, `+
		`ticket_key_file = "keys", handshake_timeout = "1s", kernel_tls = "off" }`,
		`{ mode = "off", ca = "ca", server_name = "sni", cert = "c", key = "k", starttls = "postgres", kernel_tls = "off" }`)
	if want := (ListenerTLS{Certificates: certs, MinVersion: "1.3", MaxVersion: "1.3", StrictSNI: true,
		ClientAuth: "optional", ClientCA: "ca", ClientCRL: "crl", ALPN: []string{"postgresql"}, StartTLS: "postgres",
		TicketKeyFile: "keys", HandshakeTimeout: Duration(time.Second), KernelTLS: "off"}); !reflect.DeepEqual(*l, want) {
		t.Errorf("got %+v, want %+v", *l, want)
	}
	if want := (PoolTLS{Mode: "off", CA: "ca", ServerName: "sni", Cert: "c", Key: "k", StartTLS: "postgres",
		KernelTLS: "off"}); *p != want || p.On() || (*PoolTLS)(nil).On() {
		t.Errorf("got %+v, want %+v", *p, want)
	}
	if l, _ := read(`{ certificates = [{ cert = "a.crt", key = "a.key" }], starttls = "postgres", alpn = [] }`, `{}`); len(l.ALPN) != 0 {
		t.Errorf("an empty list in the file becomes %q", l.ALPN)
	}
}

// TestTLSMistakes holds the whole text of each mistake in the table of a listener.
func TestTLSMistakes(t *testing.T) {
	const (
		pair  = `certificates = [{ cert = "a.crt", key = "a.key" }], `
		files = `; needs the path of a PEM file`
	)
	for _, tt := range []struct{ table, want string }{
		{pair + `alpn = ["h2", "http/1.1"], max_version = "1.2"`, ""},
		{`min_version = "1.2"`, `certificates: missing; needs at least one certificate, such as [{ cert = "/etc/limeload/tls/db.crt", key = "/etc/limeload/tls/db.key" }]`},
		{`certificates = []`, `certificates: found an empty list; needs at least one certificate, such as [{ cert = "/etc/limeload/tls/db.crt", key = "/etc/limeload/tls/db.key" }]`},
		{`certificates = [{ cert = "a.crt" }]`, `certificates[0].key: missing; needs the path of a PEM file with the certificate's key`},
		{`certificates = [{ cert = "", key = "a.key" }]`, `certificates[0].cert: found ""` + files},
		{`certificates = [{ cert = "a.crt", key = "a.key" }, { cert = "a.crt", key = "b.key" }]`,
			`certificates[1].cert: found "a.crt"; listener.a.tls.certificates[0] on line AT has this certificate already`},
		{pair + `min_version = "1.1"`, `min_version: found "1.1"; allowed is "1.2" or "1.3", did you mean "1.2"?`},
		{pair + `min_version = "1.3", max_version = "1.2"`, `max_version: found "1.2"; needs min_version, "1.3", or more`},
		{pair + `client_auth = "required"`, `client_ca: missing; needs the path of a PEM file with the authorities of clients' certificates`},
		{pair + `client_auth = "optional", client_ca = ""`, `client_ca: found ""; client_auth is "optional"; needs the path of a PEM file with the authorities of clients' certificates`},
		{pair + `client_ca = "ca"`, `client_ca: found the string "ca"; client_auth is "none"; allowed if client_auth is "optional" or "required"`},
		{pair + `client_crl = "crl"`, `client_crl: found the string "crl"; client_auth is "none"; allowed if client_auth is "optional" or "required"`},
		{pair + `required = true`, `required: found true; starttls is ""; allowed if starttls is "postgres"`},
		{pair + `alpn = [""]`, `alpn[0]: found ""; no protocol of ALPN; needs 1 to 255 bytes, such as "h2", "http/1.1", "postgresql" or "dot"`},
		{pair + `starttls = "smtp"`, `starttls: found "smtp"; allowed is "" or "postgres"`},
		{pair + `handshake_timeout = "0s"`, `handshake_timeout: found "0s"; allowed is 10ms to 1h`},
	} {
		doc, at := with("listener.a", "tls = { "+strings.TrimSuffix(tt.table, ", ")+" }")
		var want []string
		if tt.want != "" {
			want = []string{fmt.Sprintf("lb.toml:%d: listener.a.tls.%s", at, strings.ReplaceAll(tt.want, "AT", fmt.Sprint(at)))}
		}
		wantErrors(t, doc, want...)
	}
	doc, at := with("listener.a", "tls = { "+pair+`starttls = "postgres" }`)
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprofile = \"redis\"", 1), fmt.Sprintf(
		`lb.toml:%d: listener.a.tls.starttls: found "postgres"; profile is "redis"; `+
			`needs profile = "postgres" or "" beside the table, or starttls = ""`, at+1))
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprofile = \"postgres\"", 1))
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprotocol = \"udp\"", 1), fmt.Sprintf(
		`lb.toml:%d: listener.a.tls: found a table; protocol is "udp"; allowed if protocol is "tcp"`, at+1))
}

// TestPoolTLSMistakes holds the whole text of each mistake in the table of a pool.
func TestPoolTLSMistakes(t *testing.T) {
	const name = `; this is neither an IP address nor a host name; needs a name, "sni" for the one that the client asks for, or "" for that of the backend's address`
	for _, tt := range []struct{ table, want string }{
		{`mode = "insecure", server_name = "10.0.0.1"`, ""},
		{`server_name = "db.example.com", cert = "c", key = "k"`, ""},
		{`mode = "on"`, `tls.mode: found "on"; allowed is "off", "insecure" or "verify"`},
		{`mode = "insecure", ca = "ca"`, `tls.ca: found the string "ca"; mode is "insecure"; allowed if mode is "off" or "verify"`},
		{`server_name = "a:1"`, `tls.server_name: found "a:1"` + name},
		{`cert = "c"`, `tls.cert: found "c"; its key is missing; needs both cert and key, or none`},
		{`key = "k"`, `tls.key: found "k"; its cert is missing; needs both cert and key, or none`},
		{`starttls = "mysql"`, `tls.starttls: found "mysql"; allowed is "" or "postgres"`},
	} {
		doc, at := with("pool.p", "tls = { "+tt.table+" }")
		var want []string
		if tt.want != "" {
			want = []string{fmt.Sprintf("lb.toml:%d: pool.p.%s", at, tt.want)}
		}
		wantErrors(t, doc, want...)
	}
	doc, at := with("pool.p", "tls = {}")
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprotocol = \"udp\"", 1), fmt.Sprintf(
		`lb.toml:%d: pool.p.tls: found a table; listener.a speaks udp, and TLS is for TCP; needs mode = "off", or another pool`, at+1))
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprofile = \"dns\"\ncache = {}", 1), fmt.Sprintf(
		`lb.toml:%d: pool.p.tls: found a table; questions of listener.a go over UDP, or TCP without TLS; needs mode = "off", or another pool`, at+2))
	wantErrors(t, strings.Replace(strings.Replace(doc, "tls = {}", "tls = { mode = 'off' }", 1), "[listener.a]",
		"[listener.a]\nprotocol = \"udp\"", 1))
}

// TestTLSWarnings holds what is allowed in both tables, and probably not meant.
func TestTLSWarnings(t *testing.T) {
	const pair = `certificates = [{ cert = "a.crt", key = "a.key" }]`
	for _, tt := range []struct{ listener, pool, want string }{
		{"", "{}", ""},
		{"", `{ mode = "off", server_name = "sni" }`, ""},
		{"tls = { " + pair + " }", `{ server_name = "sni" }`, ""},
		{"", `{ mode = "insecure" }`, `pool.p.tls.mode: found "insecure"; any certificate of a backend is accepted`},
		{"", `{ server_name = "sni" }`,
			`pool.p.tls.server_name: found "sni"; TLS does not end at listener.a: the name that its clients ask for is not known`},
		{"routes = [{ sni = ['a.b'], pool = 'p' }]", "{}",
			`pool.p.tls: listener.a passes TLS through to these backends: it is encrypted twice`},
		{"tls = { " + pair + ", starttls = 'postgres', required = false, client_auth = 'required', client_ca = 'ca' }", "{}",
			`listener.a.tls.required: found false; clients that do not ask for TLS are served without a certificate`},
		{"tls = { " + pair + ", starttls = 'postgres', alpn = ['x'] }", "{}",
			`listener.a.tls.alpn: without "postgresql", clients with sslnegotiation=direct are refused`},
	} {
		doc, _ := with("pool.p", "tls = "+tt.pool)
		c, err := Parse("lb.toml", []byte(strings.Replace(doc, "[listener.a]", "[listener.a]\n"+tt.listener, 1)))
		if err != nil {
			t.Fatal(err)
		}
		got := c.Warnings()
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasSuffix(got[0], ": "+tt.want)) {
			t.Errorf("%s %s: %q, want %q", tt.listener, tt.pool, got, tt.want)
		}
	}
}

// TestReadsPostgres holds which listeners read what clients of Postgres send first.
func TestReadsPostgres(t *testing.T) {
	for _, tc := range []struct {
		listener, pool string
		want           bool
	}{
		{"", "", false},
		{`profile = "postgres"`, "", true},
		{"inspect_timeout = '1s'", `tls = { starttls = "postgres" }`, true}, // without a warning that it changes nothing
		{"", `tls = { starttls = "postgres", mode = "off" }`, false},
		{"", `tls = {}`, false},
	} {
		doc := "listener.a = { address = ':1', pool = 'p' }\n[pool.p]\nbackends = ['10.0.0.1:1']\n" + tc.pool
		if tc.listener != "" {
			doc = strings.Replace(doc, " }\n", ", "+tc.listener+" }\n", 1)
		}
		c := mustParse(t, doc)
		if got := c.ReadsPostgres(&c.Listeners[0]); got != tc.want || len(c.Warnings()) > 0 {
			t.Errorf("%+v: %v, warnings %q", tc, got, c.Warnings())
		}
	}
}

// TestKernelTLS holds when the kernel may encrypt for a listener or a pool.
func TestKernelTLS(t *testing.T) {
	listener := func(version, kernel string) *Config {
		return &Config{Listeners: []Listener{{}, {TLS: &ListenerTLS{MaxVersion: version, KernelTLS: kernel}}}}
	}
	pool := func(mode, kernel string) *Config {
		return &Config{Pools: []Pool{{}, {TLS: &PoolTLS{Mode: mode, KernelTLS: kernel}}}}
	}
	for _, tt := range []struct {
		c    *Config
		want bool
	}{
		{&Config{Listeners: []Listener{{}}, Pools: []Pool{{}}}, false},
		{listener("1.3", "auto"), true}, {listener("1.2", "auto"), false}, {listener("1.3", "off"), false},
		{pool("verify", "auto"), true}, {pool("off", "auto"), false}, {pool("insecure", "off"), false},
	} {
		if got := tt.c.KernelTLS(); got != tt.want {
			t.Errorf("%+v: %t", tt.c, got)
		}
	}
}
