package convert

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A haBind is a line bind: addresses, and what its parameters say.
type haBind struct {
	at        line
	addresses []string
	v6only    bool
	proxied   bool              // accept-proxy
	keys      map[string]string // of the listener, as TOML has them
	tls       map[string]string // of its table tls; nil without ssl
	certs     []string
}

// settings returns a text that is the same for binds that one listener can have.
func (b *haBind) settings() string {
	text := fmt.Sprint(b.proxied, b.tls != nil, b.certs)
	for _, m := range []map[string]string{b.keys, b.tls} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			text += "\x00" + name + "=" + m[name]
		}
	}
	return text
}

// listeners makes the listeners of a frontend or listen: one for all binds with the same settings.
func (h *haproxy) listeners(p *proxy) {
	if p.stats && h.onlyStats(p) {
		h.notes.differs(p.head.at, p.head.raw, "it only shows HAProxy's statistics",
			"see `limeload-l4 status` and the admin address")
		return
	}
	var binds []*haBind
	for _, l := range p.binds {
		binds = append(binds, h.bind(p, l))
	}
	widenWildcards(binds)
	var made []*listener
	bySettings := map[string]*listener{}
	for _, b := range binds {
		l := bySettings[b.settings()]
		if l == nil {
			like := p.name
			if b.tls != nil && len(made) > 0 {
				like += "-tls"
			}
			l = h.doc.addListener(like, p.head.at, p.head.raw)
			bySettings[b.settings()] = l
			made = append(made, l)
			h.bindKeys(l, b)
		}
		l.addresses = append(l.addresses, b.addresses...)
	}
	if len(binds) == 0 {
		made = append(made, h.doc.addListener(p.name, p.head.at, p.head.raw))
	}
	h.destinations(p, made)
	for _, l := range made {
		h.listenerKeys(p, l)
	}
	h.frontRules(p, made)
}

// bindKeys gives a listener what its binds say.
func (h *haproxy) bindKeys(l *listener, b *haBind) {
	for _, name := range slices.Sorted(maps.Keys(b.keys)) {
		l.set(name, b.keys[name])
	}
	if b.proxied {
		t := l.in("proxy_protocol")
		t.set("accept", quote("any"))
		t.setWith("trusted", quoteList(everybody()), "HAProxy believes everybody; name the proxies alone")
		h.notes.differs(b.at.at, b.at.raw, "the PROXY protocol is believed from everybody, as by HAProxy",
			"name the proxies in front in proxy_protocol.trusted")
	}
	if b.tls == nil {
		return
	}
	t := l.in("tls")
	var list strings.Builder
	for _, file := range b.certs {
		fmt.Fprintf(&list, "\n  { cert = %s, key = %s },", quote(file), quote(file))
	}
	t.setWith("certificates", "["+list.String()+"\n]", "HAProxy keeps a certificate and its key in one file")
	for _, name := range slices.Sorted(maps.Keys(b.tls)) {
		t.set(name, b.tls[name])
	}
}

// bind reads a line bind.
func (h *haproxy) bind(p *proxy, l line) *haBind {
	b := &haBind{at: l, keys: map[string]string{}}
	for i := 2; i < len(l.words); i++ {
		if l.words[i] == "alpn" && !p.tcp && strings.Contains(l.word(i+1), "h2") {
			h.notes.left(l.at, l.raw, "HTTP/2 is not translated: backends would get what clients speak",
				`alpn = ["h2", "http/1.1"] is for backends that speak both`)
			i++
			continue
		}
		used, ok := h.bindWord(b, l, i)
		if !ok {
			h.notes.left(l.at, l.raw, "parameter "+quote(l.words[i])+" has no counterpart", "")
		}
		i += used
	}
	if b.tls != nil {
		if h.minVersion != "" && b.tls["min_version"] == "" {
			h.version(b, l, "min_version", h.minVersion)
		}
		if len(b.certs) == 0 {
			h.notes.left(l.at, l.raw, "the certificate is missing",
				"list certificates one by one, each with its key, in [listener.*.tls]")
			b.tls = nil
			return b // without addresses: clients would meet no TLS
		}
		if v := b.tls["client_auth"]; v == "" || v == quote("none") { // HAProxy ignores them then, too
			delete(b.tls, "client_ca")
			delete(b.tls, "client_crl")
		}
	} else if b.certs != nil {
		b.certs = nil
	}
	for _, text := range strings.Split(l.word(1), ",") {
		address, ok := haListenAddress(text, b.v6only)
		if !ok {
			h.notes.left(l.at, l.raw, quote(text)+" is no address that limeload-l4 can listen at",
				`needs "HOST:PORT", ":PORT" or "unix:/PATH"`)
			continue
		}
		b.addresses = append(b.addresses, address)
	}
	return b
}

