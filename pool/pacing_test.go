package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
)

// paced returns a backend with a rate: n a second and burst at once.
func paced(id string, n, burst int) Spec {
	s := at(id, 0, "", 0)
	s.MaxRate = rate.PerSecond(n, burst)
	return s
}

// TestRateIsExact picks as often as it can for ten seconds: the backend gets its burst and ten times its rate.
func TestRateIsExact(t *testing.T) {
	for _, n := range []int{10, 1000, 20_000} {
		for _, burst := range []int{1, 50} {
			h := hand{}
			p := made(t, Options{Clock: h.now}, paced("a", n, burst))
			got := 0
			for h.now() < 10*time.Second {
				for {
					l, err := p.Pick(from(got))
					if err == ErrBusy {
						break
					}
					must(t, err)
					l.Release(ConnectRefused) // an attempt is one too
					got++
				}
				h.pass(time.Second / time.Duration(n) / 2)
			}
			if want := 10*n + burst - 1; got != want { // the next one is due at ten seconds
				t.Errorf("%d a second, burst %d: %d sessions in 10 s, want %d", n, burst, got, want)
			}
		}
	}
}

// TestRateHoldsInAnyWindow holds, at random times, that a backend gets a session exactly when its rate allows it, and
// that no window of time has more than the burst and the rate's share.
func TestRateHoldsInAnyWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := hand{}
		l := rate.Limit{
			Every: time.Duration(rapid.Int64Range(int64(rate.MinEvery), int64(time.Second)).Draw(t, "every")),
			Burst: rapid.IntRange(1, 20).Draw(t, "burst"),
		}
		s := at("a", 0, "", rapid.SampledFrom([]int{0, 5}).Draw(t, "max_sessions"))
		s.MaxRate = l
		p, err := New(Options{Name: "test", Algorithm: rapid.SampledFrom(algo.Kinds()).Draw(t, "algorithm").Name,
			Initial: Healthy, Clock: h.now})
		if err == nil {
			err = p.Add(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []time.Duration
		var held []Lease
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			h.pass(time.Duration(rapid.Int64Range(0, 2*int64(l.Every)).Draw(t, "pause")))
			for range rapid.IntRange(0, 8).Draw(t, "picks") {
				full := s.MaxSessions > 0 && len(held) == s.MaxSessions
				allowed := p.snap.Load().members[0].backend.bucket.Wait(l, h.now()) == 0
				lease, err := p.Pick(from(0))
				if (err == nil) != (allowed && !full) {
					t.Fatalf("error %v with %d leases, allowed %v", err, len(held), allowed)
				}
				if err == nil {
					got, held = append(got, h.now()), append(held, lease)
				}
			}
			for len(held) > 0 && rapid.Bool().Draw(t, "ends") {
				held[0].Release(Served)
				held = held[1:]
			}
		}
		for i := range got {
			for j := i; j < len(got); j++ {
				if n, most := j-i+1, l.Burst+int((got[j]-got[i])/l.Every); n > most {
					t.Fatalf("%d sessions within %v, want at most %d", n, got[j]-got[i], most)
				}
			}
		}
	})
}

// TestOverRateMeansOthers holds, for each algorithm, that others are used while a backend is over its rate, also those
// of the next tier, and that a full one does not use its rate up.
func TestOverRateMeansOthers(t *testing.T) {
	for _, k := range algo.Kinds() {
		h := hand{}
		p := made(t, Options{Algorithm: k.Name, Clock: h.now}, paced("a", 1, 2), paced("b", 1, 3), at("c", 1, "", 4))
		got, leases := picks(p, 10)
		slices.Sort(got)
		wantIDs(t, k.Name, got, "a", "a", "b", "b", "b", "busy", "c", "c", "c", "c")
		if b, _ := p.Backend("a"); b.RateReached != 1 || b.Leases != 2 || b.MaxRate != rate.PerSecond(1, 2) {
			t.Errorf("%s: %+v", k.Name, b)
		}
		for _, l := range leases {
			l.Release(Served)
		}
		h.pass(time.Second)
		got, _ = picks(p, 7)
		slices.Sort(got)
		wantIDs(t, k.Name+" after a second", got, "a", "b", "busy", "c", "c", "c", "c")
	}
	h := hand{}
	s := paced("a", 1, 2)
	s.MaxSessions = 1
	p := made(t, Options{Clock: h.now}, s)
	got, leases := picks(p, 5)
	wantIDs(t, "full", got, "a", "busy", "busy", "busy", "busy")
	leases[0].Release(Served)
	got, _ = picks(p, 1)
	wantIDs(t, "what a full one did not use", got, "a")
}

