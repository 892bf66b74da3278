package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A Fence sees to it that of the targets of one group which claim to be the primary at most one is healthy: two primaries, and
// clients would write to both. It stands between the scheduler and the checks of these targets; see Wrap.
//
// The better claim is the later promotion (Result.Epoch); without a difference there, the one that replicas follow, and of two
// with replicas the one that has written more; and if that does not tell either, the one that was the primary before. Whoever
// has a worse claim has the wrong role at once, whatever rise and fall say. So a primary that was stopped and comes back finds
// its successor's claim; and one that fails a check keeps its own until its verdict is no longer healthy.
//
// Its methods may be called from any goroutine. The zero value is of no use, see NewFence.
type Fence struct {
	// set once, then read-only
	scheduler *Scheduler
	report    func(Rivalry)

	mu sync.Mutex // taken before the scheduler's
	// mu guards the fields below
	primary string          // the target that is or was the primary last; "" before the first
	claim   Result          // what it said of itself last
	holds   bool            // it said so at its last check
	rivals  map[string]bool // targets told of as rivals, until they are none any more
	count   int
}

// A Rivalry says that two targets claim to be the primary, and which of them is fenced off. It is a plain value.
type Rivalry struct {
	Primary, Rival string // targets
	Reason         string
	Count          int // of the fence's rivalries so far, this one included
}

// NewFence returns a fence for targets of s. report is told of each rival when it shows up; it must not block.
func NewFence(s *Scheduler, report func(Rivalry)) *Fence {
	return &Fence{scheduler: s, report: report, rivals: make(map[string]bool)}
}

// Wrap returns c with the fence behind it.
func (f *Fence) Wrap(c Checker) Checker { return fenced{f, c} }

// A fenced checker asks the fence about every primary.
type fenced struct {
	fence   *Fence
	checker Checker
}

// Check checks t. When it is a primary and another target has the better claim, the error wraps ErrWrongRole.
func (c fenced) Check(ctx context.Context, t Target) (Result, error) {
	r, err := c.checker.Check(ctx, t)
	if errors.Is(ctx.Err(), context.Canceled) {
		return r, err // the target is gone, or has another checker: what it claims does not count, as its result does not
	}
	if errors.Is(err, ErrInconclusive) {
		return r, err // it was not asked: what it claimed before stands, as its verdict does
	}
	if err != nil || r.Role != RolePrimary {
		c.fence.lapse(t.ID)
		return r, err
	}
	if reason := c.fence.admit(t.ID, r); reason != "" {
		return r, wrongRolef("%s", reason).because(errAtOnce)
	}
	return r, nil
}

// Count returns how many rivalries there were so far. It only grows.
func (f *Fence) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Primary returns the target that has the best claim, or had it last and has not lost it to another; "" before the first.
// That it is healthy is for the scheduler to say.
func (f *Fence) Primary() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.primary
}

// Forget is told of a target that is no longer the scheduler's, after its Remove.
func (f *Fence) Forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rivals, id)
	if f.primary == id {
		f.primary, f.holds = "", false
	}
}

// lapse notes that a target has not said that it is the primary.
func (f *Fence) lapse(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rivals, id)
	if f.primary == id {
		f.holds = false
	}
}

// admit takes in a target's claim. It returns why the target is no primary all the same, or "".
func (f *Fence) admit(id string, r Result) (reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.scheduler.verdict(id); !known {
		return "" // removed just when its check ended: nobody would ever take the claim back
	}
	if f.primary != id && f.primary != "" {
		verdict, known := f.scheduler.verdict(f.primary)
		claims := known && (f.holds || verdict == Healthy) // not known: removed, and not forgotten yet
		switch better, why := outranks(r, f.claim); {
		case !claims:
		case !better:
			reason = rivalWords(f.primary, why)
			f.tell(id, f.primary, reason)
			return reason
		default:
			reason := rivalWords(id, why)
			if f.holds {
				f.tell(f.primary, id, reason)
			}
			f.scheduler.judge(f.primary, WrongRole, reason)
		}
	}
	f.primary, f.claim, f.holds = id, r, true
	delete(f.rivals, id)
	return ""
}

// rivalWords says why a target that claims to be the primary is not taken for it.
func rivalWords(primary, why string) string {
	return fmt.Sprintf("claims to be the primary, as %s does, which %s", primary, why)
}

// tell reports a rival, once until it is none any more.
func (f *Fence) tell(rival, primary, reason string) {
	if !f.rivals[rival] {
		f.rivals[rival] = true
		f.count++
		f.report(Rivalry{Primary: primary, Rival: rival, Reason: reason, Count: f.count})
	}
}

// outranks reports whether the claim of a challenger is better than the incumbent's, and what the better one of the two has.
func outranks(challenger, incumbent Result) (better bool, why string) {
	switch {
	case challenger.Epoch != incumbent.Epoch:
		return challenger.Epoch > incumbent.Epoch, "was promoted later"
	case (challenger.Replicas > 0) != (incumbent.Replicas > 0):
		return challenger.Replicas > 0, "has replicas"
	case challenger.Replicas > 0 && challenger.Offset != incumbent.Offset:
		return challenger.Offset > incumbent.Offset, "has written more"
	}
	return false, "was it before"
}
