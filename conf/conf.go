// Package conf reads a configuration file, TOML, into one validated Config. It reports every
// mistake at once, each with its file and line, the path of the key, what was found there,
// what is allowed, and for a typo the nearest known key.
//
// Load and Parse only read and check the text. Config.Resolve turns host names into addresses. ParseBackends reads the
// backends of a discovery file. The package opens no socket, starts nothing that outlives a call, logs nothing and
// watches no file. Only cmd imports it, and passes the values to other packages in their own types. Its functions may
// be called from any goroutine.
//
// A key is one field of a struct below with its tags, which bind.go explains; they alone define name, default and
// bounds. Rules that a tag cannot express are in validate.go and, for checks and discovery, in health.go and
// discovery.go.
package conf

import (
	_ "embed"
	"io/fs"
	"net/netip"
	"regexp"
)

// Reference is a configuration with every key, its default, its unit and a comment.
// It is read-only.
//
//go:embed reference.toml
var Reference []byte

// A Config is the content of one file and those that it includes, complete with defaults. Only Parse makes a usable
// one. It is immutable apart from Resolve, and safe for concurrent use after it.
type Config struct {
	File string // as it was given to Load or Parse
	// paths and patterns of further files, whose tables are here; empty once they are
	Include []string `toml:"include" default:"" min:"0" max:"100"`

	Global Global `toml:"global"`
	Log    Log    `toml:"log"`
	Admin  Admin  `toml:"admin"`
	// /metrics, /ready and /live alone
	Metrics Metrics `toml:"metrics"`
	// nil: this node works alone
	Fleet *Fleet `toml:"fleet"`
	// in the file's order, never empty
	Listeners []Listener `toml:"listener,named" required:"at least one [listener.NAME] table"`
	Pools     []Pool     `toml:"pool,named"` // in the file's order

	parts      []part            // the files
	patterns   []string          // of the files that are included
	lines      map[string]int    // by path, of the document
	given      map[string]bool   // paths of the keys in the file
	variables  map[string]bool   // of the environment that the file names
	origin     map[string]string // by path of a key that is not in the file: what else has set it
	unresolved Errors            // set by Resolve
}

// Global has the settings of the whole process. Its zero value is not the default.
type Global struct {
	Workers int `toml:"workers" default:"0" min:"0" max:"1024"` // loops; 0 is one per usable CPU
	// 0: as many as the limit of descriptors allows
	MaxSessions  int      `toml:"max_sessions" default:"0" min:"0" max:"100_000_000"`
	DrainTimeout Duration `toml:"drain_timeout" default:"30s" min:"0s" max:"24h"`
	DrainDelay   Duration `toml:"drain_delay" default:"0s" min:"0s" max:"1h"`
	// a path; "": run-time changes end with the process
	StateFile  string `toml:"state_file" default:""`
	Watch      bool   `toml:"watch" default:"false"`      // apply the file whenever it changes
	UDPOffload bool   `toml:"udp_offload" default:"true"` // UDP_GRO and UDP_SEGMENT, where the kernel has them
}

// Log has the settings of the log. Its zero value is not the default.
type Log struct {
	Level  string `toml:"level" default:"info" oneof:"trace,debug,info,warn,error"`
	Format string `toml:"format" default:"json" oneof:"json,console"`
	// which sessions have a line at their end
	Access AccessLines `toml:"access" default:"all" min:"errors" max:"1/1000000"`
	Probes bool        `toml:"probes" default:"true"` // also for a session whose client has sent nothing
}