// TestOverRateAndStickiness: a client goes elsewhere while its backend is over its rate, and a trial counts in a rate.
func TestOverRateAndStickiness(t *testing.T) {
	h := hand{}
	p := made(t, Options{Clock: h.now, StickyTTL: time.Hour, StickyEntries: 64, Algorithm: "first"},
		paced("a", 1, 2), at("b", 0, "", 0))
	for i, want := range []string{"a", "a", "b", "b"} {
		if got := pickOnce(t, p, from(1)); got != want {
			t.Errorf("pick %d is of %s, want %s", i, got, want)
		}
	}
	p = made(t, Options{Clock: h.now, ConnectTimeout: time.Second, Algorithm: "first", Breaker: BreakerOptions{
		Failures: 1, OpenFor: time.Second, MaxOpenFor: time.Second, Trials: 5, MaxOpenShare: 1}},
		paced("a", 1, 2), at("b", 0, "", 0))
	_, leases := picks(p, 1)
	leases[0].Release(ConnectRefused)
	p.actOnRecords()
	h.pass(2 * time.Second)
	p.actOnRecords()
	got, leases := picks(p, 4)
	wantIDs(t, "trials", got, "a", "a", "b", "b")
	if leases[1].trial == 0 || leases[2].trial != 0 {
		t.Error("a was not on trial")
	}
	if n := leases[1].b.record.trials.left(); n != 3 {
		t.Errorf("%d trials are left, want 3", n)
	}
}

// TestQueueIsServedByTheRate holds that those who wait for a rate get their backends in order and on time, that
// newcomers do not overtake them, and that there is a timer only while somebody waits.
func TestQueueIsServedByTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, paced("a", 10, 1))
		var wg sync.WaitGroup
		wg.Go(func() { p.Run(ctx) })
		got, leases := picks(p, 2)
		wantIDs(t, "at first", got, "a", "busy")
		armed := func() bool {
			p.pacing.mu.Lock()
			defer p.pacing.mu.Unlock()
			return p.pacing.armed != never
		}
		if armed() {
			t.Error("there is a timer, and nobody waits")
		}
		start := time.Now()
		l := &line{pool: p}
		var want []string
		for i := range 5 {
			l.wait(t, fmt.Sprint("w", i))
			want = append(want, fmt.Sprintf("w%d after %v", i, time.Duration(i+1)*100*time.Millisecond))
		}
		leaves := l.wait(t, "leaves")
		l.wait(t, "last")
		leases[0].Release(Served) // serves nobody: the rate does not allow it
		var served []string
		for range 560 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			for _, n := range l.names() {
				served = append(served, fmt.Sprintf("%s after %v", n, time.Since(start)))
			}
			if got, _ := picks(p, 1); got[0] != "busy" {
				t.Fatalf("a newcomer gets %s", got[0])
			}
		}
		wantIDs(t, "served", served, want...)
		if !p.Leave(leaves) {
			t.Error("one that left was served")
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		wantIDs(t, "behind the one that left", l.names(), "last")
		time.Sleep(time.Second)
		synctest.Wait()
		if armed() || p.Waiting() != 0 {
			t.Error("there is a timer, and nobody waits any more")
		}
		stop()
		wg.Wait()
	})
}

