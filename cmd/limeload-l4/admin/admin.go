// Package admin is the daemon's control API: HTTP and JSON on the admin socket, with /metrics, /ready and /live beside it, and
// the client that the command line speaks through.
//
// It decides nothing and keeps nothing of its own: each request becomes one call of a Balancer, and its answer JSON. The
// routes are described in openapi.yaml; a test holds the two together.
//
// Server and Client may be used from any goroutine.
package admin

import (
	"context"
	"time"
)

// A Balancer is the running daemon, as the API needs it. Its methods may be called from any goroutine.
//
// It has more methods than an interface should: it is the API's whole contract, one method for each route, so that the tests
// of this package need no daemon, and the daemon's no HTTP.
//
// Errors that a caller can do something about are of the types in errors.go and those of package pool; anything else is the
// daemon's own failure.
type Balancer interface {
	Status() Status
	Listeners() []Listener
	Pools() []Pool
	Pool(name string) (Pool, error)
	Backends(pool string) ([]Backend, error) // "" is those of all pools
	Backend(pool, name string) (Backend, error)

	AddBackend(pool string, b NewBackend) (Backend, error)
	ChangeBackend(pool, name string, c BackendChange) (Backend, error)
	RemoveBackend(pool, name string) error
	DrainBackend(pool, name string, d Drain) (Backend, error)

	Sessions(ctx context.Context, f SessionFilter) (SessionList, error)
	EndSessions(ctx context.Context, f SessionFilter) (int, error)
	Explain(q ExplainQuery) (Explanation, error)

	PurgeDNS(listener string, p DNSPurge) (int, error) // how many answers were forgotten

	Reload(ctx context.Context) (Reloaded, error)
	Plan(ctx context.Context, c *Configuration) (Plan, error) // nil is the daemon's own file as it is now

	LogLevel() string
	SetLogLevel(level string) error

	// Events returns what happens from now on, and how to end that. The channel is closed by stop and when the daemon ends;
	// a reader who is too slow loses events, which the next one counts in Lost.
	Events() (events <-chan Event, stop func())

	Ready() error                   // nil while new sessions are taken: not before the first checks, not from a drain's beginning on
	Live(ctx context.Context) error // nil when every loop answers before ctx is done
}

// Status is the daemon at one moment.
type Status struct {
	Version      string       `json:"version"`
	PID          int          `json:"pid"`
	Config       string       `json:"config"` // the file's path
	State        string       `json:"state"`  // starting, serving or draining
	Started      time.Time    `json:"started"`
	Sessions     int          `json:"sessions"`
	MaxSessions  int          `json:"max_sessions"`
	LogLevel     string       `json:"log_level"`
	Loops        []Loop       `json:"loops"`
	Listeners    []Listener   `json:"listeners"`
	Pools        []Pool       `json:"pools"`
	Reloads      Reloads      `json:"reloads"`
	Differences  []Difference `json:"differences"`   // between the file as it was applied last and what is in force
	NeedsRestart []string     `json:"needs_restart"` // keys whose new values the process cannot take up while it runs
	Warnings     []string     `json:"warnings"`      // what is allowed in the file, and perhaps not meant
	StateFile    string       `json:"state_file"`    // "" if run-time changes end with the process
	StateError   string       `json:"state_error"`   // why it could not be written or read last; "" if it could
}

// Loop is one event loop.
type Loop struct {
	Index    int    `json:"index"`
	Sessions int    `json:"sessions"`
	Turns    uint64 `json:"turns"` // how often it woke up
}

// Reloads is what became of all reloads.
type Reloads struct {
	Done   int        `json:"done"`
	Failed int        `json:"failed"`
	Last   *time.Time `json:"last,omitempty"`
	Took   float64    `json:"took_seconds,omitempty"` // the last one that was done
	Error  string     `json:"error,omitempty"`        // of the last one; "" if it was done
}

// A Difference is a value that was set at run time and that the file does not have.
type Difference struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	What    string `json:"what"` // added, removed, weight, max_sessions or mode
	File    string `json:"file"` // "" where that is nothing
	Running string `json:"running"`
}

// Dropped is a value that was set at run time and that ends with a reload.
type Dropped struct {
	Pool    string `json:"pool"`
	Backend string `json:"backend"`
	What    string `json:"what"`    // added, removed, weight, max_sessions or mode
	File    string `json:"file"`    // what holds instead; "" where that is nothing
	Running string `json:"running"` // what ends
	Why     string `json:"why"`
}

// Listener is a bound address.
type Listener struct {
	Name     string            `json:"name"`
	Protocol string            `json:"protocol"`
	Address  string            `json:"address"`
	Pool     string            `json:"pool"`
	Sessions int               `json:"sessions"`
	Accepted uint64            `json:"accepted"`
	Retries  uint64            `json:"retries"`
	BytesIn  uint64            `json:"bytes_in"`
	BytesOut uint64            `json:"bytes_out"`
	Ended    map[string]uint64 `json:"ended"` // sessions and refusals, by reason

	DatagramsIn  uint64            `json:"datagrams_in"`  // of UDP, from clients
	DatagramsOut uint64            `json:"datagrams_out"` // to clients
	Dropped      map[string]uint64 `json:"dropped"`       // datagrams of either way, by reason
	DNS          *DNS              `json:"dns,omitempty"` // nil without DNS settings
}

