package convert

import (
	"strings"
	"time"
)

// A counterpart says what becomes of a word that is not carried over as a key.
type counterpart struct {
	why, remedy string
	lost        bool // something is missing in the result
	http        bool // it is for mode http, and HAProxy itself ignores it in mode tcp
}

// proxyLine reads a line of a frontend, backend or listen.
func (h *haproxy) proxyLine(p *proxy, l line) {
	switch word := l.words[0]; word {
	case "mode", "description", "id", "enabled":
	case "disabled":
		p.disabled = !p.inherited
	case "bind":
		p.binds = append(p.binds, l)
	case "server", "server-template":
		p.servers = append(p.servers, serverLine{l, len(p.defaults)})
	case "default-server":
		p.defaults = append(p.defaults, l)
	case "balance":
		p.balance = l
	case "hash-type":
		p.hashType = l
	case "hash-balance-factor":
		p.hashFactor = l.word(1)
	case "timeout":
		h.timeout(p, l)
	case "option":
		h.option(p, l)
	case "no":
		if l.word(1) != "option" {
			h.otherLine(p, l, counterpart{})
		}
		delete(p.options, l.word(2))
	case "tcp-check", "http-check":
		p.checks = append(p.checks, l)
	case "acl":
		h.acl(p, l)
	case "use_backend":
		p.uses = append(p.uses, l)
	case "default_backend":
		p.to = l
	case "tcp-request", "tcp-response":
		p.rules = append(p.rules, l)
	case "stick-table", "stick":
		p.sticks = append(p.sticks, l)
	case "maxconn":
		p.maxconn = h.wholeNumber(l, 1)
	case "retries":
		p.retries = h.wholeNumber(l, 1)
	case "source":
		p.source = l
	case "rate-limit":
		p.rate = h.wholeNumber(l, 2)
	case "stats":
		p.stats = p.stats || !p.inherited
		h.otherLine(p, l, h.words[word])
	default:
		h.otherLine(p, l, h.words[word])
	}
}

// wholeNumber returns the i-th word of a line, with a note if it is no number, such as a variable of the environment.
func (h *haproxy) wholeNumber(l line, i int) string {
	if _, ok := parseNumber(l.word(i), 0, 100_000_000); !ok {
		h.unreadable(l, "a number")
	}
	return l.word(i)
}

// otherLine notes a line by its counterpart, which is the zero value for an unknown word.
func (h *haproxy) otherLine(p *proxy, l line, c counterpart) {
	switch {
	case c == counterpart{}:
		h.notes.left(l.at, l.raw, "limeload-l4 does not know this word", "")
	case c.http && p.tcp && p.inherited:
	case c.http && p.tcp:
		h.notes.differs(l.at, l.raw, "HAProxy ignores it, too, in mode tcp", "")
	case c.lost:
		h.notes.left(l.at, l.raw, c.why, c.remedy)
	case c.why != "":
		h.notes.differs(l.at, l.raw, c.why, c.remedy)
	}
}

