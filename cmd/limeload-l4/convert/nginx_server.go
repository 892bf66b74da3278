package convert

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An nginxServer is what a block server says.
type nginxServer struct {
	block  *directive
	all    map[string][]*directive // by name; those of stream where the server has none
	listen []*directive
	passes *directive
}

// server makes the listeners of a block server: one for TCP and one for UDP, and others where listen differs.
func (x *nginx) server(block *directive) {
	if x.inherited += len(x.common); x.inherited > maxInherited {
		x.notes.left(block.at, block.raw(), "there are too many servers with directives of stream: this one is not read", "")
		return
	}
	s := &nginxServer{block: block, all: map[string][]*directive{}}
	own := map[string]bool{}
	for _, d := range block.block {
		s.all[d.word(0)] = append(s.all[d.word(0)], d)
		own[d.word(0)] = true
	}
	for _, d := range x.common {
		if !own[d.word(0)] {
			s.all[d.word(0)] = append(s.all[d.word(0)], d)
		}
	}
	s.listen = s.all["listen"]
	if len(s.all["proxy_pass"]) > 0 {
		s.passes = s.all["proxy_pass"][0]
	}
	bySettings := map[string]*listener{}
	var made []*listener
	for _, d := range s.listen {
		x.listen(s, d, bySettings, &made)
	}
	if len(made) == 0 {
		x.notes.left(block.at, block.raw(), "it listens nowhere", "")
		return
	}
	x.destination(s, made)
	for _, l := range made {
		x.serverKeys(s, l)
	}
	x.poolDirectives(s, made)
	x.remaining(s)
}

// name returns a name for the listeners of a server: that of its upstream, or one made of its port.
func (x *nginx) name(s *nginxServer, udp bool) string {
	name := ""
	if s.passes != nil && x.pools[s.passes.word(1)] != nil {
		name = s.passes.word(1)
	} else if len(s.listen) > 0 {
		text := s.listen[0].word(1)
		name = "port-" + text[strings.LastIndexByte(text, ':')+1:]
		if strings.HasPrefix(text, "unix:") {
			name = text[strings.LastIndexByte(text, '/')+1:]
		}
	}
	if udp {
		name += "-udp"
	}
	return name
}

// listen carries over a directive listen.
func (x *nginx) listen(s *nginxServer, d *directive, bySettings map[string]*listener, made *[]*listener) {
	address, ok := nginxListenAddress(d.word(1))
	if !ok {
		x.notes.left(d.at, d.raw(), quote(d.word(1))+" is no address that limeload-l4 can listen at",
			`needs "HOST:PORT", ":PORT" or "unix:/PATH"`)
		return
	}
	keys := &table{}
	udp, tls, proxied := false, false, false
	for _, w := range d.words[2:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "udp":
			udp = true
			keys.set("protocol", quote("udp"))
		case "ssl":
			tls = true
		case "proxy_protocol":
			proxied = true
		case "backlog":
			if _, ok := parseNumber(value, 1, 65535); ok {
				keys.set("backlog", value)
			}
		case "rcvbuf", "sndbuf":
			key := map[string]string{"rcvbuf": "receive_buffer", "sndbuf": "send_buffer"}[name]
			if text, n, ok := nginxSize(value); ok && n >= 4096 && slices.Contains(d.words, "udp") {
				keys.set(key, quote(text))
			} else {
				x.notes.left(d.at, d.raw(), w+": the kernel chooses the buffers of TCP", "")
			}
		case "fastopen":
			keys.set("fast_open", "true")
		case "so_keepalive":
			if value == "off" {
				x.notes.left(d.at, d.raw(), "keepalive is always on", "see keepalive of the listener")
			}
		case "reuseport", "bind", "ipv6only", "default_server", "accept_filter", "deferred", "setfib":
			if w == "ipv6only=off" {
				address = strings.TrimPrefix(address, "[::]")
			}
		default:
			x.notes.left(d.at, d.raw(), "parameter "+quote(w)+" has no counterpart", "")
		}
	}
	settings := strconv.FormatBool(tls) + strconv.FormatBool(proxied)
	for _, k := range keys.keys {
		settings += k.name + k.value
	}
	l := bySettings[settings]
	if l == nil {
		l = x.doc.addListener(x.name(s, udp), s.block.at, s.block.raw())
		l.keys = keys.keys
		bySettings[settings] = l
		*made = append(*made, l)
		if proxied {
			x.proxied(s, d, l)
		}
		if tls {
			x.listenerTLS(s, d, l)
		}
	}
	l.addresses = append(l.addresses, address)
}

