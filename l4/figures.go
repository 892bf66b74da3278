package l4

import "github.com/limeload/limeload-l4/l4/internal/tally"

// A Reason says who ended a session or a flow, and how. The set is closed: it is a field of the access line and a label
// of metrics. docs/reasons.md explains each.
type Reason = tally.Reason

// The reasons for which a client is refused that callers tell apart.
const (
	MaxSessions    = tally.MaxSessions    // the listener or the process holds all the sessions it may
	Denied         = tally.Denied         // the access list or a rule denies the client's address
	ClientSessions = tally.ClientSessions // the client has all that it may have at once
	ClientRate     = tally.ClientRate     // the client comes more often than it may
	Rate           = tally.Rate           // the listener's clients come more often than they may
	NoBackend      = tally.NoBackend      // no backend is eligible
	BackendsFull   = tally.BackendsFull   // every eligible backend is at its max_sessions, and the pool has no queue
	QueueFull      = tally.QueueFull      // as many sessions wait for a backend as may
	HoldFull       = tally.HoldFull       // no backend is eligible, and as many sessions wait for one as may
	NoRoute        = tally.NoRoute        // no route fits the client's ClientHello, and the listener has no other pool
)

// Reasons returns every reason there is.
func Reasons() []Reason { return tally.Reasons() }

// A Drop says why a datagram did not get where it was to go. The set is closed: it is a label of metrics. docs/udp.md
// explains each.
type Drop = tally.Drop

// Drops returns every reason to drop a datagram that there is.
func Drops() []Drop { return tally.Drops() }

// A Histogram is how long something took, over all times that it did; an immutable copy.
type Histogram = tally.Histogram

// HistogramSchema is the schema of the Histograms here, as Prometheus numbers those of native histograms.
const HistogramSchema = tally.HistogramSchema

// HistogramBound is the upper bound of a bucket, which belongs to it, in seconds. The last one's is infinite.
func HistogramBound(bucket int) float64 { return tally.HistogramBound(bucket) }
