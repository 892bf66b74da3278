package convert

import (
	"strconv"
	"strings"
	"time"
)

// upstream makes the pool of an upstream.
func (x *nginx) upstream(d *directive) {
	made := x.doc.addPool(d.word(1), d.at, d.raw())
	x.pools[d.word(1)] = made
	made.set("algorithm", quote("round_robin"))
	var servers []*directive
	for _, one := range d.block {
		switch one.word(0) {
		case "server":
			servers = append(servers, one)
		case "least_conn":
			made.set("algorithm", quote("least_conn"))
		case "least_time":
			made.set("algorithm", quote("least_time"))
		case "random":
			to := "random"
			if one.word(1) == "two" {
				to = "p2c"
			}
			made.set("algorithm", quote(to))
		case "hash":
			x.hash(made, one)
		case "zone", "state":
		case "resolver":
			x.resolver = one.word(1)
		default:
			x.other(one)
		}
	}
	for _, one := range servers {
		x.upstreamServer(made, one, len(servers))
	}
}

// hash carries over the directive hash.
func (x *nginx) hash(made *pool, d *directive) {
	to := "client_hash"
	if d.word(2) == "consistent" {
		to = "ring_hash"
	}
	switch d.word(1) {
	case "$remote_addr", "$binary_remote_addr", "$proxy_protocol_addr":
	case "$remote_addr$remote_port", "$remote_addr:$remote_port", "$binary_remote_addr$remote_port":
		made.set("hash_key", quote("client"))
	case "$ssl_preread_server_name", "$ssl_server_name":
		made.set("hash_key", quote("sni"))
	case "$mqtt_preread_clientid":
		made.set("hash_key", quote("mqtt_client_id"))
	default:
		x.notes.left(d.at, d.raw(), "clients are known by their address, server name or MQTT client identifier",
			"the address is used; see hash_key of the pool")
	}
	made.set("algorithm", quote(to))
}

// upstreamServer makes a backend of a server, or the discovery of the pool; of is how many servers there are.
func (x *nginx) upstreamServer(made *pool, d *directive, of int) {
	address, ok := nginxAddress(d.word(1))
	if !ok {
		x.notes.left(d.at, d.raw(), quote(d.word(1))+" is no address of a backend", `needs "HOST:PORT" or "unix:/PATH"`)
		return
	}
	parameters := map[string]string{}
	for _, w := range d.words[min(2, len(d.words)):] {
		name, value, _ := strings.Cut(w, "=")
		parameters[name] = value
	}
	if _, resolves := parameters["resolve"]; resolves {
		if of == 1 && x.discovery(made, address, parameters) {
			for _, w := range d.words[2:] {
				switch name, _, _ := strings.Cut(w, "="); name {
				case "resolve", "service":
				default:
					x.notes.left(d.at, d.raw(), w+": backends that discovery finds have no keys of their own",
						"set it at run time with `limeload-l4 backends set`")
				}
			}
			return
		}
		x.notes.differs(d.at, d.raw(), "the name is looked up at the start and at each reload",
			"for a name that changes, see [pool.*.discovery]")
	}
	b := made.addBackend("", address)
	if b == nil {
		x.notes.left(d.at, d.raw(), "the pool has a backend with this address already", "weight says how much one gets")
		return
	}
	for _, w := range d.words[min(2, len(d.words)):] {
		name, value, _ := strings.Cut(w, "=")
		switch n, isNumber := parseNumber(value, 0, 100_000_000); {
		case name == "weight" && isNumber && n <= 256:
			b.set("weight", value)
		case name == "max_conns" && isNumber:
			b.set("max_sessions", value)
		case name == "backup":
			b.set("tier", "1")
		case name == "down":
			b.set("mode", quote("maintenance"))
		case name == "max_fails" && isNumber:
			x.once(made, d, "failures", strconv.Itoa(min(n, 1_000_000)))
		case name == "fail_timeout":
			if t, ok := nginxTime(value); ok {
				x.once(made, d, "open_for", timeText(t, 10*time.Millisecond, 24*time.Hour))
				// the default of max_open_for is 5m, and it is never below open_for
				if t > 5*time.Minute {
					made.in("breaker").set("max_open_for", made.in("breaker").value("open_for"))
				}
			}
		case name == "slow_start":
			if t, ok := nginxTime(value); ok {
				made.set("slow_start", timeText(t, 0, 24*time.Hour))
			}
		case name == "resolve":
		default:
			x.notes.left(d.at, d.raw(), "parameter "+quote(w)+" has no counterpart", "")
		}
	}
}

// once sets a key of the breaker, which a pool has once.
func (x *nginx) once(made *pool, d *directive, name, value string) {
	t := made.in("breaker")
	if old := t.value(name); old != "" && old != value {
		x.notes.left(d.at, d.raw(), "the backends of a pool have the same breaker", "see [pool.*.breaker]")
		return
	}
	t.set(name, value)
}

// discovery carries over a single server with resolve.
func (x *nginx) discovery(made *pool, address string, parameters map[string]string) bool {
	host, port, ok := strings.Cut(address, ":")
	service := parameters["service"]
	if _, isPort := parseNumber(port, 1, 65535); service == "" && (!ok || !isPort) || isIP(host) {
		return false
	}
	t := made.in("discovery")
	t.set("type", quote("dns"))
	t.set("name", quote(host))
	if service != "" {
		t.set("type", quote("srv"))
		t.set("name", quote("_"+strings.TrimPrefix(service, "_")+"._tcp."+host))
	} else {
		t.set("port", port)
	}
	if x.resolver != "" {
		t.set("resolver", quote(x.resolver))
	}
	made.found = true
	return true
}

// nginxAddress returns the address of a backend.
func nginxAddress(s string) (string, bool) {
	if path, unix := strings.CutPrefix(s, "unix:"); unix {
		return s, strings.HasPrefix(path, "/")
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.Contains(s, "$") {
		return s, false
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s[:colon], "["), "]")
	return hostPort(host, s[colon+1:]), host != "" && isPort(s[colon+1:], false)
}

// poolOf returns the name of the pool for the target of a proxy_pass, which is an upstream or an address; "" if it is
// neither.
func (x *nginx) poolOf(d *directive, target, like string) string {
	if p := x.pools[target]; p != nil {
		return p.name
	}
	address, ok := nginxAddress(target)
	if !ok {
		return ""
	}
	p := x.doc.addPool(like, d.at, d.raw())
	p.addBackend("", address)
	x.pools[target] = p
	return p.name
}
