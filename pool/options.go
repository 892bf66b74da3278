package pool

import (
	"fmt"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// Options are the settings of a pool. Name and Algorithm are required; what is zero is off. New takes them, and
// Reconfigure others.
type Options struct {
	Name           string
	Algorithm      string        // one of algo.Kinds
	Initial        Verdict       // of a backend just added; Healthy when nothing checks them
	ConnectTimeout time.Duration // for one connect to a backend
	Retries        int           // further backends to try for a session when one cannot be connected to

	HashPort    bool    // the client's port counts, too, in what is hashed
	HashBalance float64 // bounded loads, see algo.Options; 0, or above 1 for an algorithm that hashes
	// of each tier, backends of this zone come first while one of them is eligible; "" = no preference
	Zone string

	// SlowStart is how long a backend takes to grow into its weight once it has recovered, come back into use or come
	// into a pool that serves already. Those that a pool begins with have their weight at once.
	SlowStart time.Duration

	StickyTTL time.Duration // a client returns to its backend within that time
	// clients remembered; past it, of those a new one competes with, the one not seen for longest goes
	StickyEntries int

	QueueMax     int           // sessions that may wait when every eligible backend is at its max_sessions
	QueueTimeout time.Duration // how long one may; whoever waits keeps it, see Wait

	// when no backend is healthy, all that are enabled are eligible, but for those of the wrong role
	TryAllWhenNone   bool
	CloseOnUnhealthy bool // leases on a backend that becomes unhealthy or has the wrong role are revoked
	CloseOnRemove    bool // leases on a backend that is removed or goes into maintenance are revoked

	// Checked says that somebody checks the backends. Then what only hints at trouble is theirs to look into, see
	// Suspected.
	Checked bool

	// Breaker says when what traffic shows of a backend keeps sessions away from it.
	Breaker BreakerOptions

	// Clock is what time it is, for slow start, stickiness, breakers and least_time: monotonic and never negative. Nil
	// is the time since New. A simulation has its own. It is the only option that a pool keeps for life.
	Clock func() time.Duration
}

// CheckOptions returns the error that New or Reconfigure would return for o, and makes no pool.
// An unknown algorithm is an *algo.UnknownKindError; settings that make no sense are refused, too.
func CheckOptions(o Options) error {
	if _, err := algo.Build(o.Algorithm, nil, algo.Options{}); err != nil {
		return fmt.Errorf("pool %s: %w", o.Name, err)
	}
	return o.check()
}

// check returns what is wrong with options of a known algorithm.
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
	case o.QueueMax < 0 || o.QueueTimeout < 0:
		return refuse("queue of", fmt.Sprintf("%d for %v", o.QueueMax, o.QueueTimeout))
	case !o.Breaker.valid():
		return refuse("breaker of", fmt.Sprintf("%+v", o.Breaker))
	}
	return nil
}

// kind describes the algorithm; its zero value one that there is not.
func (o Options) kind() algo.Kind { return algo.KindOf(o.Algorithm) }
