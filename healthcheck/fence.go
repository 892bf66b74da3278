package healthcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// A Fence ensures that at most one target of a group is a healthy primary, even when several claim to be the primary:
// otherwise clients would write to both. It stands between the scheduler and the checks of these targets; see Wrap.
//
// The better claim is that of the target that was promoted later (Result.Epoch). If that makes no difference, it is
// that of the target that replicas follow, and then that of the target that has written more. A target with a worse
// claim has the wrong role at once, whatever rise and fall say. So a primary that was stopped and comes back loses to
// its successor. A primary that fails a check keeps its claim until its verdict is no longer healthy. All of this rests
// on what the targets say of themselves, so that fences that watch the same targets agree.
//
// The members of one cluster that all take writes (Result.Cluster) are no rivals. One of them is the primary for as
// long as it is healthy, and then the one with the lowest address.
//
// If two claims are equal, the target wins that was the primary while the other one was not. A new fence learns from
// Remember which one that was. If nobody knows, the lower address wins, and so all fences agree again.
//
// Its methods may be called from any goroutine. The zero value is of no use, see NewFence.
type Fence struct {
	// set once, then read-only
	scheduler *Scheduler
	report    func(Rivalry)

	mu sync.Mutex // taken before the scheduler's
	// mu guards the fields below
	primary Target              // the present primary, or the last one; without an ID before the first
	claim   Result              // what the primary last said of itself
	holds   bool                // the primary claimed to be it at its last check
	others  map[string]bool     // targets that a check has found not to be the primary since it became the primary
	ahead   claimant            // has written more than the primary at its last check; without an ID if none has
	rivals  map[string]bool     // targets that were reported as rivals and still are
	members map[string]claimant // targets that could be the primary as well, as members of its cluster
	count   int                 // how many rivalries there were

	// remember is the primary of the fence before this one, or the target that last had the better claim; without an ID
	// if nobody knows.
	remember Target

	appointed   appointment       // see Appoint
	unappointed map[string]Result // the claims of targets other than the appointed one
}

// A claimant is a target that claims to be the primary, and what it said of itself.
type claimant struct {
	Target
	claim Result
}

// A Rivalry says that two targets claim to be the primary, and which of them is fenced off. It is a plain value.
type Rivalry struct {
	Primary, Rival Target
	Reason         string
	Count          int // how many rivalries the fence has seen, including this one
}

// NewFence returns a fence for targets of s. It calls report once for each rival that shows up; report must not block,
// nor call the fence.
func NewFence(s *Scheduler, report func(Rivalry)) *Fence {
	return &Fence{scheduler: s, report: report, rivals: make(map[string]bool), others: make(map[string]bool),
		unappointed: make(map[string]Result), members: make(map[string]claimant)}
}

// Wrap returns a checker that checks with c and then applies the fence.
func (f *Fence) Wrap(c Checker) Checker { return fenced{f, c} }

// A fenced checker asks the fence about every target that claims to be the primary.
type fenced struct {
	fence   *Fence
	checker Checker
}

// Check checks t. If t claims to be the primary and another target has the better claim, the error wraps ErrWrongRole.
func (c fenced) Check(ctx context.Context, t Target) (Result, error) { return checkBy(ctx, c, t) }

func (c fenced) inner() Checker { return c.checker }

func (c fenced) judge(ctx context.Context, t Target, _ time.Time, r Result, err error) (Result, error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return r, err // the scheduler does not count this result either
	}
	if verdictStands(err) || errors.Is(err, ErrInconclusive) {
		c.fence.abstain(t.ID)
		return r, err // its last claim stands, as its verdict does
	}
	if err != nil || r.Role != RolePrimary {
		c.fence.lapse(t.ID, !errors.Is(err, ErrInconclusive))
		return r, err
	}
	atOnce, err := c.fence.admit(t, r)
	if err != nil {
		return r, err
	}
	r.atOnce = atOnce
	return r, nil
}

// Cost returns what the checker behind the fence costs.
func (c fenced) Cost() (sockets, programs int) { return CostOf(c.checker) }

// A fencedError is the error of a target that claims to be the primary and has the worse claim. It sets the verdict at
// once, whatever Fall says.
type fencedError struct{ reason string }

// Error returns the reason.
func (e *fencedError) Error() string { return e.reason }

// Unwrap returns ErrWrongRole.
func (e *fencedError) Unwrap() error { return ErrWrongRole }

// Count returns how many rivalries there were so far. It never decreases.
func (f *Fence) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Primary returns the ID of the target with the best claim; "" before the first claim. A target keeps the best claim
// until another one takes it over. Whether the target is healthy is up to the scheduler.
func (f *Fence) Primary() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.primary.ID
}

// Remembered returns the target for Remember of the next fence: the primary. While the remembered primary of an earlier
// process has not been checked, it is that one.
func (f *Fence) Remembered() Target {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.scheduler.verdict(f.remember.ID)
	if f.primary.ID == "" || known && !f.others[f.remember.ID] {
		return f.remember
	}
	return f.primary
}

// Remember sets the primary of an earlier process in a new fence, as Remembered returned it there.
func (f *Fence) Remember(t Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remember = t
}