// nginxListenAddress returns an address of listen as a listener has it.
func nginxListenAddress(s string) (string, bool) {
	if path, unix := strings.CutPrefix(s, "unix:"); unix {
		return s, strings.HasPrefix(path, "/")
	}
	if isPort(s, true) {
		return "0.0.0.0:" + s, true
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.Contains(s, "$") {
		return "", false
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s[:colon], "["), "]")
	if host == "*" {
		host = "0.0.0.0"
	}
	return hostPort(host, s[colon+1:]), host != "" && isPort(s[colon+1:], true)
}

// proxied carries over listen ... proxy_protocol.
func (x *nginx) proxied(s *nginxServer, d *directive, l *listener) {
	t := l.in("proxy_protocol")
	t.set("accept", quote("any"))
	var trusted []string
	for _, from := range s.all["set_real_ip_from"] {
		if prefix, ok := isPrefix(from.word(1)); ok {
			trusted = append(trusted, prefixText(prefix))
		} else {
			x.notes.left(from.at, from.raw(), "a proxy is an address or a prefix", "")
		}
	}
	switch given := len(s.all["set_real_ip_from"]) > 0; {
	case given && trusted == nil:
		x.notes.left(d.at, d.raw(), "no proxy is left that the PROXY protocol could be believed from",
			"name the proxies in front in proxy_protocol.trusted")
		l.broken = true
		return
	case !given && len(x.rules(s)) > 0:
		// Here the lists would be about the clients that headers name, and whoever connects could name an allowed one.
		x.notes.left(d.at, d.raw(), "without set_real_ip_from, allow and deny are about the proxies in front",
			"name these in proxy_protocol.trusted, and let a firewall refuse all others")
		l.broken = true
		return
	case !given:
		trusted = everybody()
		x.notes.differs(d.at, d.raw(), "the PROXY protocol is believed from everybody, as by nginx",
			"name the proxies in front in proxy_protocol.trusted")
	default:
		x.notes.differs(d.at, d.raw(), "clients that are not in set_real_ip_from send no header, and are served",
			"see docs/proxy-protocol.md")
	}
	t.set("trusted", quoteList(trusted))
	for _, one := range s.all["proxy_protocol_timeout"] {
		if d, ok := nginxTime(one.word(1)); ok {
			t.set("timeout", timeText(d, 10*time.Millisecond, time.Hour))
		}
	}
}

// listenerTLS carries over the directives ssl_ of a server.
func (x *nginx) listenerTLS(s *nginxServer, d *directive, l *listener) {
	certs, keys := s.all["ssl_certificate"], s.all["ssl_certificate_key"]
	var list strings.Builder
	for i := 0; i < min(len(certs), len(keys)); i++ {
		if strings.Contains(certs[i].word(1)+keys[i].word(1), "$") || strings.HasPrefix(keys[i].word(1), "engine:") {
			x.notes.left(certs[i].at, certs[i].raw(), "a certificate is a file", "list all of them")
			continue
		}
		list.WriteString("\n  { cert = " + x.path(certs[i]) + ", key = " + x.path(keys[i]) + " },")
	}
	if list.Len() == 0 {
		x.notes.left(d.at, d.raw(), "its certificates are missing, and without them clients would meet no TLS",
			"see [listener.*.tls]")
		l.broken = true
		return
	}
	t := l.in("tls")
	t.set("certificates", "["+list.String()+"\n]")
	for _, one := range s.all["ssl_protocols"] {
		x.protocols(one, t)
	}
	for name, key := range map[string]string{"ssl_crl": "client_crl", "ssl_client_certificate": "client_ca"} {
		for _, one := range s.all[name] {
			if v := verifies(s); v != "none" {
				t.set(key, x.path(one))
			}
		}
	}
	if v := verifies(s); v != "none" {
		t.set("client_auth", quote(v))
	}
	for _, one := range s.all["ssl_alpn"] {
		t.set("alpn", quoteList(one.words[1:]))
	}
	for _, one := range s.all["ssl_handshake_timeout"] {
		if d, ok := nginxTime(one.word(1)); ok {
			t.set("handshake_timeout", timeText(d, 10*time.Millisecond, time.Hour))
		}
	}
	slices.SortFunc(t.keys, func(a, b key) int { return strings.Compare(a.name, b.name) })
}