// A Listener is one or more bound addresses that accept clients, and where they are sent. Its zero value
// is of no use.
type Listener struct {
	Name     string    // of its table, [listener.NAME]
	Address  Addresses `toml:"address" required:"an address, such as \"127.0.0.1:6379\", \"[::]:6379\" or \":6379\"" min:"1" max:"64"`
	Protocol string    `toml:"protocol" default:"tcp" oneof:"tcp,udp,tcp+udp"`
	// of a Unix socket only; see Mode
	Permissions string `toml:"permissions" default:"0660" when:"protocol=tcp"`
	Owner       string `toml:"owner" default:"" when:"protocol=tcp"` // a user's name or number; "" is the process's
	Group       string `toml:"group" default:"" when:"protocol=tcp"` // a group's name or number; "" is the process's
	// "" with Routes: clients that no route fits are refused, unless one fits all; see DefaultPool
	Pool string `toml:"pool" required:"the name of a pool" unless:"routes" depends:""`
	// 0: only Global.MaxSessions applies
	MaxSessions int `toml:"max_sessions" default:"0" min:"0" max:"100_000_000" when:"protocol=tcp"`

	Backlog int `toml:"backlog" default:"4096" min:"1" max:"65535" when:"protocol=tcp"`
	// 0 is off
	IdleTimeout Duration `toml:"idle_timeout" default:"0s" zero:"" min:"1ms" max:"720h" when:"protocol=tcp"`
	// never 0
	HalfCloseTimeout Duration `toml:"half_close_timeout" default:"1m" depends:"" min:"1ms" max:"24h" when:"protocol=tcp"`
	// TCP_USER_TIMEOUT; 0 is the kernel's default
	UserTimeout Duration  `toml:"user_timeout" default:"2m" depends:"" zero:"" min:"1ms" max:"24h" step:"1ms" when:"protocol=tcp"`
	Keepalive   Keepalive `toml:"keepalive" when:"protocol=tcp"`
	// who names the real client
	ProxyProtocol ProxyProtocol `toml:"proxy_protocol" when:"protocol=tcp"`
	Access        Access        `toml:"access"` // who may come in
	Limits        Limits        `toml:"limits"` // how often, how many and how fast
	// TCP Fast Open, if net.ipv4.tcp_fastopen allows it
	FastOpen bool `toml:"fast_open" default:"false" when:"protocol=tcp"`
	// of the clients' connections; "" is the system's, but Reno at a loopback address if that is BBR
	CongestionControl string `toml:"congestion_control" default:"" when:"protocol=tcp"`
	RefuseWith        string `toml:"refuse_with" default:"reset" depends:"" oneof:"reset,close,protocol" when:"protocol=tcp"`

	TLS *ListenerTLS `toml:"tls" when:"protocol=tcp"` // nil: TLS does not end here

	// which pool a client goes to by its TLS ClientHello; empty: all to Pool
	Routes []Route `toml:"routes" min:"1" max:"10_000" when:"protocol=tcp"`
	// in which a client must have sent what is read of it; only with Routes, or see ReadsMQTT
	InspectTimeout Duration `toml:"inspect_timeout" default:"5s" min:"10ms" max:"1h" when:"protocol=tcp"`

	FlowTimeout Duration `toml:"flow_timeout" default:"30s" min:"100ms" max:"24h" when:"protocol=udp"`
	FlowKey     string   `toml:"flow_key" default:"client" oneof:"client,client_ip,packet" when:"protocol=udp"`
	// 0: only FlowTimeout applies
	Responses int `toml:"responses" default:"0" min:"0" max:"1_000_000" when:"protocol=udp"`
	MaxFlows  int `toml:"max_flows" default:"65536" min:"1" max:"10_000_000" when:"protocol=udp"`
	// for one client; 0 is no limit
	ClientFlows   int  `toml:"client_flows" default:"0" min:"0" max:"10_000_000" when:"protocol=udp"`
	ReceiveBuffer Size `toml:"receive_buffer" default:"4MiB" min:"4KiB" max:"1GiB" when:"protocol=udp"`
	// 0 is the kernel's
	SendBuffer Size `toml:"send_buffer" default:"0B" zero:"" min:"4KiB" max:"1GiB" when:"protocol=udp"`

	// sets the defaults of other keys, see applyProfile; postgres and redis only with tcp
	Profile string `toml:"profile" default:"" oneof:",postgres,redis,dns"`
	// only with profile dns or a cache
	MaxUDPAnswer Size   `toml:"max_udp_answer" default:"1232B" min:"512B" max:"65535B" when:"protocol=udp"`
	Cache        *Cache `toml:"cache"` // nil: none; with tcp only in profile dns

	Binds []Bind // of Address, in its order; Parse fills it
	// Mode is Permissions, for the Unix sockets among Binds. Parse fills it.
	Mode fs.FileMode
}

