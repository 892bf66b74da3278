package pool

import (
	"testing"
	"time"
)

// TestReconfigureSlowStart holds that a change of SlowStart keeps the share that a backend has reached, and how long it
// takes from there.
func TestReconfigureSlowStart(t *testing.T) {
	for _, tt := range []struct {
		name         string
		from, to     time.Duration
		at           time.Duration // since b's return
		want, after  float64       // its part then, and after another 20 s
		slowNextTime bool          // when it returns again
	}{
		{"longer", 100 * time.Second, 200 * time.Second, 50 * time.Second, 0.5, 0.6, true},
		{"shorter", 100 * time.Second, 50 * time.Second, 50 * time.Second, 0.5, 0.9, true},
		{"off", 100 * time.Second, 0, 50 * time.Second, 1, 1, false},
		{"on", 0, 100 * time.Second, 50 * time.Second, 1, 1, true},
		{"longer, of one that has grown", 40 * time.Second, 1000 * time.Second, 50 * time.Second, 1, 1, true},
	} {
		var h hand
		h.pass(time.Hour)
		p := pair(t, Options{SlowStart: tt.from, Clock: h.now})
		must(t, p.SetVerdict("b", Unhealthy, ""))
		must(t, p.SetVerdict("b", Healthy, ""))
		part := func() float64 {
			pickOnce(t, p, from(1))
			return partOf(p, "b")
		}
		h.pass(tt.at)
		part()
		reconfigured(t, p, func(o *Options) { o.SlowStart = tt.to })
		if got := part(); got < tt.want-0.01 || got > tt.want+0.01 {
			t.Errorf("%s: at the change it has %v of its weight, want %v", tt.name, got, tt.want)
		}
		h.pass(20 * time.Second)
		if got := part(); got < tt.after-0.02 || got > tt.after+0.02 {
			t.Errorf("%s: 20 s later it has %v of its weight, want %v", tt.name, got, tt.after)
		}
		must(t, p.SetVerdict("b", Unhealthy, ""))
		must(t, p.SetVerdict("b", Healthy, ""))
		if slow := part() < 1; slow != tt.slowNextTime {
			t.Errorf("%s: later it starts slowly: %v", tt.name, slow)
		}
	}
}

