package convert

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxInherited bounds the lines that sections inherit from their defaults, all together: a hundred times as many as a
// configuration with a thousand sections has.
const maxInherited = 1_000_000

// A haproxy is the conversion of one configuration of HAProxy.
type haproxy struct {
	notes *notes
	doc   *document

	// set once, then read-only: see proxyWords and optionWords
	words, optionWords map[string]counterpart

	caBase, crtBase string
	minVersion      string                 // of TLS at all binds; "" if the file does not say it
	resolvers       map[string]*haResolver // by name
	proxies         []*proxy
	behindName      map[string][]*proxy // backends and listens by name
	pools           map[string]*pool    // by the name of the backend or listen
}

// A haSection is a section with its lines.
type haSection struct {
	kind, name string
	head       line
	lines      []line
	defaults   []line // inherited
}

// A haResolver is what a section resolvers says.
type haResolver struct {
	server  string // "" is the system's
	refresh time.Duration
}

// A serverLine is a line server or server-template.
type serverLine struct {
	line
	defaults int // how many lines default-server stand before it
}

// A proxy is a frontend, backend or listen, as its lines and those of its defaults say.
type proxy struct {
	kind, name string
	head       line
	tcp        bool // mode tcp; otherwise http
	inherited  bool // the line that is read now is one of its defaults
	disabled   bool
	binds      []line
	servers    []serverLine
	defaults   []line // of servers
	balance    line
	hashType   line
	hashFactor string
	timeouts   map[string]time.Duration
	options    map[string]line // as "httpchk"; an option that is off is not there
	checks     []line          // tcp-check and http-check
	acls       map[string][]condition
	uses       []line // use_backend
	to         line   // default_backend
	rules      []line // tcp-request and tcp-response
	stats      bool   // it shows HAProxy's statistics
	sticks     []line // stick, stick-table
	maxconn    string
	rate       string
	retries    string
	source     line
}

func convertHAProxy(text []byte, file string, n *notes) *document {
	h := &haproxy{notes: n, doc: &document{}, words: proxyWords(), optionWords: optionWords(),
		resolvers: map[string]*haResolver{}, pools: map[string]*pool{}}
	sections := h.sections(haproxyLines(text, file))
	for _, s := range sections {
		switch s.kind {
		case "global":
			h.global(s)
		case "resolvers":
			h.resolver(s)
		}
	}
	for _, s := range sections {
		switch s.kind {
		case "frontend", "backend", "listen":
			if p := h.proxy(s); !p.disabled {
				h.proxies = append(h.proxies, p)
			}
		case "global", "resolvers", "defaults":
		default:
			h.foreignSection(s)
		}
	}
	h.behindName = map[string][]*proxy{}
	for _, p := range h.proxies {
		if p.kind != "frontend" {
			h.behindName[p.name] = append(h.behindName[p.name], p)
			h.pool(p)
		}
	}
	for _, p := range h.proxies {
		if p.kind != "backend" {
			h.listeners(p)
		}
	}
	return h.doc
}

// sections groups the lines by section, and gives each proxy the lines of its defaults.
func (h *haproxy) sections(lines []line) (sections []*haSection) {
	named := map[string]*haSection{}
	inherited := 0
	var last, now *haSection
	for _, l := range lines {
		switch l.words[0] {
		case "global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers", "cache",
			"program", "ring", "http-errors", "log-forward", "fcgi-app", "crt-store", "log-profile", "traces", "acme":
			now = &haSection{kind: l.words[0], name: l.word(1), head: l}
			sections = append(sections, now)
			base := last
			if from := slices.Index(l.words, "from"); from > 0 && named[l.word(from+1)] != nil {
				base = named[l.word(from+1)]
			}
			if base != nil && (now.kind == "frontend" || now.kind == "backend" || now.kind == "listen" ||
				now.kind == "defaults" && slices.Contains(l.words, "from")) {
				if inherited += len(base.defaults) + len(base.lines); inherited > maxInherited {
					h.notes.left(l.at, l.raw, "there are too many sections with defaults: the rest is not read", "")
					return sections[:len(sections)-1]
				}
				now.defaults = slices.Concat(base.defaults, base.lines)
			}
			if now.kind == "defaults" {
				last, named[now.name] = now, now
			}
		default:
			if now == nil {
				h.notes.left(l.at, l.raw, "it stands before the first section", "")
				continue
			}
			now.lines = append(now.lines, l)
			if now.kind == "defaults" {
				last = now
			}
		}
	}
	return sections
}

// foreignSection notes a section that limeload-l4 has nothing for.
func (h *haproxy) foreignSection(s *haSection) {
	switch s.kind {
	case "peers":
		h.notes.left(s.head.at, s.head.raw, "balancers do not share tables",
			`algorithm = "maglev" or "ring_hash" lets all of them choose alike without talking`)
	case "userlist", "cache", "http-errors", "fcgi-app":
		h.notes.left(s.head.at, s.head.raw, "this is for HTTP, which is passed on unread", "")
	case "mailers":
		h.notes.left(s.head.at, s.head.raw, "no mail is sent",
			"the alert rules for Prometheus in packaging/prometheus say the same")
	default:
		h.notes.left(s.head.at, s.head.raw, "limeload-l4 has nothing like this section", "")
	}
}

