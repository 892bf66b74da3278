// Package admin is the daemon's control API: HTTP and JSON on the admin socket, together with /metrics, /ready and
// /live, and the client that the command line uses.
//
// It decides nothing and keeps no state: each request becomes one call of a Balancer, and its result becomes JSON.
// openapi.yaml describes the routes; a test compares the two.
//
// Server and Client may be used from any goroutine.
package admin

import (
	"context"
	"time"
)

// A Balancer is the running daemon, as the API needs it. Its methods may be called from any goroutine.
//
// It has more methods than an interface should have. It is the whole contract of the API, one method for each route, so
// that the tests of this package need no daemon, and those of the daemon no HTTP.
//
// Errors that a caller can do something about are of the types in errors.go and of package pool. Any other error is a
// failure of the daemon.
type Balancer interface {
	Status() Status
	Listeners() []Listener
	Pools() []Pool
	Pool(name string) (Pool, error)
	Backends(pool string) ([]Backend, error) // "" for those of all pools
	Backend(pool, name string) (Backend, error)

	AddBackend(pool string, b NewBackend) (Backend, error)
	ChangeBackend(pool, name string, c BackendChange) (Backend, error)
	RemoveBackend(pool, name string, from Origin) (*Sharing, error)
	DrainBackend(pool, name string, d Drain) (Backend, error)

	Sessions(ctx context.Context, f SessionFilter) (SessionList, error)
	EndSessions(ctx context.Context, f SessionFilter) (int, error)
	Explain(q ExplainQuery) (Explanation, error)

	AccessRules() []AccessRule // sorted by listener and prefix
	AddAccessRule(r NewAccessRule) (AccessRule, error)
	// of every listener for ""
	RemoveAccessRule(prefix, listener string, from Origin) (*Sharing, error)
	CheckAccess(q AccessQuery) (AccessCheck, error)
	Clients(q ClientQuery) (ClientList, error)

	FleetChanges() ([]FleetChange, error) // the latest first; the error wraps ErrNoFleet

	PurgeDNS(listener string, p DNSPurge) (int, error) // returns how many answers were removed

	Fleet() (Fleet, error)
	CompareFleet() (FleetComparison, error)

	Reload(ctx context.Context) (Reloaded, error)
	Plan(ctx context.Context, c *Configuration) (Plan, error) // nil for the daemon's own file as it is now
	Upgrade(ctx context.Context, u Upgrade) (Upgraded, error) // goes on when ctx is done

	LogLevel() LogLevel
	// SetLogLevel sets the level for that time, or for 0 until the next call or reload. by says who wants it.
	SetLogLevel(level string, lasts time.Duration, by string) error

	// Events returns the events from now on, and the function that ends the subscription. The channel is closed by stop
	// and when the daemon ends. A slow reader loses events; the next event counts them in Lost.
	Events() (events <-chan Event, stop func())

	Ready() error                   // nil from the first verdicts on until a drain begins
	Live(ctx context.Context) error // nil if every loop answers before ctx is done
}

// Status is the state of the daemon at one moment.
type Status struct {
	Version     string     `json:"version"`
	PID         int        `json:"pid"`
	Config      string     `json:"config"` // the path of the file
	State       string     `json:"state"`  // starting, serving or draining
	Started     time.Time  `json:"started"`
	Sessions    int        `json:"sessions"`
	MaxSessions int        `json:"max_sessions"`
	LogLevel    string     `json:"log_level"`
	Loops       []Loop     `json:"loops"`
	Listeners   []Listener `json:"listeners"`
	Pools       []Pool     `json:"pools"`
	Reloads     Reloads    `json:"reloads"`
	// between the file as it was last put in force and the run-time values
	Differences  []Difference `json:"differences"`
	NeedsRestart []string     `json:"needs_restart"` // keys whose new values need a restart
	Warnings     []string     `json:"warnings"`      // what is allowed in the file, but perhaps not meant
	StateFile    string       `json:"state_file"`    // "" if run-time changes end with the process
	StateError   string       `json:"state_error"`   // why the last write or read failed; "" if it did not

	Host         string        `json:"host"`         // the name of the machine
	ReadOnly     bool          `json:"read_only"`    // whether requests like this one may only read; the Server sets it
	Certificates []Certificate `json:"certificates"` // of listeners, then of pools, in the order of the file

	Fleet *FleetSummary `json:"fleet,omitempty"` // nil without a fleet
}

