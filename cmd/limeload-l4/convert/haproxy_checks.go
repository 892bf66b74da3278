package convert

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// health carries over the checks of a backend.
func (h *haproxy) health(p *proxy, made *pool, servers []*haServer) {
	checked := 0
	for _, s := range servers {
		if s.on("check") {
			checked++
		}
	}
	if checked == 0 {
		for _, l := range p.options {
			if isCheckOption(l.word(1)) && !contains(p, l) {
				h.notes.differs(l.at, l.raw, "no server has the parameter check, so none is checked", "")
			}
		}
		return
	}
	for _, s := range servers {
		if !s.on("check") {
			h.notes.differs(s.at.at, s.at.raw, "all backends of a pool are checked, this one, too", "")
		}
	}
	t := made.in("health")
	tls := h.checkType(p, made, t)
	h.checkTimes(p, t, servers)
	h.checkAddresses(made, t, servers)
	for _, s := range servers {
		// a check at an address of its own inherits neither TLS nor the PROXY header
		inherits := !s.on("port") && !s.on("addr")
		tls = tls || s.on("check-ssl") || s.on("ssl") && inherits && !s.on("no-check-ssl")
		if s.on("check-send-proxy") && (!inherits || !s.on("send-proxy") && !s.on("send-proxy-v2")) {
			h.notes.left(s.at.at, s.at.raw, "check-send-proxy: only checks on the backend's own port get a PROXY header",
				"see send_proxy of the pool")
		}
	}
	if tls {
		h.checkTLS(t, servers)
	}
}

// contains reports whether a line is one of the defaults that p inherits: then it is no mistake that nothing needs it.
func contains(p *proxy, l line) bool { return l.at.line < p.head.at.line }

// checkType sets what a check does, by the option of the backend, and reports whether its rules ask for TLS.
func (h *haproxy) checkType(p *proxy, made *pool, t *table) (tls bool) {
	t.set("type", quote("tcp"))
	for name, l := range p.options {
		switch name {
		case "httpchk":
			tls = h.httpCheck(p, made, t, l)
		case "tcp-check":
			tls = h.tcpCheck(p, t)
		case "pgsql-check":
			h.login(t, l, "postgres")
		case "mysql-check":
			h.login(t, l, "mysql")
		case "redis-check":
			t.set("type", quote("redis"))
		case "smtpchk":
			t.set("type", quote("smtp"))
		case "ldap-check":
			t.set("type", quote("ldap"))
		case "ssl-hello-chk":
			t.set("type", quote("tls"))
			t.set("verify", "false")
		case "external-check", "spop-check":
			h.notes.left(l.at, l.raw, "a check of this kind is not carried over", `see type = "exec" in docs/health.md`)
		}
	}
	return tls
}

// login carries over a check that names a user.
func (h *haproxy) login(t *table, l line, kind string) {
	user := ""
	for i, w := range l.words {
		if w == "user" {
			user = l.word(i + 1)
		}
	}
	if user == "" {
		user = "limeload"
	}
	t.set("type", quote(kind))
	t.set("user", quote(user))
	h.notes.differs(l.at, l.raw, "the check logs in, where HAProxy only begins to",
		`set password_file if the server asks for a password, and role = "primary" where only the primary may serve`)
}

// httpCheck carries over option httpchk and http-check, and reports whether they ask for TLS.
func (h *haproxy) httpCheck(p *proxy, made *pool, t *table, l line) (tls bool) {
	method, uri := "OPTIONS", "/"
	switch len(l.words) {
	case 2:
	case 3:
		uri = l.word(2)
	default:
		method, uri = l.word(2), l.word(3)
	}
	// the trick for headers of versions before 2.2: they stand behind the version
	host := ""
	if m := regexp.MustCompile(`(?i)\r\nHost: *([^\r\n]+)`).FindStringSubmatch(strings.Join(l.words, " ")); m != nil {
		host = m[1]
	}
	t.set("type", quote("http"))
	for _, c := range p.checks {
		if c.words[0] != "http-check" {
			continue
		}
		switch c.word(1) {
		case "send":
			for i := 2; i < len(c.words); i++ {
				switch c.words[i] {
				case "meth":
					method = c.word(i + 1)
				case "uri":
					uri = c.word(i + 1)
				case "hdr":
					if strings.EqualFold(c.word(i+1), "host") {
						host = c.word(i + 2)
					} else {
						h.notes.left(c.at, c.raw, "a check sends no header but Host", "")
					}
					i++
				case "ver":
				default:
					h.notes.left(c.at, c.raw, c.words[i]+" of a check has no counterpart", "")
				}
				i++
			}
		case "expect":
			h.httpExpect(t, c)
		case "connect":
			tls = h.checkConnect(t, c) || tls
		case "comment":
		default:
			h.notes.left(c.at, c.raw, "a check has no such rule", "see [pool.*.health]")
		}
	}
	t.set("method", quote(strings.ToUpper(method)))
	if !strings.HasPrefix(uri, "/") {
		uri = "/"
		h.notes.left(l.at, l.raw, "the path of a request begins with \"/\"", "")
	}
	t.set("path", quote(uri))
	if host != "" {
		t.set("host", quote(host))
	}
	bare, _, _ := strings.Cut(uri, "?")
	switch bare {
	case "/primary", "/master", "/leader", "/read-write", "/replica", "/read-only":
		made.comments = append(made.comments, "If this is Patroni, it can also say itself who the primary is, and sooner:",
			"see docs/patroni.md, and limeload-l4 example patroni.")
	}
	return tls
}

