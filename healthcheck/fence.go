package healthcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// A Fence sees to it that of the targets of one group which claim to be the primary at most one is healthy: two primaries, and
// clients would write to both. It stands between the scheduler and the checks of these targets; see Wrap.
//
// The better claim is the later promotion (Result.Epoch); without a difference there, the one that replicas follow; and then the one
// that has written more. Whoever has a worse claim has the wrong role at once, whatever rise and fall say. So a primary that was
// stopped and comes back finds its successor's claim; and one that fails a check keeps its own until its verdict is no longer
// healthy. All of this is what the targets say of themselves, so that fences which watch the same targets agree.
//
// Of two claims that are equal, that of the target counts which was the primary while the other one was not; a fence that was made
// since then may be told which it was, see Remember. Where nobody knows, the lower address is taken, and again all fences agree.
//
// Its methods may be called from any goroutine. The zero value is of no use, see NewFence.
type Fence struct {
	// set once, then read-only
	scheduler *Scheduler
	report    func(Rivalry)

	mu sync.Mutex // taken before the scheduler's
	// mu guards the fields below
	primary  Target          // the target that is or was the primary last; without an ID before the first
	claim    Result          // what it said of itself last
	holds    bool            // it said so at its last check
	others   map[string]bool // targets that were seen not to be the primary while it was
	ahead    claimant        // that has written more than the primary had at its last check; without an ID if none has
	remember Target          // the primary of before the fence was made, or whose claim was the better one last; without an ID if nobody knows
	rivals   map[string]bool // targets told of as rivals, until they are none any more
	count    int
}

// A claimant is a target and what it said of itself.
type claimant struct {
	Target
	claim Result
}

// A Rivalry says that two targets claim to be the primary, and which of them is fenced off. It is a plain value.
type Rivalry struct {
	Primary, Rival Target
	Reason         string
	Count          int // of the fence's rivalries so far, this one included
}

// NewFence returns a fence for targets of s. report is told of each rival when it shows up; it must not block.
func NewFence(s *Scheduler, report func(Rivalry)) *Fence {
	return &Fence{scheduler: s, report: report, rivals: make(map[string]bool), others: make(map[string]bool)}
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
	if errors.Is(ctx.Err(), context.Canceled) || verdictStands(err) {
		return r, err // the target is gone, has another checker, or said nothing: what it claims does not count, as its result does not
	}
	if errors.Is(err, ErrInconclusive) {
		return r, err // it was not asked: what it claimed before stands, as its verdict does
	}
	if err != nil || r.Role != RolePrimary {
		c.fence.lapse(t.ID, !errors.Is(err, ErrInconclusive))
		return r, err
	}
	if reason := c.fence.admit(t, r); reason != "" {
		return r, &fencedError{reason}
	}
	return r, nil
}

// Cost returns what the checker behind the fence costs.
func (c fenced) Cost() (sockets, programs int) { return CostOf(c.checker) }

// A fencedError is the error of a target that claims to be the primary and has the worse claim. The scheduler counts it at once,
// whatever Fall says.
type fencedError struct{ reason string }

// Error returns the reason.
func (e *fencedError) Error() string { return e.reason }

// Unwrap returns ErrWrongRole.
func (e *fencedError) Unwrap() error { return ErrWrongRole }

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
	return f.primary.ID
}

// Remembered returns what to tell the next fence, see Remember: the primary, or the one of before as long as nobody knows what has
// become of it.
func (f *Fence) Remembered() Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.scheduler.verdict(f.remember.ID)
	if f.primary.ID == "" || known && !f.others[f.remember.ID] {
		return f.remember
	}
	return f.primary
}

// Remember tells a new fence which target was the primary when its process ended, as Remembered said.
func (f *Fence) Remember(t Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remember = t
}

// Forget is told of a target that is no longer the scheduler's, after its Remove.
func (f *Fence) Forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked(id)
	delete(f.others, id)
	if f.remember.ID == id {
		f.remember = Target{}
	}
	if f.primary.ID == id {
		f.installLocked(claimant{})
		f.holds = false
	}
}

// lapse notes that a target has not said that it is the primary; sure says that the check would have found out.
func (f *Fence) lapse(id string, sure bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked(id)
	switch {
	case f.primary.ID == id:
		f.holds = false
	case f.primary.ID != "" && sure:
		f.others[id] = true
	}
}

