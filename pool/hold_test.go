package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// hold puts a waiter into the line because no backend is eligible.
func (l *line) hold(t testing.TB, name string) *Waiter {
	t.Helper()
	w := l.waiter(name)
	must(t, l.pool.Hold(w))
	return w
}

// TestHold holds the bound, the order, and that one line serves sessions of both causes.
func TestHold(t *testing.T) {
	p := made(t, Options{HoldMax: 3, HoldTimeout: time.Minute, QueueMax: 4, QueueTimeout: time.Minute},
		at("a", 0, "", 1))
	_, leases := picks(p, 1)
	l := &line{pool: p}
	l.wait(t, "queued")
	must(t, p.SetMode("a", Maintenance))
	ids, _ := picks(p, 1)
	wantIDs(t, "a newcomer while none is eligible", ids, "none")
	l.hold(t, "held")
	last := l.hold(t, "last")
	if err := p.Hold(l.waiter("one more")); err != ErrHoldFull {
		t.Errorf("with three in the line: error %v, want ErrHoldFull", err)
	}
	must(t, p.SetMode("a", Ready))
	wantIDs(t, "back and full", l.names())
	l.wait(t, "new") // the queue's bound is a larger one
	leases[0].Release(Served)
	wantIDs(t, "with a lease given back", l.names(), "queued")
	must(t, p.SetMaxSessions("a", 2))
	wantIDs(t, "with another place", l.names(), "held")
	if !p.Leave(last) || p.Leave(last) {
		t.Error("one who waits cannot leave, or leaves twice")
	}
	must(t, p.SetMaxSessions("a", 0))
	wantIDs(t, "without a limit", l.names(), "new")
	if s := p.Stats(); s.Waiting != 0 || s.Waited != 4 || s.Served != 3 || s.Left != 1 || s.HoldFull != 1 {
		t.Errorf("at the end: %+v", s)
	}
	p = made(t, Options{HoldMax: 3}, at("a", 0, "", 0))
	if err := p.Hold(new(Waiter)); err != ErrHoldFull || p.HoldMax() != 0 {
		t.Errorf("without a hold: error %v, want ErrHoldFull", err)
	}
}

// TestHoldWithoutQueue holds that a session which comes while those who were held are being served is served, too,
// though the pool has no queue; and that it is refused if all are full.
func TestHoldWithoutQueue(t *testing.T) {
	p := made(t, Options{HoldMax: 3, HoldTimeout: time.Minute}, at("a", 0, "", 2))
	must(t, p.SetMode("a", Drain))
	l := &line{pool: p}
	var w *Waiter
	l.pool.queue.mu.Lock() // nobody serves the line yet
	w = l.waiter("held")
	l.pool.queue.joinLocked(w)
	l.pool.queue.mu.Unlock()
	p.mu.Lock()
	m := *p.byID["a"]
	m.mode = Ready
	p.applyLocked(changes{edits: []*edit{{old: p.byID["a"], next: m}}}, time.Now())
	p.mu.Unlock()
	ids, _ := picks(p, 1)
	wantIDs(t, "a newcomer", ids, "busy")
	l.wait(t, "newcomer")
	wantIDs(t, "served", l.names(), "held", "newcomer")
	if err := p.Wait(l.waiter("too many")); err != ErrQueueFull || p.Waiting() != 0 {
		t.Errorf("with all places taken: error %v, %d wait", err, p.Waiting())
	}
	must(t, p.SetMode("a", Drain))
	l.hold(t, "second")
	must(t, p.SetMode("a", Ready)) // and full
	if err := p.Wait(l.waiter("behind it")); err != ErrQueueFull || p.Waiting() != 1 {
		t.Errorf("behind one who was held: error %v, %d wait", err, p.Waiting())
	}
	if s := p.Stats(); s.QueueFull != 2 || s.Waited != 3 {
		t.Errorf("counted are %+v", s)
	}
}

