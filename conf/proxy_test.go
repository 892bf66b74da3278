package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestProxyProtocol reads who is trusted, in all ways of writing.
func TestProxyProtocol(t *testing.T) {
	doc, _ := with("listener.a", `proxy_protocol = { accept = "any", timeout = "500ms", trusted = ["10.0.0.0/8", "10.0.0.7", `+
		`"2001:db8::/32", "2001:db8::5", "::ffff:192.0.2.0/120", "::ffff:192.0.2.1", "0.0.0.0/0", "::/0"] }`)
	cfg, err := Parse("lb.toml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var want []netip.Prefix
	for _, text := range []string{"10.0.0.0/8", "10.0.0.7/32", "2001:db8::/32", "2001:db8::5/128", "192.0.2.0/24",
		"192.0.2.1/32", "0.0.0.0/0", "::/0"} {
		want = append(want, netip.MustParsePrefix(text))
	}
	p := cfg.Listeners[0].ProxyProtocol
	if p.Accept != "any" || p.Timeout.String() != "500ms" || !slices.Equal(p.Prefixes, want) {
		t.Errorf("%+v, want %v", p, want)
	}
}

// TestProxyProtocolMistakes holds what is said about mistakes in the table, and in send_proxy of the listener's pool.
func TestProxyProtocolMistakes(t *testing.T) {
	const path = "listener.a.proxy_protocol"
	many := strings.Repeat(`"10.0.0.1", `, 1001)
	for _, tc := range []struct{ table, want string }{
		{`{}`, ""},
		{`{ trusted = ["10.0.0.0/8"] }`, ""},
		{`{ accept = "v2", trusted = ["10.0.0.0/8"] }`, ""},
		{`{ accept = "v1" }`, `trusted: accept is "v1", and nobody is trusted to send the header; ` +
			`needs the addresses of the proxies in front, such as ["10.0.0.0/8"]`},
		{`{ accept = "v1", trusted = [] }`, `trusted: accept is "v1", and nobody is trusted to send the header; ` +
			`needs the addresses of the proxies in front, such as ["10.0.0.0/8"]`},
		{`{ accept = "on" }`, `accept: found "on"; allowed is "off", "v1", "v2" or "any", did you mean "any"?`},
		{`{ accept = true }`, `accept: found true; needs "off", "v1", "v2" or "any"`},
		{`{ accept = "v1", trusted = "10.0.0.0/8" }`, `trusted: found the string "10.0.0.0/8"; needs a list of strings`},
		{`{ accept = "v1", trusted = [` + many + `] }`, `trusted: found a list of 1001; allowed is 1 to 1000`},
		{`{ accept = "v1", trusted = ["10.0.0.1/8"] }`, `trusted[0]: found "10.0.0.1/8"; it has bits behind the first 8; ` +
			`needs "10.0.0.0/8" or "10.0.0.1"`},
		{`{ accept = "v1", trusted = ["10.0.0.0/33"] }`, `trusted[0]: found "10.0.0.0/33"; ` + prefixNeeds},
		{`{ accept = "v1", trusted = ["10.0.0.1:80"] }`, `trusted[0]: found "10.0.0.1:80"; ` + prefixNeeds},
		{`{ accept = "v1", trusted = ["", "lb.internal"] }`, `trusted[0]: found ""; ` + prefixNeeds +
			"\n" + `trusted[1]: found "lb.internal"; ` + prefixNeeds},
		{`{ accept = "v1", trusted = ["fe80::1%eth0"] }`, `trusted[0]: found "fe80::1%eth0"; a prefix has no zone; ` +
			prefixNeeds + `, did you mean "fe80::1"?`},
		{`{ accept = "v1", trusted = ["10.0.0.0/8"], timeout = "0s" }`, `timeout: found "0s"; allowed is 10ms to 1h`},
		{`{ trust = ["10.0.0.0/8"] }`, `trust: unknown key; allowed here: accept, trusted, timeout`},
	} {
		doc, at := with("listener.a", "proxy_protocol = "+tc.table)
		var want []string
		for line := range strings.SplitSeq(tc.want, "\n") {
			if line != "" {
				want = append(want, fmt.Sprintf("lb.toml:%d: %s.%s", at, path, line))
			}
		}
		wantErrors(t, doc, want...)
	}
	doc, at := with("listener.a", `proxy_protocol = { accept = "v1", trusted = ["10.0.0.0/8"] }`)
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprotocol = \"udp\"", 1), fmt.Sprintf(
		`lb.toml:%d: listener.a.proxy_protocol: found a table; protocol is "udp"; allowed if protocol is "tcp"`, at+1))
	doc, at = with("pool.p", `send_proxy = "v1"`)
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprotocol = \"udp\"", 1), fmt.Sprintf(
		`lb.toml:%d: pool.p.send_proxy: found "v1"; listener.a speaks udp, for which version 1 has no header; `+
			`needs "v2" or "", or another pool`, at+1))
	wantErrors(t, strings.Replace(doc, "[listener.a]", "[listener.a]\nprofile = \"dns\"", 1), fmt.Sprintf(
		`lb.toml:%d: pool.p.send_proxy: found "v1"; questions of listener.a are asked on behalf of many clients, `+
			`and a header names one; needs "", or another pool`, at+1))
}