// Route sends clients of a listener to a pool. It has SNI, ALPN or both, and a client must fit both. Its zero value is
// of no use.
type Route struct {
	// in lower case: names, "*.NAME" for the names below NAME, "*" for every client; empty: every client
	SNI []string `toml:"sni" required:"a list of server names, such as [\"db.example.com\"], or the key alpn" unless:"alpn"`
	// the client offers one of these protocols; empty: whatever it offers
	ALPN []string `toml:"alpn" default:"" zero:""`
	Pool string   `toml:"pool" required:"the name of a pool"`
}

// Cache has the settings of the DNS cache. Times are whole seconds. Its zero value is not the default.
type Cache struct {
	MaxEntries int `toml:"max_entries" default:"100_000" min:"1" max:"10_000_000"`
	// of all entries; 0 is 1 KiB for each of MaxEntries
	MaxBytes    Size     `toml:"max_bytes" default:"0B" zero:"" min:"64KiB" max:"64GiB"`
	MinTTL      Duration `toml:"min_ttl" default:"0s" min:"0s" max:"24h" step:"1s"`
	MaxTTL      Duration `toml:"max_ttl" default:"24h" min:"1s" max:"168h" step:"1s"`    // never below MinTTL
	NegativeTTL Duration `toml:"negative_ttl" default:"1h" min:"0s" max:"24h" step:"1s"` // 0 is not at all
	StaleTTL    Duration `toml:"stale_ttl" default:"0s" min:"0s" max:"168h" step:"1s"`   // 0 is never
	// 0: failures are not kept; the bound is from RFC 9520, 3.2
	FailureTTL Duration `toml:"failure_ttl" default:"30s" min:"0s" max:"5m" step:"1s"`
	Prefetch   bool     `toml:"prefetch" default:"false"`
}

// ProxyProtocol says from whom connections begin with a header of the PROXY protocol, which names the real client. Its
// zero value is not the default.
type ProxyProtocol struct {
	Accept string `toml:"accept" default:"off" oneof:"off,v1,v2,any"` // the versions
	// addresses and prefixes that must send the header; never empty unless Accept is off
	Trusted []string `toml:"trusted" default:"" min:"1" max:"1000"`
	Timeout Duration `toml:"timeout" default:"3s" min:"10ms" max:"1h"` // until the whole header is there

	Prefixes []netip.Prefix // of Trusted, in its order; Parse fills it
}

// Keepalive has the settings of TCP keepalive, which detects dead clients; the bounds are those of tcp(7). Its zero
// value is not the default.
type Keepalive struct {
	// silence before the first probe
	Idle     Duration `toml:"idle" default:"1m" depends:"" min:"1s" max:"32767s" step:"1s"`
	Interval Duration `toml:"interval" default:"10s" depends:"" min:"1s" max:"32767s" step:"1s"` // between probes
	// unanswered probes that end the session
	Count int `toml:"count" default:"6" depends:"" min:"1" max:"127"`
}

// A Pool is a named set of interchangeable backends. Its zero value is of no use.
type Pool struct {
	Name      string // of its table, [pool.NAME]
	Algorithm string `toml:"algorithm" default:"least_conn" oneof:"algorithms"`
	// in the file's order; empty only with Discovery
	Backends       []Backend `toml:"backends" required:"at least one backend, such as [{ address = \"10.0.0.11:6379\" }]" unless:"discovery"`
	ConnectTimeout Duration  `toml:"connect_timeout" default:"3s" min:"1ms" max:"1h"`
	Retries        int       `toml:"retries" default:"2" min:"0" max:"10"` // further backends to try
	SlowStart      Duration  `toml:"slow_start" default:"0s" min:"0s" max:"24h"`
	HashKey        string    `toml:"hash_key" default:"client_ip" oneof:"client_ip,client,sni,mqtt_client_id"`
	// 0 is unbounded; algorithms that do not hash allow nothing else
	HashBalance float64 `toml:"hash_balance" default:"0" zero:"" min:"1.01" max:"100"`
	Zone        string  `toml:"zone" default:""` // backends of this zone are preferred
	Sticky      Sticky  `toml:"sticky"`
	Queue       Queue   `toml:"queue"`
	Hold        Hold    `toml:"hold"`
	// what to do if no backend is healthy
	WhenNone string `toml:"when_none" default:"refuse" oneof:"refuse,all"`
	// what happens to the sessions of a backend that fails its checks; see Health.WantsPrimary
	OnUnhealthy string `toml:"on_unhealthy" default:"keep" depends:"" oneof:"keep,close"`
	// what happens to the sessions of a backend that is removed or goes into maintenance
	OnRemove string `toml:"on_remove" default:"drain" oneof:"drain,close"`
	// how sessions leave a backend that gets no more: by themselves, or each where nothing is lost
	Drain     string    `toml:"drain" default:"plain" oneof:"plain,safe"`
	Rebalance Rebalance `toml:"rebalance"`
	Agent     Agent     `toml:"agent"`
	// PROXY protocol header to backends; v1 not with UDP
	SendProxy string `toml:"send_proxy" default:"" oneof:",v1,v2"`
	// local addresses of connections to backends, in turn; none: the kernel chooses
	Source []string `toml:"source" default:"" min:"0" max:"64"`
	// of TCP connections to backends; "" is the system's, but Reno to a loopback address if that is BBR
	CongestionControl string `toml:"congestion_control" default:""`

	TLS       *PoolTLS   `toml:"tls"`    // nil: connections to backends are not encrypted
	Health    *Health    `toml:"health"` // nil: backends are always healthy
	Breaker   Breaker    `toml:"breaker"`
	Discovery *Discovery `toml:"discovery"` // nil: the pool has only Backends

	SourceAddrs []netip.Addr // of Source, in its order; Parse fills it. An IPv4-mapped address is stored as IPv4
}

