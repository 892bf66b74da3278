// Package conf reads a configuration file, TOML, into one validated Config. It reports every
// mistake at once, each with its file and line, the path of the key, what was found there,
// what is allowed, and for a typo the nearest known key.
//
// Load and Parse read and check the text alone; Config.Resolve, apart from them, turns host
// names into addresses; ParseBackends reads the backends of a pool that stand in a file of their
// own. The package opens no socket, starts nothing that outlives a call, logs nothing and watches
// no file. Only cmd imports it, and hands each other package what
// that needs in its own types. Its functions may be called from any goroutine.
//
// A key is one field of a struct below with its tags, which bind.go explains: name, default
// and bounds stand there and nowhere else. What one tag cannot say is in validate.go and, of
// checks and discovery, in health.go and discovery.go.
package conf

import (
	_ "embed"
	"net/netip"
	"regexp"
)

// Reference is a configuration with every key, its default, its unit and a comment.
// It is read-only.
//
//go:embed reference.toml
var Reference []byte

// A Config is the whole of one file, complete with defaults. Parse made it, or it is of no
// use. It is immutable, but for Resolve, and so safe for concurrent use once that is done.
type Config struct {
	File   string // as it was given to Load or Parse
	Global Global `toml:"global"`
	Log    Log    `toml:"log"`
	Admin  Admin  `toml:"admin"`
	// in the file's order, never empty
	Listeners []Listener `toml:"listener,named" required:"at least one [listener.NAME] table"`
	Pools     []Pool     `toml:"pool,named"` // in the file's order

	lines      map[string]int // by path
	unresolved Errors         // set by Resolve
}

// Global is what concerns the whole process. Its zero value is not the default.
type Global struct {
	Workers int `toml:"workers" default:"0" min:"0" max:"1024"` // loops; 0 is one per usable CPU
	// 0 is what the limit of descriptors allows
	MaxSessions  int      `toml:"max_sessions" default:"0" min:"0" max:"100_000_000"`
	DrainTimeout Duration `toml:"drain_timeout" default:"30s" min:"0s" max:"24h"`
	DrainDelay   Duration `toml:"drain_delay" default:"0s" min:"0s" max:"1h"`
	// a path; "" is that changes at run time end with the process
	StateFile  string `toml:"state_file" default:""`
	Watch      bool   `toml:"watch" default:"false"`      // apply the file anew whenever it changes
	UDPOffload bool   `toml:"udp_offload" default:"true"` // UDP_GRO and UDP_SEGMENT, where the kernel has them
}

// Log is what is logged and how. Its zero value is not the default.
type Log struct {
	Level  string `toml:"level" default:"info" oneof:"trace,debug,info,warn,error"`
	Format string `toml:"format" default:"json" oneof:"json,console"`
	Access bool   `toml:"access" default:"true"` // one line at the end of each session
	Probes bool   `toml:"probes" default:"true"` // also of one whose client has said nothing
}

