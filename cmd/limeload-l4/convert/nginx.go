package convert

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// An nginx is the conversion of one configuration of nginx.
type nginx struct {
	notes *notes
	doc   *document

	upstreams map[string]*directive
	pools     map[string]*pool // by the name of the upstream, or the address
	maps      map[string]*directive
	resolver  string
	common    []*directive      // of stream, which each server inherits
	inherited int               // how many directives of common the servers so far have inherited; see maxInherited
	zones     map[string]string // the variable of each limit_conn_zone
	words     map[string]counterpart
}

func convertNginx(text []byte, o Options, n *notes) *document {
	x := &nginx{notes: n, doc: &document{}, upstreams: map[string]*directive{}, pools: map[string]*pool{},
		maps: map[string]*directive{}, words: nginxWords(), zones: map[string]string{}}
	r := &nginxReader{notes: n, read: o.Read}
	for _, d := range r.file(o.File, text, 0) {
		switch d.word(0) {
		case "stream":
			x.stream(d.block)
		case "worker_processes":
			if k, ok := parseNumber(d.word(1), 1, 1024); ok {
				x.doc.top("global").set("workers", strconv.Itoa(k))
			} else if d.word(1) != "auto" {
				n.left(d.at, d.raw(), "this is not understood", "needs a number, or auto")
			}
		case "worker_shutdown_timeout":
			if t, ok := nginxTime(d.word(1)); ok {
				x.doc.top("global").set("drain_timeout", timeText(t, 0, 24*time.Hour))
			}
		case "events":
			for _, e := range d.block {
				x.other(e)
			}
		case "http", "mail":
			n.left(d.at, d.raw(), "limeload-l4 passes bytes on, and reads no requests",
				"keep nginx for it, behind limeload-l4 or beside it")
		default:
			x.other(d)
		}
	}
	return x.doc
}

// stream carries over the block stream.
func (x *nginx) stream(block []*directive) {
	for _, d := range block {
		switch d.word(0) {
		case "upstream":
			x.upstreams[d.word(1)] = d
		case "map":
			x.maps[d.word(2)] = d
		case "limit_conn_zone":
			zone, _, _ := strings.Cut(strings.TrimPrefix(d.word(2), "zone="), ":")
			x.zones[zone] = d.word(1)
		case "resolver":
			x.resolver = d.word(1)
			if !strings.Contains(x.resolver, ":") {
				x.resolver += ":53"
			}
		}
	}
	for _, d := range block {
		switch d.word(0) {
		case "server", "upstream", "map", "resolver":
		default:
			x.common = append(x.common, d)
		}
	}
	for _, d := range block {
		if d.word(0) == "upstream" {
			x.upstream(d)
		}
	}
	for _, d := range block {
		if d.word(0) == "server" {
			x.server(d)
		}
	}
	x.unusedMaps(block)
}

// unusedMaps notes maps that are for anything but a proxy_pass by the server name.
func (x *nginx) unusedMaps(block []*directive) {
	for _, d := range block {
		if d.word(0) == "map" && d.word(1) != "$ssl_preread_server_name" {
			x.notes.left(d.at, d.raw(), "a pool is chosen by the server name in a ClientHello alone", "see routes of a listener")
		}
	}
}

// other notes a directive that is not carried over as a key.
func (x *nginx) other(d *directive) {
	c, known := x.words[d.word(0)]
	switch {
	case !known && strings.HasPrefix(d.word(0), "js_"):
		x.notes.left(d.at, d.raw(), "no scripts are run", "")
	case !known:
		x.notes.left(d.at, d.raw(), "limeload-l4 does not know this directive", "")
	case c.lost:
		x.notes.left(d.at, d.raw(), c.why, c.remedy)
	case c.why != "":
		x.notes.differs(d.at, d.raw(), c.why, c.remedy)
	}
}