// FleetSummary is the state of a node's fleet in short.
type FleetSummary struct {
	Name        string `json:"name"`
	Node        string `json:"node"`
	Connected   bool   `json:"connected"`    // to etcd
	Error       string `json:"error"`        // why it is not, or why etcd refuses what it writes; "" if neither
	Nodes       int    `json:"nodes"`        // that have not gone, this one included
	Ready       int    `json:"ready"`        // those of them that are ready
	OtherConfig bool   `json:"other_config"` // whether most nodes run another configuration than this one
	Pending     int    `json:"pending"`      // shared changes that etcd does not have yet
	// this node's part of the rates that the nodes divide, above 0 to 1
	RateShare float64 `json:"rate_share"`
}

// Certificate is a certificate that a listener shows to clients, or a pool to backends.
type Certificate struct {
	Listener string    `json:"listener,omitempty"` // either Listener or Pool is set
	Pool     string    `json:"pool,omitempty"`
	Name     string    `json:"name"`      // as its file is called in the configuration
	NotAfter time.Time `json:"not_after"` // when it expires, or an authority in its file if that is earlier
}

// Loop is one event loop.
type Loop struct {
	Index    int    `json:"index"`
	Sessions int    `json:"sessions"`
	Turns    uint64 `json:"turns"` // how often it has woken up
}

// Reloads counts the reloads, and describes the last ones.
type Reloads struct {
	Done   int        `json:"done"`
	Failed int        `json:"failed"`
	Last   *time.Time `json:"last,omitempty"`
	Took   float64    `json:"took_seconds,omitempty"` // of the last successful one
	Error  string     `json:"error,omitempty"`        // of the last one; "" if it was successful
}

// A Difference is a value that was set at run time and that differs from the file's.
type Difference struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	What    string `json:"what"` // added, removed, weight, max_sessions, max_rate or mode
	File    string `json:"file"` // "" if the file has none
	Running string `json:"running"`
	Fleet   bool   `json:"fleet"` // the fleet shares it
}

// Dropped is a run-time value that ends with a reload.
type Dropped struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	What    string `json:"what"`    // added, removed, weight, max_sessions, max_rate or mode
	File    string `json:"file"`    // the value that replaces it; "" if there is none
	Running string `json:"running"` // the value that ends
	Why     string `json:"why"`
}

// Listener is a bound address, or several. A listener of both protocols is two of these, of one name.
type Listener struct {
	Name      string            `json:"name"`
	Protocol  string            `json:"protocol"`
	Address   string            `json:"address"`   // the first of Addresses
	Addresses []string          `json:"addresses"` // all that it listens on
	Pool      string            `json:"pool"`      // of clients that no route fits; "" if they are refused
	Pools     []string          `json:"pools"`     // all that clients may be sent to
	Sessions  int               `json:"sessions"`
	Accepted  uint64            `json:"accepted"`
	Retries   uint64            `json:"retries"`
	BytesIn   uint64            `json:"bytes_in"`
	BytesOut  uint64            `json:"bytes_out"`
	Ended     map[string]uint64 `json:"ended"`   // sessions and refusals, by reason
	Refused   map[string]uint64 `json:"refused"` // the refusals among them

	DatagramsIn  uint64            `json:"datagrams_in"`  // UDP datagrams from clients
	DatagramsOut uint64            `json:"datagrams_out"` // to clients
	Dropped      map[string]uint64 `json:"dropped"`       // datagrams in either direction, by reason
	DNS          *DNS              `json:"dns,omitempty"` // nil without DNS settings
}

