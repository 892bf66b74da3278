package convert

import (
	"maps"
	"slices"
	"strings"
)

// A haServer is a line server, with what default-server says.
type haServer struct {
	at    line
	name  string
	host  string // a Unix socket's path begins with "unix:"
	port  string // "" is the port that the client has connected to
	words map[string]string
}

// on reports whether a parameter is given.
func (s *haServer) on(word string) bool {
	_, on := s.words[word]
	return on
}

// address returns the server's address as a backend has it.
func (s *haServer) address() string {
	if strings.HasPrefix(s.host, "unix:") {
		return s.host
	}
	return hostPort(s.host, s.port)
}

// serverWords returns the parameters of servers that have a value, each with how many words that is.
func serverWords() map[string]int {
	words := map[string]int{}
	for _, w := range strings.Fields(`addr agent-addr agent-inter agent-port agent-send alpn ca-file check-alpn check-proto
		check-sni ciphers ciphersuites client-sigalgs cookie crl-file crt curves downinter error-limit fall fastinter
		hash-key id init-addr init-state inter interface log-bufsize log-proto max-reuse maxconn maxqueue minconn namespace
		npn observe on-error on-marked-down on-marked-up path pool-low-conn pool-max-conn pool-purge-delay port
		proto proxy-v2-options redir resolve-net resolve-opts resolve-prefer resolvers rise shard sigalgs slowstart sni socks4
		source ssl-max-ver ssl-min-ver tcp-ut track usesrc verify verifyhost weight ws`) {
		words[w] = 1
	}
	return words
}

// server reads a line server.
func (h *haproxy) server(p *proxy, l serverLine) *haServer {
	s := &haServer{at: l.line, name: l.word(1), words: map[string]string{}}
	for _, d := range p.defaults[:l.defaults] {
		h.serverParameters(s, d, 1)
	}
	h.serverParameters(s, l.line, 3)
	text := l.word(2)
	for _, prefix := range []string{"ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@", "stream+ipv4@", "stream+ipv6@"} {
		text = strings.TrimPrefix(text, prefix)
	}
	if path, unix := strings.CutPrefix(text, "unix@"); unix || strings.HasPrefix(text, "/") {
		s.host = "unix:" + path
		return s
	}
	colon := strings.LastIndexByte(text, ':')
	switch {
	case strings.Contains(text, "@"):
		s = nil
	case colon < 0:
		s.host = text
	default:
		s.host, s.port = text[:colon], text[colon+1:]
		// a variable with a text in its place has a colon, too
		if i := strings.LastIndexByte(text, ':'); strings.Count(text[i:], string(variableEnds)) >
			strings.Count(text[i:], string(variableBegins)) {
			s.host, s.port = text, ""
		}
	}
	if s == nil || s.port != "" && !isPort(s.port, false) && !strings.ContainsRune(s.port, variableBegins) {
		h.notes.left(l.at, l.raw, quote(text)+" is no address of a backend", `needs "HOST:PORT" or "unix:/PATH"`)
		return nil
	}
	s.host = strings.TrimSuffix(strings.TrimPrefix(s.host, "["), "]")
	return s
}

// serverParameters reads the parameters of a line from its i-th word on.
func (h *haproxy) serverParameters(s *haServer, l line, i int) {
	valued := serverWords()
	for ; i < len(l.words); i++ {
		word := l.words[i]
		switch valued[word] {
		case 0:
			if off, is := strings.CutPrefix(word, "no-"); is && word != "no-check-ssl" {
				delete(s.words, off)
				continue
			}
			delete(s.words, map[string]string{"check-ssl": "no-check-ssl", "no-check-ssl": "check-ssl"}[word])
			if word == "enabled" {
				delete(s.words, "disabled")
				continue
			}
			s.words[word] = ""
		default:
			i++
			s.words[word] = l.word(i)
		}
	}
}

// carriedServerWords are the parameters that the conversion reads; those of the value are done anyway, or harmless.
func carriedServerWords() map[string]bool {
	words := map[string]bool{}
	for _, w := range strings.Fields(`addr agent-check agent-inter agent-port alpn backup ca-file check check-send-proxy
		check-sni check-ssl crt disabled fall fastinter id init-addr inter maxconn no-check-ssl on-marked-down port
		resolve-prefer resolvers rise send-proxy send-proxy-v2 slowstart sni source ssl verify weight check-via-socks4
		no-ssl tfo non-stick verifyhost`) {
		words[w] = true
	}
	return words
}