// TestRest holds that a session which rests has a place, delays nobody, and is in the line when it says so.
func TestRest(t *testing.T) {
	p := made(t, Options{HoldMax: 1, HoldTimeout: time.Minute}, at("a", 0, "", 0))
	l := &line{pool: p}
	w := l.waiter("resting")
	must(t, p.Rest(w))
	if err := p.Rest(l.waiter("another")); err != ErrHoldFull {
		t.Errorf("with one in place: error %v, want ErrHoldFull", err)
	}
	ids, _ := picks(p, 1)
	wantIDs(t, "a newcomer", ids, "a")
	wantIDs(t, "served", l.names())
	must(t, p.Hold(w))
	wantIDs(t, "served", l.names(), "resting")
	must(t, p.Rest(w))
	if !p.Leave(w) || p.Leave(w) {
		t.Error("one who rests cannot leave, or leaves twice")
	}
	if s := p.Stats(); s.Waiting != 0 || s.Waited != 2 || s.Left != 1 || s.Served != 1 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestBarren holds what counts as time without an eligible backend, through changes of other kinds.
func TestBarren(t *testing.T) {
	now := time.Duration(0)
	p := made(t, Options{Clock: func() time.Duration { return now }}, at("a", 0, "", 0), at("b", 0, "", 0))
	want := time.Duration(0)
	for i, step := range []struct {
		do     func() error
		barren bool
	}{
		{func() error { return p.SetMode("a", Drain) }, false},
		{func() error { return p.SetMode("b", Maintenance) }, true},
		{func() error { return p.SetWeight("a", 3) }, true},
		{func() error { return p.SetMode("a", Ready) }, false},
		{func() error { return p.Remove("a") }, true},
		{func() error { return p.Add(at("c", 0, "", 0)) }, false},
	} {
		must(t, step.do())
		if got := p.Barren(); got != want {
			t.Errorf("after step %d: %v, want %v", i, got, want)
		}
		if now += time.Second; step.barren {
			want += time.Second
		}
		if got := p.Barren(); got != want {
			t.Errorf("a second after step %d: %v, want %v", i, got, want)
		}
	}
}

// TestHeldAreServedOnce makes random sequences of what sessions and backends do. At each moment the line is in the
// order of arrival, within its bounds when somebody comes, and nobody waits whom a backend could serve. At the end all
// that have not left are served, each once.
func TestHeldAreServedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Name: "test", Algorithm: "first", Initial: Healthy,
			HoldMax: rapid.IntRange(1, 5).Draw(t, "hold"), HoldTimeout: time.Minute,
			QueueMax: rapid.IntRange(0, 5).Draw(t, "queue"), QueueTimeout: time.Minute}
		p, err := New(o)
		if err == nil {
			err = p.Add(at("a", 0, "", 2), at("b", 1, "", 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		l := &line{pool: p}
		var waiting []string
		waiters := map[string]*Waiter{}
		var resting []*Waiter
		var leases []Lease
		next := 0
		check := func() {
			for _, s := range l.served {
				if s.err != nil || len(waiting) == 0 || s.name != waiting[0] {
					t.Fatalf("%s gets %v, while %v wait", s.name, s.err, waiting)
				}
				waiting, leases = waiting[1:], append(leases, s.lease)
			}
			l.served = nil
			if n := p.Waiting(); n != len(waiting)+len(resting) {
				t.Fatalf("%d wait, %d by the pool", len(waiting)+len(resting), n)
			}
			if len(waiting) == 0 {
				return
			}
			if x := p.snap.Load(); x.eligible > 0 {
				if lease, err := x.pick(&PickContext{}); err == nil {
					t.Fatalf("%v wait, and %s has room", waiting, lease.Backend().ID())
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				lease, err := p.Pick(PickContext{})
				if err == nil {
					if len(waiting) > 0 {
						t.Fatal("a newcomer goes before those who wait")
					}
					leases = append(leases, lease)
					return
				}
				name := fmt.Sprint(next)
				next++
				w, join, most := l.waiter(name), p.Wait, o.QueueMax
				if err == ErrNoBackend {
					join, most = p.Hold, o.HoldMax
				}
				fits := len(waiting)+len(resting) < most
				if err := join(w); (err == nil) != fits {
					t.Fatalf("%d of %d wait: %v", len(waiting)+len(resting), most, err)
				} else if err == nil {
					waiting, waiters[name] = append(waiting, name), w
				}
			},
			"rest": func(t *rapid.T) {
				w := l.waiter(fmt.Sprint(next))
				waiters[fmt.Sprint(next)] = w
				if err := p.Rest(w); (err == nil) != (len(waiting)+len(resting) < o.HoldMax) {
					t.Fatal(err)
				} else if err == nil {
					resting = append(resting, w)
				}
				next++
			},
			"end of a rest": func(t *rapid.T) {
				if len(resting) == 0 {
					return
				}
				w := resting[0]
				resting = resting[1:]
				for name, one := range waiters {
					if one == w {
						waiting = append(waiting, name)
					}
				}
				if err := p.Hold(w); err != nil {
					t.Fatal(err)
				}
			},
			"leave": func(t *rapid.T) {
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(t, "who")
					if w := waiters[waiting[i]]; !p.Leave(w) || p.Leave(w) {
						t.Fatal("one who waits cannot leave, or leaves twice")
					}
					waiting = slices.Delete(waiting, i, i+1)
				}
			},
			"release": func(*rapid.T) {
				if len(leases) > 0 {
					lease := leases[0]
					leases = leases[1:]
					lease.Release(Served)
				}
			},
			"mode": func(t *rapid.T) {
				id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of")
				mode := rapid.SampledFrom([]Mode{Ready, Drain, Maintenance}).Draw(t, "mode")
				if err := p.SetMode(id, mode); err != nil {
					t.Fatal(err)
				}
			},
			"": func(*rapid.T) { check() },
		})
		if err := p.SetMode("a", Ready); err != nil {
			t.Fatal(err)
		}
		if err := p.SetMaxSessions("a", 0); err != nil {
			t.Fatal(err)
		}
		if check(); len(waiting) > 0 {
			t.Errorf("%v still wait for a backend without a limit", waiting)
		}
	})
}
