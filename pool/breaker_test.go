package pool

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// usual is a breaker that opens after three failures.
var usual = BreakerOptions{
	Failures: 3, OpenFor: 10 * time.Second, MaxOpenFor: 60 * time.Second, Trials: 1, MaxOpenShare: 0.5,
}

// running starts the pool's Run; stop ends it.
func running(t *testing.T, p *Pool) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// release picks the backend of an id and releases the lease with an outcome; it returns false if the backend cannot be
// picked.
func release(p *Pool, id string, o Outcome) bool {
	pc := PickContext{}
	for {
		l, err := p.Pick(pc)
		if err != nil {
			return false
		}
		if l.Backend().ID() == id {
			l.Release(o)
			return true
		}
		l.Release(Neutral)
		pc.Tried = append(pc.Tried, l.Backend())
	}
}

// pair returns a pool of two backends, a and b.
func pair(t testing.TB, o Options) *Pool {
	t.Helper()
	return made(t, o, at("a", 0, "", 0), at("b", 0, "", 0))
}

// failThrice makes as many sessions of a backend fail as the usual breaker needs to open.
func failThrice(p *Pool, id string, o Outcome) {
	for range usual.Failures {
		release(p, id, o)
	}
}

// TestBreakerOverTime walks a backend's breaker through outcomes and waits, on a clock that stands still otherwise.
// Steps are outcomes of sessions on backend a: s served, n neutral, r refused, t timed out, u unreachable, c cut early;
// 5s waits; "?" is its state: C closed, O open, H half-open; "-" a session that it cannot have. The other backends
// never fail.
func TestBreakerOverTime(t *testing.T) {
	outcomes := map[string]Outcome{
		"s": Served, "n": Neutral, "r": ConnectRefused, "t": ConnectTimeout, "u": ConnectUnreachable, "c": CutEarly,
	}
	for _, tt := range []struct {
		name   string
		change func(*BreakerOptions)
		steps  string
	}{
		{"failures in a row", nil, "r t C u O -"},
		{"cuts before the first byte are failures", nil, "c c C c O"},
		{"a success begins anew", nil, "r r s r r C r O"},
		{"what clients do counts neither way", nil, "r r n n n C r O"},
		{"nothing but what clients do", nil, "n n n n n n n n n n C"},
		{"half-open after its time", nil, "r r r O 8s O 4s H"},
		{"one trial closes it", nil, "r r r 12s H s C r r C"},
		{"one trial opens it again", nil, "r r r 12s H r O"},
		{"a trial that says nothing is another's", nil, "r r r 12s H n H s C"},
		{"for twice as long", nil, "r r r 12s r O 12s O 12s H r O 30s O 20s H"},
		{"and at most for the maximum", nil, "r r r 12s r 24s r 48s r O 50s O 17s H r O 50s O 17s H"},
		{"closed, it begins anew", nil, "r r r 12s r 24s s C r r r O 12s H"},
		{"several trials", func(o *BreakerOptions) { o.Trials = 3 }, "r r r 12s H s H s H s C"},
		{"one of several fails", func(o *BreakerOptions) { o.Trials = 3 }, "r r r 12s s s r O"},
		{"off", func(o *BreakerOptions) { *o = BreakerOptions{} }, "r r r r r r r r C"},
		{"a ratio", func(o *BreakerOptions) {
			o.Failures, o.FailureRatio, o.Window, o.MinSamples = 0, 0.5, 20*time.Second, 8
		}, "s s s s r r r C r O"},
		{"a ratio forgets", func(o *BreakerOptions) {
			o.Failures, o.FailureRatio, o.Window, o.MinSamples = 0, 0.5, 20*time.Second, 6
		}, "r r r r C 31s s s s s r r C s r r C r O"},
		{"a share of none", func(o *BreakerOptions) { o.MaxOpenShare = 0.2 }, "r r r r r r C"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := usual
				if tt.change != nil {
					tt.change(&o)
				}
				p := made(t, Options{Breaker: o}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
				defer running(t, p)()
				for i, step := range strings.Fields(tt.steps) {
					synctest.Wait()
					state := p.Backends()[0].Breaker
					switch wait, err := time.ParseDuration(step); {
					case err == nil:
						time.Sleep(wait)
					case step == "-":
						if release(p, "a", Neutral) {
							t.Fatalf("step %d: a session went to a, which is %v", i, state)
						}
					case outcomes[step] != 0 || step == "s":
						if !release(p, "a", outcomes[step]) {
							t.Fatalf("step %d (%s): no session went to a, which is %v", i, step, state)
						}
					case map[string]Breaker{"C": Closed, "O": Open, "H": HalfOpen}[step] != state:
						t.Fatalf("step %d: the breaker is %v, want %s", i, state, step)
					}
				}
			})
		})
	}
}

// TestBreakerTrialIsKnownAtTheFirstByte holds that a trial closes the breaker before it ends, and then counts as an
// ordinary session.
func TestBreakerTrialIsKnownAtTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := usual
		o.Trials = 2
		p := pair(t, Options{Breaker: o})
		defer running(t, p)()
		failThrice(p, "a", ConnectRefused)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		var trials []Lease
		for range 6 {
			l, err := p.Pick(PickContext{})
			must(t, err)
			if l.Backend().ID() == "a" {
				trials = append(trials, l)
			}
		}
		if len(trials) != 2 {
			t.Fatalf("%d sessions were let through half-open, want 2", len(trials))
		}
		trials[0].FirstByteTook(0, 0)
		trials[0].Release(Served)
		synctest.Wait()
		if got := p.Backends()[0].Breaker; got != HalfOpen {
			t.Errorf("after one of two trials the breaker is %v", got)
		}
		trials[1].FirstByteTook(0, 0)
		synctest.Wait()
		if got := p.Backends()[0].Breaker; got != Closed {
			t.Errorf("after both trials the breaker is %v", got)
		}
		trials[1].Release(CutEarly) // of a session like any other by now
		synctest.Wait()
		if got := p.Backends()[0].Breaker; got != Closed {
			t.Errorf("after the end of a trial the breaker is %v", got)
		}
	})
}

