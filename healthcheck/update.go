package healthcheck

import (
	"fmt"
	"time"
)

// Update has the target of that id checked with c as p says from now on. Its verdict stays, and so does the row of results
// that it rests on; the next result is the first that p's rise and fall are held against. Nothing is reported for it.
//
// A check that runs is cancelled, and its result is dropped: it is of the checker before. The next check keeps its share of
// the interval: what was due in half the old one is due in half the new one, so that targets which were spread stay spread,
// however many are updated at once. The age of the verdict counts from here, or a shorter StaleAfter would make
// verdicts unknown that the new checker had no time to confirm.
//
// The error wraps an *InvalidPolicyError or ErrUnknownTarget; nothing has changed then.
func (s *Scheduler) Update(id string, c Checker, p Policy) error {
	p, err := p.complete()
	if err != nil {
		return fmt.Errorf("check target %q: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[id]
	if j == nil {
		return fmt.Errorf("check target %q: %w", id, ErrUnknownTarget)
	}
	before := j.policy
	j.use(c)
	j.policy = p
	j.revision++
	j.streak.rise, j.streak.fall = p.Rise, p.Fall
	if !s.started {
		return nil // start gives it its times
	}
	now := time.Now()
	j.stale = now.Add(p.StaleAfter)
	switch j.state {
	case running:
		j.cancel() // when it has ended, the next check is placed by the new policy
	case idle:
		j.due = rescale(now, j.due, before.every(j.streak.settled()), p.every(j.streak.settled()))
	}
	s.requeueLocked(j)
	s.wakeRun()
	return nil
}

// Move has the target of that id checked at another address from now on, as soon as it is its turn. Its verdict stays, as with
// Update, and a check that runs is cancelled. The error wraps ErrUnknownTarget; nothing has changed then.
func (s *Scheduler) Move(t Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[t.ID]
	if j == nil {
		return fmt.Errorf("check target %q: %w", t.ID, ErrUnknownTarget)
	}
	t.Group, t.Name, t.Receiver = j.target.Group, j.target.Name, j.target.Receiver
	j.target = t
	j.revision++
	j.hangs = false // what the other address did
	if !s.started {
		return nil
	}
	now := time.Now()
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

// rescale returns when to do what was due at a time within one interval, if another interval is to count. What is overdue
// stays so.
func rescale(now, due time.Time, from, to time.Duration) time.Time {
	left := due.Sub(now)
	if from == to || left <= 0 {
		return due
	}
	return now.Add(time.Duration(float64(left) * (float64(to) / float64(from))))
}