// proxyWords returns the counterparts of words of a frontend, backend or listen.
func proxyWords() map[string]counterpart {
	unread := counterpart{why: "this is for HTTP, which is passed on unread", lost: true, http: true}
	words := map[string]counterpart{
		"log": {why: "each session has an access line, on standard error or in the journal", remedy: "see [log]"},
		"log-format": {why: "access lines have all fields, as JSON or as text",
			remedy: "see [log]"},
		"log-tag": {why: "each line of the log has its fields", remedy: "see [log]"},
		"fullconn": {why: "a backend has one max_sessions, whatever the load", remedy: "set max_sessions of backends",
			lost: true},
		"grace": {why: "a reload keeps sockets and sessions anyway"},
		"backlog": {why: "the backlog stands with each listener",
			remedy: "set backlog there if 4096 is not enough"},
		"persist":      {why: "this is for RDP, whose cookie is not read", lost: true},
		"dispatch":     {why: "a pool has backends", remedy: "make it a server", lost: true},
		"bind-process": {why: "all loops serve all listeners"},
		"external-check": {why: "a check that runs a program has other arguments",
			remedy: `see type = "exec" in docs/health.md`, lost: true},
		"load-server-state-from-file": {why: "changes at run time are kept in one file",
			remedy: "set global.state_file"},
		"server-state-file-name": {why: "changes at run time are kept in one file", remedy: "set global.state_file"},
		"email-alert":            {why: "no mail is sent", remedy: "use the alert rules for Prometheus", lost: true},
		"stats": {why: "this page is HAProxy's",
			remedy: "see `limeload-l4 status` and the admin address"},
		"filter":  {why: "there are no filters", lost: true},
		"declare": {why: "nothing is captured", lost: true},
		"use-server": {why: "no rule chooses a backend",
			remedy: "make it a pool of its own, with a route", lost: true},
		"force-persist":  {why: "no rule decides about stickiness", lost: true},
		"ignore-persist": {why: "no rule decides about stickiness", lost: true},
		"monitor-net": {why: "no address gets an answer of the balancer",
			remedy: "ask /ready at the admin address", lost: true},
		"guid": {},
	}
	for _, word := range []string{"http-request", "http-response", "http-after-response", "cookie", "redirect", "capture",
		"errorfile", "errorloc", "errorloc302", "errorloc303", "errorfiles", "http-error", "compression", "reqadd", "reqdel",
		"reqrep", "reqirep", "rspadd", "rspdel", "rsprep", "appsession", "http-send-name-header", "http-reuse",
		"unique-id-format", "unique-id-header", "max-keep-alive-queue", "use-fcgi-app"} {
		words[word] = unread
	}
	words["monitor-uri"] = counterpart{why: unread.why,
		remedy: "ask /ready at the admin address", lost: true, http: true}
	return words
}

// globalWord notes a line of global that is not carried over as a key.
func (h *haproxy) globalWord(l line) {
	word := l.words[0]
	systemd := "the service manager does that: see docs/systemd.md"
	switch {
	case word == "daemon" || word == "user" || word == "group" || word == "uid" || word == "gid" || word == "chroot" ||
		word == "pidfile" || word == "ulimit-n" || word == "node" || word == "description" || word == "master-worker" ||
		word == "mworker-max-reloads" || word == "expose-fd" || word == "localpeer" || word == "quiet" ||
		word == "zero-warning" || word == "set-dumpable":
		h.notes.differs(l.at, l.raw, systemd, "")
	case word == "log" || word == "log-tag" || word == "log-send-hostname":
		h.notes.differs(l.at, l.raw, "the log goes to standard error, or to the journal", "see [log]")
	case word == "nbproc" || word == "cpu-map" || word == "thread-groups" || word == "numa-cpu-mapping":
		h.notes.differs(l.at, l.raw, "one process has a loop for each CPU", "set global.workers for fewer")
	case word == "server-state-file" || word == "server-state-base":
		h.notes.differs(l.at, l.raw, "changes at run time are kept in one file", "set global.state_file")
	case strings.HasPrefix(word, "tune."):
		h.notes.differs(l.at, l.raw, "it tunes the inside of HAProxy", "")
	case strings.HasPrefix(word, "ssl-default-") || strings.HasPrefix(word, "ssl-dh-"):
		h.notes.left(l.at, l.raw, "ciphers and curves are those of Go's library, which has only safe ones", "")
	case word == "spread-checks" || word == "max-spread-checks":
		h.notes.differs(l.at, l.raw, "checks are spread anyway", "see jitter of [pool.*.health]")
	case word == "setenv" || word == "presetenv" || word == "unsetenv" || word == "resetenv":
		h.notes.left(l.at, l.raw, "the environment is not changed from the file",
			"set the variable for the process; \"${NAME:-TEXT}\" has a text in its place")
	default:
		h.notes.left(l.at, l.raw, "limeload-l4 has nothing like it", "")
	}
}

