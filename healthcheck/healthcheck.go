// Package healthcheck decides when to check targets, and makes a verdict of the results. How to check is up to a
// Checker; package probe has one for each protocol.
//
// It knows nothing of pools and sessions, opens no sockets and does not log. A Scheduler reports the changes of
// verdicts, and the targets whose checks find nothing out, to the functions in its Options. A Fence and Credentials
// stand between the scheduler and a pool's checks and report to functions of their own.
//
// The methods of a Scheduler may be called from any goroutine, before Run and while it runs. Options.Report and
// Options.Blind are called by the goroutine that called Run, one at a time.
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
	// ErrInconclusive is wrapped by the error of a check that says nothing about its target, for example because there
	// was no free file descriptor. The check counts neither as a success nor as a failure. The verdict stays, however
	// long that lasts.
	ErrInconclusive = errors.New("healthcheck: the check says nothing about the target")
	// ErrWrongRole is wrapped by the error of a check whose target works but has another role than wanted: it is a
	// replica and should be a primary, or the other way round.
	ErrWrongRole = errors.New("healthcheck: the target has another role")
	// ErrLagging is wrapped by the error of a check whose target works but is too far behind its primary.
	ErrLagging = errors.New("healthcheck: the target is behind its primary")
	// ErrFallback is wrapped by the error of a check whose target works and has another role than wanted, and that may
	// nevertheless serve while no target of the wanted role can.
	ErrFallback = errors.New("healthcheck: the target has another role, and may serve for want of others")
	// ErrCredentials is wrapped by the error of a check whose target answers, but refuses the credentials of the check
	// or does not give their user the rights that the check needs. That may be a mistake in the configuration: see
	// Credentials.
	ErrCredentials = errors.New("healthcheck: the target refuses the credentials of the check")
)

// A Verdict is what the checks say of a target. The zero value is Unknown.
type Verdict uint8

// The verdicts.
const (
	Unknown   Verdict = iota // not checked often enough yet, or not for too long
	Healthy                  // the last checks succeeded
	Unhealthy                // the last checks failed
	WrongRole                // the last checks failed with ErrWrongRole
	Lagging                  // the last checks failed with ErrLagging
	Fallback                 // the last checks ended with ErrFallback
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
	case errors.Is(err, ErrFallback):
		return Fallback
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
	case Fallback:
		return "fallback"
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// A Target is something to check. It is a plain value.
type Target struct {
	ID    string         // opaque; unique in its scheduler. Messages name the target by it
	Group string         // opaque; Stats adds up the checks of each group, and groups take turns when slots are short
	Name  string         // the target's name within its group; this package does not use it
	Addr  netip.AddrPort // its port may be 0: then only checks that have a port of their own, or need none, can check it
	Path  string         // of the Unix socket that it listens on, in place of Addr; "" = none
	Exact bool           // connect to exactly Addr: a Port of the checker does not replace its port

	// Preamble is what a TCP connection to Addr's own port begins with, in front of all that the check sends; a checker
	// that wraps another one sets it. "" is nothing.
	Preamble string
	// Sources are the local addresses that connections of the check may come from. If it is nil, the kernel chooses.
	Sources *[]netip.Addr // a pointer, so that targets can be compared

	// Receiver is what the verdicts on this target are for. This package only passes it on, in each Change.
	Receiver any
}

// A Checker checks a target once.
//
// A nil error means that the check succeeded. Otherwise the error says in a few words why it failed. Check must return
// soon after ctx ends. It may be called from several goroutines at once, but never twice at once for one target.
type Checker interface {
	Check(ctx context.Context, t Target) (Result, error)
}

// A Result is what a check found out. It is a plain value. Only a check that succeeded has a Latency and a Detail. A
// check that failed with ErrWrongRole, ErrLagging or ErrFallback may have set the other fields.
type Result struct {
	Latency time.Duration // from the start of the check until the target had shown that it is healthy
	Detail  string        // what was found, for a person to read; may be empty
	Role    Role          // what the target says it is; RoleUnknown if it has no roles

	// These fields rank two targets that both claim to be the primary. The one with the higher Epoch was promoted later
	// (Postgres' timeline). With equal epochs the one with connected replicas has the better claim, and then the one
	// with the higher Offset (Redis has no epoch).
	Epoch    uint64
	Offset   uint64
	Replicas int

	Lag      time.Duration // how far a replica is behind its primary
	KnowsLag bool          // Lag is known

	// Cluster names the cluster that the target is a member of, if all of its members take writes (Galera). Two primaries
	// of one cluster are no rivals. "" = none.
	Cluster string

	atOnce bool // this success makes the target healthy, whatever Rise says
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

// A Change says that the verdict on a target has changed. It is a plain value.
type Change struct {
	Target   Target
	From, To Verdict
	Reason   string // what the last check found, or that no check ended in time
	At       time.Time
}

// A Policy says how often a target is checked, and how many results it takes to change its verdict. It is a plain
// value; Add and Update validate it.
type Policy struct {
	Interval     time.Duration // from the start of one check to the start of the next
	FastInterval time.Duration // used while the verdict is unknown or the last result contradicts it; 0 = Interval
	Timeout      time.Duration // of one check
	Rise         int           // consecutive successes to become healthy, at least 1
	Fall         int           // consecutive failures to become unhealthy, at least 1
	Jitter       float64       // each interval is longer or shorter by up to this share of it; 0 to below 1
	Initial      Verdict       // the verdict before the first result; Update ignores it

	// StaleAfter is how long a verdict lasts without a new result while a check does not end. Then it becomes unknown.
	// 0 = 3 x Interval + Timeout.
	StaleAfter time.Duration
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
	case !(p.Jitter >= 0 && p.Jitter < 1): // written like this, it refuses NaN as well
		return invalid("jitter", p.Jitter, "0 to below 1")
	case p.Initial > Unhealthy:
		return invalid("initial", p.Initial, "unknown, healthy or unhealthy")
	}
	// With less, a verdict would become stale before the next result, and come back with it.
	if least := p.Interval + p.Timeout; p.StaleAfter < least {
		return invalid("stale_after", p.StaleAfter, "at least interval and timeout, "+least.String())
	}
	return p, nil
}

// every returns the time from one check to the next, without jitter.
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