// TestReconfigureSticky holds that clients stay remembered through every change of the table, until it is turned off.
func TestReconfigureSticky(t *testing.T) {
	var h hand
	const clients = 40
	p := stickyPool(t, &h, time.Hour, 64, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	var before [clients]string
	for i := range clients {
		h.pass(time.Second)
		before[i] = pickOnce(t, p, from(i))
	}
	kept := func() (n int) {
		for i := range clients {
			x := p.Explain(from(i)) // which renews nothing
			if x.By == BySticky && x.Backend == before[i] {
				n++
			}
		}
		return n
	}
	all := kept()
	if all < clients-4 { // a set may have more than it can hold
		t.Fatalf("%d of %d clients are remembered", all, clients)
	}
	for _, entries := range []int{64, 4096, 80, 4096} {
		reconfigured(t, p, func(o *Options) { o.StickyEntries = entries })
		if n := kept(); n < all-8 || entries == 4096 && n != p.Stats().Remembered {
			t.Errorf("with %d entries %d clients are remembered, of %d; counted are %d",
				entries, n, all, p.Stats().Remembered)
		}
	}
	// The table has its clients before it is in use: no pick must find it empty.
	if n := p.settings().sticky.resized(time.Hour, 512, h.now()).len(h.now()); n != p.Stats().Remembered {
		t.Errorf("a table that is not in use yet has %d clients of %d", n, p.Stats().Remembered)
	}
	left := kept()
	reconfigured(t, p, func(o *Options) { o.StickyEntries, o.Retries = 16, 2 })
	if n := kept(); n != 16 {
		t.Errorf("of 16 entries %d are used", n)
	}
	for i := range clients - 20 {
		if x := p.Explain(from(i)); x.By == BySticky { // 16 of the last 20 at most were lost before
			t.Errorf("client %d is remembered, which came before %d others of %d", i, clients-i, left)
		}
	}
	reconfigured(t, p, func(o *Options) { o.StickyTTL = 10 * time.Second })
	if n := kept(); n > 10 || n < 5 {
		t.Errorf("%d are remembered, of those of the last ten seconds", n)
	}
	reconfigured(t, p, func(o *Options) { o.StickyTTL = 0 })
	if n := kept(); n != 0 || p.Stats().Remembered != 0 {
		t.Errorf("turned off, %d are remembered", n)
	}
	reconfigured(t, p, func(o *Options) { o.StickyTTL = time.Hour })
	if n := kept(); n != 0 {
		t.Errorf("turned on again, %d are remembered", n)
	}
}

// TestReconfigureQueue holds that waiters stay in a queue that becomes smaller, and are served by a change that makes
// room.
func TestReconfigureQueue(t *testing.T) {
	p := made(t, Options{QueueMax: 3, QueueTimeout: time.Minute, TryAllWhenNone: true}, at("a", 0, "", 1),
		at("b", 0, "", 1))
	must(t, p.SetVerdict("b", Unhealthy, ""))
	l := &line{pool: p}
	_, leases := picks(p, 1)
	l.wait(t, "one")
	l.wait(t, "two")
	reconfigured(t, p, func(o *Options) { o.QueueMax = 1 })
	if err := p.Wait(&Waiter{}); err != ErrQueueFull || p.Waiting() != 2 {
		t.Errorf("in a smaller queue: error %v, %d wait", err, p.Waiting())
	}
	leases[0].Release(Served)
	wantIDs(t, "served", l.names(), "one")
	reconfigured(t, p, func(o *Options) { o.QueueMax, o.QueueTimeout = 0, 0 })
	if p.Waiting() != 1 {
		t.Errorf("without a queue %d of those before wait", p.Waiting())
	}
	must(t, p.SetVerdict("a", Unhealthy, "")) // b may be tried
	wantIDs(t, "served", l.names(), "two")

	p = made(t, Options{QueueMax: 3, QueueTimeout: time.Minute, TryAllWhenNone: true}, at("a", 0, "", 1))
	must(t, p.SetVerdict("a", Unhealthy, ""))
	l = &line{pool: p}
	picks(p, 1)
	l.wait(t, "one")
	reconfigured(t, p, func(o *Options) { o.TryAllWhenNone = false })
	wantIDs(t, "served when nobody is tried any more", l.names())
	must(t, p.SetVerdict("a", Healthy, ""))
	must(t, p.SetMaxSessions("a", 2))
	wantIDs(t, "served when one is healthy", l.names(), "one")

	p = made(t, Options{QueueMax: 3, QueueTimeout: time.Minute}, at("a", 0, "", 1))
	l = &line{pool: p}
	picks(p, 1)
	l.wait(t, "one")
	must(t, p.Add(at("b", 0, "", 1)))
	l.wait(t, "two")
	must(t, p.SetVerdicts(Judgement{"a", Unhealthy, ""}, Judgement{"b", Unhealthy, ""}))
	wantIDs(t, "served", l.names(), "one")
	p.Close()
	wantIDs(t, "served", l.names(), "two!")
	if got, want := p.Stats(), (Stats{Waited: 2, Served: 1, InVain: 1}); got != want {
		t.Errorf("numbers are %+v, want %+v", got, want)
	}
}

// TestReconfigureBreaker holds that turning breakers off closes them and forgets outcomes, and that open ones follow
// new options.
func TestReconfigureBreaker(t *testing.T) {
	var h hand
	o := usual
	o.MaxOpenShare, o.Failures = 1, 1
	p := pair(t, Options{Algorithm: "first", Breaker: o, Clock: h.now})
	events := p.Subscribe(10)
	defer events.Close()
	release(p, "a", ConnectRefused)
	p.actOnRecords()
	if ids, _ := picks(p, 1); ids[0] != "b" {
		t.Fatalf("a's breaker did not open: %v", ids)
	}
	reconfigured(t, p, func(o *Options) { o.Breaker.Failures = 0 })
	ids, _ := picks(p, 1)
	wantIDs(t, "turned off", ids, "a")
	var last BreakerChanged
	for _, e := range drain(events) {
		last = e.(BreakerChanged)
	}
	if last.To != Closed || last.From != Open || last.Reason != "breakers are turned off" ||
		last.Backend.Openings != 1 {
		t.Errorf("got %+v", last)
	}
	p.byID["a"].backend.record.signal.Store(tripped) // of a session that ended just before
	p.actOnRecords()
	if b := p.Backends()[0]; b.Breaker != Closed || p.byID["a"].backend.record.signal.Load() != noSignal {
		t.Errorf("turned off, a signal of before makes a's breaker %v", b.Breaker)
	}

	reconfigured(t, p, func(ox *Options) { ox.Breaker = o })
	release(p, "a", ConnectRefused)
	p.actOnRecords()
	h.pass(20 * time.Second)
	p.actOnRecords()
	l, err := p.Pick(PickContext{}) // the one trial of a
	must(t, err)
	o.Trials = 3
	reconfigured(t, p, func(ox *Options) { ox.Breaker = o })
	l.Release(Served)
	p.actOnRecords()
	if b := p.Backends()[0]; b.Breaker != HalfOpen || b.Openings != 2 {
		t.Errorf("after one of three trials a is %+v", b)
	}
	for range 2 {
		if l, err = p.Pick(PickContext{}); err != nil || l.trial == 0 {
			t.Fatalf("no further trial: %v", err)
		}
		l.Release(Served)
	}
	p.actOnRecords()
	if b := p.Backends()[0]; b.Breaker != Closed {
		t.Errorf("after three trials a's breaker is %v", b.Breaker)
	}
	if s := p.Stats(); s.Openings != 2 {
		t.Errorf("%d openings, want 2", s.Openings)
	}

	// A window of another length begins to count at once, also where its halves have lower numbers.
	h.pass(time.Hour)
	o = BreakerOptions{FailureRatio: 0.5, Window: time.Second, MinSamples: 2, OpenFor: time.Minute,
		MaxOpenFor: time.Minute, Trials: 1, MaxOpenShare: 1}
	reconfigured(t, p, func(ox *Options) { ox.Breaker = o })
	for range 9 {
		release(p, "a", Served)
	}
	o.Window = time.Minute
	reconfigured(t, p, func(ox *Options) { ox.Breaker = o })
	release(p, "a", Served)
	h.pass(2 * time.Minute)
	release(p, "a", Served)
	release(p, "a", ConnectRefused)
	p.actOnRecords()
	if b := p.Backends()[0]; b.Breaker != Open {
		t.Errorf("with one failure of two in the window a's breaker is %v", b.Breaker)
	}
}

// TestReconfigureWhenNone holds that a change of TryAllWhenNone takes effect at once.
func TestReconfigureWhenNone(t *testing.T) {
	p := pair(t, Options{})
	must(t, p.SetVerdicts(Judgement{"a", Unhealthy, ""}, Judgement{"b", Unhealthy, ""}))
	for _, all := range []bool{true, false} {
		reconfigured(t, p, func(o *Options) { o.TryAllWhenNone = all })
		if n := len(pickable(p)); p.TriesAll() != all || (n == 2) != all || (n == 0) == all {
			t.Errorf("all = %v: %d can be picked", all, n)
		}
	}
}

// TestReconfigureRevocations holds that the options at the time of a change decide whether leases are revoked.
func TestReconfigureRevocations(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	take := revocations(t, p)
	must(t, p.SetVerdict("a", Unhealthy, ""))
	reconfigured(t, p, func(o *Options) { o.CloseOnUnhealthy, o.CloseOnRemove, o.Initial = true, true, Unknown })
	if got := take(); len(got) != 0 {
		t.Errorf("the change revokes %v", got)
	}
	must(t, p.SetVerdict("b", Unhealthy, ""))
	must(t, p.Remove("a"))
	if got := take(); len(got) != 2 || p.Stats().Revocations != 2 {
		t.Errorf("after it are revoked %v, %d by the numbers", got, p.Stats().Revocations)
	}
	must(t, p.Add(at("d", 0, "", 0)))
	if v := p.byID["d"].verdict; v != Unknown {
		t.Errorf("one added after the change is %v", v)
	}
}
