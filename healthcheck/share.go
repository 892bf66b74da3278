package healthcheck

import (
	"context"
	"net/netip"
	"time"
)

// This file is about targets that are checked together. Two pools over the same servers, one for the primary and one
// for the replicas, ask each server the same question and judge the answer by different wishes. So a check has two
// parts: a question, which one check asks for all of these targets, and what each of them makes of the answer.

// An Asker is a Checker whose check consists of a question and a judgement: Check is Ask and then Judge.
type Asker interface {
	Checker

	// Ask asks t. An error is a result for everybody who asks this question.
	Ask(ctx context.Context, t Target) (answer any, err error)
	// Judge makes a result of an answer that Ask of this checker has returned, or Ask of one that it has joined.
	Judge(answer any) (Result, error)
	// Join returns a checker that asks what c and other need to know. Both are of the same type and ask alike.
	Join(other Checker) Checker
}

// An Answer is what the check of a target has found, before it is judged. Ask makes one.
type Answer struct {
	found  any    // of an Asker
	result Result // of another Checker
	err    error
}

// Ask asks t the question of c. If c is no Asker, the question is the whole check.
func Ask(ctx context.Context, c Checker, t Target) Answer {
	if a, is := c.(Asker); is {
		found, err := a.Ask(ctx, t)
		return Answer{found: found, err: err}
	}
	r, err := c.Check(ctx, t)
	return Answer{result: r, err: err}
}

// Judge returns what c makes of an answer to its question.
func (a Answer) Judge(c Checker) (Result, error) {
	if k, is := c.(Asker); is && a.err == nil {
		return k.Judge(a.found)
	}
	return a.result, a.err
}

// Join returns a checker that asks what a and b need to know, which ask alike.
func Join(a, b Checker) Checker {
	if k, is := a.(Asker); is {
		return k.Join(b)
	}
	return a
}

// Shared is a check that is made once for all targets at the same place whose checks have the same Question and are due
// equally often: the times and the jitter of their policies are the same. Each target has a verdict of its own, by its
// own wishes, Rise and Fall. It is a plain value; both fields are required.
type Shared struct {
	Checker
	Question string // opaque; two checks have the same if and only if they ask alike
}

// Cost returns what the checker costs.
func (c Shared) Cost() (sockets, programs int) { return CostOf(c.Checker) }

// A judging checker has its inner checker ask, and judges the answer on top of the inner one's judgement.
type judging interface {
	Checker

	inner() Checker
	// judge judges the result of a check of t that began at a time. ctx is that of the check.
	judge(ctx context.Context, t Target, began time.Time, r Result, err error) (Result, error)
}

// checkBy is Check of a judging checker.
func checkBy(ctx context.Context, c judging, t Target) (Result, error) {
	began := time.Now()
	r, err := c.inner().Check(ctx, t)
	return c.judge(ctx, t, began, r, err)
}

// split takes a checker apart: into the one that asks, those that judge on top of it, from the inner to the outer, and
// its question; "" if it is not shared.
func split(c Checker) (asks Checker, judges []judging, question string) {
	switch k := c.(type) {
	case judging:
		asks, judges, question = split(k.inner())
		return asks, append(judges, k), question
	case Shared:
		asks, judges, _ = split(k.Checker)
		return asks, judges, k.Question
	}
	return c, nil, ""
}

// A subject is what a check asks, of whom and how often: views of the same subject share a job. The zero value is that
// of a job that is not shared.
type subject struct {
	question string
	addr     netip.AddrPort
	path     string
	exact    bool

	interval, fastInterval, timeout, staleAfter time.Duration
	jitter                                      float64
}

// A view is a target and all that the scheduler knows about it, apart from when it is checked, which its job knows.
// Scheduler.mu guards it.
type view struct {
	job      *job // nil once the target is removed
	target   Target
	policy   Policy // complete
	revision int    // counts the Updates and Moves

	asks     Checker // the part of its checker that asks
	judges   []judging
	question string

	streak        streak
	group         *group
	counts        Counts        // the checks that ended
	took          time.Duration // all of them together
	last          Ended         // the last one
	blindReported bool          // Options.Blind has the present blindness

	blind  time.Time // start of the first of the inconclusive checks in a row; zero if the last was conclusive
	judged time.Time // when the verdict was last set by something other than results
}

// use sets the checker and the policy, which is complete.
func (v *view) use(c Checker, p Policy) {
	v.asks, v.judges, v.question = split(c)
	v.policy = p
	v.streak.rise, v.streak.fall = p.Rise, p.Fall
}

// subject returns what the view's checks are about.
func (v *view) subject() subject {
	if v.question == "" {
		return subject{}
	}
	p := v.policy
	return subject{
		question: v.question, addr: v.target.Addr, path: v.target.Path, exact: v.target.Exact,
		interval: p.Interval, fastInterval: p.FastInterval, timeout: p.Timeout, staleAfter: p.StaleAfter, jitter: p.Jitter,
	}
}

// hostLocked gives v a job: that of its subject, or a new one.
func (s *Scheduler) hostLocked(v *view) (j *job, isNew bool) {
	of := v.subject()
	if j = s.shared[of]; j == nil {
		j, isNew = &job{subject: of, index: -1}, true
		if of != (subject{}) {
			s.shared[of] = j
		}
	}
	v.job = j
	j.views = append(j.views, v)
	j.rebuild()
	return j, isNew
}

// leaveLocked takes v from its job. A job without views is removed.
func (s *Scheduler) leaveLocked(v *view) {
	j := v.job
	v.job = nil
	if len(j.views) > 1 {
		j.without(v)
		s.requeueLocked(j) // it may have been for this view that the job had to be looked at
		return
	}
	if s.shared[j.subject] == j {
		delete(s.shared, j.subject)
	}
	if j.state == running {
		j.cancel()
	}
	j.state = removed
	s.requeueLocked(j)
}

// staysLocked reports whether v, which has changed, can keep its job. If the job is for v alone, its subject becomes
// that of v.
func (s *Scheduler) staysLocked(v *view) bool {
	j, of := v.job, v.subject()
	switch {
	case j.subject == of && (of != subject{} || len(j.views) == 1):
	case len(j.views) > 1 || s.shared[of] != nil:
		return false
	default:
		if s.shared[j.subject] == j {
			delete(s.shared, j.subject)
		}
		if j.subject = of; of != (subject{}) {
			s.shared[of] = j
		}
	}
	j.rebuild()
	return true
}

// joinedLocked follows a view that joined j. Its verdict may have to become stale, and the next check is soon if it has
// none yet.
func (s *Scheduler) joinedLocked(j *job) {
	if !s.started {
		return
	}
	s.requeueLocked(j)
	s.wakeRun()
	if !j.settled() {
		s.hurryLocked(j)
	}
}

// hurryLocked brings the next check of j forward: to now, or a FastInterval after the last one.
func (s *Scheduler) hurryLocked(j *job) {
	if !s.started || j.state != idle {
		return
	}
	soon := time.Now()
	if earliest := j.checked.Add(j.policy.FastInterval); earliest.After(soon) {
		soon = earliest
	}
	if soon.Before(j.due) {
		j.due = soon
		s.requeueLocked(j)
		s.wakeRun()
	}
}
