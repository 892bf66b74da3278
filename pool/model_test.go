package pool

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/algo"
)

// A setting is the model of a backend.
type setting struct {
	weight  uint32
	verdict Verdict
	mode    Mode
	most    int
	tier    int
}

// settingOf returns the settings in a BackendInfo.
func settingOf(b BackendInfo) setting {
	return setting{b.Weight, b.Verdict, b.Mode, b.MaxSessions, b.Tier}
}

func (s setting) eligible() bool { return s.verdict == Healthy && s.mode == Ready && s.weight > 0 }

// replay is follow for a backend's only change in a call: the event must show the backend after it.
func replay(t rapid.TB, known map[string]setting, order []string, e Event) []string {
	order, c := follow(t, known, order, e)
	if after, is := known[c.Backend.ID]; is && settingOf(c.Backend) != after {
		t.Fatalf("%T of %q shows %+v, want %+v", e, c.Backend.ID, settingOf(c.Backend), after)
	}
	return order
}

// follow applies an event to an observer's model, and fails if the event does not fit the model.
func follow(t rapid.TB, known map[string]setting, order []string, e Event) ([]string, Change) {
	var c Change
	var before, after setting
	switch e := e.(type) {
	case Added:
		c = e.Change
		if _, exists := known[c.Backend.ID]; exists {
			t.Fatalf("%q was added twice", c.Backend.ID)
		}
		order = append(order, c.Backend.ID)
		after = settingOf(c.Backend)
		before = after
		known[c.Backend.ID] = before
	case Removed:
		c = e.Change
		after = known[c.Backend.ID]
		before = after
		order = slices.DeleteFunc(order, func(id string) bool { return id == c.Backend.ID })
	case VerdictChanged:
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
		before.verdict, after.verdict = e.From, e.To
	case BreakerChanged: // of what the traffic did, which the model does not know
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
	case Suspected: // nor this
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
	case ModeChanged:
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
		before.mode, after.mode = e.From, e.To
	case WeightChanged:
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
		before.weight, after.weight = e.From, e.To
	case LimitChanged:
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
		before.most, after.most = e.From, e.To
	case RateChanged: // the model has no rates; TestRateIsASettingLikeOthers holds these events
		c = e.Change
		before, after = known[c.Backend.ID], known[c.Backend.ID]
		if e.From == e.To {
			t.Fatalf("the rate of %q has changed from %v to %v", c.Backend.ID, e.From, e.To)
		}
	case Discovered: // of no backend
		return order, e.Change
	case Overruled: // its backend may be gone
		return order, e.Change
	default:
		t.Fatalf("event of type %T", e)
	}
	id := c.Backend.ID
	if known[id] != before {
		t.Fatalf("%T of %q starts from %+v, but known is %+v", e, id, before, known[id])
	}
	if _, removed := e.(Removed); removed && settingOf(c.Backend) != after {
		t.Fatalf("%q goes as %+v, but known is %+v", id, settingOf(c.Backend), after)
	}
	if c.Pool == "" || c.At.IsZero() {
		t.Fatalf("%T of %q lacks its pool or time: %+v", e, id, c)
	}
	known[id] = after
	if _, removed := e.(Removed); removed {
		delete(known, id)
	}
	return order, c
}