// Pool is a named set of backends.
type Pool struct {
	Name      string   `json:"name"`
	Algorithm string   `json:"algorithm"`
	Listeners []string `json:"listeners"` // that send to it
	Check     string   `json:"check"`     // the kind of its health check; "" without
	Discovery string   `json:"discovery"` // the kind of its discovery; "" without
	Backends  int      `json:"backends"`
	Healthy   int      `json:"healthy"`
	Eligible  int      `json:"eligible"`
	TriesAll  bool     `json:"tries_all"` // nobody is healthy, and all are tried
	Sessions  int      `json:"sessions"`
	Waiting   int      `json:"waiting"`
	QueueMax  int      `json:"queue_max"`
	Rivalries int      `json:"rivalries"` // how often a second backend claimed to be the primary

	LastRivalry *time.Time `json:"last_rivalry,omitempty"` // when that was last
}

// Backend is one address that sessions are sent to.
type Backend struct {
	Pool        string            `json:"pool"`
	Name        string            `json:"name"`
	Address     string            `json:"address"`
	Source      string            `json:"source"` // who named it: config, api, or a kind of discovery
	Weight      int               `json:"weight"`
	MaxSessions int               `json:"max_sessions"`
	Tier        int               `json:"tier"`
	Zone        string            `json:"zone"`
	Mode        string            `json:"mode"`
	Verdict     string            `json:"verdict"`
	Reason      string            `json:"reason"` // of the verdict, by what the last check found; what is past has its time
	Since       time.Time         `json:"since"`  // of the verdict
	Breaker     string            `json:"breaker"`
	Openings    uint64            `json:"breaker_openings"`
	Eligible    bool              `json:"eligible"`
	Sessions    int64             `json:"sessions"`
	Outcomes    map[string]uint64 `json:"outcomes"`
	BytesIn     uint64            `json:"bytes_in"`
	BytesOut    uint64            `json:"bytes_out"`
	Drain       *DrainProgress    `json:"drain,omitempty"` // while one with a deadline is under way
	Check       *LastCheck        `json:"check,omitempty"` // nil where nothing checks it
}

// LastCheck is what a backend's health check came to last.
type LastCheck struct {
	At      *time.Time `json:"at,omitempty"` // nil before the first
	Took    float64    `json:"took_seconds"`
	Detail  string     `json:"detail"`
	Next    *time.Time `json:"next,omitempty"`
	Address string     `json:"address,omitempty"` // where it is checked, if the backend says so; "" is at its own, and the port of the pool's check
}

