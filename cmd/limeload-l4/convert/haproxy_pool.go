package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pool makes the pool of a backend or listen. A listen without servers has none, if it names another one.
func (h *haproxy) pool(p *proxy) {
	if len(p.servers) == 0 {
		if p.kind == "backend" {
			h.notes.left(p.head.at, p.head.raw, "it has no servers", "")
		}
		return
	}
	made := h.doc.addPool(p.name, p.head.at, p.head.raw)
	var servers []*haServer
	for _, l := range p.servers {
		if l.words[0] == "server-template" {
			h.template(p, made, l)
			continue
		}
		if s := h.server(p, l); s != nil {
			servers = append(servers, s)
		}
	}
	h.algorithm(p, made)
	h.poolKeys(p, made)
	h.backends(p, made, servers)
	if len(servers) > 0 {
		h.serverKeys(p, made, servers)
		h.health(p, made, servers)
	}
	h.sticky(p, made)
	if p.kind == "backend" {
		for _, l := range p.rules {
			h.notes.left(l.at, l.raw, "rules are for listeners", "")
		}
		for _, l := range p.uses {
			h.notes.left(l.at, l.raw, "rules are for listeners", "")
		}
	}
	h.pools[p.name] = made
}

// algorithm carries over balance.
func (h *haproxy) algorithm(p *proxy, made *pool) {
	name := p.balance.word(1)
	consistent := p.hashType.word(1) == "consistent"
	to := "round_robin"
	switch {
	case name == "" || name == "roundrobin" || name == "static-rr":
	case name == "leastconn":
		to = "least_conn"
	case name == "first":
		to = "first"
	case name == "source" && consistent:
		to = "ring_hash"
	case name == "source":
		to = "client_hash"
	case name == "random" || name == "random(2)":
		to = "p2c"
	case name == "random(1)":
		to = "random"
	case strings.HasPrefix(name, "random("):
		to = "p2c"
		h.notes.differs(p.balance.at, p.balance.raw, "the less loaded of two random backends gets a client", "")
	case name == "hash" && (p.balance.word(2) == "req.ssl_sni" || p.balance.word(2) == "ssl_fc_sni"):
		to = "client_hash"
		made.set("hash_key", quote("sni"))
	default:
		to = "least_conn"
		h.notes.left(p.balance.at, p.balance.raw, "nothing of a request is read",
			`algorithm = "least_conn" is written instead; client_hash keeps a client's address at one backend`)
	}
	made.set("algorithm", quote(to))
	if percent, ok := parseNumber(p.hashFactor, 101, 10_000); ok && (to == "ring_hash" || to == "client_hash") {
		made.set("hash_balance", strconv.FormatFloat(float64(percent)/100, 'f', -1, 64))
	}
}

// poolKeys carries over what a backend says about all of its servers.
func (h *haproxy) poolKeys(p *proxy, made *pool) {
	if d, set := p.timeouts["connect"]; set {
		made.set("connect_timeout", timeText(d, time.Millisecond, time.Hour))
	}
	if n, err := strconv.Atoi(p.retries); err == nil && n >= 0 {
		made.set("retries", strconv.Itoa(min(n, 10)))
	}
	if p.source.words != nil {
		h.source(made, p.source, p.source.words[1:])
	}
}

// source carries over a source address.
func (h *haproxy) source(made *pool, l line, words []string) {
	if len(words) == 0 {
		return
	}
	text, _, _ := strings.Cut(words[0], ":")
	ip, err := netip.ParseAddr(text)
	if err != nil || len(words) > 1 {
		h.notes.left(l.at, l.raw, "a source is one address of this machine", "see source and send_proxy of the pool")
	}
	if err == nil {
		made.set("source", quoteList([]string{ip.String()}))
	}
}

// backends makes a backend of each server.
func (h *haproxy) backends(p *proxy, made *pool, servers []*haServer) {
	tier := 0
	_, all := p.options["allbackups"]
	for _, s := range servers {
		h.unreadWords(p, s)
		b := made.addBackend(s.name, s.address())
		if b == nil {
			h.notes.left(s.at.at, s.at.raw, "the pool has a backend with this address already",
				"weight says how much one gets")
			continue
		}
		if n, ok := h.number(s, "weight", 0, 256); ok && n != 1 {
			b.set("weight", strconv.Itoa(n))
		}
		if n, ok := h.number(s, "maxconn", 0, 100_000_000); ok && n > 0 { // 0 is no limit
			b.set("max_sessions", strconv.Itoa(n))
		}
		if s.on("backup") {
			if tier == 0 || !all { // without allbackups only the first one that works is used
				tier++
			}
			b.set("tier", strconv.Itoa(tier))
		}
		if s.on("disabled") {
			b.set("mode", quote("maintenance"))
		}
		if s.on("resolvers") && !isIP(s.host) {
			h.notes.differs(s.at.at, s.at.raw, "the name is looked up at the start and at each reload",
				"for a name that changes, see [pool.*.discovery]")
		}
	}
	if slices.ContainsFunc(made.backends, func(b *backend) bool { return b.has("max_sessions") }) {
		wait := `"5s"`
		if d, set := p.timeouts["queue"]; set && d > 0 {
			wait = timeText(d, time.Millisecond, time.Hour)
		} else if d, set := p.timeouts["connect"]; set && d > 0 {
			wait = timeText(d, time.Millisecond, time.Hour)
		}
		made.setWith("queue", "{ max = 10_000, timeout = "+wait+" }", "HAProxy's has no bound")
	}
}