// bindWord reads the parameter at l.words[i], and returns how many words after it belong to it.
func (h *haproxy) bindWord(b *haBind, l line, i int) (used int, ok bool) {
	value := l.word(i + 1)
	tls := func() map[string]string {
		if b.tls == nil && slices.Contains(l.words, "ssl") {
			b.tls = map[string]string{}
		}
		return b.tls
	}
	set := func(name, text string) (int, bool) {
		if m := tls(); m != nil {
			m[name] = text
		}
		return 1, true
	}
	switch word := l.words[i]; word {
	case "ssl":
		tls()
		return 0, true
	case "crt":
		tls()
		if strings.HasSuffix(value, "/") {
			h.notes.left(l.at, l.raw, "crt names a folder", "list its certificates one by one in [listener.*.tls]")
		} else {
			b.certs = append(b.certs, under(h.crtBase, value))
		}
		return 1, true
	case "crt-list":
		h.notes.left(l.at, l.raw, "a list of certificates in a file is not read",
			"list them one by one in [listener.*.tls]")
		return 1, true
	case "ca-file", "ca-verify-file":
		return set("client_ca", quote(under(h.caBase, value)))
	case "crl-file":
		return set("client_crl", quote(under(h.caBase, value)))
	case "verify":
		return set("client_auth", quote(value))
	case "alpn":
		return set("alpn", quoteList(strings.Split(value, ",")))
	case "strict-sni":
		_, _ = set("strict_sni", "true")
		return 0, true
	case "ssl-min-ver":
		return 1, h.version(b, l, "min_version", value)
	case "ssl-max-ver":
		return 1, h.version(b, l, "max_version", value)
	case "ciphers", "ciphersuites", "curves", "ecdhe", "sigalgs", "client-sigalgs":
		h.notes.left(l.at, l.raw, word+" has no counterpart",
			"TLS 1.2 and 1.3 are spoken, with the ciphers of Go's library")
		return 1, true
	case "accept-proxy":
		b.proxied = true
		return 0, true
	case "v6only":
		b.v6only = true
		return 0, true
	case "tfo":
		b.keys["fast_open"] = "true"
		return 0, true
	case "backlog":
		n, ok := parseNumber(value, 1, 65535)
		b.keys["backlog"] = strconv.Itoa(n)
		return 1, ok
	case "maxconn":
		n, ok := parseNumber(value, 1, 100_000_000)
		b.keys["max_sessions"] = strconv.Itoa(n)
		return 1, ok
	case "tcp-ut":
		d, ok := haTime(value)
		b.keys["user_timeout"] = timeText(d, time.Millisecond, 24*time.Hour)
		return 1, ok
	case "mode":
		b.keys["permissions"] = quote(value)
		return 1, true
	case "user", "uid":
		b.keys["owner"] = quote(value)
		return 1, true
	case "group", "gid":
		b.keys["group"] = quote(value)
		return 1, true
	case "defer-accept", "v4v6", "no-sslv3", "no-tlsv10", "no-tlsv11", "no-tls-tickets", "allow-0rtt",
		"prefer-client-ciphers", "generate-certificates":
		return 0, word != "generate-certificates"
	case "name", "id", "nice", "process", "thread", "shards", "level", "mss", "label":
		return 1, word != "mss"
	case "transparent", "accept-netscaler-cip", "interface", "namespace":
		return map[string]int{"interface": 1, "namespace": 1}[word], false
	}
	return 0, false
}

