package pool

import (
	"cmp"
	"fmt"
	"slices"
)

// An OverrideKind says what was done to a backend at run time. It is a word, so that it can be kept in a file.
type OverrideKind string

// The kinds of overrides.
const (
	OverrideAdded   OverrideKind = "added"   // it was added by hand
	OverrideRemoved OverrideKind = "removed" // it was removed by hand
	OverrideChanged OverrideKind = "changed" // it has other settings than its source gave it
)

// An Override is what was done to one backend at run time, by hand, and still differs from what its source says. It is
// a plain value, made to be written to a file and read again.
type Override struct {
	Kind   OverrideKind
	Source string // whose backend it is; "" for OverrideAdded
	// Base is how the source describes it; of OverrideAdded, how it is.
	Base Spec

	// The values that differ from Base, for OverrideChanged; nil is none.
	Weight      *uint32
	MaxSessions *int
	Mode        *Mode
}

// Overrides returns all that was done at run time and differs from what the sources say: backends added by hand and
// others with changed settings, in the order of their addition, then those that wait for their source, see Restore, and
// those removed, by source and id. The slice is the caller's.
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

// overrides returns what was set of a backend at run time, if anything was.
func (m *member) overrides() (Override, bool) {
	if m.source == "" {
		s := m.spec
		s.Weight, s.MaxSessions, s.Mode = m.weight, m.maxSessions, m.mode
		return Override{Kind: OverrideAdded, Base: s}, true
	}
	o := m.changes()
	return o, o.Weight != nil || o.MaxSessions != nil || o.Mode != nil
}

// changes are the settings of a backend that differ from its spec.
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
	if m.mode != m.spec.Mode {
		mode := m.mode
		o.Mode = &mode
	}
	return o
}

// checked returns o with its Base in the form in which sources' specs are kept, or an *InvalidBackendError when it is
// none of Overrides.
func (o Override) checked() (Override, error) {
	base, err := o.Base.checked()
	if err != nil {
		return o, err
	}
	o.Base = base
	values := o.Weight != nil || o.MaxSessions != nil || o.Mode != nil
	switch {
	case o.Kind != OverrideAdded && o.Kind != OverrideRemoved && o.Kind != OverrideChanged:
		return o, &InvalidBackendError{Field: "kind", Value: string(o.Kind), Want: "added, removed or changed"}
	case (o.Kind == OverrideChanged) != values:
		return o, &InvalidBackendError{Field: "kind", Value: string(o.Kind),
			Want: "changed with a value, or another without one"}
	case (o.Kind == OverrideAdded) != (o.Source == ""):
		return o, &InvalidBackendError{Field: "source", Value: o.Source, Want: "a name, but for one added by hand"}
	}
	if o.Weight != nil {
		err = CheckWeight(int(*o.Weight))
	}
	if err == nil && o.MaxSessions != nil {
		err = CheckMaxSessions(*o.MaxSessions)
	}
	if err == nil && o.Mode != nil {
		err = validateMode(*o.Mode)
	}
	return o, err
}

// An InvalidOverrideError says which override was refused. It wraps an *InvalidBackendError, or ErrDuplicateBackend
// when another one is for the same backend.
type InvalidOverrideError struct {
	Index    int // in what was given to Restore
	Override Override
	Err      error
}

// Error names the backend and what is wrong.
func (e *InvalidOverrideError) Error() string {
	return fmt.Sprintf("override %d, of backend %q: %v", e.Index, e.Override.Base.ID, e.Err)
}

// Unwrap returns what is wrong.
func (e *InvalidOverrideError) Unwrap() error { return e.Err }
