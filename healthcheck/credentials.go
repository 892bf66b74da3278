package healthcheck

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Credentials judges whether the credentials of a group's checks are wrong, so that such a mistake does not make every
// target of the group unhealthy. If a password was changed on all servers and not here, clients must not lose their
// database. It stands between the scheduler and the checks of these targets; see Wrap.
//
// A target that refuses the credentials is unhealthy only if another target takes the same credentials, in a check that
// began after the first refusal. If no other target does, the refusal says nothing about the target: its verdict stays,
// whatever it is, and does not become stale. A target that does not answer says nothing about credentials; it becomes
// unhealthy as usual.
//
// Its methods may be called from any goroutine. The zero value is of no use, see NewCredentials.
type Credentials struct {
	// set once, then read-only
	scheduler *Scheduler
	report    func(Refusal)

	mu sync.Mutex // taken before the scheduler's
	// mu guards the fields below
	answers map[string]answer // by target ID; only of checks with the present credentials
	refused bool              // every target that answers refuses the credentials
}

// A Refusal says that every target of a group that answers refuses the credentials of the checks, or that this has
// ended. It is a plain value.
type Refusal struct {
	Ended  bool
	Target Target // the target that was checked last; the zero value if the removal of a target ended the refusal
	Reason string // why the target refuses; "" if Ended
}

// An answer is how a target last responded to the credentials. The zero value stands for no answer.
type answer struct {
	takes, refuses bool      // never both
	began          time.Time // when the last check began in which the target took the credentials
	since          time.Time // when the first check after that began in which it refused them
}

// NewCredentials returns a judge for checks of targets of s. It calls report when all targets that answer begin to
// refuse the credentials, and when that ends. report must not block, nor call the judge.
func NewCredentials(s *Scheduler, report func(Refusal)) *Credentials {
	return &Credentials{scheduler: s, report: report, answers: make(map[string]answer)}
}

// Wrap returns a checker that checks with checker and then asks the judge about a refusal.
func (c *Credentials) Wrap(checker Checker) Checker { return credentialed{c, checker} }

// Renew drops what the targets said about the credentials. Call it when the checks begin to use other credentials.
// Refused keeps its value until a target takes the new ones.
func (c *Credentials) Renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.answers)
}

// Forget removes what the judge knows about a target. It has to follow the scheduler's Remove of the target.
func (c *Credentials) Forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, id)
	c.reviewLocked(Target{}, "")
}

// Refused reports whether every target that answers refuses the credentials.
func (c *Credentials) Refused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// A credentialed checker asks the judge about every refusal of credentials.
type credentialed struct {
	credentials *Credentials
	checker     Checker
}

// Check checks t. If t refuses the credentials and no other target takes them, the error leaves the verdict as it is.
func (c credentialed) Check(ctx context.Context, t Target) (Result, error) { return checkBy(ctx, c, t) }

func (c credentialed) inner() Checker { return c.checker }

func (c credentialed) judge(
	ctx context.Context, t Target, began time.Time, r Result, err error,
) (Result, error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return r, err // the scheduler does not count this result either
	}
	if c.credentials.note(t, began, err) {
		return Result{}, &unprovenError{err}
	}
	return r, err
}

// Cost returns what the checker behind the judge costs.
func (c credentialed) Cost() (sockets, programs int) { return CostOf(c.checker) }

// An unprovenError is a refusal of credentials that no other target takes. It leaves the verdict as it is, and does not
// let it become stale.
type unprovenError struct{ refusal error }

// Error returns what the refusal says.
func (e *unprovenError) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e *unprovenError) Unwrap() error { return e.refusal }

// verdictStands reports whether a check that ended with err leaves the verdict as it is.
func verdictStands(err error) bool {
	_, stands := errors.AsType[*unprovenError](err)
	return stands
}

// note records the end of a check of t that began at a time. It reports whether the target's verdict stands.
func (c *Credentials) note(t Target, began time.Time, err error) (stands bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.scheduler.verdict(t.ID); !known {
		return false // removed while its check ended: nothing would ever withdraw the answer
	}
	a := c.answers[t.ID]
	switch a.takes, a.refuses = takesCredentials(err), errors.Is(err, ErrCredentials); {
	case a.takes:
		a.began, a.since = began, time.Time{}
	case a.refuses && a.since.IsZero():
		a.since = began
	}
	c.answers[t.ID] = a
	reason := ""
	if a.refuses {
		reason = err.Error()
	}
	c.reviewLocked(t, reason)
	return a.refuses && !c.takenSinceLocked(a.since)
}

// takesCredentials reports whether a check that ended with err got past the credentials.
func takesCredentials(err error) bool {
	return err == nil || !errors.Is(err, ErrCredentials) &&
		(errors.Is(err, ErrWrongRole) || errors.Is(err, ErrLagging) || errors.Is(err, ErrFallback))
}

// takenSinceLocked reports whether some target takes the credentials, in a check that began later than at.
func (c *Credentials) takenSinceLocked(at time.Time) bool {
	for _, a := range c.answers {
		if a.takes && a.began.After(at) {
			return true
		}
	}
	return false
}

// reviewLocked updates refused after the check of a target, and reports a change.
func (c *Credentials) reviewLocked(checked Target, reason string) {
	refuse, take := false, false
	for _, a := range c.answers {
		refuse, take = refuse || a.refuses, take || a.takes
	}
	switch {
	case !c.refused && refuse && !take && reason != "":
		c.refused = true
		c.report(Refusal{Target: checked, Reason: reason})
	case c.refused && take:
		c.refused = false
		c.report(Refusal{Ended: true, Target: checked})
	}
}

// maxTrials is how many checks TryLogin runs at the same time.
const maxTrials = 16

// TryLogin checks targets with c, each for up to timeout, until one of them takes the credentials of c. If every target
// that answers refuses them, it returns the first such target and its error. It returns a nil error if a target takes
// them, or none answers.
func TryLogin(ctx context.Context, c Checker, targets []Target, timeout time.Duration) (Target, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next    atomic.Int64
		trying  sync.WaitGroup
		mu      sync.Mutex
		taken   bool
		at      = len(targets) // the index of the refusing target to return: the lowest, whichever answers first
		refusal error
	)
	for range min(len(targets), maxTrials) {
		trying.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(targets) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				err := checkWithin(ctx, c, targets[i], timeout)
				mu.Lock()
				switch {
				case ctx.Err() != nil:
				case takesCredentials(err):
					taken = true
					cancel()
				case errors.Is(err, ErrCredentials) && i < at:
					at, refusal = i, err
				}
				mu.Unlock()
			}
		})
	}
	trying.Wait()
	if taken || refusal == nil {
		return Target{}, nil
	}
	return targets[at], refusal
}

func checkWithin(ctx context.Context, c Checker, t Target, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := c.Check(ctx, t)
	return err
}