// A Listener is a bound address that accepts clients, and where they are sent. Its zero value
// is of no use.
type Listener struct {
	Name     string // of its table, [listener.NAME]
	Address  string `toml:"address" required:"an address, such as \"127.0.0.1:6379\", \"[::]:6379\" or \":6379\""`
	Protocol string `toml:"protocol" default:"tcp" oneof:"tcp,udp"`
	Pool     string `toml:"pool" required:"the name of a pool"`
	// 0 is Global.MaxSessions alone
	MaxSessions int `toml:"max_sessions" default:"0" min:"0" max:"100_000_000" when:"protocol=tcp"`

	Backlog int `toml:"backlog" default:"4096" min:"1" max:"65535" when:"protocol=tcp"`
	// 0 is off
	IdleTimeout Duration `toml:"idle_timeout" default:"0s" zero:"" min:"1ms" max:"720h" when:"protocol=tcp"`
	// never 0
	HalfCloseTimeout Duration `toml:"half_close_timeout" default:"1m" min:"1ms" max:"24h" when:"protocol=tcp"`
	// TCP_USER_TIMEOUT; 0 is the kernel's
	UserTimeout Duration  `toml:"user_timeout" default:"2m" zero:"" min:"1ms" max:"24h" step:"1ms" when:"protocol=tcp"`
	Keepalive   Keepalive `toml:"keepalive" when:"protocol=tcp"`
	RefuseWith  string    `toml:"refuse_with" default:"reset" oneof:"reset,close" when:"protocol=tcp"`

	FlowTimeout Duration `toml:"flow_timeout" default:"30s" min:"100ms" max:"24h" when:"protocol=udp"`
	FlowKey     string   `toml:"flow_key" default:"client" oneof:"client,client_ip,packet" when:"protocol=udp"`
	// 0 is FlowTimeout alone
	Responses int `toml:"responses" default:"0" min:"0" max:"1_000_000" when:"protocol=udp"`
	MaxFlows  int `toml:"max_flows" default:"65536" min:"1" max:"10_000_000" when:"protocol=udp"`
	// for one client; 0 is no limit
	ClientFlows   int  `toml:"client_flows" default:"0" min:"0" max:"10_000_000" when:"protocol=udp"`
	ReceiveBuffer Size `toml:"receive_buffer" default:"4MiB" min:"4KiB" max:"1GiB" when:"protocol=udp"`
	// 0 is the kernel's
	SendBuffer Size `toml:"send_buffer" default:"0B" zero:"" min:"4KiB" max:"1GiB" when:"protocol=udp"`

	Profile string `toml:"profile" default:"" oneof:",dns" note:"this version knows no other"`
	// beside profile dns or a cache alone
	MaxUDPAnswer Size   `toml:"max_udp_answer" default:"1232B" min:"512B" max:"65535B" when:"protocol=udp"`
	Cache        *Cache `toml:"cache"` // nil: none; with tcp only beside profile dns

	// Bind is Address as the kernel wants it. Parse fills it for a literal address, Resolve for
	// a host name, before which it is not valid. An IPv4-mapped address stands there as IPv4.
	Bind netip.AddrPort

	// DualStack says that Bind is [::] and takes IPv4 clients too: Address is ":port". Any other
	// IPv6 address, "[::]:port" too, is for IPv6 alone.
	DualStack bool
}

// Cache is which answers to DNS questions are kept, and for how long. Times count in whole seconds. Its zero value is
// not the default.
type Cache struct {
	MaxEntries int `toml:"max_entries" default:"100_000" min:"1" max:"10_000_000"`
	// of all entries; 0 is 1 KiB for each of MaxEntries
	MaxBytes    Size     `toml:"max_bytes" default:"0B" zero:"" min:"64KiB" max:"64GiB"`
	MinTTL      Duration `toml:"min_ttl" default:"0s" min:"0s" max:"24h" step:"1s"`
	MaxTTL      Duration `toml:"max_ttl" default:"24h" min:"1s" max:"168h" step:"1s"`    // never below MinTTL
	NegativeTTL Duration `toml:"negative_ttl" default:"1h" min:"0s" max:"24h" step:"1s"` // 0 is not at all
	StaleTTL    Duration `toml:"stale_ttl" default:"0s" min:"0s" max:"168h" step:"1s"`   // 0 is never
	// 0 is not at all; RFC 9520, 3.2 has the bound
	FailureTTL Duration `toml:"failure_ttl" default:"30s" min:"0s" max:"5m" step:"1s"`
	Prefetch   bool     `toml:"prefetch" default:"false"`
}

// Keepalive is how silent clients are told from dead ones; the bounds are those of tcp(7). Its
// zero value is not the default.
type Keepalive struct {
	// of silence before the first probe
	Idle     Duration `toml:"idle" default:"1m" min:"1s" max:"32767s" step:"1s"`
	Interval Duration `toml:"interval" default:"10s" min:"1s" max:"32767s" step:"1s"` // between probes
	// of unanswered probes that end the session
	Count int `toml:"count" default:"6" min:"1" max:"127"`
}

