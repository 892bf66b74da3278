package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// Options are the settings of a pool. Name and Algorithm are required. Zero values turn features off.
type Options struct {
	Name           string
	Algorithm      string        // one of algo.Kinds
	Initial        Verdict       // verdict of an added backend; Healthy for pools without checks
	ConnectTimeout time.Duration // for one connect to a backend
	Retries        int           // further backends to try for a session when one cannot be connected to

	HashPort    bool    // hash the client's port too
	HashName    bool    // hash the session's name instead, if it has one
	HashBalance float64 // bounded loads, see algo.Options; 0, or above 1 for an algorithm that hashes
	// Zone is preferred: of each tier, its backends come first while one of them is eligible. "" is no preference.
	Zone string

	// SlowStart is the time in which a backend's weight grows to its full value after the backend has recovered, is
	// back in use, or was added to a pool that already serves. The first backends of a pool have their full weight at
	// once.
	SlowStart time.Duration

	StickyTTL time.Duration // a client returns to its backend within that time
	// StickyEntries is how many clients are remembered. Beyond that a new client replaces the least recently seen one
	// of its set.
	StickyEntries int
	StickyName    bool // remember the session's name instead of the client's address, if it has one

	// NamedBy is what a session's name is, see PickContext. It counts with HashName and StickyName only.
	NamedBy NameKind

	QueueMax     int           // sessions that may wait when every eligible backend is at its max_sessions
	QueueTimeout time.Duration // how long a session may wait so; it keeps the value it began with, see Wait

	HoldMax     int           // sessions that may wait while no backend is eligible
	HoldTimeout time.Duration // how long a session may wait so, see Hold; 0: none waits

	// SendProxy is the version of the PROXY protocol, 1 or 2, of the header that the backends get first on each TCP
	// connection of a session; 0 is no header.
	SendProxy int

	// With TryAllWhenNone, if no backend is healthy, all enabled backends but those of the wrong role are eligible.
	TryAllWhenNone   bool
	CloseOnUnhealthy bool // leases on a backend that becomes unhealthy or has the wrong role are revoked
	CloseOnRemove    bool // leases on a backend that is removed or goes into maintenance are revoked

	// With DrainSafely, sessions that could be ended without a loss are asked to leave a backend that gets no more.
	DrainSafely bool
	Rebalance   Rebalance

	// Source are the local addresses of connections to backends, each used in turn. Without any, the kernel chooses.
	// A backend of a family that Source lacks cannot be connected to.
	Source []netip.Addr
	// CongestionControl is the algorithm of TCP connections to backends, by the kernel's name. "" is the system's.
	CongestionControl string

	// LoopbackCongestionControl is the algorithm of those to loopback addresses if CongestionControl is "".
	LoopbackCongestionControl string

	// Secure is what TCP connections to the backends are encrypted with; nil is nothing. The pool only keeps it: it is
	// for whoever connects. Two options with different pointers are different, whatever they point to.
	Secure any

	// Checked says that the backends are health-checked. Then hints at trouble lead to a check and do not count as
	// failures; see Suspected.
	Checked bool

	// Breaker has the settings of the backends' breakers.
	Breaker BreakerOptions

	// Clock returns the time for slow start, stickiness, breakers and least_time; it is monotonic and never negative.
	// Nil is the time since New; a simulation sets its own. It is the only option that Reconfigure does not change.
	Clock func() time.Duration
}

// CheckOptions returns the error that New or Reconfigure would return for o, and makes no pool. The error wraps an
// *algo.UnknownKindError for an unknown algorithm; settings that contradict each other are refused too.
func CheckOptions(o Options) error {
	if _, err := algo.Build(o.Algorithm, nil, algo.Options{}); err != nil {
		return fmt.Errorf("pool %s: %w", o.Name, err)
	}
	return o.check()
}

// check returns the error of options with a known algorithm.
func (o Options) check() error {
	refuse := func(what string, value any) error {
		return fmt.Errorf("pool %s: %s %v", o.Name, what, value)
	}
	switch {
	case o.Initial > Unhealthy:
		return refuse("undefined initial", o.Initial)
	case o.ConnectTimeout < 0:
		return refuse("negative connect timeout", o.ConnectTimeout)
	case o.Retries < 0:
		return refuse("negative number of retries", o.Retries)
	case o.HashBalance != 0 && !(o.HashBalance > 1): // in this form NaN is refused, too
		return refuse("hash balance not above 1:", o.HashBalance)
	case o.HashBalance != 0 && !o.kind().Hash:
		return refuse("a hash balance for the algorithm", o.Algorithm)
	case o.SlowStart < 0:
		return refuse("negative slow start", o.SlowStart)
	case o.StickyTTL < 0 || o.StickyTTL > 0 && o.StickyEntries <= 0:
		return refuse("stickiness of", fmt.Sprintf("%d clients for %v", o.StickyEntries, o.StickyTTL))
	case o.NamedBy > MQTTClientID:
		return refuse("undefined names", o.NamedBy)
	case o.QueueMax < 0 || o.QueueTimeout < 0:
		return refuse("queue of", fmt.Sprintf("%d for %v", o.QueueMax, o.QueueTimeout))
	case o.HoldMax < 0 || o.HoldTimeout < 0 || o.HoldTimeout > 0 && o.HoldMax == 0:
		return refuse("hold of", fmt.Sprintf("%d for %v", o.HoldMax, o.HoldTimeout))
	case o.SendProxy < 0 || o.SendProxy > 2:
		return refuse("undefined version of the PROXY protocol", o.SendProxy)
	case slices.ContainsFunc(o.Source, func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }):
		return refuse("source of", o.Source)
	case !o.Breaker.valid():
		return refuse("breaker of", fmt.Sprintf("%+v", o.Breaker))
	}
	return o.Rebalance.check(&o)
}

// kind returns the algorithm's description; the zero value if the algorithm is unknown.
func (o Options) kind() algo.Kind { return algo.KindOf(o.Algorithm) }