// NewBackend is a backend to be added; what is left out has the default of the configuration.
type NewBackend struct {
	Name        string `json:"name"` // "" is the address
	Address     string `json:"address"`
	Weight      *int   `json:"weight,omitempty"`
	MaxSessions int    `json:"max_sessions,omitempty"`
	Tier        int    `json:"tier,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Mode        string `json:"mode,omitempty"`
	Check       string `json:"check,omitempty"` // where it is checked, an address and a port; "" is at its own
}

// BackendChange is what to change of a backend; nil is left as it is. All of it is done or, on an error, nothing.
type BackendChange struct {
	Weight      *int    `json:"weight,omitempty"`
	MaxSessions *int    `json:"max_sessions,omitempty"`
	Mode        *string `json:"mode,omitempty"`
}

// Drain says how a backend is to be drained: it gets no new sessions, and those it has go on until Deadline has passed.
type Drain struct {
	Deadline float64 `json:"deadline_seconds"` // then its sessions are ended; 0 is never
	Remove   bool    `json:"remove,omitempty"` // take it out of the pool when its last session is gone
}

// DrainProgress is how far a drain has come.
type DrainProgress struct {
	Started  time.Time  `json:"started"`
	Deadline *time.Time `json:"deadline,omitempty"`
	Sessions int64      `json:"sessions_at_start"`
	Left     int64      `json:"sessions_left"`
	Remove   bool       `json:"remove"`
}

// SessionFilter says which sessions are meant: those to which all that is set applies. Its zero value is all of them.
type SessionFilter struct {
	ID       string        // as in the access line
	Listener string        //
	Pool     string        //
	Backend  string        // its name or address
	Client   string        // an address or a prefix
	MinAge   time.Duration // since it was accepted
	MinIdle  time.Duration // since bytes last moved
	Limit    int           // of those listed; 0 is 1000. It does not bound what is ended
}

// SessionList is sessions, the oldest first.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	Total    int       `json:"total"` // to which the filter applies, more than are listed if there is a limit
}

// Session is one client's connection and its backend's.
type Session struct {
	ID       string  `json:"id"`
	Listener string  `json:"listener"`
	Client   string  `json:"client"`
	Pool     string  `json:"pool"`
	Backend  string  `json:"backend"` // "" while it waits for one
	Address  string  `json:"backend_address"`
	Phase    string  `json:"phase"` // asking, queued, connecting or relaying
	Age      float64 `json:"age_seconds"`
	Idle     float64 `json:"idle_seconds"`
	BytesIn  uint64  `json:"bytes_in"`
	BytesOut uint64  `json:"bytes_out"`
	Retries  int     `json:"retries"`
}

// ExplainQuery asks where a client would be sent. Either Listener or Pool is set.
type ExplainQuery struct {
	Listener string
	Pool     string
	Client   string // an address, or an address and port
}

// Explanation is a decision and its whole reason. Nothing is changed by asking.
type Explanation struct {
	Listener      string      `json:"listener,omitempty"`
	Pool          string      `json:"pool"`
	Client        string      `json:"client"`
	Algorithm     string      `json:"algorithm"`
	Deterministic bool        `json:"deterministic"`     // the next pick is this one, if nothing changes before; else one of Candidates
	DecidedBy     string      `json:"decided_by"`        // algorithm, sticky, trial or nothing
	Backend       string      `json:"backend,omitempty"` // "" if none
	Address       string      `json:"backend_address,omitempty"`
	Refusal       string      `json:"refusal,omitempty"` // why there is none, as a session's reason; "queued" if it would wait
	Candidates    []Candidate `json:"candidates"`        // of the tier that decides, in its order
	Others        []NotPicked `json:"others"`            // every other backend, and why it is none
	Text          string      `json:"text"`              // all of it in a few sentences
}

// Candidate is a backend that could be picked.
type Candidate struct {
	Backend  string  `json:"backend"`
	Weight   int     `json:"weight"`
	Share    float64 `json:"share"` // of its weight, below 1 while it starts slowly
	Sessions int64   `json:"sessions"`
}

// NotPicked is a backend that cannot be picked.
type NotPicked struct {
	Backend string `json:"backend"`
	Why     string `json:"why"`    // a word of a closed set
	Reason  string `json:"reason"` // in words
}

// Configuration is a configuration that is not in force.
type Configuration struct {
	Name string // what messages call it
	Text []byte // TOML
}

// Plan is what the daemon will do, or has just done, to take up a configuration.
type Plan struct {
	Config       string           `json:"config"`
	Same         bool             `json:"same"` // nothing changes
	Listeners    []ListenerChange `json:"listeners"`
	Pools        []PoolChange     `json:"pools"`
	Settings     []Change         `json:"settings"`      // of [global], [log] and [admin]
	Drained      int              `json:"drained"`       // sessions that go on to their end where nothing new goes
	Ended        int              `json:"ended"`         // sessions that are ended
	Differences  []Difference     `json:"differences"`   // run-time values that stay in force over the file's
	Dropped      []Dropped        `json:"dropped"`       // run-time values that end
	NeedsRestart []string         `json:"needs_restart"` // keys that change nothing before a restart
	Warnings     []string         `json:"warnings"`
}

// ListenerChange is what becomes of one listener.
type ListenerChange struct {
	Name     string   `json:"name"`
	What     string   `json:"what"` // kept, changed, added, removed or rebound
	Address  string   `json:"address"`
	Changes  []Change `json:"changes"`
	Sessions int      `json:"sessions"` // it has now
}

// PoolChange is what becomes of one pool.
type PoolChange struct {
	Name      string        `json:"name"`
	What      string        `json:"what"` // kept, changed, added or removed
	Changes   []Change      `json:"changes"`
	Backends  []BackendPlan `json:"backends"`             // those that do not stay as they are
	KeysMoved *float64      `json:"keys_moved,omitempty"` // share of hash keys that go elsewhere; nil where the algorithm does not hash
}

// BackendPlan is what becomes of one backend.
type BackendPlan struct {
	Name     string   `json:"name"`
	Address  string   `json:"address"`
	What     string   `json:"what"` // added, removed, changed or replaced
	Changes  []Change `json:"changes"`
	Sessions int64    `json:"sessions"`
}

// Change is one value that changes.
type Change struct {
	Key  string `json:"key"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Reloaded is what a reload did.
type Reloaded struct {
	Took float64 `json:"took_seconds"`
	Plan Plan    `json:"plan"`
}

// Event is one thing that happened.
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
	Lost    uint64    `json:"lost,omitempty"` // events before this one that the reader was too slow for
}

// EventKinds lists the kinds of events.
func EventKinds() []string {
	return []string{
		"backend_added", "backend_removed", "verdict_changed", "mode_changed", "weight_changed", "max_sessions_changed", "check_changed",
		"breaker_changed", "run_time_change_dropped", "discovered", "drained", "reloaded", "reload_failed", "log_level_changed", "dns_purged", "draining",
	}
}