// A Pool is a named set of interchangeable backends. Its zero value is of no use.
type Pool struct {
	Name      string // of its table, [pool.NAME]
	Algorithm string `toml:"algorithm" default:"least_conn" oneof:"algorithms"`
	// in the file's order; empty only beside Discovery
	Backends       []Backend `toml:"backends" required:"at least one backend, such as [{ address = \"10.0.0.11:6379\" }]" unless:"discovery"`
	ConnectTimeout Duration  `toml:"connect_timeout" default:"3s" min:"1ms" max:"1h"`
	Retries        int       `toml:"retries" default:"2" min:"0" max:"10"` // further backends to try
	SlowStart      Duration  `toml:"slow_start" default:"0s" min:"0s" max:"24h"`
	HashKey        string    `toml:"hash_key" default:"client_ip" oneof:"client_ip,client" note:"this version does not hash \"sni\""`
	// 0 is unbounded, and all that algorithms without a hash allow
	HashBalance float64 `toml:"hash_balance" default:"0" zero:"" min:"1.01" max:"100"`
	Zone        string  `toml:"zone" default:""` // whose backends are preferred
	Sticky      Sticky  `toml:"sticky"`
	Queue       Queue   `toml:"queue"`
	// no backend is healthy
	WhenNone string `toml:"when_none" default:"refuse" oneof:"refuse,all"`
	// the sessions of a backend that fails its checks; see Health.WantsPrimary
	OnUnhealthy string `toml:"on_unhealthy" default:"keep" depends:"" oneof:"keep,close"`
	// those of one that is removed or goes into maintenance
	OnRemove string `toml:"on_remove" default:"drain" oneof:"drain,close"`
	// a PROXY protocol header to backends; UDP alone
	SendProxy string     `toml:"send_proxy" default:"" oneof:",v2" note:"this version sends no \"v1\""`
	Health    *Health    `toml:"health"` // nil: backends are always healthy
	Breaker   Breaker    `toml:"breaker"`
	Discovery *Discovery `toml:"discovery"` // nil: Backends are all there are
}

// Sticky is for how long a client returns to the backend it had. Its zero value is not the
// default.
type Sticky struct {
	TTL        Duration `toml:"ttl" default:"0s" zero:"" min:"1s" max:"720h"` // since the client came last; 0 is off
	MaxEntries int      `toml:"max_entries" default:"100_000" min:"1" max:"16_777_216"`
}

// Queue is how many sessions wait while every backend is at its MaxSessions. Its zero value is
// not the default.
type Queue struct {
	Max     int      `toml:"max" default:"0" min:"0" max:"1_000_000"` // 0 is none: they are refused
	Timeout Duration `toml:"timeout" default:"5s" min:"1ms" max:"1h"`
}

// A Backend is one address that sessions are sent to. Its zero value is of no use.
type Backend struct {
	Name    string `toml:"name" default:""` // its id, unique in its pool; Address if the file gives none
	Address string `toml:"address" plain:"" required:"an address, such as \"10.0.0.11:6379\""`
	// share relative to the pool's others; 0 gets nothing new
	Weight      int `toml:"weight" default:"1" min:"0" max:"256"`
	MaxSessions int `toml:"max_sessions" default:"0" min:"0" max:"100_000_000"` // 0 is no limit
	// used when no backend of a lower tier is eligible
	Tier  int    `toml:"tier" default:"0" min:"0" max:"65535"`
	Zone  string `toml:"zone" default:""`
	Mode  string `toml:"mode" default:"ready" oneof:"ready,drain,maintenance"`
	Check string `toml:"check" default:""` // where it is checked; "" is at Address and Health.Port

	// Addr is Address as the kernel wants it. Parse fills it for a literal address, Resolve for
	// a host name, before which it is not valid. An IPv4-mapped address stands there as IPv4.
	Addr netip.AddrPort
	// CheckAddr is Check in the same way; it is not valid for "".
	CheckAddr netip.AddrPort
}