// lostServerWords returns why other parameters are not carried over.
func lostServerWords() map[string]counterpart {
	return map[string]counterpart{
		"cookie": {why: "cookies are for HTTP, which is passed on unread",
			remedy: "see sticky of the pool", lost: true, http: true},
		"track": {why: "each pool checks its own backends", lost: true},
		"minconn": {why: "a backend has one max_sessions, whatever the load",
			remedy: "see max_sessions", lost: true},
		"maxqueue":    {why: "a pool has one queue", remedy: "see queue.max", lost: true},
		"downinter":   {why: "an unhealthy backend is checked every interval", remedy: "see interval", lost: true},
		"observe":     {why: "a breaker looks at the traffic of every backend anyway", remedy: "see [pool.*.breaker]"},
		"on-error":    {why: "a breaker looks at the traffic of every backend anyway", remedy: "see [pool.*.breaker]"},
		"error-limit": {why: "a breaker looks at the traffic of every backend anyway", remedy: "see [pool.*.breaker]"},
		"on-marked-up": {why: "sessions of backends in reserve go on", lost: true,
			remedy: "`limeload-l4 sessions end --backend` ends them"},
		"redir":        {why: "this is for HTTP, which is passed on unread", lost: true, http: true},
		"proto":        {why: "bytes are passed on unread"},
		"ciphers":      {why: "ciphers are those of Go's library", lost: true},
		"curves":       {why: "curves are those of Go's library", lost: true},
		"crl-file":     {why: "certificates of backends are not looked up in a list of revoked ones", lost: true},
		"ssl-min-ver":  {why: "connections to backends speak TLS 1.2 or 1.3, as the backend chooses", lost: true},
		"ssl-max-ver":  {why: "connections to backends speak TLS 1.2 or 1.3, as the backend chooses", lost: true},
		"force-tlsv12": {why: "connections to backends speak TLS 1.2 or 1.3, as the backend chooses", lost: true},
		"force-tlsv13": {why: "connections to backends speak TLS 1.2 or 1.3, as the backend chooses", lost: true},
		"tcp-ut":       {why: "connections to backends have the system's TCP_USER_TIMEOUT", lost: true},
		"socks4":       {why: "backends are connected to directly", lost: true},
		"agent-addr":   {why: "an agent is asked at its backend's address", lost: true},
		"agent-send":   {why: "an agent is sent nothing", lost: true},
		"send-proxy-v2-ssl": {why: "a header has no facts about TLS", remedy: `send_proxy = "v2" is written instead`,
			lost: true},
		"send-proxy-v2-ssl-cn": {why: "a header has no facts about TLS", remedy: `send_proxy = "v2" is written instead`,
			lost: true},
		"stick": {why: "see sticky of the pool", lost: true},
		"usesrc": {why: "clients' addresses are not used for connections to backends",
			remedy: "see send_proxy", lost: true},
		"init-state": {why: "see initial of [pool.*.health]", lost: true},
	}
}

// unreadWords notes the parameters of a server that are not carried over.
func (h *haproxy) unreadWords(p *proxy, s *haServer) {
	carried, lost := carriedServerWords(), lostServerWords()
	for _, word := range slices.Sorted(maps.Keys(s.words)) {
		if carried[word] {
			continue
		}
		c := lost[word]
		if strings.HasPrefix(word, "pool-") || word == "max-reuse" {
			c = counterpart{why: "connections to backends are not shared", http: true}
		}
		at := s.at
		for _, d := range p.defaults {
			if slices.Contains(d.words, word) && !slices.Contains(s.at.words, word) {
				at = d
			}
		}
		if word == "ssl-min-ver" && slices.Contains([]string{"SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"}, s.words[word]) {
			continue // done anyway
		}
		if c == (counterpart{}) {
			c = counterpart{why: "limeload-l4 does not know this parameter", lost: true}
		}
		c.why = word + ": " + c.why
		h.otherLine(p, at, c)
	}
}

// same returns the value of a parameter that limeload-l4 has once for a pool, and whether a server has it. Servers with
// another value than the first one are noted.
func (h *haproxy) same(servers []*haServer, word, why string) (value string, set bool) {
	for _, s := range servers {
		if v, on := s.words[word]; on && !set {
			value, set = v, true
		}
	}
	if !set {
		return "", false
	}
	for _, s := range servers {
		if v, on := s.words[word]; !on || v != value {
			h.notes.left(s.at.at, s.at.raw, word+" is another one than that of the first server", why)
		}
	}
	return value, true
}
