package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nginxTimeout is the default of proxy_timeout.
const nginxTimeout = 10 * time.Minute

// serverKeys gives a listener what its server says.
func (x *nginx) serverKeys(s *nginxServer, l *listener) {
	udp := l.value("protocol") == quote("udp")
	idle, comment := nginxTimeout, "nginx's default"
	for _, d := range s.all["proxy_timeout"] {
		if t, ok := nginxTime(d.word(1)); ok {
			idle, comment = t, ""
		}
	}
	if udp {
		l.setWith("flow_timeout", timeText(idle, 100*time.Millisecond, 24*time.Hour), comment)
	} else {
		l.setWith("idle_timeout", timeText(idle, time.Millisecond, longest), comment)
	}
	for _, d := range s.all["proxy_responses"] {
		if n, ok := parseNumber(d.word(1), 0, 1_000_000); ok && udp {
			if n == 0 {
				x.notes.differs(d.at, d.raw(), "0 is no limit here, and means no answer in nginx", "set flow_timeout")
			} else {
				l.set("responses", strconv.Itoa(n))
			}
		}
	}
	x.bandwidth(s, l)
	for _, d := range s.all["limit_conn"] {
		x.limitConn(d, l, udp)
	}
	x.accessRules(s, l)
}

// bandwidth carries over proxy_upload_rate and proxy_download_rate.
func (x *nginx) bandwidth(s *nginxServer, l *listener) {
	most, text := 0, ""
	for _, name := range []string{"proxy_upload_rate", "proxy_download_rate"} {
		for _, d := range s.all[name] {
			t, n, ok := nginxSize(d.word(1))
			switch {
			case !ok:
				x.notes.left(d.at, d.raw(), "a bandwidth is a number of bytes", "see session_bandwidth")
			case n == 0:
			case n < 1024:
				x.notes.left(d.at, d.raw(), "a bandwidth is 1KiB/s or more", "see session_bandwidth")
			default:
				if most != 0 && n != most {
					x.notes.differs(d.at, d.raw(), "both directions have the same bandwidth, the larger one",
						"see session_bandwidth")
				}
				if n > most {
					most, text = n, t
				}
			}
		}
	}
	if most > 0 {
		l.in("limits").set("session_bandwidth", quote(text+"/s"))
	}
}

// limitConn carries over limit_conn.
func (x *nginx) limitConn(d *directive, l *listener, udp bool) {
	n, ok := parseNumber(d.word(2), 1, 1_000_000)
	variable := x.zones[d.word(1)]
	switch {
	case !ok:
		x.notes.left(d.at, d.raw(), "this is not understood", "needs a zone and a number")
	case variable == "$server_addr" || variable == "$server_port":
		if !udp {
			l.set("max_sessions", strconv.Itoa(n))
		}
	case variable != "$binary_remote_addr" && variable != "$remote_addr":
		x.notes.left(d.at, d.raw(), "clients are known by their addresses alone", "see client_sessions")
	case udp:
		l.set("client_flows", strconv.Itoa(n))
	default:
		l.in("limits").set("client_sessions", strconv.Itoa(n))
	}
}

// accessRules carries over allow and deny, of which the first rule that contains a client decides.
func (x *nginx) accessRules(s *nginxServer, l *listener) {
	var rules []accessRule
	denied := false // all that no rule allows
	all := x.rules(s)
	if len(all) == 0 {
		return
	}
	for _, d := range all {
		if d.word(1) == "all" {
			denied = d.word(0) == "deny"
			break
		}
		prefix, ok := isPrefix(d.word(1))
		switch {
		case !ok:
			x.notes.left(d.at, d.raw(), "a rule is about an address or a prefix", "see permissions for a Unix socket")
		case len(rules) == maxAccessRules:
			x.notes.left(d.at, d.raw(), "these are too many addresses", "write them into a file, and name that with deny_file")
		default:
			rules = append(rules, accessRule{prefix, d.word(0) == "allow", d.at, d.raw()})
		}
	}
	for _, r := range l.firstMatch(rules, denied) {
		x.notes.differs(r.at, r.what, "an earlier rule decides about all of these clients: it has no effect", "")
	}
}

// rules returns allow and deny in the order of the file: those of a server or, if it has none, those of stream.
func (x *nginx) rules(s *nginxServer) (rules []*directive) {
	for _, block := range [][]*directive{s.block.block, x.common} {
		for _, d := range block {
			if d.word(0) == "allow" || d.word(0) == "deny" {
				rules = append(rules, d)
			}
		}
		if rules != nil {
			break
		}
	}
	return rules
}

// poolDirectives carries over what a server says about connections to backends. Servers that say different things about
// one upstream get pools of their own.
func (x *nginx) poolDirectives(s *nginxServer, made []*listener) {
	said := ""
	for _, name := range connectionWords() {
		for _, d := range s.all[name] {
			said += strings.Join(d.words, " ") + ";"
		}
	}
	variants := map[string]string{"": ""}
	names := []string{made[0].pool}
	for _, r := range made[0].routes {
		names = append(names, r.pool)
	}
	for _, name := range names {
		base := x.doc.poolsByName[name]
		if _, done := variants[name]; done || base == nil {
			continue
		}
		p := base.variants[said]
		if p == nil {
			if p = base; base.variants == nil {
				base.variants, base.plain = map[string]*pool{}, base.copyTo(&pool{})
			} else {
				p = base.plain.copyTo(x.doc.addPool(base.name, base.at, base.what))
				x.notes.differs(s.passes.at, s.passes.raw(),
					"another server connects to the same upstream in another way, so there are two pools", "")
			}
			base.variants[said] = p
			x.poolKeys(s, p)
			x.poolTLS(s, p)
		}
		variants[name] = p.name
	}
	for _, l := range made {
		l.pool = variants[l.pool]
		l.routes = slices.Clone(l.routes)
		for i := range l.routes {
			l.routes[i].pool = variants[l.routes[i].pool]
		}
	}
}