// number reads a number that a server has. One that is none, such as a variable of the environment, is noted.
func (h *haproxy) number(s *haServer, word string, low, high int) (n int, ok bool) {
	if !s.on(word) {
		return 0, false
	}
	if n, ok = parseNumber(s.words[word], low, high); !ok {
		h.unreadable(s.at, "a number for "+word)
	}
	return n, ok
}

// serverKeys carries over the parameters of servers that are keys of a pool.
func (h *haproxy) serverKeys(p *proxy, made *pool, servers []*haServer) {
	for _, header := range [][2]string{
		{"send-proxy-v2-ssl-cn", "v2"}, {"send-proxy-v2-ssl", "v2"}, {"send-proxy-v2", "v2"}, {"send-proxy", "v1"},
	} {
		if _, set := h.same(servers, header[0], "send_proxy is one for a pool"); set {
			made.set("send_proxy", quote(header[1]))
			break
		}
	}
	if v, set := h.same(servers, "slowstart", "slow_start is one for a pool"); set {
		if d, ok := haTime(v); ok {
			made.set("slow_start", timeText(d, 0, 24*time.Hour))
		}
	}
	if v, set := h.same(servers, "source", "source is one for a pool"); set {
		h.source(made, servers[0].at, []string{v})
	}
	if v, set := h.same(servers, "on-marked-down", "on_unhealthy is one for a pool"); set && v == "shutdown-sessions" {
		made.set("on_unhealthy", quote("close"))
	}
	if _, set := h.same(servers, "agent-check", "agent is one for a pool"); set {
		h.agent(made, servers)
	}
	if _, set := h.same(servers, "ssl", "TLS is for all backends of a pool"); set {
		h.serverTLS(made, servers)
	}
}

func (h *haproxy) agent(made *pool, all []*haServer) {
	servers := slices.DeleteFunc(slices.Clone(all), func(s *haServer) bool { return !s.on("agent-check") })
	port, set := h.same(servers, "agent-port", "agent.port is one for a pool")
	if _, ok := parseNumber(port, 1, 65535); !set || !ok {
		return
	}
	text := "{ port = " + port
	if v, set := h.same(servers, "agent-inter", "agent.interval is one for a pool"); set {
		if d, ok := haTime(v); ok {
			text += ", interval = " + timeText(d, 10*time.Millisecond, 24*time.Hour)
		}
	}
	made.set("agent", text+" }")
}

// serverTLS carries over TLS to servers.
func (h *haproxy) serverTLS(made *pool, servers []*haServer) {
	t := made.in("tls")
	_, _ = h.same(servers, "verify", "tls.mode is one for a pool")
	mode := "verify" // ssl-server-verify is required by default
	if unverified(servers) {
		mode = "insecure"
	}
	t.set("mode", quote(mode))
	if v, set := h.same(servers, "ca-file", "tls.ca is one for a pool"); set && mode == "verify" && v != "@system-ca" {
		t.set("ca", quote(under(h.caBase, v)))
	}
	if v, set := h.same(servers, "crt", "tls.cert is one for a pool"); set {
		t.set("cert", quote(under(h.crtBase, v)))
		t.set("key", quote(under(h.crtBase, v)))
	}
	if name := h.serverName(servers, "sni"); name != "" {
		t.set("server_name", quote(name))
		if host := servers[0].words["verifyhost"]; host != "" && host != name {
			h.notes.left(servers[0].at.at, servers[0].at.raw, "verifyhost: a certificate must have the name that is asked for",
				"see server_name of [pool.*.tls]")
		}
	} else if v, set := h.same(servers, "verifyhost", "tls.server_name is one for a pool"); set {
		t.set("server_name", quote(v))
	}
}

// unverified reports whether no server has to show a good certificate. Where one has to, all have to.
func unverified(servers []*haServer) bool {
	return !slices.ContainsFunc(servers, func(s *haServer) bool { return s.words["verify"] != "none" })
}

