package healthcheck

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	defaultConcurrency = 100 // enough for 10,000 targets every 2 s that take 10 ms each, twice over
	defaultPrograms    = 32  // a program costs a process, and some milliseconds of CPU time to start
)

// firstCheckSpacing is the time from one target's first check to the next one's, so that a start is no burst: 10,000
// targets are all checked within 2 s, the usual interval.
const firstCheckSpacing = 200 * time.Microsecond

// lateStep is how much too late Run may come before the scheduler itself is taken to have been stopped: far more than a busy machine
// delays a timer by.
const lateStep = 100 * time.Millisecond

// Options are the settings of a scheduler, fixed for its life.
type Options struct {
	// Concurrency is how many sockets checks may have at once; 0 means 100. A check takes one, those that are made of several take
	// more. How targets share them is in lanes.go.
	Concurrency int
	// Programs is how many checks may run a program at once, beside the others; 0 means 32.
	Programs int
	// Report is told by Run of the changes of verdicts, those of one target in their order: all at once that were found
	// since the last time, so that many are not more work than they must be. It may call Add and Remove, and keep the
	// slice. While it blocks, nothing is checked. It is required.
	Report func([]Change)
	// Blind is told by Run of targets whose checks find nothing out; nil is nobody. What holds for Report holds for it.
	Blind func([]Blindness)
	// Random returns numbers from 0 to below 1, for the jitter; nil means those of math/rand. It is called by one
	// goroutine at a time.
	Random func() float64
}

// A Scheduler checks its targets, each at its own interval.
// Its methods may be called from any goroutine; its zero value is of no use, see NewScheduler.
//
// One goroutine, that of Run, sleeps until the earliest time in a heap; each check that runs has one more. A target is
// never checked twice at once. A check that comes late, because all slots were taken or the process was stopped, is made
// once, and the interval counts from there; the time it was late by does not make the verdict older.
//
// Invariant: a job is in jobs unless its state is removed, ready in a lane only if it is waiting or removed, and in queue
// exactly while wakeAt says that it must.
type Scheduler struct {
	o    Options       // set once, then read-only
	wake chan struct{} // has room for one; nobody closes it

	checks sync.WaitGroup // the checks that run; Run waits for them

	mu sync.Mutex
	// mu guards the fields below
	jobs    map[string]*job
	fresh   []*job // added before Run, in their order
	queue   queue
	slots   [slotKinds]slots
	first   time.Time // when the target added last has its first check
	started bool
	changes []Change          // not reported yet
	blind   []Blindness       // not reported yet
	groups  map[string]*group // by Target.Group; only ever added to
}

// NewScheduler returns a scheduler without targets, which does nothing before Run.
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
	s := &Scheduler{o: o, wake: make(chan struct{}, 1), jobs: make(map[string]*job), groups: make(map[string]*group)}
	s.slots[socketSlots].max, s.slots[programSlots].max = o.Concurrency, o.Programs
	return s
}