// version sets a version of TLS.
func (h *haproxy) version(b *haBind, l line, name, value string) bool {
	if b.tls == nil {
		b.tls = map[string]string{}
	}
	switch value {
	case "TLSv1.2", "TLSv1.3":
		b.tls[name] = quote(strings.TrimPrefix(value, "TLSv"))
	case "SSLv3", "TLSv1.0", "TLSv1.1":
		if name == "max_version" {
			return false
		}
		h.notes.differs(l.at, l.raw, "clients need TLS 1.2 or later", "")
	default:
		return false
	}
	return true
}

// haListenAddress returns an address of bind as a listener has it. The wildcard of IPv6 is "[::]:PORT"; see
// widenWildcards.
func haListenAddress(s string, v6only bool) (string, bool) {
	for _, prefix := range []string{"ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@", "stream+ipv4@", "stream+ipv6@"} {
		s = strings.TrimPrefix(s, prefix)
	}
	if path, unix := strings.CutPrefix(s, "unix@"); unix || strings.HasPrefix(s, "/") {
		return "unix:" + path, strings.HasPrefix(path, "/")
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.Contains(s, "@") {
		return "", false
	}
	host, port := s[:colon], s[colon+1:]
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	switch host {
	case "", "*", "0.0.0.0":
		host = "0.0.0.0"
	case "::":
		if !v6only {
			host = "::" + string(variableBegins) // to be widened
		}
	}
	if strings.HasPrefix(port, string(variableBegins)) && strings.HasSuffix(port, string(variableEnds)) {
		return hostPort(host, port), !strings.ContainsRune(host, variableBegins)
	}
	return hostPort(host, port), isPort(port, true)
}

// widenWildcards makes ":PORT" of the IPv6 wildcard, which has IPv4 clients as well on Linux, unless a bind beside it
// has them already.
func widenWildcards(binds []*haBind) {
	mark := "::" + string(variableBegins) + ":"
	taken := map[string]bool{}
	for _, b := range binds {
		for _, a := range b.addresses {
			if port, v4 := strings.CutPrefix(a, "0.0.0.0:"); v4 {
				taken[port] = true
			}
		}
	}
	for _, b := range binds {
		for i, a := range b.addresses {
			if port, wide := strings.CutPrefix(a, mark); wide {
				b.addresses[i] = ":" + port
				if taken[port] {
					b.addresses[i] = "[::]:" + port
				}
			}
		}
	}
}

// listenerKeys gives a listener what its frontend says, apart from rules.
func (h *haproxy) listenerKeys(p *proxy, l *listener) {
	behind := append(h.behind(p), p)
	if d, set := longestTimeout(behind, "tunnel"); set {
		l.setIdle(d)
	} else if d, set := longestTimeout(behind, "client", "server"); set {
		l.setIdle(d)
	}
	if d, set := longestTimeout(behind, "client-fin", "server-fin"); set {
		l.set("half_close_timeout", timeText(d, time.Millisecond, 24*time.Hour))
	}
	if n, ok := parseNumber(p.maxconn, 1, 100_000_000); ok && !l.has("max_sessions") {
		l.set("max_sessions", strconv.Itoa(n))
	}
	if n, ok := parseNumber(p.rate, 1, 1_000_000); ok {
		l.in("limits").set("rate", quote(strconv.Itoa(n)+"/s"))
		l.in("limits").set("over_limit", quote("delay"))
	}
	if _, set := p.options["dontlognull"]; set {
		h.doc.top("log").set("probes", "false")
	}
}

// setIdle sets the idle timeout; a time of 0 is none.
func (l *listener) setIdle(d time.Duration) {
	l.set("idle_timeout", timeText(d, 0, longest))
}

// behind returns the backends and listens that clients of p may come to.
func (h *haproxy) behind(p *proxy) (proxies []*proxy) {
	names := []string{p.to.word(1)}
	for _, l := range p.uses {
		names = append(names, l.word(1))
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		proxies = append(proxies, h.behindName[name]...)
	}
	return proxies
}