// leaveLocked takes back what a target has claimed as a rival.
func (f *Fence) leaveLocked(id string) {
	delete(f.rivals, id)
	if f.ahead.ID == id {
		f.ahead = claimant{}
	}
}

// installLocked makes a claimant the primary.
func (f *Fence) installLocked(c claimant) {
	if f.primary.ID != c.ID {
		clear(f.others)
		f.ahead = claimant{}
	}
	f.primary, f.claim, f.holds = c.Target, c.claim, true
	delete(f.rivals, c.ID)
}

// admit takes in a target's claim. It returns why the target is no primary all the same, or "".
func (f *Fence) admit(t Target, r Result) (reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.scheduler.verdict(t.ID); !known {
		return "" // removed just when its check ended: nobody would ever take the claim back
	}
	c := claimant{t, r}
	switch f.primary.ID {
	case "":
		f.installLocked(c)
		return ""
	case t.ID:
		return f.confirmLocked(c)
	}
	return f.challengeLocked(c)
}

// confirmLocked takes in the claim that the primary has made again. Whoever was ahead of its last one may be so of this one, too.
func (f *Fence) confirmLocked(c claimant) (reason string) {
	if a := f.ahead; a.ID != "" {
		f.ahead = claimant{}
		if order, why := compareClaims(a.claim, c.claim); order > 0 {
			f.remember = a.Target
			f.installLocked(a)
			reason = rivalWords(a.Target, why)
			f.tell(c.Target, a.Target, reason)
			return reason
		}
	}
	f.installLocked(c)
	return ""
}

// challengeLocked takes in the claim of another target than the primary.
func (f *Fence) challengeLocked(c claimant) (reason string) {
	primary := f.primary
	verdict, known := f.scheduler.verdict(primary.ID)
	if !known || !f.holds && verdict != Healthy { // not known: removed, and not forgotten yet
		f.installLocked(c)
		return ""
	}
	better, why := f.outranksLocked(c)
	if better && why == writtenMore {
		// The primary said what it had written a while ago, and the challenger may have followed it since then. So it is asked again,
		// and if it does not answer, its verdict decides.
		f.ahead = c
		return rivalWords(primary, "is asked again how much it has written")
	}
	if !better {
		f.remember = primary
		reason = rivalWords(primary, why)
		f.tell(c.Target, primary, reason)
		return reason
	}
	reason = rivalWords(c.Target, why)
	if f.holds {
		f.tell(primary, c.Target, reason)
	}
	f.remember = c.Target
	f.scheduler.judge(primary.ID, WrongRole, reason)
	f.installLocked(c)
	return ""
}

// rivalWords says why a target that claims to be the primary is not taken for it.
func rivalWords(primary Target, why string) string {
	return fmt.Sprintf("claims to be the primary, as %s does, which %s", primary.ID, why)
}

// tell reports a rival, once until it is none any more.
func (f *Fence) tell(rival, primary Target, reason string) {
	if !f.rivals[rival.ID] {
		f.rivals[rival.ID] = true
		f.count++
		f.report(Rivalry{Primary: primary, Rival: rival, Reason: reason, Count: f.count})
	}
}

// outranksLocked reports whether a claim is better than the primary's, and what the better one of the two has.
func (f *Fence) outranksLocked(c claimant) (better bool, why string) {
	order, why := compareClaims(c.claim, f.claim)
	switch {
	case order != 0:
		return order > 0, why
	case f.others[c.ID], f.remember.ID == f.primary.ID:
		return false, wasBefore
	case f.remember.ID == c.ID:
		return true, wasBefore
	}
	return cmp.Or(c.Addr.Compare(f.primary.Addr), strings.Compare(c.ID, f.primary.ID)) < 0, "has the lower address"
}

// What the better one of two claims has.
const (
	writtenMore = "has written more"
	wasBefore   = "was it before"
)

// compareClaims returns 1 if a is the better claim by what the two targets say, -1 if b is, and 0 if that decides nothing; and what the
// better one has.
//
// How much was written decides even where nobody follows: what one of them has and the other lacks is lost if the other goes on.
func compareClaims(a, b Result) (order int, why string) {
	switch {
	case a.Epoch != b.Epoch:
		return cmp.Compare(a.Epoch, b.Epoch), "was promoted later"
	case a.Replicas > 0 && b.Replicas == 0:
		return 1, "has replicas"
	case a.Replicas == 0 && b.Replicas > 0:
		return -1, "has replicas"
	}
	return cmp.Compare(a.Offset, b.Offset), writtenMore
}