// Add begins to check t with c as p says; its verdict is p.Initial, which is not reported.
// The error wraps an *InvalidPolicyError or ErrDuplicateTarget.
func (s *Scheduler) Add(t Target, c Checker, p Policy) error {
	p, err := p.complete()
	if err != nil {
		return fmt.Errorf("check target %q: %w", t.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[t.ID] != nil {
		return fmt.Errorf("check target %q: %w", t.ID, ErrDuplicateTarget)
	}
	if s.groups[t.Group] == nil {
		s.groups[t.Group] = newGroup()
	}
	j := &job{
		target: t, policy: p, index: -1, group: s.groups[t.Group],
		streak: streak{rise: p.Rise, fall: p.Fall, verdict: p.Initial},
	}
	j.use(c)
	s.jobs[t.ID] = j
	if !s.started {
		s.fresh = append(s.fresh, j)
		return nil
	}
	s.placeLocked(j, time.Now())
	s.wakeRun()
	return nil
}

// Remove ends the checks of a target and reports whether there was one of that id. A check that runs is cancelled and its
// result is dropped; a change that was found before may still be reported.
func (s *Scheduler) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil {
		return false
	}
	delete(s.jobs, id)
	if j.state == running {
		j.cancel()
	}
	j.state = removed
	s.requeueLocked(j)
	return true
}

// Run checks the targets until ctx is done, waits for the checks that still run, whose results are dropped, and returns
// nil. A scheduler runs once; a second Run returns ErrRan.
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

// start gives the targets added so far the times of their first checks, and reports whether this is the first start.
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

// placeLocked gives j the time of its first check: a little after that of the target before it, but within an interval.
// When there are too many for that, they go round again.
func (s *Scheduler) placeLocked(j *job, now time.Time) {
	s.first = s.first.Add(firstCheckSpacing)
	if s.first.Before(now) || s.first.Sub(now) >= j.policy.Interval {
		s.first = now
	}
	j.due = s.first
	j.stale = now.Add(j.policy.StaleAfter)
	s.requeueLocked(j)
}

// requeueLocked puts j where it belongs in the queue, after any change of its state or times.
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

// step does what is due and returns what to report and when to come again, which is zero for not before a wake.
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

// serveLocked does what made j the first of the queue: its check is due, or its verdict is stale.
func (s *Scheduler) serveLocked(j *job, now time.Time) {
	switch {
	case j.state == idle:
		j.state = waiting
		j.lane = j.group.lane(j)
		s.slots[j.kind].add(j.lane, j)
	case now.Sub(j.at) > lateStep:
		// It is the scheduler that did not run, and the check perhaps no more than it: a process that was stopped for a moment
		// would take back the verdicts on all targets that it was checking.
		j.stale = now.Add(j.policy.Timeout)
	default:
		from := j.streak.verdict
		j.streak.forget()
		s.changes = append(s.changes, Change{Target: j.target, From: from, To: Unknown, Reason: staleWords(j.policy.StaleAfter), At: now})
	}
	s.requeueLocked(j)
}

// staleWords is the reason of a verdict that has become unknown.
func staleWords(after time.Duration) string { return fmt.Sprintf("no result for %v", after) }

// checkLocked starts the check of j, which has its slots.
func (s *Scheduler) checkLocked(ctx context.Context, j *job, now time.Time) {
	j.state = running
	if late := now.Sub(j.due); late > 0 {
		j.stale = j.stale.Add(late)
	}
	ctx, j.cancel = context.WithTimeout(ctx, j.policy.Timeout)
	s.requeueLocked(j)
	turn := turn{checker: j.checker, target: j.target, revision: j.revision, lane: j.lane, slots: int(j.slots)}
	s.checks.Go(func() { s.check(ctx, j, turn) })
}

// A turn is what one check of a job began with: Update and Move may replace it in the job meanwhile.
type turn struct {
	checker  Checker
	target   Target
	revision int
	lane     *lane // that its slots are counted in
	slots    int
}

// check runs the check of j and counts its result, unless that is of a checker or an address that are no longer those of j.
func (s *Scheduler) check(ctx context.Context, j *job, t turn) {
	start := time.Now()
	result, err := t.checker.Check(ctx, t.target)
	end := time.Now()

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wakeRun() // a slot is free
	s.slots[t.lane.kind].count(t.lane, -t.slots)
	cancelled := errors.Is(ctx.Err(), context.Canceled) // by Remove, Update, Move or the end of Run; a timeout is another error
	j.cancel()
	current := j.revision == t.revision
	if j.state == removed || cancelled && current {
		return
	}
	if current {
		s.noteLocked(j, outcomeOf(err), words(result, err), start, end)
		if !errors.Is(err, ErrInconclusive) && !verdictStands(err) && !start.Before(j.judged) {
			s.countLocked(j, result, err, end)
		}
	}
	j.state = idle
	j.due = start.Add(j.policy.delay(j.streak.settled(), s.o.Random()))
	if j.soon {
		j.soon, j.due = false, end
	}
	s.requeueLocked(j)
}

// countLocked adds a result to the streak of j.
func (s *Scheduler) countLocked(j *job, result Result, err error, now time.Time) {
	if _, atOnce := errors.AsType[*fencedError](err); atOnce {
		s.judgeLocked(j, verdictOf(err), err.Error(), now)
		return
	}
	from := j.streak.verdict
	if !j.streak.add(verdictOf(err)) {
		return
	}
	s.changes = append(s.changes, Change{Target: j.target, From: from, To: j.streak.verdict, Reason: words(result, err), At: now})
}

// words says what a check found.
func words(r Result, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case r.Detail == "":
		return "check succeeded"
	}
	return r.Detail
}

// verdict returns the verdict on a target, and whether there is such a target.
func (s *Scheduler) verdict(id string) (v Verdict, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[id]; j != nil {
		return j.streak.verdict, true
	}
	return Unknown, false
}

// judge gives a target a verdict at once, whatever its results say so far: something else is known of it. The next results count
// from there, but for those of checks that had begun before.
func (s *Scheduler) judge(id string, v Verdict, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.jobs[id]; j != nil {
		s.judgeLocked(j, v, reason, time.Now())
		s.requeueLocked(j)
		s.wakeRun()
	}
}

func (s *Scheduler) judgeLocked(j *job, v Verdict, reason string, now time.Time) {
	from := j.streak.verdict
	j.streak.set(v)
	j.judged = now
	if from != v {
		s.changes = append(s.changes, Change{Target: j.target, From: from, To: v, Reason: reason, At: now})
	}
}

// wakeRun makes Run take another step soon. It never blocks.
func (s *Scheduler) wakeRun() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