// path returns the path of a file that a directive names.
func (x *nginx) path(d *directive) string {
	if file := d.word(1); !path.IsAbs(file) {
		x.notes.differs(d.at, d.raw(),
			"a relative path counts from the folder of lb.toml, and not from that of nginx.conf", "")
	}
	return quote(d.word(1))
}

// verifies returns client_auth as ssl_verify_client has it.
func verifies(s *nginxServer) string {
	for _, one := range s.all["ssl_verify_client"] {
		switch one.word(1) {
		case "on":
			return "required"
		case "optional", "optional_no_ca":
			return "optional"
		}
	}
	return "none"
}

// protocols carries over ssl_protocols.
func (x *nginx) protocols(d *directive, t *table) {
	has12, has13 := slices.Contains(d.words, "TLSv1.2"), slices.Contains(d.words, "TLSv1.3")
	switch {
	case has13 && !has12:
		t.set("min_version", quote("1.3"))
	case has12 && !has13:
		t.set("max_version", quote("1.2"))
	case !has12 && !has13:
		x.notes.left(d.at, d.raw(), "TLS before 1.2 is not spoken", "")
	}
}

// destination gives the listeners of a server their pool, or their routes.
func (x *nginx) destination(s *nginxServer, made []*listener) {
	if s.passes == nil {
		return // finish notes it
	}
	target := s.passes.word(1)
	if m := x.maps[target]; m != nil && m.word(1) == "$ssl_preread_server_name" {
		pool, routes := x.routes(m)
		for _, l := range made {
			l.pool, l.routes = pool, routes
			if d := s.all["preread_timeout"]; len(d) > 0 && len(routes) > 0 {
				if t, ok := nginxTime(d[0].word(1)); ok {
					l.set("inspect_timeout", timeText(t, 10*time.Millisecond, time.Hour))
				}
			}
		}
		return
	}
	pool := x.poolOf(s.passes, target, made[0].name)
	if pool == "" {
		x.notes.left(s.passes.at, s.passes.raw(), "there is no upstream with this name, and it is no address",
			"a map of $ssl_preread_server_name becomes routes")
	}
	for _, l := range made {
		l.pool = pool
	}
}

// routes carries over a map of server names to upstreams.
func (x *nginx) routes(m *directive) (pool string, routes []route) {
	byPool, claimed := map[string]int{}, map[string]bool{}
	for _, d := range m.block {
		name, target := strings.ToLower(d.word(0)), d.word(1)
		if len(d.words) == 1 && (name == "hostnames" || name == "volatile") {
			continue
		}
		to := x.poolOf(d, target, target)
		switch {
		case to == "" && (target == "" || target == `""`) && name == "default":
			continue
		case to == "":
			x.notes.left(d.at, d.raw(), "there is no upstream with this name, and it is no address", "")
			continue
		case name == "default":
			pool = to
			continue
		case strings.HasPrefix(name, "~"):
			x.notes.left(d.at, d.raw(), `a route has names and "*.NAME", and no regular expressions`, "list the names")
			continue
		}
		names := []string{strings.TrimPrefix(name, `\`)}
		if bare, below := strings.CutPrefix(name, "."); below {
			names = []string{bare, "*." + bare}
		} else if strings.HasSuffix(name, ".*") {
			x.notes.left(d.at, d.raw(), `a route has names and "*.NAME"`, "list the names")
			continue
		}
		names = unclaimed(names, claimed)
		i, known := byPool[to]
		if !known {
			i = len(routes)
			byPool[to] = i
			routes = append(routes, route{pool: to})
		}
		routes[i].sni = append(routes[i].sni, names...)
	}
	return pool, slices.DeleteFunc(routes, func(r route) bool { return len(r.sni) == 0 })
}