// Sticky has the settings of stickiness: how long a client returns to the backend it had. Its zero value is not the
// default.
type Sticky struct {
	TTL        Duration `toml:"ttl" default:"0s" zero:"" min:"1s" max:"720h"` // since the client last came; 0 is off
	MaxEntries int      `toml:"max_entries" default:"100_000" min:"1" max:"16_777_216"`
	// who a client is; never another name than Pool.HashKey
	Key string `toml:"key" default:"client_ip" oneof:"client_ip,sni,mqtt_client_id"`
}

// Queue has the settings of the queue, in which sessions wait while every backend is at its MaxSessions or over its
// MaxRate. Its zero value is not the default.
type Queue struct {
	Max     int      `toml:"max" default:"0" min:"0" max:"1_000_000"` // 0: no queue, sessions are refused
	Timeout Duration `toml:"timeout" default:"5s" min:"1ms" max:"1h"`
}

// Hold has the settings of the hold: sessions wait while no backend is eligible, for instance during a failover. It has
// one line with Queue. Its zero value is not the default.
type Hold struct {
	Timeout Duration `toml:"timeout" default:"0s" zero:"" min:"1ms" max:"1h"` // 0: no hold, sessions are refused at once
	Max     int      `toml:"max" default:"10_000" min:"1" max:"1_000_000"`
}

// Rebalance has the settings of rebalancing, which ends sessions of backends that have more than their share, where
// nothing is lost. Its zero value is not the default.
type Rebalance struct {
	MaxSkew float64  `toml:"max_skew" default:"0" zero:"" min:"1.01" max:"100"` // sessions, as a multiple of the share; 0 is off
	Rate    Percent  `toml:"rate" default:"1%/s" min:"0.01%/s" max:"100%/s"`    // of the pool's sessions
	MinAge  Duration `toml:"min_age" default:"1m" min:"0s" max:"720h"`          // younger sessions stay
}

// Agent has the settings of the agent check: a program on each backend's host that says how much the backend may get.
// Its zero value is not the default.
type Agent struct {
	Port     int      `toml:"port" default:"0" min:"0" max:"65535"` // where it listens; 0 is off
	Interval Duration `toml:"interval" default:"2s" min:"10ms" max:"24h"`
	Timeout  Duration `toml:"timeout" default:"1s" min:"1ms" max:"1h"`
}