// connectionWords returns the directives of a server that are about connections to its backends.
func connectionWords() []string {
	return strings.Fields(`proxy_connect_timeout proxy_protocol proxy_next_upstream proxy_next_upstream_tries proxy_bind
		health_check proxy_ssl proxy_ssl_verify proxy_ssl_trusted_certificate proxy_ssl_name proxy_ssl_certificate
		proxy_ssl_certificate_key`)
}

func (x *nginx) poolKeys(s *nginxServer, p *pool) {
	for _, d := range s.all["proxy_connect_timeout"] {
		if t, ok := nginxTime(d.word(1)); ok {
			p.set("connect_timeout", timeText(t, time.Millisecond, time.Hour))
		}
	}
	for _, d := range s.all["proxy_protocol"] {
		if d.word(1) == "on" {
			version := "v1"
			if listensUDP(s) {
				version = "v2"
			}
			p.set("send_proxy", quote(version))
		}
	}
	for _, d := range s.all["proxy_next_upstream"] {
		if d.word(1) == "off" {
			p.set("retries", "0")
		}
	}
	for _, d := range s.all["proxy_next_upstream_tries"] {
		if n, ok := parseNumber(d.word(1), 1, 11); ok {
			p.set("retries", strconv.Itoa(n-1))
		}
	}
	for _, d := range s.all["proxy_bind"] {
		host, _, _ := strings.Cut(d.word(1), ":")
		if ip, err := netip.ParseAddr(host); err == nil && len(d.words) == 2 {
			p.set("source", quoteList([]string{ip.String()}))
		} else if d.word(1) != "off" {
			x.notes.left(d.at, d.raw(), "a source is one address of this machine", "see source and send_proxy of the pool")
		}
	}
	for _, d := range s.all["health_check"] {
		t := p.in("health")
		t.set("type", quote("tcp"))
		for _, w := range d.words[1:] {
			name, value, _ := strings.Cut(w, "=")
			n, isNumber := parseNumber(value, 1, 1000)
			switch t2, isTime := nginxTime(value); {
			case name == "interval" && isTime:
				t.set("interval", timeText(t2, 10*time.Millisecond, 24*time.Hour))
			case name == "passes" && isNumber:
				t.set("rise", strconv.Itoa(n))
			case name == "fails" && isNumber:
				t.set("fall", strconv.Itoa(n))
			case name == "port" && isNumber, name == "port" && isPort(value, false):
				t.set("port", value)
			case name == "jitter", name == "mandatory", name == "persistent":
			default:
				x.notes.left(d.at, d.raw(), "parameter "+quote(w)+" has no counterpart", "see [pool.*.health]")
			}
		}
	}
}

// listensUDP reports whether a server listens over UDP.
func listensUDP(s *nginxServer) bool {
	for _, d := range s.listen {
		for _, w := range d.words {
			if w == "udp" {
				return true
			}
		}
	}
	return false
}

// poolTLS carries over proxy_ssl.
func (x *nginx) poolTLS(s *nginxServer, p *pool) {
	on := s.all["proxy_ssl"]
	if len(on) == 0 || on[0].word(1) != "on" {
		return
	}
	t := p.in("tls")
	mode := "insecure" // nginx's default
	for _, d := range s.all["proxy_ssl_verify"] {
		if d.word(1) == "on" {
			mode = "verify"
		}
	}
	t.set("mode", quote(mode))
	for _, k := range [][2]string{{"proxy_ssl_trusted_certificate", "ca"}, {"proxy_ssl_name", "server_name"},
		{"proxy_ssl_certificate", "cert"}, {"proxy_ssl_certificate_key", "key"}} {
		for _, d := range s.all[k[0]] {
			value := d.word(1)
			switch {
			case k[1] == "ca" && mode != "verify":
				continue
			case value == "$ssl_preread_server_name", value == "$ssl_server_name":
				value = "sni"
			case strings.Contains(value, "$"):
				x.notes.left(d.at, d.raw(), "there are no variables", "")
				continue
			}
			if k[1] != "server_name" {
				_ = x.path(d) // notes a relative one
			}
			t.set(k[1], quote(value))
		}
	}
}

// remaining notes the directives of a server that are not carried over.
func (x *nginx) remaining(s *nginxServer) {
	carried := map[string]bool{}
	for _, w := range strings.Fields(`listen proxy_pass proxy_timeout proxy_connect_timeout proxy_responses proxy_protocol
		proxy_protocol_timeout set_real_ip_from proxy_next_upstream proxy_next_upstream_tries proxy_bind proxy_upload_rate
		proxy_download_rate limit_conn allow deny ssl_certificate ssl_certificate_key ssl_protocols ssl_verify_client
		ssl_client_certificate ssl_crl ssl_alpn ssl_handshake_timeout proxy_ssl proxy_ssl_verify
		proxy_ssl_trusted_certificate proxy_ssl_name proxy_ssl_certificate proxy_ssl_certificate_key preread_timeout
		health_check server_name`) {
		carried[w] = true
	}
	for _, d := range append(append([]*directive{}, s.block.block...), x.common...) {
		if !carried[d.word(0)] {
			x.other(d)
		}
	}
}