// Health is how the backends of a pool are checked. Its zero value is not the default.
type Health struct {
	Check
	// of plain kinds; nil unless Type is all_of or any_of
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

// Check is what one check does. The keys of kinds other than Type have their defaults. Its zero value
// is not the default.
type Check struct {
	// the last two only in Health
	Type string `toml:"type" default:"tcp" oneof:"tcp,tls,http,https,grpc,icmp,udp,dns,postgres,redis,exec,all_of,any_of"`
	// 0 is the traffic's
	Port int `toml:"port" default:"0" min:"0" max:"65535" when:"type=tcp,tls,http,https,grpc,udp,dns,postgres,redis"`

	Steps []Step `toml:"steps" min:"1" max:"100" when:"type=tcp"` // in this order; none: a connection is enough

	// tcp has it only with Steps; see UsesTLS
	TLS bool `toml:"tls" default:"false" when:"type=tcp,grpc,postgres,redis"`
	// false accepts any certificate
	Verify bool `toml:"verify" default:"true" when:"type=tls,https,tcp,grpc,postgres,redis"`
	// "" is the backend's address
	ServerName string `toml:"server_name" default:"" when:"type=tls,https,tcp,grpc,postgres,redis"`
	// a path; "" is the system's
	CA   string `toml:"ca" default:"" when:"type=tls,https,tcp,grpc,postgres,redis"`
	Cert string `toml:"cert" default:"" when:"type=tls,https,tcp,grpc,postgres,redis"` // a path; "" if Key is
	Key  string `toml:"key" default:"" when:"type=tls,https,tcp,grpc,postgres,redis"`  // a path; "" if Cert is
	// one of them must be chosen; none is no matter
	ALPN []string `toml:"alpn" default:"" when:"type=tls"`
	// that the certificate is still valid; 0 is not looked at
	MinDays int `toml:"min_days" default:"0" min:"0" max:"3650" when:"type=tls"`

	Method string   `toml:"method" default:"GET" when:"type=http,https"`
	Path   string   `toml:"path" default:"/" when:"type=http,https"`
	Host   string   `toml:"host" default:"" when:"type=http,https"`          // "" is the address
	Status []string `toml:"status" default:"200-399" when:"type=http,https"` // see Statuses
	Body   string   `toml:"body" default:"" when:"type=http,https"`          // what the body must contain

	Service   string `toml:"service" default:"" when:"type=grpc"`   // "" is the whole server
	Authority string `toml:"authority" default:"" when:"type=grpc"` // "" is the address

	// Answer is not called Expect as in Step, since a key has one type, and that of dns is a list.
	Payload       string `toml:"payload" default:"" when:"type=udp"`
	PayloadHex    string `toml:"payload_hex" default:"" when:"type=udp"` // "" unless Payload is
	Answer        string `toml:"answer" default:"" when:"type=udp"`
	AnswerHex     string `toml:"answer_hex" default:"" when:"type=udp"` // "" unless Answer is
	RequireAnswer bool   `toml:"require_answer" default:"false" when:"type=udp"`

	// see QueryName, QueryType
	Query     string   `toml:"query" required:"what to ask for, \"NAME\" or \"NAME TYPE\", such as \"example.com A\"" when:"type=dns"`
	Expect    []string `toml:"expect" default:"NOERROR" oneof:"NOERROR,FORMERR,SERVFAIL,NXDOMAIN,NOTIMP,REFUSED" when:"type=dns"`
	Transport string   `toml:"transport" default:"udp" oneof:"udp,tcp" when:"type=dns"`

	User         string `toml:"user" default:"" when:"type=postgres,redis"` // never "" for postgres
	PasswordFile string `toml:"password_file" default:"" when:"type=postgres,redis"`
	Database     string `toml:"database" default:"postgres" when:"type=postgres"`
	Role         string `toml:"role" default:"any" oneof:"any,primary,replica" when:"type=postgres,redis"`
	// of replicas; 0 is not looked at, and all there is with Role primary
	MaxLag Duration `toml:"max_lag" default:"0s" min:"0s" max:"24h" when:"type=postgres,redis"`

	Command []string `toml:"command" required:"a program by its absolute path and its arguments, such as [\"/usr/local/bin/check\", \"--fast\"]" when:"type=exec"`

	// Parse fills these from the texts above.
	Statuses     []StatusRange // of Status, in its order
	PayloadBytes []byte        // of Payload or PayloadHex
	AnswerBytes  []byte        // of Answer or AnswerHex
	QueryName    string        // of Query
	QueryType    string        // of Query; A if that names none
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
	Bytes  []byte         // what is sent or, if Sends is false, waited for; nil beside Regexp
	Regexp *regexp.Regexp // of ExpectRegexp; nil without
}

// A StatusRange is the HTTP status codes from First to Last.
type StatusRange struct{ First, Last int }

// Breaker is when what the traffic shows of a backend keeps sessions away from it. Its zero value is not the default.
type Breaker struct {
	// consecutive failures that open it; 0 is never
	Failures int `toml:"failures" default:"5" min:"0" max:"1_000_000"`
	// or this share of the sessions in Window; 0 is never
	FailureRatio float64  `toml:"failure_ratio" default:"0" min:"0" max:"1"`
	Window       Duration `toml:"window" default:"30s" min:"100ms" max:"24h"` // of FailureRatio
	// sessions in Window for FailureRatio to count
	MinSamples int      `toml:"min_samples" default:"20" min:"1" max:"1_000_000"`
	OpenFor    Duration `toml:"open_for" default:"10s" min:"10ms" max:"24h"`    // doubles at each reopening
	MaxOpenFor Duration `toml:"max_open_for" default:"5m" min:"10ms" max:"24h"` // never below OpenFor
	Trials     int      `toml:"trials" default:"1" min:"1" max:"1000"`          // sessions let through half-open
	// of the healthy and ready backends; never the last
	MaxOpenShare float64 `toml:"max_open_share" default:"0.5" min:"0" max:"1"`
}

// Discovery is where a pool's backends are found, instead of Backends or besides them. Its zero
// value is not the default.
type Discovery struct {
	Type string `toml:"type" required:"the kind of source: \"dns\", \"srv\" or \"file\"" oneof:"dns,srv,file"`
	Name string `toml:"name" required:"the host name to ask for, such as \"redis.internal\"" when:"type=dns,srv"`
	// with srv, 0 is the records'
	Port int    `toml:"port" required:"the backends' port, 1 to 65535" if:"type=dns" min:"1" max:"65535" when:"type=dns,srv"`
	File string `toml:"file" required:"the path of a list of backends" when:"type=file"` // see ParseBackends
	// a DNS server's address; "" is the system's
	Resolver string `toml:"resolver" default:"" when:"type=dns,srv"`
	// of the addresses that are taken
	Family string `toml:"family" default:"any" oneof:"any,ipv4,ipv6" when:"type=dns,srv"`
	// and the other addresses of this machine and of one link
	AllowLoopback bool     `toml:"allow_loopback" default:"false" when:"type=dns,srv"`
	Refresh       Duration `toml:"refresh" default:"30s" min:"100ms" max:"24h"` // at most so long between two readings
	OnError       string   `toml:"on_error" default:"keep" oneof:"keep,empty"`

	// ResolverAddr is Resolver as the kernel wants it; not valid if that is "".
	ResolverAddr netip.AddrPort
}

// ErrorAt makes an Error of what happened later to the key at that path, see Path: it says where an address stands that
// turned out to be in use. The error of a file has its whole path. The line of a key left out is its table's.
func (c *Config) ErrorAt(path string, err error) *Error {
	return &Error{File: c.File, Line: c.lines[path], Path: path, Message: causeBeside(c.File, err), err: err}
}