// A Backend is one address that sessions are sent to. Its zero value is of no use.
type Backend struct {
	Name    string `toml:"name" default:""` // its id, unique in its pool; Address if the file gives none
	Address string `toml:"address" plain:"" required:"an address, such as \"10.0.0.11:6379\""`
	// share relative to the pool's other backends; 0: no new sessions or flows
	Weight      int  `toml:"weight" default:"1" min:"0" max:"256"`
	MaxSessions int  `toml:"max_sessions" default:"0" min:"0" max:"100_000_000"` // 0 is no limit
	MaxRate     Rate `toml:"max_rate" default:""`                                // of new sessions and flows; "" is no limit
	// used when no backend of a lower tier is eligible
	Tier  int    `toml:"tier" default:"0" min:"0" max:"65535"`
	Zone  string `toml:"zone" default:""`
	Mode  string `toml:"mode" default:"ready" oneof:"ready,drain,maintenance"`
	Check string `toml:"check" default:""` // the address that is checked; "": Address with Health.Port

	// Addr is Address as an IP address and port. Parse fills it for a literal address and Resolve for a host name;
	// until then it is not valid. An IPv4-mapped address is stored as IPv4. The port is 0 if Address has none: each
	// client then gets the port that it has connected to.
	Addr netip.AddrPort
	// Path is the path of the Unix socket that Address names, and "" for other addresses. Parse fills it. Addr is not
	// valid then.
	Path string
	// CheckAddr is Check in the same form; it is not valid if Check is "".
	CheckAddr netip.AddrPort
}

// Health says how the backends of a pool are checked. Its zero value is not the default.
type Health struct {
	Check
	// none of which has Checks; nil unless Type is all_of or any_of
	Checks       []Check  `toml:"checks" required:"a list of two checks or more, such as [{ type = \"icmp\" }, { type = \"tcp\" }]" min:"2" max:"32" when:"type=all_of,any_of"`
	Interval     Duration `toml:"interval" default:"2s" min:"10ms" max:"24h"`
	FastInterval Duration `toml:"fast_interval" default:"500ms" min:"10ms" max:"24h"` // while the verdict is changing
	Timeout      Duration `toml:"timeout" default:"1s" min:"1ms" max:"1h"`
	Rise         int      `toml:"rise" default:"2" min:"1" max:"1000"`    // consecutive successes to become healthy
	Fall         int      `toml:"fall" default:"3" min:"1" max:"1000"`    // consecutive failures to become unhealthy
	Jitter       float64  `toml:"jitter" default:"0.1" min:"0" max:"0.5"` // share of the interval
	Initial      string   `toml:"initial" default:"unknown" oneof:"unknown,healthy"`
	StaleAfter   Duration `toml:"stale_after" default:"0s" zero:"" min:"10ms" max:"720h"` // 0 is 3 x Interval + Timeout
}