// TestRateChanges holds that another rate takes effect at once, for those who wait too, and that what was used stays.
func TestRateChanges(t *testing.T) {
	h := hand{}
	p := made(t, Options{Clock: h.now, QueueMax: 9, QueueTimeout: time.Minute}, paced("a", 1, 10))
	got, _ := picks(p, 11)
	wantIDs(t, "at first", got[9:], "a", "busy")
	must(t, p.SetMaxRate("a", rate.PerSecond(1, 12)))
	got, _ = picks(p, 3)
	wantIDs(t, "two more", got, "a", "a", "busy")
	must(t, p.SetMaxRate("a", rate.Limit{Every: time.Hour, Burst: 1}))
	h.pass(time.Hour - 1)
	got, _ = picks(p, 1)
	wantIDs(t, "one an hour", got, "busy")
	must(t, p.SetMaxRate("a", rate.PerSecond(1000, 1)))
	h.pass(time.Millisecond)
	got, _ = picks(p, 2)
	wantIDs(t, "a thousand a second", got, "a", "busy")
	l := &line{pool: p}
	l.wait(t, "first")
	l.wait(t, "second")
	must(t, p.SetMaxRate("a", rate.PerSecond(1000, 2)))
	wantIDs(t, "room for one", l.names(), "first")
	must(t, p.SetMaxRate("a", rate.Limit{}))
	wantIDs(t, "no rate", l.names(), "second")
	if s := p.snap.Load(); s.pacing != nil || s.moving || len(p.pacing.over) != 0 {
		t.Error("a pool without a rate still keeps to rates")
	}
	must(t, p.SetMaxRate("a", rate.PerSecond(1, 1)))
	got, _ = picks(p, 2)
	wantIDs(t, "a rate again", got, "a", "busy")
	must(t, p.Add(at("b", 1, "", 1)))
	must(t, p.Remove("a"))
	if len(p.pacing.over) != 0 || p.pacing.next.Load() != never {
		t.Error("a removed backend still waits for its rate")
	}
	var invalid *InvalidBackendError
	for _, bad := range []rate.Limit{{Every: 1, Burst: 1}, {Every: time.Second}, {Burst: 1},
		{Every: 25 * time.Hour, Burst: 1}, {Every: time.Second, Burst: rate.MaxBurst + 1}, {Every: -1, Burst: 1}} {
		if err := p.SetMaxRate("b", bad); !errors.As(err, &invalid) || invalid.Field != "max_rate" {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
}

// TestExplainOverRate tells a backend that is over its rate from a full one.
func TestExplainOverRate(t *testing.T) {
	h := hand{}
	both := paced("both", 10, 1)
	both.MaxSessions = 1
	p := made(t, Options{Clock: h.now}, paced("rate", 10, 1), both)
	picks(p, 2)
	h.pass(40 * time.Millisecond)
	before := traces(p)
	x := p.Explain(from(1))
	if x.Err != ErrBusy || len(x.Others) != 2 {
		t.Fatalf("explained as %+v", x)
	}
	for i, want := range []string{"over_rate: it is at its rate, 10/s burst 1, for another 60ms",
		"full: it has 1 of 1 sessions"} {
		if o := x.Others[i]; fmt.Sprintf("%v: %s", o.Why, o.Reason) != want {
			t.Errorf("%v: %s, want %s", o.Why, o.Reason, want)
		}
	}
	h.pass(60 * time.Millisecond)
	if x := p.Explain(from(1)); x.Backend != "rate" || x.Candidates[0].MaxRate != rate.PerSecond(10, 1) {
		t.Errorf("after a tenth of a second explained as %+v", x)
	}
	if after := traces(p); after != before || p.pacing.next.Load() == never {
		t.Errorf("Explain left a trace: %s, before %s", after, before)
	}
}

// TestRateUnderContention holds that concurrent picks never exceed the rate, use it, and leave nobody waiting.
func TestRateUnderContention(t *testing.T) {
	const n, burst, backends = 2000, 20, 3
	p := made(t, Options{Algorithm: "least_conn", QueueMax: 50, QueueTimeout: time.Minute}, paced("a", n, burst),
		paced("b", n, burst), paced("c", n, burst))
	ctx, stop := context.WithCancel(t.Context())
	var wg, running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	start := time.Now()
	for range 8 {
		wg.Go(func() {
			for time.Since(start) < 300*time.Millisecond {
				l, err := p.Pick(from(0))
				if err == ErrBusy {
					done := make(chan Lease, 1)
					w := &Waiter{Serve: func(l Lease, _ error) { done <- l }}
					if p.Wait(w) != nil {
						continue
					}
					l = <-done
				}
				l.Release(Served)
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	stop()
	running.Wait()
	for _, b := range p.Backends() {
		got, most := int(b.Outcomes[Served]), burst+1+int(took*n/time.Second)
		if got > most || b.Leases != 0 {
			t.Errorf("%s has got %d sessions in %v, want %d at most; %d are held", b.ID, got, took, most, b.Leases)
		}
		if got < most/4 { // a busy machine
			t.Errorf("%s has got only %d sessions in %v of %d", b.ID, got, took, most)
		}
	}
}

// TestRatesAllocateNothing holds the hot path to it, also where rates are used up and allow leases again.
func TestRatesAllocateNothing(t *testing.T) {
	for _, k := range algo.Kinds() {
		h := hand{}
		p := made(t, Options{Algorithm: k.Name, Clock: h.now}, paced("a", 10, 1), paced("b", 100, 5),
			paced("c", 1000, 1))
		picks(p, 10) // all have been over their rates
		i := 0
		if n := testing.AllocsPerRun(500, func() {
			h.pass(time.Millisecond)
			for range 4 {
				if l, err := p.Pick(from(i)); err == nil {
					l.Release(Served)
				}
				i++
			}
		}); n != 0 {
			t.Errorf("%s: a pick allocates %v times, want 0", k.Name, n)
		}
	}
}

// TestRateIsASettingLikeOthers takes a rate through the changes of a source, by hand, and a restart.
func TestRateIsASettingLikeOthers(t *testing.T) {
	one, two, three := rate.PerSecond(1, 1), rate.PerSecond(2, 2), rate.PerSecond(3, 3)
	s := paced("a", 1, 1)
	p := made(t, Options{})
	events := p.Subscribe(20)
	defer events.Close()
	answer(t, p, "dns", s)
	s.MaxRate = two
	would, err := p.WouldReconcile("dns", []Spec{s})
	must(t, err)
	if len(would.Changed) != 1 || !slices.Equal(would.Changed[0].Fields, []string{"max_rate"}) {
		t.Errorf("it would change %+v", would)
	}
	b := p.byID["a"].backend
	answer(t, p, "dns", s)
	must(t, p.SetMaxRate("a", three))
	must(t, p.SetMaxRate("a", three))
	if p.byID["a"].backend != b || *b.rate.Load() != three {
		t.Error("another backend, or not its rate")
	}
	var changes []RateChanged
	for len(events.C()) > 0 {
		if e, is := (<-events.C()).(RateChanged); is {
			changes = append(changes, e)
		}
	}
	if len(changes) != 2 || changes[0].From != one || changes[0].To != two || changes[1].To != three ||
		changes[1].Backend.MaxRate != three {
		t.Errorf("events %+v", changes)
	}
	overrides := p.Overrides()
	if len(overrides) != 1 || *overrides[0].MaxRate != three || overrides[0].Base.MaxRate != two {
		t.Fatalf("overrides %+v", overrides)
	}
	for name, restore := range map[string]func(next *Pool) []Unapplied{
		"known": func(next *Pool) []Unapplied {
			answer(t, next, "dns", s)
			unapplied, err := next.Restore(overrides)
			must(t, err)
			return unapplied
		},
		"awaited": func(next *Pool) []Unapplied {
			unapplied, err := next.Restore(overrides)
			must(t, err)
			answer(t, next, "dns", s)
			return unapplied
		},
	} {
		next := made(t, Options{})
		unapplied := restore(next)
		if b, _ := next.Backend("a"); b.MaxRate != three || len(unapplied) != 0 {
			t.Errorf("%s: restored as %+v, not applied %v", name, b, unapplied)
		}
		answer(t, next, "dns", changed(s, elsewhere))
		if b, _ := next.Backend("a"); b.MaxRate != three {
			t.Errorf("%s: at another address the rate is %v", name, b.MaxRate)
		}
		s := s
		s.MaxRate = one
		answer(t, next, "dns", s)
		if b, _ := next.Backend("a"); b.MaxRate != one {
			t.Errorf("%s: the source says 1/s, and the rate is %v", name, b.MaxRate)
		}
	}
	bad := rate.Limit{Burst: 1}
	overrides[0].MaxRate = &bad
	if _, err := made(t, Options{}).Restore(overrides); err == nil {
		t.Error("a bad rate was restored")
	}
}