// global carries over the section global.
func (h *haproxy) global(s *haSection) {
	for _, l := range s.lines {
		switch word := l.words[0]; word {
		case "maxconn":
			if n, ok := parseNumber(l.word(1), 1, 100_000_000); ok {
				h.doc.top("global").set("max_sessions", strconv.Itoa(n))
				continue
			}
			h.unreadable(l, "a number")
		case "nbthread":
			if n, ok := parseNumber(l.word(1), 1, 1024); ok {
				h.doc.top("global").set("workers", strconv.Itoa(n))
				continue
			}
			h.unreadable(l, "a number")
		case "hard-stop-after":
			if d, ok := haTime(l.word(1)); ok {
				h.doc.top("global").set("drain_timeout", timeText(d, 0, 24*time.Hour))
				continue
			}
			h.unreadable(l, "a time")
		case "ca-base":
			h.caBase = l.word(1)
		case "crt-base":
			h.crtBase = l.word(1)
		case "ssl-default-bind-options":
			h.bindOptions(l)
		case "stats":
			if l.word(1) == "socket" {
				h.notes.differs(l.at, l.raw, "the admin socket is unix:/run/limeload/admin.sock, and speaks HTTP",
					"see [admin] and the commands status, backends and sessions")
				continue
			}
			if l.word(1) != "timeout" {
				h.notes.left(l.at, l.raw, "limeload-l4 has nothing like it", "")
			}
		default:
			h.globalWord(l)
		}
	}
}

// bindOptions carries over what ssl-default-bind-options says about versions.
func (h *haproxy) bindOptions(l line) {
	for i := 1; i < len(l.words); i++ {
		switch word := l.words[i]; word {
		case "ssl-min-ver":
			i++
			h.minVersion = l.word(i)
		case "no-sslv3", "no-tlsv10", "no-tlsv11", "no-tls-tickets", "prefer-client-ciphers":
		case "no-tlsv12":
			h.minVersion = "TLSv1.3"
		default:
			h.notes.left(l.at, l.raw, word+" has no counterpart",
				"TLS 1.2 and 1.3 are spoken, with the ciphers of Go's library")
		}
	}
}

// resolver reads a section resolvers.
func (h *haproxy) resolver(s *haSection) {
	r := &haResolver{}
	h.resolvers[s.name] = r
	for _, l := range s.lines {
		switch l.words[0] {
		case "nameserver":
			address := strings.TrimPrefix(strings.TrimPrefix(l.word(2), "udp@"), "ipv4@")
			if r.server == "" && !strings.Contains(address, "@") {
				r.server = address
				continue
			}
			h.notes.left(l.at, l.raw, "discovery asks one DNS server", `resolver = "" asks all of the system's`)
		case "parse-resolv-conf":
			r.server = ""
		case "hold":
			if d, ok := haTime(l.word(2)); ok && l.word(1) == "valid" {
				r.refresh = d
			}
		case "timeout":
			if d, ok := haTime(l.word(2)); ok && l.word(1) == "resolve" && r.refresh == 0 {
				r.refresh = d
			}
		}
	}
}

// proxy reads a frontend, backend or listen.
func (h *haproxy) proxy(s *haSection) *proxy {
	p := &proxy{kind: s.kind, name: s.name, head: s.head, timeouts: map[string]time.Duration{},
		options: map[string]line{}, acls: map[string][]condition{}}
	p.tcp = true
	for _, l := range slices.Concat(s.defaults, s.lines) {
		if l.words[0] == "mode" {
			p.tcp = l.word(1) == "tcp"
			if l.word(1) != "tcp" && l.word(1) != "http" {
				h.notes.left(l.at, l.raw, "needs tcp or http", "")
				p.disabled = true
			}
		}
	}
	for _, l := range s.defaults {
		p.inherited = true
		h.proxyLine(p, l)
	}
	p.inherited = false
	for _, l := range s.lines {
		h.proxyLine(p, l)
	}
	if p.disabled {
		h.notes.left(p.head.at, p.head.raw, "it is disabled", "")
	}
	if !p.tcp && !p.disabled && p.kind != "backend" && !h.onlyStats(p) {
		h.notes.differs(p.head.at, p.head.raw, "it is in mode http, and its HTTP is passed on unread, as TCP",
			"what decides by requests, or changes them, is listed below; keep HAProxy or nginx behind limeload-l4 for it")
	}
	return p
}

// onlyStats reports whether a proxy only shows HAProxy's statistics.
func (h *haproxy) onlyStats(p *proxy) bool {
	return len(p.servers) == 0 && p.to.words == nil && len(p.uses) == 0
}

// unreadable notes a line whose value is not what HAProxy would accept.
func (h *haproxy) unreadable(l line, needs string) {
	h.notes.left(l.at, l.raw, "this is not understood", "needs "+needs)
}

// haTime reads a time of HAProxy, in milliseconds without a unit.
func haTime(s string) (time.Duration, bool) {
	return parseUnits(s, map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second,
		"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}, time.Millisecond)
}

// under returns a path of a file that is relative to a folder of global.
func under(base, file string) string {
	if base == "" || path.IsAbs(file) {
		return file
	}
	return path.Join(base, file)
}