// Check says what one check does. Keys that Type does not use have their defaults. Its zero value is not the default.
type Check struct {
	// the last two only in Health
	Type string `toml:"type" default:"tcp" oneof:"tcp,tls,http,https,grpc,icmp,udp,dns,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap,exec,all_of,any_of"`
	// 0: the port of Address
	Port int `toml:"port" default:"0" min:"0" max:"65535" when:"type=tcp,tls,http,https,grpc,udp,dns,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`

	// in this order; without steps, a connection is enough
	Steps []Step `toml:"steps" min:"1" max:"100" when:"type=tcp"`

	// for tcp only with Steps; see UsesTLS
	TLS bool `toml:"tls" default:"false" when:"type=tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`
	// false accepts any certificate
	Verify bool `toml:"verify" default:"true" when:"type=tls,https,tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`
	// "" is the backend's address
	ServerName string `toml:"server_name" default:"" when:"type=tls,https,tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`
	// a path; "" is the system's
	CA   string `toml:"ca" default:"" when:"type=tls,https,tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`
	Cert string `toml:"cert" default:"" when:"type=tls,https,tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"` // a path; "" if Key is
	Key  string `toml:"key" default:"" when:"type=tls,https,tcp,grpc,postgres,redis,mysql,mongodb,mqtt,amqp,smtp,ldap"`  // a path; "" if Cert is
	// the server must choose one of them; empty: any
	ALPN []string `toml:"alpn" default:"" when:"type=tls"`
	// the certificate must be valid for that long; 0: not checked
	MinDays int `toml:"min_days" default:"0" min:"0" max:"3650" when:"type=tls"`

	Method string   `toml:"method" default:"GET" when:"type=http,https"`
	Path   string   `toml:"path" default:"/" when:"type=http,https"`
	Host   string   `toml:"host" default:"" when:"type=http,https"`          // "" is the address
	Status []string `toml:"status" default:"200-399" when:"type=http,https"` // see Statuses
	Body   string   `toml:"body" default:"" when:"type=http,https"`          // a text that the body must contain

	Service   string `toml:"service" default:"" when:"type=grpc"`   // "" is the whole server
	Authority string `toml:"authority" default:"" when:"type=grpc"` // "" is the address

	// Answer is not called Expect as in Step, since a key has one type, and that of dns is a list.
	Payload       string `toml:"payload" default:"" when:"type=udp"`
	PayloadHex    string `toml:"payload_hex" default:"" when:"type=udp"` // "" unless Payload is
	Answer        string `toml:"answer" default:"" when:"type=udp"`
	AnswerHex     string `toml:"answer_hex" default:"" when:"type=udp"` // "" unless Answer is
	RequireAnswer bool   `toml:"require_answer" default:"false" when:"type=udp"`

	// of dns see QueryName, QueryType; of mysql a statement, or ""
	Query     string   `toml:"query" required:"what to ask for, \"NAME\" or \"NAME TYPE\", such as \"example.com A\"" when:"type=dns,mysql" if:"type=dns"`
	Expect    []string `toml:"expect" default:"NOERROR" oneof:"NOERROR,FORMERR,SERVFAIL,NXDOMAIN,NOTIMP,REFUSED" when:"type=dns"`
	Transport string   `toml:"transport" default:"udp" oneof:"udp,tcp" when:"type=dns"`

	User         string `toml:"user" default:"" when:"type=postgres,redis,mysql,mqtt,ldap"` // never "" for postgres and mysql
	PasswordFile string `toml:"password_file" default:"" when:"type=postgres,redis,mysql,mqtt,ldap"`
	Database     string `toml:"database" default:"postgres" depends:"" when:"type=postgres,mysql"` // "" only for mysql
	Role         string `toml:"role" default:"any" oneof:"any,primary,replica" when:"type=postgres,redis,mysql,mongodb"`
	// with Role replica: the primary serves while no replica can
	Fallback string `toml:"fallback" default:"" oneof:",primary" when:"type=postgres,redis,mysql,mongodb"`
	// of replicas; 0: not checked, the only value with Role primary
	MaxLag Duration `toml:"max_lag" default:"0s" min:"0s" max:"24h" when:"type=postgres,redis,mysql"`
	// a Galera node that is a donor or desynced is healthy
	AllowDonor bool `toml:"allow_donor" default:"false" when:"type=mysql"`

	Command []string `toml:"command" required:"a program by its absolute path and its arguments, such as [\"/usr/local/bin/check\", \"--fast\"]" when:"type=exec"`

	// Parse fills these from the texts above.
	Statuses     []StatusRange // of Status, in its order
	PayloadBytes []byte        // of Payload or PayloadHex
	AnswerBytes  []byte        // of Answer or AnswerHex
	QueryName    string        // of Query
	QueryType    string        // of Query for dns; A if that names none
}

// Step is one thing that a tcp check sends or waits for. Exactly one of the keys is not "". Its zero
// value is of no use.
type Step struct {
	Send         string `toml:"send" alone:""`
	SendHex      string `toml:"send_hex" alone:""`
	Expect       string `toml:"expect" alone:""`
	ExpectHex    string `toml:"expect_hex" alone:""`
	ExpectRegexp string `toml:"expect_regexp" alone:""` // see Regexp

	// Parse fills these from the texts above.
	Bytes  []byte         // the bytes to send or to wait for; nil with Regexp
	Regexp *regexp.Regexp // of ExpectRegexp; nil without
}

// A StatusRange is the HTTP status codes from First to Last.
type StatusRange struct{ First, Last int }

// Breaker has the settings of breakers, which keep sessions away from backends whose traffic fails. Its zero value is
// not the default.
type Breaker struct {
	// consecutive failures that open the breaker; 0 is never
	Failures int `toml:"failures" default:"5" min:"0" max:"1_000_000"`
	// share of failures among the sessions in Window that opens it; 0 is never
	FailureRatio float64  `toml:"failure_ratio" default:"0" min:"0" max:"1"`
	Window       Duration `toml:"window" default:"30s" min:"100ms" max:"24h"` // of FailureRatio
	// sessions in Window for FailureRatio to count
	MinSamples int      `toml:"min_samples" default:"20" min:"1" max:"1_000_000"`
	OpenFor    Duration `toml:"open_for" default:"10s" min:"10ms" max:"24h"`    // doubles at each reopening
	MaxOpenFor Duration `toml:"max_open_for" default:"5m" min:"10ms" max:"24h"` // never below OpenFor
	Trials     int      `toml:"trials" default:"1" min:"1" max:"1000"`          // sessions let through while half-open
	// share of the healthy and ready backends; never the last one
	MaxOpenShare float64 `toml:"max_open_share" default:"0.5" min:"0" max:"1"`
}

