package healthcheck

import (
	"fmt"
	"time"
)

// Update changes the checker and the policy of a target. Its verdict stays, and so do the results in a row that led to
// it; the next result is the first that is counted by p.Rise and p.Fall. Update reports nothing.
//
// A running check is cancelled and its result dropped, since it is of the old checker; a check that other targets share
// goes on for them. The time until the next check is
// scaled to the new interval: after half of the old interval, half of the new one is left. So targets whose checks were
// spread stay spread, however many are updated at once. The age of the verdict counts from now; otherwise a shorter
// StaleAfter would make verdicts unknown before the new checker had time to confirm them.
//
// The error wraps an *InvalidPolicyError or ErrUnknownTarget; in both cases nothing has changed.
func (s *Scheduler) Update(id string, c Checker, p Policy) error {
	p, err := p.complete()
	if err != nil {
		return fmt.Errorf("check target %q: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[id]
	if v == nil {
		return fmt.Errorf("check target %q: %w", id, ErrUnknownTarget)
	}
	j, before := v.job, v.policy
	asked := j.subject
	v.use(c, p)
	v.revision++
	now := time.Now()
	if !s.staysLocked(v) {
		// The old interval is what counts for how much is left of it.
		due := rescale(now, j.due, before.every(j.settled()), p.every(v.streak.settled()))
		s.rehostLocked(v, due)
		return nil
	}
	if asked == j.subject && asked != (subject{}) {
		return nil // it asks the same at the same times
	}
	j.revision++
	if !s.started {
		return nil // start sets the times
	}
	j.stale = now.Add(p.StaleAfter)
	switch j.state {
	case running:
		j.cancel() // when the check has ended, the new policy gives the time of the next one
	case idle:
		j.due = rescale(now, j.due, before.every(v.streak.settled()), p.every(v.streak.settled()))
	}
	s.requeueLocked(j)
	s.wakeRun()
	return nil
}

// Move changes the address of the target with the ID of t, and makes its next check due at once. Only Addr and Exact of
// t are used. As with Update, the verdict stays and a running check is cancelled. The error wraps ErrUnknownTarget, and
// then nothing has changed.
func (s *Scheduler) Move(t Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[t.ID]
	if v == nil {
		return fmt.Errorf("check target %q: %w", t.ID, ErrUnknownTarget)
	}
	t.Group, t.Name, t.Receiver = v.target.Group, v.target.Name, v.target.Receiver
	v.target = t
	v.revision++
	now := time.Now()
	if !s.staysLocked(v) {
		s.rehostLocked(v, now)
		return nil
	}
	j := v.job
	j.revision++
	j.hangs = false // that was the old address
	if !s.started {
		return nil
	}
	j.stale = now.Add(j.policy.StaleAfter)
	switch j.state {
	case running:
		j.soon = true
		j.cancel()
	case idle:
		j.due = now
	}
	s.requeueLocked(j)
	s.wakeRun()
	return nil
}

// rehostLocked takes v, which has changed, to the job that its checks are now part of. If that is a new one, its first
// check is due at a time.
func (s *Scheduler) rehostLocked(v *view, due time.Time) {
	s.leaveLocked(v)
	j, isNew := s.hostLocked(v)
	switch {
	case !isNew:
		s.joinedLocked(j)
	case !s.started:
		s.fresh = append(s.fresh, j)
	default:
		j.due, j.stale = due, time.Now().Add(j.policy.StaleAfter)
		s.requeueLocked(j)
		s.wakeRun()
	}
}

// rescale returns when a check is due under the interval to that was due at a time under the interval from. An overdue
// check stays overdue.
func rescale(now, due time.Time, from, to time.Duration) time.Time {
	left := due.Sub(now)
	if from == to || left <= 0 {
		return due
	}
	return now.Add(time.Duration(float64(left) * (float64(to) / float64(from))))
}