// serverName returns the name that a parameter sni or check-sni says; "" if it says none.
func (h *haproxy) serverName(servers []*haServer, word string) string {
	v, set := h.same(servers, word, "tls.server_name is one for a pool")
	if !set {
		return ""
	}
	if name, is := strings.CutPrefix(v, "str("); is {
		return strings.Trim(strings.TrimSuffix(name, ")"), `"'`)
	}
	switch v {
	case "req.ssl_sni", "ssl_fc_sni", "req_ssl_sni":
		return "sni"
	}
	if word == "check-sni" && !strings.ContainsAny(v, "(,[") {
		return v
	}
	h.notes.left(servers[0].at.at, servers[0].at.raw, word+" is an expression that is not known",
		`server_name needs a name, or "sni" for the one that the client asks for`)
	return ""
}

// template carries over a server-template as a discovery.
func (h *haproxy) template(p *proxy, made *pool, template serverLine) {
	l := template.line
	if made.found {
		h.notes.left(l.at, l.raw, "a pool has one discovery", "make it a pool of its own")
		return
	}
	text := l.word(3)
	name, port, _ := strings.Cut(text, ":")
	s := &haServer{at: l, name: l.word(1), words: map[string]string{}}
	for _, d := range p.defaults[:template.defaults] {
		h.serverParameters(s, d, 1)
	}
	h.serverParameters(s, l, 4)
	t := made.in("discovery")
	switch _, isPort := parseNumber(port, 1, 65535); {
	case strings.HasPrefix(name, "_"):
		t.set("type", quote("srv"))
		t.set("name", quote(name))
	case isPort && name != "":
		t.set("type", quote("dns"))
		t.set("name", quote(name))
		t.set("port", port)
	default:
		h.unreadable(l, "a name with a port")
		return
	}
	made.found = true
	if r := h.resolvers[s.words["resolvers"]]; r != nil {
		if r.server != "" {
			t.set("resolver", quote(r.server))
		}
		if r.refresh > 0 {
			t.set("refresh", timeText(r.refresh, 100*time.Millisecond, 24*time.Hour))
		}
	}
	switch s.words["resolve-prefer"] {
	case "ipv4", "ipv6":
		t.setWith("family", quote(s.words["resolve-prefer"]), "HAProxy only prefers it")
	}
	h.unreadWords(p, s)
	for _, word := range []string{"weight", "maxconn", "backup", "disabled"} {
		if s.on(word) {
			h.notes.left(l.at, l.raw, word+": backends that discovery finds have no keys of their own",
				"set it at run time with `limeload-l4 backends set`")
		}
	}
	h.serverKeys(p, made, []*haServer{s})
	h.health(p, made, []*haServer{s})
}

// sticky carries over stick-table with stick on src.
func (h *haproxy) sticky(p *proxy, made *pool) {
	var tableLine line
	onSource := line{}
	for _, l := range p.sticks {
		switch {
		case l.words[0] == "stick-table":
			tableLine = l
		case (l.word(1) == "on" || l.word(1) == "match") && l.word(2) == "src" && len(l.words) == 3:
			onSource = l
		case l.word(1) == "store-request" && l.word(2) == "src" && len(l.words) == 3:
		default:
			h.notes.left(l.at, l.raw, "a client is known by its address, or by the name that it sends first",
				"see sticky of the pool")
		}
	}
	if onSource.words == nil {
		return
	}
	ttl, size := 24*time.Hour, 100_000
	for i, w := range tableLine.words {
		switch w {
		case "expire":
			if d, ok := haTime(tableLine.word(i + 1)); ok {
				ttl = d
			}
		case "size":
			size = haSize(tableLine.word(i+1), size)
		case "peers":
			h.notes.left(tableLine.at, tableLine.raw, "peers: balancers do not share tables",
				`algorithm = "maglev" or "ring_hash" lets all of them choose alike without talking`)
		}
	}
	if tableLine.words == nil {
		h.notes.left(onSource.at, onSource.raw, "its stick-table is missing", "")
		return
	}
	made.set("sticky", "{ ttl = "+timeText(ttl, time.Second, longest)+", max_entries = "+
		strconv.Itoa(min(max(size, 1), 16_777_216))+" }")
}

// haSize reads a number with k, m or g, each 1024 times the one before.
func haSize(s string, otherwise int) int {
	digits := strings.TrimRight(s, "kKmMgG")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > 1<<30 {
		return otherwise
	}
	switch strings.ToLower(s[len(digits):]) {
	case "k":
		n <<= 10
	case "m":
		n <<= 20
	case "g":
		n <<= 30
	}
	return n
}

// isIP reports whether a host is an IP address.
func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
