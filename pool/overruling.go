package pool

import (
	"fmt"
	"strconv"
)

// An Overruling is the reason why a run-time change was not applied, or has ended.
type Overruling uint8

// The overrulings.
const (
	OverruledValue  Overruling = iota // the source has since changed the same setting
	OverruledID                       // a source names a backend of the same id as one that was added by hand
	OverruledAddr                     // a source names another backend at the address of one that was added by hand
	OverruledAbsent                   // the source does not name the backend any more
)

// String returns the reason in words.
func (o Overruling) String() string {
	switch o {
	case OverruledValue:
		return "its source says something else now"
	case OverruledID:
		return "its source names it now"
	case OverruledAddr:
		return "there is another backend at that address now"
	case OverruledAbsent:
		return "its source does not name it any more"
	}
	return "overruling(" + strconv.Itoa(int(o)) + ")"
}

// An Unapplied is a run-time change, or one setting of it, that does not hold: Restore did not apply it, or Reconcile
// has ended it. It is a plain value.
type Unapplied struct {
	Override Override
	Field    string // "weight", "max_sessions", "max_rate" or "mode"; "" for the whole override
	Why      Overruling
	Now      Spec // the spec of the backend that overrules it; zero with OverruledAbsent
}

// String says what does not hold, and why.
func (u Unapplied) String() string {
	id := u.Override.Base.ID
	switch {
	case u.Why == OverruledAbsent:
		return fmt.Sprintf("backend %q is not %s by hand any more: %v", id, u.Override.Kind, u.Why)
	case u.Field == "":
		return fmt.Sprintf("backend %q stays as it is configured, and not %s by hand: %v", id, u.Override.Kind, u.Why)
	}
	return fmt.Sprintf("%s of backend %q stays as it is configured: %v", u.Field, id, u.Why)
}

// against returns the values of o that still hold when the source's description is s, and those that s overrules.
// Overrides belong to the backend's id: another address, tier or zone overrules none.
func (o Override) against(s Spec) (Override, []Unapplied) {
	base, held := o.Base, o
	var overruled []Unapplied
	overrule := func(field string) {
		overruled = append(overruled, Unapplied{Override: o, Field: field, Why: OverruledValue, Now: s})
	}
	if o.Weight != nil && s.Weight != base.Weight {
		held.Weight = nil
		overrule(fieldWeight)
	}
	if o.MaxSessions != nil && s.MaxSessions != base.MaxSessions {
		held.MaxSessions = nil
		overrule(fieldMaxSessions)
	}
	if o.MaxRate != nil && s.MaxRate != base.MaxRate {
		held.MaxRate = nil
		overrule(fieldMaxRate)
	}
	if o.Mode != nil && s.Mode != base.Mode {
		held.Mode = nil
		overrule(fieldMode)
	}
	return held, overruled
}
