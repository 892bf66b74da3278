package pool

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestBreakerCountsThoseThatWouldServe holds that MaxOpenShare counts healthy and ready backends only: other backends
// do not replace the last one.
func TestBreakerCountsThoseThatWouldServe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		share float64
		setup func(p *Pool) // of the backends b1 to b4; those that are left to serve fail all
		opens []string
	}{
		{"a primary and standbys", 1, func(p *Pool) {
			for _, id := range []string{"b2", "b3", "b4"} {
				_ = p.SetVerdict(id, WrongRole, "a replica")
			}
		}, nil},
		{"one that lags, one unhealthy, one unknown", 1, func(p *Pool) {
			_ = p.SetVerdict("b2", Lagging, "")
			_ = p.SetVerdict("b3", Unhealthy, "")
			_ = p.SetVerdict("b4", Unknown, "")
		}, nil},
		{"one drained, one in maintenance, one without weight", 1, func(p *Pool) {
			_ = p.SetMode("b2", Drain)
			_ = p.SetMode("b3", Maintenance)
			_ = p.SetWeight("b4", 0)
		}, nil},
		{"two of four", 0.5, func(p *Pool) {
			_ = p.SetVerdict("b3", Unhealthy, "")
			_ = p.SetMode("b4", Drain)
		}, []string{"b1"}},
		{"three of four and half of them", 0.5, func(p *Pool) { _ = p.SetVerdict("b4", WrongRole, "") },
			[]string{"b1"}},
		{"three of four and all of them", 1, func(p *Pool) { _ = p.SetVerdict("b4", WrongRole, "") },
			[]string{"b1", "b2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := usual
				o.MaxOpenShare = tt.share
				p := made(t, Options{Breaker: o}, at("b1", 0, "", 0), at("b2", 0, "", 0), at("b3", 0, "", 0),
					at("b4", 0, "", 0))
				defer running(t, p)()
				tt.setup(p)
				for range 3 * o.Failures {
					for _, b := range p.Backends() {
						release(p, b.ID, ConnectRefused)
						synctest.Wait()
					}
				}
				if got := open(p); !slices.Equal(got, tt.opens) {
					t.Errorf("open are %v, want %v", got, tt.opens)
				}
				if p.Eligible() == 0 {
					t.Error("none is eligible")
				}
			})
		})
	}
}

// failInto brings the breaker of a into a state, Open or HalfOpen. The pool's clock is h.
func failInto(t *testing.T, p *Pool, h *hand, state Breaker, o Outcome) {
	t.Helper()
	failThrice(p, "a", o)
	p.actOnRecords()
	if state == HalfOpen {
		h.pass(12 * time.Second)
		p.actOnRecords()
	}
	if got := p.Backends()[0].Breaker; got != state {
		t.Fatalf("a's breaker is %v, want %v", got, state)
	}
}

