package gate

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// Limits are what one client, and all of a listener's clients together, may have. The zero value is without a limit. It
// is a value, and comparable.
//
// A client is a prefix of addresses. Sessions, flows and DNS questions count alike.
type Limits struct {
	ClientSessions int        // at once, for one client, of TCP; 0 = without a limit
	ClientRate     rate.Limit // new ones of one client
	Rate           rate.Limit // new ones of all clients

	SessionBandwidth int64 // of one session or flow, each direction, in bytes a second; 0 = without a limit
	ClientBandwidth  int64 // of all sessions and flows of one client, the same

	Prefix4, Prefix6 int // how long a client's prefix is; 0 = 32, and 64
	Tracked          int // how many clients are known at most; 0 = 1,000,000

	// Track says that clients are known also where no limit needs it.
	Track bool

	Over   Over // what becomes of who is over a limit, max_sessions included
	DryRun bool // that is counted and logged only; max_sessions holds all the same
}

// An Over is what becomes of clients that are over a limit. Datagrams are dropped, whatever it is.
type Over uint8

// The ways.
const (
	OverRefuse Over = iota // turned away as any other client that cannot be served
	OverReset              // with a RST
	OverClose              // with a FIN
	OverDrop               // without a word: the client waits until it gives up
	// OverDelay leaves clients in the kernel's queue while the listener or the process is over a limit. Who is over a
	// limit for one client is reset: the kernel's queue has no order but one.
	OverDelay
	OverTell // the client is told why in its own protocol
)

// String returns the way as the configuration calls it; "" for OverRefuse.
func (o Over) String() string {
	return [...]string{
		OverRefuse: "", OverReset: "reset", OverClose: "close", OverDrop: "drop", OverDelay: "delay", OverTell: "protocol",
	}[o]
}

// The bounds of Limits.
const (
	MaxClientSessions = 1_000_000
	MinBandwidth      = 1 << 10 // bytes a second
	MaxBandwidth      = 1 << 40
	MinTracked        = shardCount * ways
	MaxTracked        = 10_000_000
	DefaultTracked    = 1_000_000
	DefaultPrefix4    = 32
	DefaultPrefix6    = 64
)

// Validate returns what is wrong with the limits.
func (l *Limits) Validate() error {
	for name, r := range map[string]rate.Limit{"client_rate": l.ClientRate, "rate": l.Rate} {
		if r.On() && (r.Every < rate.MinEvery || r.Every > rate.MaxEvery || r.Burst < 1 || r.Burst > rate.MaxBurst) {
			return fmt.Errorf("%s of one in %v, %d at once", name, r.Every, r.Burst)
		}
	}
	for name, b := range map[string]int64{
		"session_bandwidth": l.SessionBandwidth, "client_bandwidth": l.ClientBandwidth,
	} {
		if b != 0 && (b < MinBandwidth || b > MaxBandwidth) {
			return fmt.Errorf("%s of %d bytes a second", name, b)
		}
	}
	switch {
	case l.ClientSessions < 0 || l.ClientSessions > MaxClientSessions:
		return fmt.Errorf("%d client_sessions", l.ClientSessions)
	case l.Prefix4 < 0 || l.Prefix4 > 32 || l.Prefix6 < 0 || l.Prefix6 > 128:
		return errors.New("a client's prefix that is longer than an address")
	case l.Tracked != 0 && (l.Tracked < MinTracked || l.Tracked > MaxTracked):
		return fmt.Errorf("%d tracked clients", l.Tracked)
	case l.Over > OverTell:
		return errors.New("an undefined way to refuse")
	}
	return nil
}

// ClientInfo is what is known of a client at a listener; an immutable copy.
type ClientInfo struct {
	Client   netip.Prefix
	Sessions int           // now, or flows
	Rate     float64       // sessions, flows and questions a second, over the last ten seconds or so, refused ones included
	BytesIn  uint64        // from the client, since it is known
	BytesOut uint64        // to the client
	Refused  uint64        // since it is known
	Seen     time.Duration // when it came last, refused or not: since Options.Started
}

// tracks reports whether clients must be known.
func (s *Settings) tracks() bool {
	l := &s.Limits
	return l.Track || l.ClientSessions > 0 || l.ClientRate.On() || l.ClientBandwidth > 0 || s.ClientFlows > 0
}

// delayBurst is how long a listener that delays clients may be late when its rate allows the next one: what came due
// meanwhile comes in at once.
const delayBurst = 5 * time.Millisecond

// rate is the limit of the listener's clients together, of which this process has a share.
func (l *Limits) rate(share float64) rate.Limit {
	r := l.Rate.Share(share)
	if r.On() && l.Over == OverDelay {
		r.Burst = max(r.Burst, int(delayBurst/r.Every))
	}
	return r
}