// timeout reads a line timeout.
func (h *haproxy) timeout(p *proxy, l line) {
	name := l.word(1)
	d, ok := haTime(l.word(2))
	if !ok {
		h.unreadable(l, "a time")
		return
	}
	switch name {
	case "http-request", "http-keep-alive":
		h.otherLine(p, l, counterpart{why: "requests are not read, so only idle_timeout ends a slow client", lost: true,
			http: true})
	case "tarpit":
		h.otherLine(p, l, counterpart{why: "nobody is kept waiting", lost: true, http: true})
	case "client", "server", "connect", "check", "queue", "tunnel", "client-fin", "server-fin":
		p.timeouts[name] = d
	default:
		h.otherLine(p, l, counterpart{})
	}
}

// option reads a line option.
func (h *haproxy) option(p *proxy, l line) {
	name := l.word(1)
	switch {
	case isCheckOption(name):
		for other := range p.options { // one replaces another
			if isCheckOption(other) {
				delete(p.options, other)
			}
		}
		p.options[name] = l
	case name == "allbackups" || name == "dontlognull":
		p.options[name] = l
	default:
		c, known := h.optionWords[name]
		if known && c == (counterpart{}) {
			return // done anyway
		}
		h.otherLine(p, l, c)
	}
}

// isCheckOption reports whether an option says how servers are checked.
func isCheckOption(name string) bool {
	switch name {
	case "httpchk", "tcp-check", "pgsql-check", "mysql-check", "redis-check", "smtpchk", "ldap-check", "ssl-hello-chk",
		"external-check", "spop-check":
		return true
	}
	return false
}

// optionWords returns the counterparts of options. One without a text is done anyway.
func optionWords() map[string]counterpart {
	words := map[string]counterpart{
		"tcplog":              {},
		"redispatch":          {}, // another backend is tried after a failed connect
		"clitcpka":            {},
		"srvtcpka":            {},
		"tcpka":               {},
		"tcp-smart-accept":    {},
		"tcp-smart-connect":   {},
		"splice-auto":         {},
		"splice-request":      {},
		"splice-response":     {},
		"contstats":           {},
		"abortonclose":        {}, // who leaves the queue is dropped
		"log-health-checks":   {},
		"log-separate-errors": {},
		"dontlog-normal":      {why: "access lines are chosen for all listeners", remedy: `set log.access = "errors"`},
		"httplog":             {why: "a session has an access line, and its requests have none"},
		"logasap":             {why: "an access line is written at the end of a session"},
		"socket-stats":        {},
		"nolinger":            {why: "sessions end as clients and backends end them", lost: true},
		"transparent": {why: "clients' addresses are not used for connections to backends",
			remedy: "see send_proxy", lost: true},
		"persist":            {why: "a client whose backend has failed gets another one", lost: true},
		"prefer-last-server": {http: true, why: "requests are not read", lost: true},
		"http_proxy":         {http: true, why: "requests are not read", lost: true},
		"httpclose":          {http: true, why: "requests are not read: client and backend decide when a connection ends"},
		"http-server-close":  {http: true, why: "requests are not read: client and backend decide when a connection ends"},
		"http-keep-alive":    {http: true, why: "requests are not read: client and backend decide when a connection ends"},
		"http-tunnel":        {http: true, why: "every session is a tunnel"},
		"forwardfor": {http: true, why: "requests are passed on unread, and get no header with the client's address",
			remedy: `set send_proxy = "v2" of the pool, and have the backends read it`, lost: true},
		"originalto": {http: true, why: "requests are passed on unread", lost: true},
	}
	for _, word := range []string{"accept-invalid-http-request", "accept-invalid-http-response", "http-buffer-request",
		"http-ignore-probes", "http-no-delay", "http-pretend-keepalive", "http-use-htx", "http-use-proxy-header",
		"disable-h2-upgrade", "h1-case-adjust-bogus-client", "h1-case-adjust-bogus-server", "checkcache",
		"http-restrict-req-hdr-names", "independent-streams"} {
		words[word] = counterpart{http: true, why: "requests are not read"}
	}
	return words
}

// longestTimeout returns the longest of these timeouts, and whether one of them is set.
func longestTimeout(proxies []*proxy, names ...string) (longest time.Duration, set bool) {
	for _, p := range proxies {
		for _, name := range names {
			if d, ok := p.timeouts[name]; ok {
				longest, set = max(longest, d), true
			}
		}
	}
	return longest, set
}
