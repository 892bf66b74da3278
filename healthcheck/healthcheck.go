// Package healthcheck finds out which targets answer: when to check is the Scheduler's part, how is a Checker's, one file
// per kind of check.
//
// It knows nothing of pools and sessions and does not log. It reports each change of a verdict to the function it was
// given, and to another one which checks find nothing out, and nothing else.
//
// Add, Update, Move, Remove and Stats may be called from any goroutine, before Run and while it runs. All reports come from
// the goroutine that called Run, one at a time.
package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

var (
	// ErrDuplicateTarget is wrapped by the error of Add when the scheduler has a target of that id.
	ErrDuplicateTarget = errors.New("healthcheck: a target of this id exists already")
	// ErrUnknownTarget is wrapped by the error of Update when the scheduler has no target of that id.
	ErrUnknownTarget = errors.New("healthcheck: there is no target of this id")
	// ErrRan is returned by a second Run of one scheduler.
	ErrRan = errors.New("healthcheck: the scheduler ran already")
	// ErrInconclusive is wrapped by the error of a check that says nothing about its target, such as one that had no
	// file descriptor. It counts neither as a success nor as a failure, and the verdict stays, however long that lasts.
	ErrInconclusive = errors.New("healthcheck: the check says nothing about the target")
	// ErrWrongRole is wrapped by the error of a check whose target works, and is not what is wanted of it: a replica where
	// a primary is, or the other way round.
	ErrWrongRole = errors.New("healthcheck: the target has another role")
	// ErrLagging is wrapped by the error of a check whose target works, and is too far behind its primary.
	ErrLagging = errors.New("healthcheck: the target is behind its primary")
	// ErrCredentials is wrapped by the error of a check whose target answers and does not take the credentials that the check
	// shows, or does not give their user the rights that the check needs. That may be a mistake of whoever configured the check:
	// see Credentials.
	ErrCredentials = errors.New("healthcheck: the target refuses the credentials of the check")
)

// A Verdict is what the checks say of a target. The zero value is Unknown.
type Verdict uint8

// The verdicts.
const (
	Unknown   Verdict = iota // not checked often enough yet, or not for too long
	Healthy                  // the last checks succeeded
	Unhealthy                // the last checks failed
	WrongRole                // they found the target at work, and with another role than wanted: ErrWrongRole
	Lagging                  // they found it at work, and too far behind: ErrLagging
)

// verdictOf returns what one check says by itself.
func verdictOf(err error) Verdict {
	switch {
	case err == nil:
		return Healthy
	case errors.Is(err, ErrWrongRole):
		return WrongRole
	case errors.Is(err, ErrLagging):
		return Lagging
	}
	return Unhealthy
}

// String returns the verdict as a lower-case word.
func (v Verdict) String() string {
	switch v {
	case Unknown:
		return "unknown"
	case Healthy:
		return "healthy"
	case Unhealthy:
		return "unhealthy"
	case WrongRole:
		return "wrong_role"
	case Lagging:
		return "lagging"
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// A Target is what is checked. It is a plain value.
type Target struct {
	ID    string // opaque; unique in its scheduler. Messages name the target by it
	Group string // opaque; its checks are counted together with those of the others of this group, see Stats
	Name  string // of the target within its group; nothing here goes by it
	Addr  netip.AddrPort
	Exact bool // Addr is where to check, and not only whom: a Port of the checker does not count

	// Receiver is whom its verdicts are for. It is opaque and comparable: Options.Report finds it in each Change.
	Receiver any
}

// A Checker checks a target once.
//
// A nil error means that the check succeeded; an error says in a few words why it did not. Check must return soon after
// ctx ends. It may be called from several goroutines at once, but never twice at once for one target.
type Checker interface {
	Check(ctx context.Context, t Target) (Result, error)
}

// A Result is what a check found out. It is a plain value. One that failed for the target's role or lag may have the role
// and what follows, too; everything else is of a success.
type Result struct {
	Latency time.Duration // until the target had shown that it is healthy
	Detail  string        // what a person may want to read of it; may be empty
	Role    Role          // by the target's own word; RoleUnknown for what has none

	// Of a primary: how two that both claim to be it compare. A higher Epoch was promoted later (Postgres' timeline);
	// where there is none, the one with connected replicas has the better claim, and then the higher Offset (Redis).
	Epoch    uint64
	Offset   uint64
	Replicas int
}

// A Role is what a target of a replicated service says it is. The zero value is RoleUnknown.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota
	RolePrimary      // takes writes
	RoleReplica      // follows a primary
)

// String returns the role as in the configuration; RoleUnknown is "any".
func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleReplica:
		return "replica"
	}
	return "any"
}

