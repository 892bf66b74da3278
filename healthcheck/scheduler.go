package healthcheck

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	defaultConcurrency = 100 // twice what 10,000 targets need that are checked every 2 s for 10 ms each
	defaultPrograms    = 32  // each program is a process, and costs some milliseconds of CPU time to start
)

// firstCheckSpacing is the time between the first checks of two targets, so that a start causes no burst: 10,000
// targets are all checked within 2 s, the usual interval.
const firstCheckSpacing = 200 * time.Microsecond

// lateStep is how late a step of Run has to be before the scheduler concludes that its own process was stopped. It is
// far more than a busy machine delays a timer.
const lateStep = 100 * time.Millisecond

// Options are the settings of a scheduler, fixed for its life.
type Options struct {
	// Concurrency is how many sockets all checks together may have open; 0 means 100. Most checks take one, a Costly
	// one may take more. lanes.go says how targets share them.
	Concurrency int
	// Programs is how many programs all checks together may run, in addition to the sockets; 0 means 32.
	Programs int
	// Report gets all changes of verdicts since its last call, those of one target in the order in which they happened.
	// Run calls it. It may call Add and Remove, and keep the slice. While it blocks, no check begins. It is required.
	Report func([]Change)
	// Blind gets the targets whose checks find nothing out, under the same rules as Report; it may be nil.
	Blind func([]Blindness)
	// Random returns numbers from 0 to below 1, for the jitter; nil means math/rand. One goroutine at a time calls it.
	Random func() float64
}

// A Scheduler checks its targets, each at its own interval.
// Its methods may be called from any goroutine; its zero value is of no use, see NewScheduler.
//
// The goroutine of Run sleeps until the earliest time in a heap; each running check has a goroutine of its own. A
// target is never checked twice at once. A check that is late, because all slots were taken or the process was stopped,
// runs once, and the next interval begins with it. The delay does not make the verdict older.
//
// Invariants: a view is in views, and in its job's, until its target is removed. A job with a subject is in shared
// unless its state is removed. It is in the ready list of a lane only if it is waiting or removed. It is in queue
// exactly while wakeAt says that it must be.
type Scheduler struct {
	o    Options       // set once, then read-only
	wake chan struct{} // has room for one; nobody closes it

	checks sync.WaitGroup // the running checks; Run waits for them

	mu sync.Mutex
	// mu guards the fields below
	views   map[string]*view // by Target.ID
	shared  map[subject]*job
	fresh   []*job // added before Run, in the order of Add
	queue   queue
	slots   [slotKinds]slots
	first   time.Time // the first check of the target that was added last
	started bool
	changes []Change          // not reported yet
	blind   []Blindness       // not reported yet
	groups  map[string]*group // by Target.Group; a group is never removed
}

// NewScheduler returns a scheduler without targets. It does nothing before Run.
func NewScheduler(o Options) *Scheduler {
	if o.Concurrency <= 0 {
		o.Concurrency = defaultConcurrency
	}
	if o.Programs <= 0 {
		o.Programs = defaultPrograms
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	s := &Scheduler{o: o, wake: make(chan struct{}, 1), views: make(map[string]*view), shared: make(map[subject]*job),
		groups: make(map[string]*group)}
	s.slots[socketSlots].max, s.slots[programSlots].max = o.Concurrency, o.Programs
	return s
}

// Add begins to check t with c by the policy p. The verdict is p.Initial at first, which is not reported.
// The error wraps an *InvalidPolicyError or ErrDuplicateTarget.
func (s *Scheduler) Add(t Target, c Checker, p Policy) error {
	p, err := p.complete()
	if err != nil {
		return fmt.Errorf("check target %q: %w", t.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.views[t.ID] != nil {
		return fmt.Errorf("check target %q: %w", t.ID, ErrDuplicateTarget)
	}
	if s.groups[t.Group] == nil {
		s.groups[t.Group] = newGroup()
	}
	v := &view{target: t, group: s.groups[t.Group], streak: streak{verdict: p.Initial}}
	v.use(c, p)
	s.views[t.ID] = v
	switch j, isNew := s.hostLocked(v); {
	case !isNew:
		s.joinedLocked(j)
	case !s.started:
		s.fresh = append(s.fresh, j)
	default:
		s.placeLocked(j, time.Now())
		s.wakeRun()
	}
	return nil
}

// Remove ends the checks of a target and reports whether there was a target of that id. A running check is cancelled,
// unless other targets share it, and its result dropped. A change that was found earlier may still be reported.
func (s *Scheduler) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[id]
	if v == nil {
		return false
	}
	delete(s.views, id)
	s.leaveLocked(v)
	return true
}

// Run checks the targets until ctx is done. Then it waits for the running checks, drops their results and returns nil.
// A scheduler runs once; a second Run returns ErrRan.
func (s *Scheduler) Run(ctx context.Context) error {
	if !s.start() {
		return ErrRan
	}
	defer s.checks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		changes, blind, next := s.step(ctx)
		if len(changes) > 0 {
			s.o.Report(changes)
		}
		if len(blind) > 0 && s.o.Blind != nil {
			s.o.Blind(blind)
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wake:
		}
	}
	return nil
}

// start sets the times of the first checks of the targets added so far. It reports false if the scheduler ran before.
func (s *Scheduler) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return false
	}
	s.started = true
	now := time.Now()
	for _, j := range s.fresh {
		if j.state != removed {
			s.placeLocked(j, now)
		}
	}
	s.fresh = nil
	return true
}