// httpExpect carries over http-check expect.
func (h *haproxy) httpExpect(t *table, c line) {
	words := c.words[2:]
	for len(words) > 1 && (words[0] == "min-recv" || words[0] == "comment") {
		words = words[2:]
	}
	if t.has("status") || t.has("body") {
		h.notes.left(c.at, c.raw, "a check is one request, and expects one thing", "see checks of [pool.*.health]")
		return
	}
	switch {
	case len(words) == 2 && words[0] == "status" && statusCodes().MatchString(words[1]):
		t.set("status", quoteList(strings.Split(words[1], ",")))
	case len(words) == 2 && words[0] == "rstatus" && statusHundreds().MatchString(words[1]):
		first := strings.Trim(words[1], "^(")[:1]
		t.set("status", quoteList([]string{first + "00-" + first + "99"}))
	case len(words) >= 2 && words[0] == "string":
		t.set("body", quote(strings.Join(words[1:], " ")))
	default:
		h.notes.left(c.at, c.raw, "this is not among what a check looks at",
			"see status and body of [pool.*.health]")
	}
}

// statusCodes matches a list of codes and ranges of them.
func statusCodes() *regexp.Regexp {
	const one = `[1-5][0-9]{2}(-[1-5][0-9]{2})?`
	return regexp.MustCompile(`^` + one + `(,` + one + `)*$`)
}

// statusHundreds matches a regular expression for all codes with the same first digit, such as ^2[0-9][0-9]$.
func statusHundreds() *regexp.Regexp {
	return regexp.MustCompile(`^\^?\(?[1-5](\[0-9\]\[0-9\]|\.\.|\\d\\d)\)?\$?$`)
}

// checkTimes carries over when a server is checked.
func (h *haproxy) checkTimes(p *proxy, t *table, servers []*haServer) {
	const why = "the checks of a pool have the same times"
	interval := 2 * time.Second // HAProxy's default, and that of limeload-l4
	for _, k := range []struct {
		word, key string
	}{{"inter", "interval"}, {"fastinter", "fast_interval"}} {
		v, set := h.same(servers, k.word, why)
		if d, ok := haTime(v); set && ok {
			t.set(k.key, timeText(d, 10*time.Millisecond, 24*time.Hour))
			if k.word == "inter" {
				interval = d
			}
		}
	}
	for _, word := range []string{"rise", "fall"} {
		v, set := h.same(servers, word, why)
		if n, ok := parseNumber(v, 1, 1000); set && ok {
			t.set(word, fmt.Sprint(n))
		}
	}
	// without timeout check, a check of HAProxy must be over at the next one, or after the connect timeout
	d, set := p.timeouts["check"]
	if !set {
		d = interval
		if c, limited := p.timeouts["connect"]; limited && c > 0 {
			d = min(d, c)
		}
	}
	t.set("timeout", timeText(d, time.Millisecond, time.Hour))
}

// checkAddresses carries over where a server is checked.
func (h *haproxy) checkAddresses(made *pool, t *table, servers []*haServer) {
	common := servers[0].words["port"]
	for _, s := range servers {
		if s.on("addr") || s.words["port"] != common {
			common = ""
		}
	}
	if _, ok := parseNumber(common, 1, 65535); ok {
		t.set("port", common)
		return
	}
	for _, s := range servers {
		if !s.on("addr") && !s.on("port") {
			continue
		}
		host, port := s.host, s.port
		if s.on("addr") {
			host = strings.Trim(s.words["addr"], "[]")
		}
		if s.on("port") {
			port = s.words["port"]
		}
		if !isIP(host) || !isPort(port, false) {
			h.notes.left(s.at.at, s.at.raw, "a check of its own needs an IP address and a port",
				"see check of the backend, and port of [pool.*.health]")
			continue
		}
		if b := made.addresses[s.address()]; b != nil {
			b.set("check", quote(hostPort(host, port)))
		}
	}
}

// checkTLS turns TLS on for the checks.
func (h *haproxy) checkTLS(t *table, servers []*haServer) {
	switch t.value("type") {
	case quote("http"):
		t.set("type", quote("https"))
	case quote("tcp"):
		if t.has("steps") {
			t.set("tls", "true")
		} else {
			t.set("type", quote("tls"))
		}
	case quote("tls"):
	default:
		t.set("tls", "true")
	}
	if unverified(servers) {
		t.set("verify", "false")
	} else if ca := servers[0].words["ca-file"]; ca != "" && ca != "@system-ca" {
		t.set("ca", quote(under(h.caBase, ca)))
	}
	if servers[0].on("check-sni") {
		if name := h.serverName(servers, "check-sni"); name != "" && name != "sni" {
			t.set("server_name", quote(name))
		}
	} else if name, is := strings.CutPrefix(servers[0].words["sni"], "str("); is {
		t.set("server_name", quote(strings.Trim(strings.TrimSuffix(name, ")"), `"'`)))
	}
}
