package healthcheck

import (
	"fmt"
	"time"
)

// How closely an appointed target is checked until it is the primary. Postgres is promoted in some tenths of a second,
// and then clients wait for nothing but us. If it takes longer than closeFor, it is not checked so often any more.
const (
	closeEvery = 20 * time.Millisecond // from the end of one check to the start of the next
	closeFor   = 10 * time.Second
)

// An appointment is what somebody who decides about the primary says, such as Patroni.
type appointment struct {
	by   string // its name, for messages; "" if nobody says anything
	id   string // of the target; "" if there is no primary
	name string // of the target within its group
	done bool   // the target has been found to be the primary since it was appointed
}

// Appoint tells the fence which target is the primary according to an authority, such as Patroni: t, or nobody if t has
// no ID. by is the authority's name, for messages.
//
// From then on a target is admitted only if both agree: it is appointed, and its check finds a primary. All others have
// the wrong role at once. So that clients need not wait, an appointed target is checked closely until it is a primary,
// and then one check is enough, whatever Rise says. Appointing the same target again changes nothing.
//
// While nobody is appointed, the primary so far is suspended as long as it claims to be the primary: its verdict is
// unknown, so that it gets nothing new and keeps what it has. Patroni's leader key is gone for a moment when etcd comes
// back, and nobody else can become the primary before another one is appointed.
//
// What the authority said may be old news. So while an other target that claims to be the primary was promoted later
// than the appointed one (Result.Epoch), neither is admitted.
func (f *Fence) Appoint(by string, t Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.appointed.by == by && f.appointed.id == t.ID {
		return
	}
	f.appointed = appointment{by: by, id: t.ID, name: t.Name}
	clear(f.unappointed)
	switch {
	case t.ID == "":
		f.suspendLocked(nobodyWords(by))
	case f.primary.ID != t.ID:
		f.deposeLocked(namedWords(by, t.Name))
	}
	if t.ID != "" {
		f.scheduler.checkClosely(t.ID)
	}
}

// Dismiss tells the fence that the authority of Appoint cannot be asked any more: what the targets say of themselves
// decides alone, as without an authority.
func (f *Fence) Dismiss() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appointed = appointment{}
	clear(f.unappointed)
}

// namedWords says why the primary before is none any more.
func namedWords(by, primary string) string {
	return fmt.Sprintf("%s names %s the primary", by, primary)
}

// nobodyWords says why the primary before gets nothing new.
func nobodyWords(by string) string { return fmt.Sprintf("%s names no primary", by) }

// unnamedWords says why a target that claims to be the primary is not.
func (a appointment) unnamedWords() string {
	if a.id == "" {
		return fmt.Sprintf("claims to be the primary, but %s names none", a.by)
	}
	return fmt.Sprintf("claims to be the primary, but %s names %s", a.by, a.name)
}

// deposeLocked takes the role from the present primary, if it is healthy or suspended.
func (f *Fence) deposeLocked(reason string) {
	if f.primary.ID == "" {
		return
	}
	f.holds = false
	if verdict, known := f.scheduler.verdict(f.primary.ID); known && (verdict == Healthy || verdict == Unknown) {
		f.scheduler.judge(f.primary.ID, WrongRole, reason)
	}
}

// suspendLocked lets the present primary have nothing new, if it is healthy.
func (f *Fence) suspendLocked(reason string) {
	if f.primary.ID == "" {
		return
	}
	if verdict, known := f.scheduler.verdict(f.primary.ID); known && verdict == Healthy {
		f.scheduler.judge(f.primary.ID, Unknown, reason)
	}
}

// A suspendedError is the error of the primary while nobody is appointed: its verdict stays as suspendLocked set it.
type suspendedError struct{ reason string }

// Error returns the reason.
func (e *suspendedError) Error() string { return e.reason }

// Unwrap returns ErrInconclusive.
func (e *suspendedError) Unwrap() error { return ErrInconclusive }

// admitAppointedLocked judges a claim while there is an authority. It returns nil if the target is the primary, or else
// why it is not. atOnce says that this claim is enough.
func (f *Fence) admitAppointedLocked(c claimant) (atOnce bool, why error) {
	if c.ID != f.appointed.id {
		reason := f.appointed.unnamedWords()
		if f.appointed.id == "" && f.holds && f.primary.ID == c.ID {
			f.claim = c.claim
			return false, &suspendedError{reason}
		}
		f.unappointed[c.ID] = c.claim
		if f.holds && (f.appointed.id == "" || f.primary.ID == f.appointed.id) {
			if c.claim.Epoch > f.claim.Epoch {
				f.deposeLocked(laterWords(c.ID, f.appointed.by))
			}
			f.reportLocked(c.Target, f.primary, reason)
		}
		return false, &fencedError{reason}
	}
	for id, other := range f.unappointed {
		if other.Epoch > c.claim.Epoch {
			return false, &fencedError{laterWords(id, f.appointed.by)}
		}
	}
	f.installLocked(c)
	atOnce = !f.appointed.done
	f.appointed.done = true
	return atOnce, nil
}

// laterWords says why an appointed target is not admitted.
func laterWords(rival, by string) string {
	return fmt.Sprintf("%s was promoted later, but %s does not name it the primary: no other is used until they agree",
		rival, by)
}

// A closely says that a job is checked closely for one of its views. The zero value is that it is not.
type closely struct {
	view  *view
	until time.Time
}

// checkClosely checks a target now, and then again and again until it is healthy, for closeFor at most.
func (s *Scheduler) checkClosely(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[id]
	if v == nil {
		return
	}
	j := v.job
	j.closely = closely{v, time.Now().Add(closeFor)}
	if !s.started {
		return
	}
	switch j.state {
	case running:
		j.soon = true
	case idle:
		j.due = time.Now()
	}
	s.requeueLocked(j)
	s.wakeRun()
}

// nearer returns the time of the next check of a job that may be checked closely, when a check has just ended; due is
// its time otherwise.
func (j *job) nearer(due, now time.Time) time.Time {
	v := j.closely.view
	if v == nil {
		return due
	}
	if v.job != j || v.streak.verdict == Healthy || now.After(j.closely.until) {
		j.closely = closely{}
		return due
	}
	if soon := now.Add(closeEvery); soon.Before(due) {
		return soon
	}
	return due
}