// A Change says that the verdict on a target is another one. It is a plain value.
type Change struct {
	Target   Target
	From, To Verdict
	Reason   string // of the last check, or that there was none
	At       time.Time
}

// A Policy says how often a target is checked and what the results make of its verdict. It is a plain value; Add and
// Update validate it.
type Policy struct {
	Interval     time.Duration // from one check to the next
	FastInterval time.Duration // the same while the verdict is unknown or the last result contradicts it; 0 = Interval
	Timeout      time.Duration // of one check
	StaleAfter   time.Duration // a verdict without a result for so long, as a check does not end, is unknown; 0 = 3 x Interval + Timeout
	Rise         int           // consecutive successes to become healthy, at least 1
	Fall         int           // consecutive failures to become unhealthy, at least 1
	Jitter       float64       // each interval is longer or shorter by up to this share of it; 0 to below 1
	Initial      Verdict       // before the first result; of no meaning to Update
}

// An InvalidPolicyError says which part of a policy was refused, and what is allowed.
type InvalidPolicyError struct {
	Field string // as in the configuration: "interval", "fast_interval", ...
	Value string // what was given
	Want  string // what is allowed
}

// Error names the field, the value found and what is allowed.
func (e *InvalidPolicyError) Error() string {
	return fmt.Sprintf("invalid %s %s: want %s", e.Field, e.Value, e.Want)
}

// complete returns p with its defaults filled in, or an *InvalidPolicyError.
func (p Policy) complete() (Policy, error) {
	if p.FastInterval == 0 {
		p.FastInterval = p.Interval
	}
	if p.StaleAfter == 0 {
		p.StaleAfter = 3*p.Interval + p.Timeout
	}
	invalid := func(field string, value any, want string) (Policy, error) {
		return Policy{}, &InvalidPolicyError{Field: field, Value: fmt.Sprint(value), Want: want}
	}
	switch {
	case p.Interval <= 0:
		return invalid("interval", p.Interval, "more than 0s")
	case p.FastInterval < 0 || p.FastInterval > p.Interval:
		return invalid("fast_interval", p.FastInterval, "up to the interval of "+p.Interval.String())
	case p.Timeout <= 0:
		return invalid("timeout", p.Timeout, "more than 0s")
	case p.Rise < 1:
		return invalid("rise", p.Rise, "at least 1")
	case p.Fall < 1:
		return invalid("fall", p.Fall, "at least 1")
	case !(p.Jitter >= 0 && p.Jitter < 1): // in this form NaN is refused, too
		return invalid("jitter", p.Jitter, "0 to below 1")
	case p.Initial > Unhealthy:
		return invalid("initial", p.Initial, "unknown, healthy or unhealthy")
	}
	// A verdict that goes stale before the next result can be there would come and go.
	if least := p.Interval + p.Timeout; p.StaleAfter < least {
		return invalid("stale_after", p.StaleAfter, "at least interval and timeout, "+least.String())
	}
	return p, nil
}

// every returns the time from one check to the next without the jitter.
func (p Policy) every(settled bool) time.Duration {
	if settled {
		return p.Interval
	}
	return p.FastInterval
}

// delay returns the time from the start of one check to the start of the next; random is from 0 to below 1.
func (p Policy) delay(settled bool, random float64) time.Duration {
	d := p.every(settled)
	return d + time.Duration(float64(d)*p.Jitter*(2*random-1))
}