// TestPoolFollowsItsModel makes random sequences of changes and picks, and compares the pool with a map. A model built
// from the events must agree with it at every step.
func TestPoolFollowsItsModel(t *testing.T) {
	var kinds []string
	for _, k := range algo.Kinds() {
		kinds = append(kinds, k.Name)
	}
	rapid.Check(t, func(t *rapid.T) {
		initial := Verdict(rapid.IntRange(0, 2).Draw(t, "initial"))
		p, err := New(Options{Name: "test", Algorithm: rapid.SampledFrom(kinds).Draw(t, "algorithm"), Initial: initial})
		if err != nil {
			t.Fatal(err)
		}
		s := p.Subscribe(1)
		defer s.Close()
		model, order := make(map[string]setting), []string(nil)
		known, knownOrder := make(map[string]setting), []string(nil)
		held := make(map[string][]Lease)
		id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		weight := rapid.SampledFrom([]uint32{0, 1, 2, 256})

		// known to the model: succeeds; unknown: ErrUnknownBackend
		change := func(t *rapid.T, id string, err error, change func(*setting)) {
			m, exists := model[id]
			if exists != (err == nil) || !exists && !errors.Is(err, ErrUnknownBackend) {
				t.Fatalf("change of %q, known %v: error %v", id, exists, err)
			}
			if exists {
				change(&m)
				model[id] = m
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id, w := id.Draw(t, "id"), weight.Draw(t, "weight")
				sp := spec(id, int(id[0]))
				sp.Weight, sp.Tier = w, rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "tier")
				err := p.Add(sp)
				if _, exists := model[id]; exists {
					if !errors.Is(err, ErrDuplicateBackend) {
						t.Fatalf("second Add of %q: error %v", id, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				model[id], order = setting{weight: w, verdict: initial, tier: sp.Tier}, append(order, id)
			},
			"remove": func(t *rapid.T) {
				id := id.Draw(t, "id")
				change(t, id, p.Remove(id), func(*setting) {})
				delete(model, id)
				order = slices.DeleteFunc(order, func(o string) bool { return o == id })
				delete(held, id) // those leases stay with the removed one
			},
			"weight": func(t *rapid.T) {
				id, w := id.Draw(t, "id"), weight.Draw(t, "weight")
				change(t, id, p.SetWeight(id, w), func(m *setting) { m.weight = w })
			},
			"limit": func(t *rapid.T) {
				id, n := id.Draw(t, "id"), rapid.IntRange(0, 2).Draw(t, "max_sessions")
				change(t, id, p.SetMaxSessions(id, n), func(m *setting) { m.most = n })
			},
			"mode": func(t *rapid.T) {
				id, mode := id.Draw(t, "id"), Mode(rapid.IntRange(0, 2).Draw(t, "mode"))
				change(t, id, p.SetMode(id, mode), func(m *setting) { m.mode = mode })
			},
			"verdict": func(t *rapid.T) {
				id, v := id.Draw(t, "id"), Verdict(rapid.IntRange(0, 2).Draw(t, "verdict"))
				change(t, id, p.SetVerdict(id, v, "test"), func(m *setting) { m.verdict = v })
			},
			"pick": func(t *rapid.T) {
				l, err := p.Pick(PickContext{Client: client(rapid.IntRange(0, 9).Draw(t, "client"))})
				if err != nil {
					return // "" below checks that nothing was eligible
				}
				held[l.Backend().ID()] = append(held[l.Backend().ID()], l)
			},
			"release": func(t *rapid.T) {
				id := id.Draw(t, "id")
				if n := len(held[id]); n > 0 {
					held[id][n-1].Release(Outcome(rapid.IntRange(0, numOutcomes-1).Draw(t, "outcome")))
					held[id] = held[id][:n-1]
				}
			},
			"": func(t *rapid.T) {
				for len(s.C()) > 0 {
					knownOrder = replay(t, known, knownOrder, <-s.C())
				}
				var eligible []string
				none, first := ErrNoBackend, MaxTier
				for _, id := range order {
					if !model[id].eligible() {
						continue
					}
					if most := model[id].most; most > 0 && len(held[id]) >= most {
						none = ErrBusy
						continue
					}
					eligible, first = append(eligible, id), min(first, model[id].tier)
				}
				slices.Sort(eligible)
				if got := pickable(p); !slices.Equal(got, eligible) {
					t.Fatalf("pickable are %v, want %v", got, eligible)
				}
				l, err := p.Pick(PickContext{Client: client(len(held))})
				switch {
				case err == nil:
					if tier := l.Backend().tier; tier != first {
						t.Fatalf("picked of tier %d, want %d", tier, first)
					}
					l.Release(Neutral)
				case len(eligible) > 0 || err != none:
					t.Fatalf("with %v eligible: error %v, want %v", eligible, err, none)
				}
				if !maps.Equal(known, model) || !slices.Equal(knownOrder, order) || !slices.Equal(ids(p), order) {
					t.Fatalf("by its events %+v in order %v, by its backends %v; want %+v in order %v",
						known, knownOrder, ids(p), model, order)
				}
				for _, b := range p.Backends() {
					if got := settingOf(b); got != model[b.ID] {
						t.Fatalf("%q is %+v, want %+v", b.ID, got, model[b.ID])
					}
					if int(b.Leases) != len(held[b.ID]) {
						t.Fatalf("%q has %d leases, want %d", b.ID, b.Leases, len(held[b.ID]))
					}
				}
				if s.Dropped() != 0 {
					t.Fatalf("%d events dropped", s.Dropped())
				}
			},
		})
	})
}