// placeLocked sets the time of j's first check: firstCheckSpacing after the first check of the previous target. All
// first checks are within one interval; if there are more targets than fit, the times begin again at now.
func (s *Scheduler) placeLocked(j *job, now time.Time) {
	s.first = s.first.Add(firstCheckSpacing)
	if s.first.Before(now) || s.first.Sub(now) >= j.policy.Interval {
		s.first = now
	}
	j.due = s.first
	j.stale = now.Add(j.policy.StaleAfter)
	s.requeueLocked(j)
}

// requeueLocked puts j in its place in the queue, or takes it out. It has to follow every change of j's state or times.
func (s *Scheduler) requeueLocked(j *job) {
	at, must := j.wakeAt()
	j.at = at
	switch queued := j.index >= 0; {
	case must && queued:
		heap.Fix(&s.queue, j.index)
	case must:
		heap.Push(&s.queue, j)
	case queued:
		heap.Remove(&s.queue, j.index)
	}
}

// step does all that is due. It returns what to report, and the time of the next step; zero means that only a wake
// makes another step necessary.
func (s *Scheduler) step(ctx context.Context) (changes []Change, blind []Blindness, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.queue) > 0 && !s.queue[0].at.After(now) {
		s.serveLocked(s.queue[0], now)
	}
	for kind := range s.slots {
		for j := s.slots[kind].take(); j != nil; j = s.slots[kind].take() {
			s.checkLocked(ctx, j, now)
		}
	}
	if len(s.queue) > 0 {
		next = s.queue[0].at
	}
	changes, s.changes = s.changes, nil
	blind, s.blind = s.blind, nil
	return changes, blind, next
}

// serveLocked handles j at the head of the queue: its check is due, or its verdict is stale.
func (s *Scheduler) serveLocked(j *job, now time.Time) {
	switch {
	case j.state == idle:
		j.state = waiting
		j.lane = j.group.lane(j)
		s.slots[j.kind].add(j.lane, j)
	case now.Sub(j.at) > lateStep:
		// The scheduler itself did not run, and so perhaps the check did not either. Without this, a process that was
		// stopped for a moment would forget the verdicts on all targets that it was just checking.
		j.stale = now.Add(j.policy.Timeout)
	default:
		reason := staleWords(j.policy.StaleAfter)
		for _, v := range j.views {
			if from := v.streak.verdict; from != Unknown {
				s.changes = append(s.changes, Change{Target: v.target, From: from, To: Unknown, Reason: reason, At: now})
			}
			v.streak.forget()
		}
	}
	s.requeueLocked(j)
}

// staleWords is the reason for a verdict that has become unknown.
func staleWords(after time.Duration) string { return fmt.Sprintf("no result for %v", after) }

// checkLocked starts the check of j, whose slots are taken already.
func (s *Scheduler) checkLocked(ctx context.Context, j *job, now time.Time) {
	j.state = running
	if late := now.Sub(j.due); late > 0 {
		j.stale = j.stale.Add(late)
	}
	ctx, j.cancel = context.WithTimeout(ctx, j.policy.Timeout)
	s.requeueLocked(j)
	turn := turn{checker: j.checker, target: j.target, revision: j.revision, lane: j.lane, slots: int(j.slots),
		views: make([]viewTurn, len(j.views))}
	for i, v := range j.views {
		turn.views[i] = viewTurn{view: v, revision: v.revision, target: v.target, asks: v.asks, judges: v.judges}
	}
	s.checks.Go(func() { s.check(ctx, j, turn) })
}

// A turn is a copy of what one check of a job needs: Update and Move may change the job while the check runs.
type turn struct {
	checker  Checker
	target   Target
	revision int
	lane     *lane // the lane whose slots it takes
	slots    int
	views    []viewTurn
}

