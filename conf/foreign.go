package conf

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Words of other balancers, for operators who know them. Such words are too different from ours for nearest to find
// them.

// A foreignKey is our equivalent of a key of another balancer.
type foreignKey struct {
	ours []string // our keys; the first one that the table knows is suggested
	hint string   // advice if the table has none of them
}

// unknownKeys reports the unknown keys of the table found, which is of type t; here has the keys that this table may
// have.
func (r *report) unknownKeys(t reflect.Type, found map[string]any, known, here []string, at *place, path string) {
	for _, key := range slices.Sorted(maps.Keys(found)) {
		if slices.Contains(known, key) {
			continue
		}
		sub := join(path, key)
		r.lines[sub] = at.child(key).line
		ours, hint := r.foreignKey(t, key, here)
		e := Error{Message: "unknown key", Nearest: cmp.Or(ours, nearest(key, known))}
		switch {
		case ours == "" && hint != "":
			e.Nearest, e.Allowed = "", hint
		case e.Nearest == "":
			e.Allowed = "allowed here: " + strings.Join(here, ", ")
		}
		r.add(sub, e)
	}
}

// foreignKey returns the known key that corresponds to another balancer's key, or else advice. Both may be "". Advice
// is only for listeners, pools, backends and the whole file: a timeout of a check, for example, is not what HAProxy
// calls timeout.
func (r *report) foreignKey(t reflect.Type, key string, known []string) (ours, hint string) {
	if r.foreign == nil {
		r.foreign = foreignKeys()
	}
	f, ok := r.foreign[strings.ReplaceAll(strings.ToLower(key), "-", "_")]
	if !ok {
		return "", ""
	}
	for _, k := range f.ours {
		if slices.Contains(known, k) {
			return k, ""
		}
	}
	switch t {
	case reflect.TypeFor[Config](), reflect.TypeFor[Listener](), reflect.TypeFor[Pool](), reflect.TypeFor[Backend]():
		return "", f.hint
	}
	return "", ""
}