// Pool is a named set of backends.
type Pool struct {
	Name      string   `json:"name"`
	Algorithm string   `json:"algorithm"`
	Listeners []string `json:"listeners"` // listeners that use it
	Check     string   `json:"check"`     // the kind of its health check; "" for none
	Discovery string   `json:"discovery"` // the kind of its discovery; "" for none
	Backends  int      `json:"backends"`
	Healthy   int      `json:"healthy"`
	Eligible  int      `json:"eligible"`
	TriesAll  bool     `json:"tries_all"`  // no backend is healthy, and all are tried
	FallsBack bool     `json:"falls_back"` // no replica is eligible, and the primary serves
	Sessions  int      `json:"sessions"`
	Waiting   int      `json:"waiting"`
	QueueMax  int      `json:"queue_max"`
	HoldMax   int      `json:"hold_max"`  // 0 without a hold
	Rivalries int      `json:"rivalries"` // how often a second backend claimed to be the primary

	LastRivalry *time.Time `json:"last_rivalry,omitempty"` // the time of the last one

	OnRemove string `json:"on_remove"` // drain or close: sessions of a backend in maintenance or that is removed
	Drain    string `json:"drain"`     // plain or safe

	// the sums of its current backends: they fall when a backend is removed
	Outcomes map[string]uint64 `json:"outcomes"`
	BytesIn  uint64            `json:"bytes_in"`
	BytesOut uint64            `json:"bytes_out"`
}

// Backend is one address that sessions are sent to.
type Backend struct {
	Pool        string `json:"pool"`
	Name        string `json:"name"`
	Address     string `json:"address"`
	Source      string `json:"source"`                // what named it: config, api, or a kind of discovery
	SourceRole  string `json:"source_role,omitempty"` // primary, replica or unknown, of a discovery that knows roles
	Weight      int    `json:"weight"`
	MaxSessions int    `json:"max_sessions"`
	MaxRate     string `json:"max_rate"` // such as "500/s burst 50"; "" is no limit
	Tier        int    `json:"tier"`
	Zone        string `json:"zone"`
	Mode        string `json:"mode"`
	Agent       string `json:"agent"` // what the agent on its host says besides; "" if nothing
	Verdict     string `json:"verdict"`
	// the result of the last check or, if that differs from the verdict, the reason of the verdict with its time
	Reason   string            `json:"reason"`
	Since    time.Time         `json:"since"` // when the verdict last changed
	Breaker  string            `json:"breaker"`
	Openings uint64            `json:"breaker_openings"`
	Eligible bool              `json:"eligible"`
	Sessions int64             `json:"sessions"`
	Outcomes map[string]uint64 `json:"outcomes"`
	BytesIn  uint64            `json:"bytes_in"`
	BytesOut uint64            `json:"bytes_out"`
	// nil unless a drain with a deadline or a removal is under way
	Drain *DrainProgress `json:"drain,omitempty"`
	Check *LastCheck     `json:"check,omitempty"` // nil if it is not checked
	// only in the answer about a change, and only with a fleet
	Sharing *Sharing `json:"sharing,omitempty"`
}

// LastCheck is the result of a backend's last health check.
type LastCheck struct {
	At      *time.Time `json:"at,omitempty"` // nil before the first one, and if other nodes check
	Took    float64    `json:"took_seconds"`
	Detail  string     `json:"detail"`
	Next    *time.Time `json:"next,omitempty"`
	Address string     `json:"address,omitempty"` // its own address for checks; "" if it has none

	Role string   `json:"role,omitempty"`        // primary or replica; "" if the check finds no role
	Lag  *float64 `json:"lag_seconds,omitempty"` // of a replica behind its primary; nil if it is not known

	Nodes []string `json:"nodes,omitempty"` // of the fleet, whose check it is; nil if it is this node's
}