// A viewTurn is a copy of what one view needs to judge the answer of a check, and the judgement.
type viewTurn struct {
	view     *view
	revision int
	target   Target
	asks     Checker
	judges   []judging

	result Result
	err    error
}

// currentLocked reports whether the view has the job still, and was neither updated nor moved.
func (v *viewTurn) currentLocked(j *job) bool {
	return v.view.job == j && v.view.revision == v.revision
}

// judge judges an answer to a check that began at a time.
func (v *viewTurn) judge(ctx context.Context, began time.Time, a Answer) {
	v.result, v.err = a.Judge(v.asks)
	for _, by := range v.judges {
		v.result, v.err = by.judge(ctx, v.target, began, v.result, v.err)
	}
}

// currentViews returns the views of a turn that were not updated, moved or removed during the check. The others must
// not judge: what they would remember of the target is out of date.
func (s *Scheduler) currentViews(j *job, t turn) []viewTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(t.views, func(v viewTurn) bool { return !v.currentLocked(j) })
}

// check runs one check of j and counts its results. It drops the results of views that were updated, moved or removed
// meanwhile.
func (s *Scheduler) check(ctx context.Context, j *job, t turn) {
	start := time.Now()
	answer := Ask(ctx, t.checker, t.target)
	views := s.currentViews(j, t)
	for i := range views {
		views[i].judge(ctx, start, answer)
	}
	end := time.Now()

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wakeRun() // a slot has become free
	s.slots[t.lane.kind].count(t.lane, -t.slots)
	// Remove, Update and Move of its only view cancel, and the end of Run does. A timeout has another error.
	cancelled := errors.Is(ctx.Err(), context.Canceled)
	j.cancel()
	current := j.revision == t.revision
	if j.state == removed || cancelled && current {
		return
	}
	if current {
		s.takeLocked(j, views, start, end)
	}
	j.state = idle
	j.due = j.nearer(start.Add(j.policy.delay(j.settled(), s.o.Random())), end)
	if j.soon {
		j.soon, j.due = false, end
	}
	s.requeueLocked(j)
}

// takeLocked counts the results of a check of j that ran from start to end.
func (s *Scheduler) takeLocked(j *job, views []viewTurn, start, end time.Time) {
	taken, failed := 0, 0
	for i := range views {
		v := &views[i]
		if !v.currentLocked(j) {
			continue
		}
		s.noteLocked(v.view, &v.result, v.err, start, end, taken > 0)
		taken++
		if v.err != nil {
			failed++
		}
		if !errors.Is(v.err, ErrInconclusive) && !verdictStands(v.err) && !start.Before(v.view.judged) {
			s.countLocked(v.view, v.result, v.err, end)
		}
	}
	j.checked = end
	j.stale = end.Add(j.policy.StaleAfter)
	j.hangs = taken > 0 && failed == taken && end.Sub(start) >= j.policy.Timeout/2
}

// countLocked adds a result to the streak of v.
func (s *Scheduler) countLocked(v *view, result Result, err error, now time.Time) {
	if _, atOnce := errors.AsType[*fencedError](err); atOnce {
		s.judgeLocked(v, verdictOf(err), err.Error(), now)
		return
	}
	if err == nil && result.atOnce {
		s.judgeLocked(v, Healthy, words(result, nil), now)
		return
	}
	from := v.streak.verdict
	if !v.streak.add(verdictOf(err)) {
		return
	}
	to := v.streak.verdict
	s.changes = append(s.changes, Change{Target: v.target, From: from, To: to, Reason: words(result, err), At: now})
}

// words returns what a check found, for a person to read.
func words(r Result, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case r.Detail == "":
		return "check succeeded"
	}
	return r.Detail
}

// verdict returns the verdict on a target, and whether the scheduler has that target.
func (s *Scheduler) verdict(id string) (v Verdict, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.views[id]; v != nil {
		return v.streak.verdict, true
	}
	return Unknown, false
}

// judge sets the verdict on a target at once, for a reason other than its own results. Results of checks that begin
// later count from there; those of checks that began earlier do not count.
func (s *Scheduler) judge(id string, v Verdict, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.views[id]; of != nil {
		s.judgeLocked(of, v, reason, time.Now())
		s.requeueLocked(of.job)
		s.wakeRun()
	}
}

func (s *Scheduler) judgeLocked(of *view, v Verdict, reason string, now time.Time) {
	from := of.streak.verdict
	of.streak.set(v)
	of.judged = now
	if from != v {
		s.changes = append(s.changes, Change{Target: of.target, From: from, To: v, Reason: reason, At: now})
	}
}

// wakeRun makes Run take another step. It never blocks.
func (s *Scheduler) wakeRun() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