// foreignKeys maps other balancers' keys, in lower case and with "_" for "-".
func foreignKeys() map[string]foreignKey {
	const (
		sessions  = "this is max_sessions, of [global], of a listener or of a backend"
		address   = "this is the address of a [listener.NAME] table"
		algorithm = "this is the algorithm of a [pool.NAME] table"
		hash      = `this is algorithm = "client_hash" of a [pool.NAME] table`
		backends  = "these are the backends of a [pool.NAME] table"
		listener  = "this is a table [listener.NAME]"
		pool      = "this is a table [pool.NAME], and pool = NAME in a listener"
		idle      = "this is idle_timeout of a [listener.NAME] table, for both sides"
		connect   = "this is connect_timeout of a [pool.NAME] table"
		health    = "this is the table [pool.NAME.health]"
		sticky    = `this is sticky = { ttl = "30m" } of a [pool.NAME] table`
		tier      = "this is tier = 1: such a backend is used when none of tier 0 is eligible"
	)
	byWord := map[string]foreignKey{
		"max_fails":    {[]string{"failures"}, "this is failures of the table [pool.NAME.breaker]"},
		"fail_timeout": {[]string{"open_for"}, "this is open_for of the table [pool.NAME.breaker]"},
		"source":       {nil, `with hashing by client address in mind, this is algorithm = "client_hash"; for local addresses towards backends, it is source of a [pool.NAME] table`},
		"defaults":     {nil, "there is no table of defaults: each listener and pool has its own keys"},
		"threads":      {[]string{"workers"}, "this is workers of [global]"},
		"stats":        {[]string{"admin"}, "this is the table [admin], which has the API and /metrics"},
		"disabled":     {nil, `this is mode = "maintenance" of a backend`},
		"down":         {nil, `this is mode = "maintenance" of a backend`},
		"backup":       {nil, tier},
		"port":         {nil, `the port is part of address, "HOST:PORT"`},
		"priority":     {[]string{"tier"}, tier},
		"send_proxy":   {nil, "this is send_proxy of a [pool.NAME] table"},
		"accept_proxy": {[]string{"proxy_protocol"}, "this is the table [listener.NAME.proxy_protocol]"},
		"ssl":          {[]string{"tls"}, "this is the table [listener.NAME.tls], or [pool.NAME.tls] for backends"},
		"crt":          {[]string{"cert"}, "this is certificates of the table [listener.NAME.tls]"},
		"trusted_ips":  {[]string{"trusted"}, "this is trusted of the table [listener.NAME.proxy_protocol]"},
	}
	add := func(f foreignKey, words string) {
		for _, w := range strings.Fields(words) {
			byWord[w] = f
		}
	}
	add(foreignKey{[]string{"max_sessions"}, sessions},
		"maxconn max_conns max_connections maxconnections connection_limit conn_limit max_clients")
	add(foreignKey{[]string{"address"}, address}, "bind listen listen_address bind_address host hostname ip addr url")
	add(foreignKey{[]string{"algorithm"}, algorithm},
		"balance lb_policy lb_method lb_algorithm load_balancing scheduler policy strategy method")
	add(foreignKey{nil, hash}, "ip_hash client_hash consistent_hash hash")
	add(foreignKey{[]string{"backends", "pool", "address"}, backends},
		"server servers endpoint endpoints host hosts node nodes member members target targets real_server origin origins")
	add(foreignKey{[]string{"listener"}, listener}, "frontend frontends virtual_server vserver listeners virtualhost")
	add(foreignKey{[]string{"backends", "pool", "address"}, pool},
		"backend upstream upstreams cluster clusters target_group default_backend use_backend proxy_pass")
	add(foreignKey{[]string{"idle_timeout"}, idle},
		"timeout client_timeout server_timeout timeout_client timeout_server proxy_timeout idle")
	add(foreignKey{[]string{"connect_timeout"}, connect},
		"timeout_connect proxy_connect_timeout connection_timeout contimeout")
	add(foreignKey{[]string{"health"}, health}, "check checks healthcheck health_check health_checks httpchk tcp_check")
	add(foreignKey{[]string{"interval"}, "this is interval of the table [pool.NAME.health]"},
		"inter check_interval period")
	add(foreignKey{[]string{"sticky"}, sticky},
		"stick stick_table cookie persistence sticky_sessions session_affinity affinity")
	add(foreignKey{[]string{"workers"}, "this is workers of [global]"},
		"nbthread nbproc worker_processes processes cpus")
	return byWord
}

// foreignValue returns the allowed value that corresponds to another program's word; "" if the word is unknown.
func foreignValue(key, value string, allowed []string) string {
	ours := foreignValues()[key][strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(value))]
	if slices.Contains(allowed, ours) {
		return ours
	}
	return ""
}