// TestBreakerShare holds that breakers open for no more than MaxOpenShare of the backends, and never for all.
func TestBreakerShare(t *testing.T) {
	for share, want := range map[float64]int{0: 0, 0.5: 2, 0.6: 3, 1: 4} {
		synctest.Test(t, func(t *testing.T) {
			o := usual
			o.MaxOpenShare = share
			var specs []Spec
			for i := range 5 {
				specs = append(specs, spec(fmt.Sprint("b", i), i))
			}
			p := made(t, Options{Breaker: o}, specs...)
			defer running(t, p)()
			for range 4 {
				for i := range specs {
					failThrice(p, specs[i].ID, ConnectRefused)
					synctest.Wait()
				}
			}
			if n := len(open(p)); n != want {
				t.Errorf("of 5 backends that all fail %d are open with a share of %v, want %d", n, share, want)
			}
		})
	}
}

// TestBreakerKeepsApart holds that a check does not close a breaker, that an operator does, and that each change has an
// event.
func TestBreakerKeepsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, Options{Breaker: usual}, at("a", 0, "", 0), at("b", 0, "", 0), at("standin", 1, "", 0))
		defer running(t, p)()
		events := p.Subscribe(100)
		failThrice(p, "a", ConnectTimeout)
		synctest.Wait()
		must(t, p.SetVerdict("a", Unhealthy, ""))
		must(t, p.SetVerdict("a", Healthy, ""))
		synctest.Wait()
		if b := p.Backends()[0]; b.Breaker != Open || b.Verdict != Healthy {
			t.Errorf("after a good check the breaker is %v", b.Breaker)
		}
		must(t, p.SetMode("a", Drain))
		must(t, p.SetMode("a", Ready))
		if b := p.Backends()[0]; b.Breaker != Closed || !release(p, "a", Served) {
			t.Errorf("after the operator's word the breaker is %v", b.Breaker)
		}

		// A half-open backend of the second tier gets no trial while the first tier serves.
		failThrice(p, "standin", ConnectTimeout)
		must(t, p.SetMode("b", Drain))
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if b := p.Backends()[2]; b.Breaker != HalfOpen {
			t.Fatalf("the stand-in's breaker is %v", b.Breaker)
		}
		ids, _ := picks(p, 3)
		wantIDs(t, "with a stand-in half-open", ids, "a", "a", "a")
		must(t, p.SetMode("a", Maintenance))
		ids, _ = picks(p, 2)
		wantIDs(t, "without the first tier", ids, "standin", "standin")

		events.Close()
		var changes []string
		for e := range events.C() {
			if b, is := e.(BreakerChanged); is {
				changes = append(changes, fmt.Sprintf("%s %v>%v", b.Backend.ID, b.From, b.To))
				if b.Reason == "" || (b.To == Open) != (b.For > 0) {
					t.Errorf("got %+v", b)
				}
			}
		}
		wantIDs(t, "events", changes, "a closed>open", "a open>closed", "standin closed>open", "standin open>half-open",
			"standin half-open>closed")
	})
}

// TestBreakerWithEverythingOpen holds that a pool of one never opens by the default share, and that with when_none =
// "all" the open ones are tried when the others fall ill.
func TestBreakerWithEverythingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, Options{Breaker: usual}, at("only", 0, "", 0))
		defer running(t, p)()
		for range 10 {
			if !release(p, "only", ConnectRefused) {
				t.Fatal("the only backend was taken away")
			}
			synctest.Wait()
		}
		q := pair(t, Options{Breaker: usual, TryAllWhenNone: true})
		defer running(t, q)()
		failThrice(q, "a", ConnectRefused)
		synctest.Wait()
		must(t, q.SetVerdict("b", Unhealthy, ""))
		if !release(q, "a", Served) || !release(q, "b", Served) {
			t.Error("nobody is healthy and closed, and not all are tried")
		}
	})
}

func BenchmarkBreaker(b *testing.B) {
	for name, o := range map[string]BreakerOptions{"off": {}, "on": usual} {
		b.Run(name, func(b *testing.B) {
			p := made(b, Options{Breaker: o}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
			for b.Loop() {
				l, _ := p.Pick(PickContext{})
				l.FirstByteTook(0, 0)
				l.Release(Served)
			}
		})
	}
}

// TestBreakerWithoutPort holds that nothing counts against a backend whose port the client chooses, and that its other
// outcomes are counted all the same.
func TestBreakerWithoutPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := at("a", 0, "", 0), at("b", 0, "", 0)
		a.Addr.AddrPort = netip.AddrPortFrom(a.Addr.Addr(), 0)
		p := made(t, Options{Breaker: usual}, a, b)
		defer running(t, p)()
		for _, o := range []Outcome{ConnectRefused, ConnectTimeout, ConnectUnreachable, CutEarly, TLSFailed} {
			failThrice(p, "a", o)
			synctest.Wait()
			if info, _ := p.Backend("a"); info.Breaker != Closed || info.Outcomes[o] != uint64(usual.Failures) {
				t.Errorf("after %v: breaker %v, outcomes %v", o, info.Breaker, info.Outcomes)
			}
		}
		failThrice(p, "b", ConnectRefused)
		synctest.Wait()
		if info, _ := p.Backend("b"); info.Breaker != Open {
			t.Errorf("with a port: breaker %v", info.Breaker)
		}
	})
}