// Discovery says where a pool finds backends, instead of Backends or in addition to them. Its zero value is not the
// default.
type Discovery struct {
	Type string `toml:"type" required:"the kind of source: \"dns\", \"srv\", \"file\", \"patroni\", \"sentinel\" or \"etcd\"" oneof:"dns,srv,file,patroni,sentinel,etcd"`
	Name string `toml:"name" required:"the host name to ask for, such as \"redis.internal\"" when:"type=dns,srv"`
	// with srv, 0: the ports of the records
	Port int    `toml:"port" required:"the backends' port, 1 to 65535" if:"type=dns" min:"1" max:"65535" when:"type=dns,srv"`
	File string `toml:"file" required:"the path of a list of backends" when:"type=file"` // see ParseBackends
	// a DNS server's address; "": those of the system
	Resolver string `toml:"resolver" default:"" when:"type=dns,srv"`
	// of the addresses that are used
	Family string `toml:"family" default:"any" oneof:"any,ipv4,ipv6" when:"type=dns,srv"`
	// allows all addresses of this machine and link-local ones; of etcd also Unix sockets
	AllowLoopback bool `toml:"allow_loopback" default:"false" when:"type=dns,srv,etcd"`

	// of etcd's members or, with REST, of Patroni's REST API, as URLs; of sentinels, as "host:port"
	Endpoints []string `toml:"endpoints" required:"the addresses to ask, such as [\"https://10.0.0.1:2379\"] or [\"10.0.0.1:26379\"]" min:"1" max:"64" when:"type=patroni,sentinel,etcd"`
	Scope     string   `toml:"scope" required:"the name of the cluster, as scope in Patroni's configuration" when:"type=patroni"`
	Namespace string   `toml:"namespace" default:"/service/" when:"type=patroni"`                                                    // as in Patroni's configuration; unused with REST
	REST      bool     `toml:"rest" default:"false" when:"type=patroni"`                                                             // Endpoints are Patroni's own, not etcd's
	MaxLag    Size     `toml:"max_lag" default:"0B" zero:"" min:"1B" max:"1TiB" when:"type=patroni"`                                 // of replicas, by Patroni; 0: not looked at
	Prefix    string   `toml:"prefix" required:"the beginning of the backends' keys, such as \"/services/redis/\"" when:"type=etcd"` // with a slash at the end
	Master    string   `toml:"master" required:"the name of the master that the sentinels watch, such as \"mymaster\"" when:"type=sentinel"`

	User         string `toml:"user" default:"" when:"type=patroni,sentinel,etcd"`
	PasswordFile string `toml:"password_file" default:"" when:"type=patroni,sentinel,etcd"`
	TLS          bool   `toml:"tls" default:"false" when:"type=sentinel"` // of patroni and etcd the URLs decide
	Verify       bool   `toml:"verify" default:"true" when:"type=patroni,sentinel,etcd"`
	ServerName   string `toml:"server_name" default:"" when:"type=patroni,sentinel,etcd"` // "" is the endpoint's host
	CA           string `toml:"ca" default:"" when:"type=patroni,sentinel,etcd"`
	Cert         string `toml:"cert" default:"" when:"type=patroni,sentinel,etcd"` // "" if Key is
	Key          string `toml:"key" default:"" when:"type=patroni,sentinel,etcd"`

	Refresh Duration `toml:"refresh" default:"30s" min:"100ms" max:"24h"` // the longest time between two attempts
	OnError string   `toml:"on_error" default:"keep" oneof:"keep,empty"`
}

// ErrorAt returns an Error for a failure that concerns the key at that path, see Path, such as an address that turned
// out to be in use. An error about a file contains the file's whole path. For an omitted key the line is that of its
// table.
func (c *Config) ErrorAt(path string, err error) *Error {
	file, line := locate(c.parts, c.lines[path])
	return &Error{File: file, Line: line, Path: path, Message: causeBeside(c.File, err), err: err}
}