// NewBackend is a backend to be added. Fields that are left out have the defaults of the configuration.
type NewBackend struct {
	Name        string `json:"name"` // "" for the address
	Address     string `json:"address"`
	Weight      *int   `json:"weight,omitempty"`
	MaxSessions int    `json:"max_sessions,omitempty"`
	MaxRate     string `json:"max_rate,omitempty"` // such as "500/s burst 50"; "" is no limit
	Tier        int    `json:"tier,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Mode        string `json:"mode,omitempty"`
	Check       string `json:"check,omitempty"` // its own address and port for checks; "" for none
	Local       bool   `json:"local,omitempty"` // see Origin
	By          string `json:"-"`               // see Origin
}

// BackendChange changes a backend; nil fields are not changed. After an error nothing is changed.
type BackendChange struct {
	Weight      *int    `json:"weight,omitempty"`
	MaxSessions *int    `json:"max_sessions,omitempty"`
	MaxRate     *string `json:"max_rate,omitempty"` // such as "500/s burst 50"; "" is no limit
	Mode        *string `json:"mode,omitempty"`
	Local       bool    `json:"local,omitempty"` // see Origin
	By          string  `json:"-"`               // see Origin
}

// Drain describes a drain: the backend gets no new sessions, and existing ones go on until Deadline has passed.
type Drain struct {
	Deadline float64 `json:"deadline_seconds"` // after which its sessions are ended; 0 for never
	Remove   bool    `json:"remove,omitempty"` // remove it from the pool after its last session
	Local    bool    `json:"local,omitempty"`  // see Origin
	By       string  `json:"-"`                // see Origin
}

// DrainProgress says how far a drain has come.
type DrainProgress struct {
	Started  time.Time  `json:"started"`
	Deadline *time.Time `json:"deadline,omitempty"`
	Sessions int64      `json:"sessions_at_start"`
	Left     int64      `json:"sessions_left"`
	Remove   bool       `json:"remove"`
}

// SessionFilter selects sessions: those to which every set field applies. Its zero value selects all.
type SessionFilter struct {
	ID       string        // as in the access line
	Listener string        //
	Pool     string        //
	Backend  string        // its name or address
	Client   string        // an address or a prefix
	MinAge   time.Duration // since it was accepted
	MinIdle  time.Duration // since bytes last moved
	Limit    int           // how many are listed; 0 is 1000. It does not limit how many are ended
}

// SessionList is a list of sessions, the oldest first.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	Total    int       `json:"total"` // how many the filter selects; more than are listed if there is a limit
}

// Session is one client connection and its backend connection.
type Session struct {
	ID       string  `json:"id"`
	Listener string  `json:"listener"`
	Client   string  `json:"client"`
	Via      string  `json:"via,omitempty"` // whose connection it is, if a PROXY header has named the client
	Pool     string  `json:"pool"`
	Backend  string  `json:"backend"` // "" while it waits for one
	Address  string  `json:"backend_address"`
	Phase    string  `json:"phase"` // see the OpenAPI document
	Age      float64 `json:"age_seconds"`
	Idle     float64 `json:"idle_seconds"`
	BytesIn  uint64  `json:"bytes_in"`
	BytesOut uint64  `json:"bytes_out"`
	Retries  int     `json:"retries"`
}

// ExplainQuery is the query of an explanation. Either Listener or Pool is set.
type ExplainQuery struct {
	Listener string
	Pool     string
	Client   string // an address, or an address and port

	// what the client's ClientHello says, for routes and pools that go by the server name
	SNI  string   // "": no server name
	ALPN []string // the protocols that it offers

	MQTTClientID string // what its CONNECT says, for pools that go by it; "": no identifier
}

// Explanation is the choice of a backend with its reasons.
type Explanation struct {
	Listener  string `json:"listener,omitempty"`
	Pool      string `json:"pool"` // "" if no route fits the client
	Client    string `json:"client"`
	Algorithm string `json:"algorithm"`
	// whether the next client gets Backend, if nothing changes before; otherwise it gets one of Candidates
	Deterministic bool   `json:"deterministic"`
	DecidedBy     string `json:"decided_by"`        // algorithm, sticky, trial or nothing
	Backend       string `json:"backend,omitempty"` // "" if none
	Address       string `json:"backend_address,omitempty"`
	// the reason in the access line if there is no backend; "queued" if the client would wait
	Refusal string `json:"refusal,omitempty"`
	// whether the client may come in at the listener; nil for a pool, or if that is not known
	Access     *AccessDecision `json:"access,omitempty"`
	Candidates []Candidate     `json:"candidates"` // in the tier that decides, in its order
	Others     []NotPicked     `json:"others"`     // all other backends, and why they are not candidates
	Text       string          `json:"text"`       // the explanation in a few sentences
}

// Candidate is a backend that could be picked.
type Candidate struct {
	Backend  string  `json:"backend"`
	Weight   int     `json:"weight"`
	Share    float64 `json:"share"` // of its weight; below 1 during a slow start
	Sessions int64   `json:"sessions"`
}

// NotPicked is a backend that cannot be picked.
type NotPicked struct {
	Backend string `json:"backend"`
	Why     string `json:"why"`    // from a closed set
	Reason  string `json:"reason"` // the same in words
}

// Configuration is a configuration that is not in force.
type Configuration struct {
	Name string // its name in messages
	Text []byte // TOML
}

// Plan is what a reload will do, or has done.
type Plan struct {
	Config    string           `json:"config"`
	Same      bool             `json:"same"` // whether nothing changes
	Listeners []ListenerChange `json:"listeners"`
	Pools     []PoolChange     `json:"pools"`
	Settings  []Change         `json:"settings"` // of [global], [log], [admin] and [metrics]
	// sessions that run to their end, but whose listener or backend gets no new ones
	Drained      int          `json:"drained"`
	Ended        int          `json:"ended"`         // sessions that are ended
	Differences  []Difference `json:"differences"`   // run-time values that override the file's
	Dropped      []Dropped    `json:"dropped"`       // run-time values that end
	NeedsRestart []string     `json:"needs_restart"` // keys that need a restart
	Warnings     []string     `json:"warnings"`
}

// ListenerChange is the change of one listener.
type ListenerChange struct {
	Name      string   `json:"name"`
	Protocol  string   `json:"protocol"`
	What      string   `json:"what"`      // kept, changed, added, removed or rebound
	Address   string   `json:"address"`   // the first of Addresses
	Addresses []string `json:"addresses"` // all that it will listen on, or did if it is removed
	Changes   []Change `json:"changes"`
	Sessions  int      `json:"sessions"` // its current sessions
}

// PoolChange is the change of one pool.
type PoolChange struct {
	Name     string        `json:"name"`
	What     string        `json:"what"` // kept, changed, added or removed
	Changes  []Change      `json:"changes"`
	Backends []BackendPlan `json:"backends"` // those that change
	// the share of hash keys that get another backend; nil if the algorithm does not hash
	KeysMoved *float64 `json:"keys_moved,omitempty"`
}

// BackendPlan is the change of one backend.
type BackendPlan struct {
	Name     string   `json:"name"`
	Address  string   `json:"address"`
	What     string   `json:"what"` // added, removed, changed or replaced
	Changes  []Change `json:"changes"`
	Sessions int64    `json:"sessions"`
}

// Change is the change of one value.
type Change struct {
	Key  string `json:"key"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Reloaded is the result of a reload.
type Reloaded struct {
	Took float64 `json:"took_seconds"`
	Plan Plan    `json:"plan"`
}

// Event is one event of the daemon.
type Event struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // see EventKinds
	Pool    string    `json:"pool,omitempty"`
	Backend string    `json:"backend,omitempty"`
	Address string    `json:"backend_address,omitempty"`
	From    string    `json:"from,omitempty"`
	To      string    `json:"to,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Text    string    `json:"text,omitempty"` // what the fields do not say
	Lost    uint64    `json:"lost,omitempty"` // how many events before this one the reader has lost
}

// EventKinds lists the kinds of events.
func EventKinds() []string {
	return []string{
		"backend_added", "backend_removed", "verdict_changed", "mode_changed", "weight_changed", "max_sessions_changed",
		"max_rate_changed", "check_changed", "role_changed", "agent_changed", "breaker_changed",
		"run_time_change_dropped", "discovered", "drained", "reloaded",
		"reload_failed", "tls_reloaded", "tls_reload_failed", "access_reloaded", "access_reload_failed", "log_level_changed",
		"dns_purged", "access_rule_added", "access_rule_removed", "access_rule_expired", "upgraded",
		"upgrade_failed", "draining", "fleet_node_joined", "fleet_node_left",
	}
}