// foreignValues maps, for each key, other programs' values, in lower case and with "_" for "-".
func foreignValues() map[string]map[string]string {
	return map[string]map[string]string{
		"algorithm": {
			"rr": "round_robin", "wrr": "round_robin", "roundrobin": "round_robin", "static_rr": "round_robin",
			"lc": "least_conn", "wlc": "least_conn", "leastconn": "least_conn", "least_connections": "least_conn",
			"least_request": "least_conn",
			"source":        "client_hash", "ip_hash": "client_hash", "source_hash": "client_hash", "sh": "client_hash",
			"src": "client_hash", "hash": "client_hash",
			"consistent": "ring_hash", "consistent_hash": "ring_hash", "ketama": "ring_hash", "mh": "maglev",
			"power_of_two": "p2c", "random_two": "p2c", "fastest": "least_time", "least_response_time": "least_time",
			"ewma":     "least_time",
			"failover": "first", "active_passive": "first", "active_backup": "first", "priority": "first",
			"ordered": "first",
		},
		"role": {
			"master": "primary", "leader": "primary", "writer": "primary", "write": "primary", "rw": "primary",
			"read_write": "primary", "main": "primary",
			"slave": "replica", "standby": "replica", "follower": "replica", "secondary": "replica",
			"reader": "replica", "read": "replica", "ro": "replica", "read_only": "replica",
			"all": "any", "both": "any",
		},
		"mode": {
			"up": "ready", "enabled": "ready", "active": "ready", "on": "ready", "normal": "ready",
			"down": "maintenance", "disabled": "maintenance", "maint": "maintenance", "off": "maintenance",
			"inactive": "maintenance",
			"draining": "drain", "soft_stop": "drain",
		},
		"protocol": {"http": "tcp", "https": "tcp", "tls": "tcp", "ssl": "tcp", "tcp4": "tcp", "quic": "udp",
			"dns": "udp"},
		"level": {"warning": "warn", "notice": "info", "err": "error", "crit": "error", "critical": "error",
			"fatal": "error", "verbose": "debug", "all": "trace"},
		"format": {"text": "console", "plain": "console", "pretty": "console", "human": "console"},
		"type": {
			"pgsql": "postgres", "postgresql": "postgres", "pg": "postgres", "valkey": "redis", "keydb": "redis",
			"mariadb": "mysql", "galera": "mysql", "percona": "mysql", "mongo": "mongodb",
			"rabbitmq": "amqp", "mosquitto": "mqtt", "mail": "smtp", "esmtp": "smtp", "openldap": "ldap", "ad": "ldap",
			"ssl": "tls", "connect": "tcp",
			"ping": "icmp", "script": "exec", "command": "exec", "external": "exec", "program": "exec", "all": "all_of",
			"any": "any_of",
		},
		"accept": {"on": "any", "both": "any", "v1v2": "any", "none": "off", "1": "v1", "2": "v2"},
		"hash_key": {"source": "client_ip", "ip": "client_ip", "src": "client_ip", "source_ip": "client_ip",
			"remote_addr": "client_ip", "server_name": "sni", "ssl_preread_server_name": "sni",
			"mqtt_preread_clientid": "mqtt_client_id", "client_id": "mqtt_client_id", "mqtt": "mqtt_client_id"},
		"key": {"client": "client_ip", "source": "client_ip", "ip": "client_ip", "src": "client_ip",
			"server_name": "sni", "client_id": "mqtt_client_id", "mqtt": "mqtt_client_id"},
		"flow_key": {"source": "client", "source_ip": "client_ip", "ip": "client_ip", "none": "packet"},
		"family": {"inet": "ipv4", "ip4": "ipv4", "v4": "ipv4", "a": "ipv4", "inet6": "ipv6", "ip6": "ipv6",
			"v6": "ipv6", "aaaa": "ipv6", "both": "any", "dual": "any"},
	}
}

// meantAddress returns our form of an address in another program's syntax, such as ":80" for "*:80"; "" if there is
// none.
func meantAddress(s string, use addressUse) string {
	meant := s
	if scheme, rest, ok := strings.Cut(meant, "://"); ok && validName(scheme) {
		meant = strings.TrimSuffix(rest, "/")
	}
	if rest, ok := strings.CutPrefix(meant, "*:"); ok {
		meant = ":" + rest
	}
	if _, err := strconv.ParseUint(meant, 10, 16); err == nil && use == forListener {
		meant = ":" + meant
	}
	if i := strings.LastIndexByte(meant, ':'); i > 0 && !strings.HasPrefix(meant, "[") {
		// Nine groups: an IPv6 address without its brackets, and a port.
		if ip, err := netip.ParseAddr(meant[:i]); err == nil && ip.Is6() && !isIPv6(meant) {
			meant = fmt.Sprintf("[%s]:%s", meant[:i], meant[i+1:])
		}
	}
	if meant == s {
		return ""
	}
	_, e := readAddress(meant, use)
	if use == forListener {
		_, _, e = readListenerAddress(meant)
	}
	if e != nil {
		return ""
	}
	return meant
}

func isIPv6(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Is6()
}
