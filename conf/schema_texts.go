package conf

// schemaTexts returns what keys are for whose comment in the reference is missing, or cannot be understood without the
// line beside it. They come before the reference's comments. Bounds of numbers are in the schema itself.
func schemaTexts() map[string]string {
	return map[string]string{
		"global":   "settings of the whole process",
		"log":      "the log, on standard error or in the journal",
		"admin":    "the control API, /metrics, /ready and /live",
		"fleet":    "what this node shares with the other nodes of a fleet, in etcd",
		"metrics":  "/metrics, /ready and /live alone, for Prometheus",
		"listener": "[listener.NAME]: addresses that accept clients",
		"pool":     "[pool.NAME]: a set of interchangeable backends",

		"log.access":        "which sessions have a line at their end, at level info: \"all\", \"errors\", or one of so many, \"1/100\"",
		"admin.socket_mode": "permissions of the Unix socket, as chmod has them",

		"listener.*.permissions": "who may connect to a Unix socket, as chmod has it",
		"listener.*.owner":       `of a Unix socket: a user's name or number; "" = the process's`,
		"listener.*.group":       `of a Unix socket: a group's name or number; "" = the process's`,
		"listener.*.keepalive":   "TCP keepalive, which finds clients that have vanished",
		"listener.*.keepalive.idle": "the silence before the first probe, in whole seconds, " +
			"1s to 32767s",
		"listener.*.keepalive.interval": "the time between two probes, in whole seconds, 1s to 32767s",
		"listener.*.keepalive.count":    "unanswered probes that end the session",
		"listener.*.access.deny": `addresses and prefixes, such as ["10.0.0.0/8"], up to 1000; no ` +
			"prefix may be in allow, too",
		"listener.*.access.allow_file": "a path of a file with more of them: one address or prefix a line, up to " +
			`10,000,000, and comments that begin with "#". It is read again when it changes`,
		"listener.*.access.deny_file": "a path of a file with more of them: one address or prefix a line, up to " +
			`10,000,000, and comments that begin with "#". It is read again when it changes`,
		"listener.*.limits.rate": "new sessions, flows and DNS questions of all clients of this listener " +
			`together: "100/s", "600/m" or "10/h burst 200"; "" = no limit`,
		"listener.*.limits.client_bandwidth": "each direction of all sessions and flows of one client, " +
			`such as "10MiB/s", 1KiB/s to 1TiB/s; "" = no limit`,
		"listener.*.limits.client_prefix_v6": "one client is the IPv6 addresses with so many leading bits in common",
		"listener.*.tls.certificates[].cert": "a path of a PEM file with the certificate, and behind it those of the " +
			"authorities in between",
		"listener.*.tls.certificates[].key": "a path of a PEM file with the certificate's key",
		"listener.*.tls.min_version":        "the lowest version of TLS",
		"listener.*.tls.max_version":        "the highest version of TLS",
		"listener.*.routes[].sni": "names that the client asks for in its ClientHello: NAME, " +
			`"*.NAME" for all names below it, or "*" for every client`,
		"listener.*.routes[].alpn":     `protocols of which the client must offer one, such as ["h2"]; [] = any`,
		"listener.*.routes[].pool":     "required. The pool that these clients are sent to",
		"listener.*.max_flows":         "flows of this listener at once",
		"listener.*.receive_buffer":    "the receive buffer of each loop's socket, 4KiB to 1GiB",
		"listener.*.send_buffer":       "the send buffer of each loop's socket, 4KiB to 1GiB; 0B = the kernel's default",
		"listener.*.cache.max_entries": "answers that are kept at most",
		"listener.*.cache.min_ttl":     "shorter TTLs are raised to it, in whole seconds, up to 24h",

		"pool.*.backends": "required without discovery: tables, or only addresses as in " +
			`["10.0.0.11:6379"]`,
		"pool.*.backends[].name": `its name in logs, metrics and commands; "" = its address`,
		"pool.*.backends[].address": `required. "host:port", "[ipv6]:port", "host" without a port for the port that ` +
			`each client has connected to, or "unix:/path"`,
		"pool.*.backends[].weight":       "its share relative to the other backends; 0 = no new sessions",
		"pool.*.backends[].max_sessions": "how many sessions it may have; 0 = no limit",
		"pool.*.backends[].max_rate":     `new sessions and flows in a time, such as "500/s burst 50"; "" = no limit`,
		"pool.*.backends[].tier":         "used when no backend of a lower tier is eligible",
		"pool.*.backends[].zone":         "its zone, see zone of the pool",
		"pool.*.backends[].mode":         "ready, drain (no new sessions), maintenance (and existing ones end)",
		"pool.*.backends[].check": `where its health is checked: "ip:port", which overrides health.port; ` +
			`"" = at its address`,
		"pool.*.sticky":             "a client returns to the backend that it had",
		"pool.*.sticky.ttl":         "how long since the client last came, 1s to 720h; 0s = off",
		"pool.*.sticky.max_entries": "how many clients are remembered",
		"pool.*.sticky.key": "who a client is: its address, the server name in its ClientHello, or its MQTT client " +
			"identifier",
		"pool.*.queue":              "where sessions wait when every backend is at its max_sessions or max_rate",
		"pool.*.queue.max":          "how many may wait; 0 = none, they are refused",
		"pool.*.queue.timeout":      "how long one may wait, 1ms to 1h",
		"pool.*.hold":               "TCP sessions wait for an eligible backend when there is none, as in a failover",
		"pool.*.hold.timeout":       "how long one may wait, 1ms to 1h; 0s = they are refused at once",
		"pool.*.hold.max":           "how many may wait",
		"pool.*.rebalance":          `with drain = "safe": sessions leave a backend that has more than its share`,
		"pool.*.rebalance.max_skew": "the multiple of its share by weight that a backend may have; 0 = any",
		"pool.*.rebalance.rate":     `how many of the pool's sessions may move in a second, up to "100%/s"`,
		"pool.*.rebalance.min_age":  "younger sessions stay, up to 720h",
		"pool.*.agent": "a program on each backend's host that says in one line how much the backend may get " +
			`("75%", "drain", "maint", "ready", "up", "down", "maxconn:50")`,
		"pool.*.agent.port":     "its TCP port; 0 = there is none",
		"pool.*.agent.interval": "how often it is asked, 10ms to 24h",
		"pool.*.agent.timeout":  "how long one answer may take, 1ms to 1h",
		"pool.*.tls.cert":       `a path of a PEM certificate that backends are shown if they ask for one; "" = none`,
		"pool.*.tls.key":        "a path of the PEM file with its key",

		"pool.*.health.type":        "how a backend is checked; tcp: a connection can be made, and the steps succeed",
		"pool.*.health.interval":    "the time from one check of a backend to the next, 10ms to 24h",
		"pool.*.health.tls":         "true: the check uses TLS; for tcp only with steps",
		"pool.*.health.verify":      "false: any certificate of the backend is accepted",
		"pool.*.health.cert":        `a path of a PEM file with the certificate that the check shows; "" = none`,
		"pool.*.health.key":         "a path of the PEM file with its key",
		"pool.*.health.method":      "the HTTP method",
		"pool.*.health.path":        "the path of the request, and its query if it has one",
		"pool.*.health.status":      `the good status codes, each "N" or "N-M", from 100 to 599`,
		"pool.*.health.service":     `the service of grpc.health.v1 to ask about; "" = the server as a whole`,
		"pool.*.health.authority":   `the :authority of the request, "host" or "host:port"; "" = the backend's address`,
		"pool.*.health.payload":     "what the datagram holds",
		"pool.*.health.payload_hex": "the same in hexadecimal, instead of payload",
		"pool.*.health.answer":      `what the answer must contain; "" = anything`,
		"pool.*.health.answer_hex":  "the same in hexadecimal, instead of answer",
		"pool.*.health.require_answer": "true: an answer must come; false: it is enough that the port is not reported " +
			"closed",
		"pool.*.health.query": `dns: required. "NAME" or "NAME TYPE" to ask for, such as "example.com A". mysql: a ` +
			`statement that must succeed and return a row, such as "SELECT 1"; "" = none`,
		"pool.*.health.expect":    "the answers that are good",
		"pool.*.health.transport": "the protocol that the question goes over",
		"pool.*.health.database":  `the database to log in to; mysql: "" = none`,
		"pool.*.health.role":      "what the server must be to get sessions",
		"pool.*.health.command": "required. A program by its absolute path, and its arguments; exit status 0 is " +
			"good",
		"pool.*.health.checks": "required. 2 to 32 checks, each with the keys of its type",

		"pool.*.health.steps[].send":          "sends this text",
		"pool.*.health.steps[].send_hex":      "sends these bytes, in hexadecimal",
		"pool.*.health.steps[].expect":        "waits for this text",
		"pool.*.health.steps[].expect_hex":    "waits for these bytes, in hexadecimal",
		"pool.*.health.steps[].expect_regexp": "waits for what fits this regular expression, in the syntax of RE2",

		"pool.*.breaker.failure_ratio": "it opens if this share of the sessions in window failed, of at least " +
			"min_samples; 0 = never",
		"pool.*.breaker.window":       "the time that failure_ratio looks at, 100ms to 24h",
		"pool.*.breaker.min_samples":  "sessions in window without which failure_ratio does not count",
		"pool.*.breaker.open_for":     "how long it is open at first, 10ms to 24h; it doubles each time",
		"pool.*.breaker.max_open_for": "how long it is open at most, open_for to 24h",

		"pool.*.discovery":           "where backends come from, beside those of the file",
		"pool.*.discovery.endpoints": `required. URLs of etcd's members or of Patroni's API; "host:port" of sentinels`,
		"pool.*.discovery.namespace": "the namespace in Patroni's configuration",
		"pool.*.discovery.prefix":    `required. What the backends' keys in etcd begin with, such as "/services/redis/"`,
		"pool.*.discovery.master":    "required. The name that the sentinels have for the master",
		"pool.*.discovery.user":      `of etcd, of the REST API or of the sentinels; "" = without a login`,
		"pool.*.discovery.tls":       "true: the sentinels speak TLS",
		"pool.*.discovery.verify":    "false: any certificate is accepted",
		"pool.*.discovery.cert":      `a path of a PEM file with the certificate that is shown; "" = none`,
		"pool.*.discovery.key":       "a path of the PEM file with its key",
	}
}