// nginxWords returns the counterparts of directives that are not carried over as a key. One without a text is done
// anyway.
func nginxWords() map[string]counterpart {
	systemd := counterpart{why: "the service manager does that: see docs/systemd.md"}
	log := counterpart{why: "each session has an access line, on standard error or in the journal", remedy: "see [log]"}
	ciphers := counterpart{why: "ciphers and curves are those of Go's library, which has only safe ones", lost: true}
	sessions := counterpart{why: "sessions of TLS resume by tickets",
		remedy: "see ticket_key_file for several balancers"}
	noRule := counterpart{why: "limeload-l4 has no variables and no rules with them", lost: true}
	words := map[string]counterpart{
		"worker_connections": {why: "the limit is that of file descriptors", remedy: "see global.max_sessions"},
		"load_module":        {why: "everything is in one program"},
		"tcp_nodelay":        {}, "proxy_socket_keepalive": {}, "multi_accept": {}, "use": {}, "pcre_jit": {}, "zone": {},
		"accept_mutex": {}, "status_zone": {}, "ssl_preread": {}, "proxy_ssl_server_name": {},
		"proxy_half_close":     {why: "when one side has closed its half, the other one may go on"},
		"proxy_buffer_size":    {why: "buffers are held only where a receiver is slow"},
		"preread_buffer_size":  {why: "a ClientHello may have 64 KiB"},
		"limit_conn_zone":      {}, // read where limit_conn names it
		"limit_conn_log_level": {}, "limit_conn_status": {}, "limit_conn_dry_run": {},
		"proxy_requests": {why: "a flow is not ended by the number of its datagrams",
			remedy: "see responses", lost: true},
		"proxy_next_upstream_timeout": {why: "connects are tried as often as retries says",
			remedy: "see connect_timeout and retries",
			lost:   true},
		"ssl_prefer_server_ciphers": {}, "ssl_session_cache": sessions, "ssl_session_timeout": sessions,
		"ssl_session_tickets": sessions, "ssl_buffer_size": {}, "proxy_ssl_session_reuse": {},
		"ssl_session_ticket_key": {why: "keys of tickets have another form",
			remedy: "see ticket_key_file", lost: true},
		"ssl_password_file": {why: "keys are not encrypted",
			remedy: "openssl rsa or openssl ec decrypts one", lost: true},
		"ssl_trusted_certificate": {why: "only client_ca says whose certificates clients may have", lost: true},
		"ssl_verify_depth":        {why: "chains of certificates have the depth that Go's library allows", lost: true},
		"ssl_stapling": {why: "an OCSP answer in cert + \".ocsp\" is sent along",
			remedy: "fetch it from time to time", lost: true},
		"ssl_stapling_verify": {}, "ssl_stapling_file": {why: "an OCSP answer in cert + \".ocsp\" is sent along",
			remedy: "put it there", lost: true},
		"match": {why: "a match of checks is not carried over",
			remedy: "see steps of [pool.*.health]", lost: true},
		"resolver_timeout": {}, "variables_hash_bucket_size": {}, "map_hash_bucket_size": {}, "map_hash_max_size": {},
		"variables_hash_max_size": {},
		"return":                  {why: "limeload-l4 writes no text of its own to clients", lost: true},
		"pass":                    {why: "a listener does not hand clients to another one", lost: true},
	}
	for _, w := range []string{"user", "pid", "worker_rlimit_nofile", "worker_priority", "worker_cpu_affinity", "daemon",
		"lock_file", "worker_rlimit_core", "working_directory", "master_process", "timer_resolution", "env"} {
		words[w] = systemd
	}
	for _, w := range []string{"error_log", "access_log", "log_format", "open_log_file_cache", "log_not_found"} {
		words[w] = log
	}
	for _, w := range []string{"ssl_ciphers", "ssl_ecdh_curve", "ssl_dhparam", "ssl_conf_command", "proxy_ssl_ciphers",
		"proxy_ssl_conf_command", "proxy_ssl_protocols", "proxy_ssl_crl", "proxy_ssl_password_file",
		"proxy_ssl_verify_depth"} {
		words[w] = ciphers
	}
	for _, w := range []string{"set", "geo", "geoip_country", "geoip_city", "split_clients", "keyval", "keyval_zone",
		"perl", "internal_redirect", "mqtt", "mqtt_preread", "ssl_certificate_cache"} {
		words[w] = noRule
	}
	return words
}

// nginxTime reads a time of nginx, in seconds without a unit.
func nginxTime(s string) (time.Duration, bool) {
	return parseUnits(s, map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute,
		"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "M": 30 * 24 * time.Hour,
		"y": 365 * 24 * time.Hour}, time.Second)
}

// nginxSize reads a size of nginx in bytes, and returns it as the configuration has it.
func nginxSize(s string) (text string, bytes int, ok bool) {
	digits := strings.TrimRight(s, "kKmMgG")
	n, ok := parseNumber(digits, 0, 1<<30)
	unit := strings.ToLower(s[len(digits):])
	i := slices.Index([]string{"", "k", "m", "g"}, unit)
	if !ok || i < 0 || n > 1<<40>>(10*i) {
		return "", 0, false
	}
	return strconv.Itoa(n) + []string{"B", "KiB", "MiB", "GiB"}[i], n << (10 * i), true
}
