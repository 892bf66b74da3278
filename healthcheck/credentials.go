package healthcheck

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Credentials sees to it that wrong credentials of a group's checks are not taken for the failure of every target in it: a
// password that was changed on all servers, and not here, must not take a database away from its clients. It stands between the
// scheduler and the checks of these targets; see Wrap.
//
// A target that refuses the credentials is unhealthy only if another one takes the same credentials, in a check that began after the
// first refusal. Where no other does, the refusal says nothing about the target: its verdict stands, whatever it is, and does not
// become stale. Targets that do not answer say nothing about credentials; they become unhealthy as ever.
//
// Its methods may be called from any goroutine. The zero value is of no use, see NewCredentials.
type Credentials struct {
	// set once, then read-only
	scheduler *Scheduler
	report    func(Refusal)

	mu sync.Mutex // taken before the scheduler's
	// mu guards the fields below
	answers map[string]answer // by target; of those that have been checked with the credentials of now
	refused bool              // every target that answers refuses them
}

// A Refusal says that every target of a group which answers refuses the credentials of its checks, or that this has ended. It is a
// plain value.
type Refusal struct {
	Ended  bool
	Target Target // that was checked last; the zero value when one that was removed has ended it
	Reason string // why it refuses; "" at the end
}

// An answer is what a target has last shown of the credentials. The zero value is that of a target that did not answer.
type answer struct {
	takes, refuses bool      // never both
	began          time.Time // of the last check in which it took them
	since          time.Time // of the first check in which it refused them, of those after that
}

// NewCredentials returns a judge of the credentials of checks of s. report is told when all refusals begin and end; it must not
// block.
func NewCredentials(s *Scheduler, report func(Refusal)) *Credentials {
	return &Credentials{scheduler: s, report: report, answers: make(map[string]answer)}
}

// Wrap returns c with the judge behind it.
func (c *Credentials) Wrap(checker Checker) Checker { return credentialed{c, checker} }

// Renew is called when the checks show other credentials from now on: what the targets thought of the ones before does not count any
// more. That all refuse them stands until one takes the new ones.
func (c *Credentials) Renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.answers)
}

// Forget is told of a target that is no longer the scheduler's, after its Remove.
func (c *Credentials) Forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, id)
	c.lookLocked(Target{}, "")
}

// Refused reports whether every target that answers refuses the credentials.
func (c *Credentials) Refused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// A credentialed checker asks the judge about every refusal.
type credentialed struct {
	credentials *Credentials
	checker     Checker
}

// Check checks t. When t refuses the credentials, and nobody takes them, the error leaves its verdict as it is.
func (c credentialed) Check(ctx context.Context, t Target) (Result, error) {
	began := time.Now()
	r, err := c.checker.Check(ctx, t)
	if errors.Is(ctx.Err(), context.Canceled) {
		return r, err // as with a Fence
	}
	if c.credentials.note(t, began, err) {
		return Result{}, &unprovenError{err}
	}
	return r, err
}

// Cost returns what the checker costs that the credentials are of.
func (c credentialed) Cost() (sockets, programs int) { return CostOf(c.checker) }

// An unprovenError is a refusal of credentials that nobody else takes. It leaves the verdict as it is, and keeps it from becoming
// stale.
type unprovenError struct{ refusal error }

// Error returns what the refusal says.
func (e *unprovenError) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e *unprovenError) Unwrap() error { return e.refusal }

// verdictStands reports whether err is the end of a check that leaves the verdict as it is, and confirms it.
func verdictStands(err error) bool {
	_, stands := errors.AsType[*unprovenError](err)
	return stands
}

// note takes in how a check has ended that began at a time. It reports whether the target's verdict stands.
func (c *Credentials) note(t Target, began time.Time, err error) (stands bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.scheduler.verdict(t.ID); !known {
		return false // removed just when its check ended: nobody would ever take the answer back
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
	c.lookLocked(t, reason)
	return a.refuses && !c.takenSinceLocked(a.since)
}

// takesCredentials reports whether a check with that outcome got past the credentials.
func takesCredentials(err error) bool {
	return err == nil || !errors.Is(err, ErrCredentials) && (errors.Is(err, ErrWrongRole) || errors.Is(err, ErrLagging))
}

// takenSinceLocked reports whether a target takes the credentials, and did so in a check that began later than at.
func (c *Credentials) takenSinceLocked(at time.Time) bool {
	for _, a := range c.answers {
		if a.takes && a.began.After(at) {
			return true
		}
	}
	return false
}

// lookLocked finds out whether all refuse after the check of a target, and tells of a change.
func (c *Credentials) lookLocked(checked Target, reason string) {
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

// maxTrials bounds the checks that TryLogin makes at a time.
const maxTrials = 16

// TryLogin checks targets with c, each for up to timeout, until one of them takes the credentials that c shows. It returns the error of
// one that refuses them, and which it is, if every one that answers does; none if one takes them, or none answers.
func TryLogin(ctx context.Context, c Checker, targets []Target, timeout time.Duration) (Target, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next    atomic.Int64
		trying  sync.WaitGroup
		mu      sync.Mutex
		taken   bool
		at      = len(targets) // of the refusal that is told: the first in order, whichever comes first
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