// open returns the ids of the backends whose breakers are not closed.
func open(p *Pool) (ids []string) {
	for _, b := range p.Backends() {
		if b.Breaker != Closed {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// TestBreakerGivesBackTheLast holds that the change that takes the last other backend out of use, of whatever kind,
// also closes an open breaker: there is no moment without an eligible backend.
func TestBreakerGivesBackTheLast(t *testing.T) {
	for _, tt := range []struct {
		name string
		goes func(p *Pool) error
	}{
		{"unhealthy", func(p *Pool) error { return p.SetVerdict("b", Unhealthy, "") }},
		{"of another role", func(p *Pool) error { return p.SetVerdict("b", WrongRole, "") }},
		{"drained", func(p *Pool) error { return p.SetMode("b", Drain) }},
		{"without weight", func(p *Pool) error { return p.SetWeight("b", 0) }},
		{"removed", func(p *Pool) error { return p.Remove("b") }},
		{"in one call with others", func(p *Pool) error {
			return p.SetVerdicts(Judgement{"a", Unhealthy, ""}, Judgement{"a", Healthy, ""},
				Judgement{"b", Unhealthy, ""})
		}},
	} {
		for _, state := range []Breaker{Open, HalfOpen} {
			t.Run(fmt.Sprint(tt.name, "/", state), func(t *testing.T) {
				var h hand
				p := made(t, Options{Breaker: usual, Clock: h.now}, at("a", 0, "", 0), at("b", 1, "", 0))
				failInto(t, p, &h, state, ConnectRefused)
				events := p.Subscribe(100)
				defer events.Close()
				must(t, tt.goes(p))
				if b := p.Backends()[0]; b.Breaker != Closed || !b.Eligible || !release(p, "a", Served) {
					t.Errorf("a is %+v", b)
				}
				var reasons []string
				for _, e := range drain(events) {
					if b, is := e.(BreakerChanged); is {
						reasons = append(reasons, b.Reason)
					}
				}
				wantIDs(t, "events", reasons, "no other backend can serve")
			})
		}
	}
}

// TestBreakerNeverTakesTheLast makes random traffic, verdicts, changes and pauses: as long as a backend is healthy and
// ready, one is eligible, and a breaker opens only within MaxOpenShare.
func TestBreakerNeverTakesTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h hand
		o := BreakerOptions{
			Failures: 2, OpenFor: 10 * time.Second, MaxOpenFor: time.Minute,
			Trials:       rapid.IntRange(1, 2).Draw(t, "trials"),
			MaxOpenShare: rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "share"),
		}
		p, err := New(Options{
			Name: "test", Algorithm: "random", Initial: Healthy, Breaker: o, Clock: h.now,
			ConnectTimeout: 5 * time.Second,
			TryAllWhenNone: rapid.Bool().Draw(t, "all"),
			SlowStart:      rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "slow"),
		})
		if err != nil {
			t.Fatal(err)
		}
		names := []string{"a", "b", "c", "d"}
		for i, id := range names {
			if err := p.Add(at(id, i/3, "", 0)); err != nil {
				t.Fatal(err)
			}
		}
		id := rapid.SampledFrom(names)
		var held []Lease
		t.Repeat(map[string]func(*rapid.T){
			"pick": func(t *rapid.T) {
				if l, err := p.Pick(PickContext{}); err == nil {
					held = append(held, l)
				}
			},
			"end": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				l := &held[len(held)-1]
				switch rapid.IntRange(0, 3).Draw(t, "how far") {
				case 1:
					l.Opened()
				case 2:
					l.Opened()
					l.Held()
				case 3:
					l.FirstByteTook(0, 0)
				}
				l.Release(Outcome(rapid.IntRange(0, numOutcomes-1).Draw(t, "outcome")))
				held = held[:len(held)-1]
			},
			"fails": func(t *rapid.T) {
				var ls []Lease
				for range 4 {
					if l, err := p.Pick(PickContext{}); err == nil {
						ls = append(ls, l)
					}
				}
				for _, l := range ls {
					l.Release(ConnectRefused)
				}
			},
			"run": func(t *rapid.T) {
				before := len(open(p))
				p.actOnRecords()
				s := breakerShareOf(p.snap.Load().members)
				if after := len(open(p)); after > before &&
					(s.kept >= s.serving || float64(s.kept) > o.MaxOpenShare*float64(s.serving)) {
					t.Fatalf("%d of %d that would serve are kept from it, with a share of %v",
						s.kept, s.serving, o.MaxOpenShare)
				}
			},
			"time": func(t *rapid.T) { h.pass(time.Duration(rapid.IntRange(1, 30).Draw(t, "s")) * time.Second) },
			"verdict": func(t *rapid.T) {
				_ = p.SetVerdict(id.Draw(t, "id"), Verdict(rapid.IntRange(0, int(Fallback)).Draw(t, "verdict")), "")
			},
			"mode": func(t *rapid.T) { _ = p.SetMode(id.Draw(t, "id"), Mode(rapid.IntRange(0, 2).Draw(t, "mode"))) },
			"weight": func(t *rapid.T) {
				_ = p.SetWeight(id.Draw(t, "id"), uint32(rapid.IntRange(0, 1).Draw(t, "weight")))
			},
			"": func(t *rapid.T) {
				some := slices.ContainsFunc(p.snap.Load().members, (*member).wouldServe)
				if some && p.Eligible() == 0 {
					t.Fatalf("none is eligible of %+v", p.Backends())
				}
			},
		})
	})
}

// TestBreakerOfAnotherRole holds that a change of role closes a breaker, since a former primary gets no trials that
// could close it.
func TestBreakerOfAnotherRole(t *testing.T) {
	for _, state := range []Breaker{Open, HalfOpen} {
		for name, verdicts := range map[string][2]Verdict{
			"loses it": {Healthy, WrongRole}, "wins it": {WrongRole, Healthy},
			"is promoted": {Healthy, Fallback}, "is demoted": {Fallback, Healthy},
			"is demoted while it is unwell": {Unhealthy, WrongRole}, "is wanted no more": {Fallback, WrongRole},
		} {
			t.Run(fmt.Sprint(state, "/", name), func(t *testing.T) {
				var h hand
				p := pair(t, Options{Breaker: usual, Clock: h.now})
				failInto(t, p, &h, state, CutEarly)
				for _, v := range verdicts {
					must(t, p.SetVerdict("a", v, ""))
				}
				if got := p.Backends()[0]; got.Breaker != Closed || got.Verdict != verdicts[1] {
					t.Errorf("with another role a is %+v", got)
				}
			})
		}
	}
}
