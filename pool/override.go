package pool

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/limeload/limeload-l4/pool/rate"
)

// An OverrideKind is a kind of run-time change to a backend. It is a word, so that it can be kept in a file.
type OverrideKind string

// The kinds of overrides.
const (
	OverrideAdded   OverrideKind = "added"   // it was added by hand
	OverrideRemoved OverrideKind = "removed" // it was removed by hand
	OverrideChanged OverrideKind = "changed" // its settings differ from those that its source gave it
)

// An Override is a run-time change by hand to one backend that differs from the description by its source. It is a
// plain value, made to be written to a file and read again.
type Override struct {
	Kind   OverrideKind
	Source string // the backend's source; "" for OverrideAdded
	// Base is the description by the source; for OverrideAdded, the backend as it is.
	Base Spec

	// The values that differ from Base, for OverrideChanged; nil is none.
	Weight      *uint32
	MaxSessions *int
	MaxRate     *rate.Limit
	Mode        *Mode
}

// Overrides returns all run-time changes that differ from the sources' descriptions. First come backends added by hand
// and backends with changed settings, in the order of their addition; then overrides that wait for their source, see
// Restore, and removed backends, by source and id. The slice is the caller's.
func (p *Pool) Overrides() []Override {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Override
	for _, m := range p.snap.Load().members {
		if o, is := m.overrides(); is {
			all = append(all, o)
		}
	}
	var absent []Override
	for _, o := range p.awaited {
		absent = append(absent, o)
	}
	for n, r := range p.removals {
		absent = append(absent, Override{Kind: OverrideRemoved, Source: n.source, Base: r.spec})
	}
	slices.SortFunc(absent, func(a, b Override) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Base.ID, b.Base.ID))
	})
	return append(all, absent...)
}

// overrides returns the run-time changes of a backend; false if there are none.
func (m *member) overrides() (Override, bool) {
	if m.source == "" {
		s := m.spec
		s.Weight, s.MaxSessions, s.MaxRate, s.Mode = m.weight, m.maxSessions, m.maxRate, m.mode
		return Override{Kind: OverrideAdded, Base: s}, true
	}
	o := m.changes()
	return o, o.hasValues()
}

// hasValues reports whether the override has a value of its own.
func (o Override) hasValues() bool {
	return o.Weight != nil || o.MaxSessions != nil || o.MaxRate != nil || o.Mode != nil
}

// Without returns o without the values of fields for which leave is true; false if it has no value then.
func (o Override) Without(leave func(field string) bool) (Override, bool) {
	for _, field := range OverrideFields() {
		if leave(field) {
			base := o.Base
			o = o.with(field, Override{})
			o.Base = base
		}
	}
	return o, o.hasValues()
}

// changes returns the settings of a backend that differ from its spec.
func (m *member) changes() Override {
	o := Override{Kind: OverrideChanged, Source: m.source, Base: m.spec}
	if m.weight != m.spec.Weight {
		weight := m.weight
		o.Weight = &weight
	}
	if m.maxSessions != m.spec.MaxSessions {
		n := m.maxSessions
		o.MaxSessions = &n
	}
	if m.maxRate != m.spec.MaxRate {
		l := m.maxRate
		o.MaxRate = &l
	}
	if m.mode != m.spec.Mode {
		mode := m.mode
		o.Mode = &mode
	}
	return o
}

// checked returns o with its Base as Spec.checked returns it, or an *InvalidBackendError when Overrides cannot have
// returned o.
func (o Override) checked() (Override, error) {
	base, err := o.Base.checked()
	if err != nil {
		return o, err
	}
	o.Base = base
	values := o.hasValues()
	switch {
	case o.Kind != OverrideAdded && o.Kind != OverrideRemoved && o.Kind != OverrideChanged:
		return o, &InvalidBackendError{Field: "kind", Value: string(o.Kind), Want: "added, removed or changed"}
	case (o.Kind == OverrideChanged) != values:
		return o, &InvalidBackendError{Field: "kind", Value: string(o.Kind),
			Want: "changed with a value, or another without one"}
	case (o.Kind == OverrideAdded) != (o.Source == ""):
		return o, &InvalidBackendError{Field: "source", Value: o.Source, Want: "a name, but for one added by hand"}
	}
	return o, o.checkValues()
}

// checkValues returns an *InvalidBackendError for a value that is not allowed.
func (o Override) checkValues() (err error) {
	if o.Weight != nil {
		err = CheckWeight(int(*o.Weight))
	}
	if err == nil && o.MaxSessions != nil {
		err = CheckMaxSessions(*o.MaxSessions)
	}
	if err == nil && o.MaxRate != nil {
		err = CheckMaxRate(*o.MaxRate)
	}
	if err == nil && o.Mode != nil {
		err = validateMode(*o.Mode)
	}
	return err
}

// An InvalidOverrideError says which override was refused. It wraps an *InvalidBackendError, or ErrDuplicateBackend
// when another override is for the same backend.
type InvalidOverrideError struct {
	Index    int // its index in the argument of Restore
	Override Override
	Err      error
}

// Error names the backend and what is wrong.
func (e *InvalidOverrideError) Error() string {
	return fmt.Sprintf("override %d, of backend %q: %v", e.Index, e.Override.Base.ID, e.Err)
}

// Unwrap returns what is wrong.
func (e *InvalidOverrideError) Unwrap() error { return e.Err }