// Forget removes what the fence knows about a target. It has to follow the scheduler's Remove of the target.
func (f *Fence) Forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked(id)
	delete(f.others, id)
	if f.appointed.id == id {
		f.appointed.id = "" // until somebody is appointed anew
	}
	if f.remember.ID == id {
		f.remember = Target{}
	}
	if f.primary.ID == id {
		f.installLocked(claimant{})
		f.holds = false
	}
}

// lapse notes that a check of a target did not find a primary. sure is false if the check could not have found one.
func (f *Fence) lapse(id string, sure bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked(id)
	switch {
	case f.primary.ID == id:
		f.holds = false
		f.checkMembersLocked()
	case f.primary.ID != "" && sure:
		f.others[id] = true
	}
}

// leaveLocked removes a target from the rivals.
func (f *Fence) leaveLocked(id string) {
	delete(f.rivals, id)
	delete(f.unappointed, id)
	delete(f.members, id)
	if f.ahead.ID == id {
		f.ahead = claimant{}
	}
}

// installLocked makes c the primary.
func (f *Fence) installLocked(c claimant) {
	if f.primary.ID != c.ID {
		clear(f.others)
		f.ahead = claimant{}
	}
	f.primary, f.claim, f.holds = c.Target, c.claim, true
	delete(f.rivals, c.ID)
	delete(f.members, c.ID)
}

// admit judges a target's claim. It returns nil if the target is the primary, or else why it is not. atOnce says that
// the target need not show it again, whatever Rise says.
func (f *Fence) admit(t Target, r Result) (atOnce bool, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.scheduler.verdict(t.ID); !known {
		return false, nil // removed while its check ended: nothing would ever withdraw the claim
	}
	delete(f.members, t.ID)
	c := claimant{t, r}
	reason := ""
	switch {
	case f.appointed.by != "":
		return f.admitAppointedLocked(c)
	case f.primary.ID == "":
		reason = f.succeedLocked(c)
	case f.primary.ID == t.ID:
		reason = f.confirmLocked(c)
	default:
		reason = f.challengeLocked(c)
	}
	if reason != "" {
		return false, &fencedError{reason}
	}
	return false, nil
}

// confirmLocked judges a repeated claim of the primary. A target that had written more than the primary's last claim
// says may have written more than this one says, too; then that target wins.
func (f *Fence) confirmLocked(c claimant) (reason string) {
	if a := f.ahead; a.ID != "" {
		f.ahead = claimant{}
		if order, why := compareClaims(a.claim, c.claim); order > 0 {
			f.remember = a.Target
			f.installLocked(a)
			reason = rivalWords(a.Target, why)
			f.reportLocked(c.Target, a.Target, reason)
			return reason
		}
	}
	f.installLocked(c)
	return ""
}

// challengeLocked judges the claim of a target other than the primary.
func (f *Fence) challengeLocked(c claimant) (reason string) {
	primary := f.primary
	verdict, known := f.scheduler.verdict(primary.ID)
	if !known || !f.holds && verdict != Healthy { // not known: it was removed, and Forget comes next
		return f.succeedLocked(c)
	}
	if sameCluster(c.claim, f.claim) {
		return f.joinLocked(c)
	}
	better, why := f.outranksLocked(c)
	if better && why == writtenMore {
		// The primary's last claim is a while old, and the challenger may have been its replica since then. So the
		// primary is checked again first. If it does not answer, its verdict decides.
		f.ahead = c
		return rivalWords(primary, "is asked again how much it has written")
	}
	if !better {
		f.remember = primary
		reason = rivalWords(primary, why)
		f.reportLocked(c.Target, primary, reason)
		return reason
	}
	reason = rivalWords(c.Target, why)
	if f.holds {
		f.reportLocked(primary, c.Target, reason)
	}
	f.remember = c.Target
	f.scheduler.judge(primary.ID, WrongRole, reason)
	f.installLocked(c)
	return ""
}

// rivalWords says why a target that claims to be the primary is not.
func rivalWords(primary Target, why string) string {
	return fmt.Sprintf("claims to be the primary, as %s does, which %s", primary.ID, why)
}

// reportLocked reports a rival, unless it was reported before and has been a rival ever since.
func (f *Fence) reportLocked(rival, primary Target, reason string) {
	if !f.rivals[rival.ID] {
		f.rivals[rival.ID] = true
		f.count++
		f.report(Rivalry{Primary: primary, Rival: rival, Reason: reason, Count: f.count})
	}
}

// outranksLocked reports whether a claim is better than the primary's, and what makes the better one better.
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

// Reasons why one of two claims is better.
const (
	writtenMore = "has written more"
	wasBefore   = "was it before"
)

// compareClaims returns 1 if a is the better claim, -1 if b is, and 0 if what the two targets say makes no difference;
// and what makes the better one better.
//
// How much was written decides even without replicas: if the target that has written less went on, the rest would be
// lost.
func compareClaims(a, b Result) (order int, why string) {
	switch {
	case sameCluster(a, b):
		return 0, ""
	case a.Epoch != b.Epoch:
		return cmp.Compare(a.Epoch, b.Epoch), "was promoted later"
	case a.Replicas > 0 && b.Replicas == 0:
		return 1, "has replicas"
	case a.Replicas == 0 && b.Replicas > 0:
		return -1, "has replicas"
	}
	return cmp.Compare(a.Offset, b.Offset), writtenMore
}
