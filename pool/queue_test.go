package pool

import (
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// A served is the result of a waiter.
type served struct {
	name  string
	lease Lease
	err   error
}

// A line is a queue of named waiters with their results in order.
type line struct {
	pool *Pool

	mu     sync.Mutex
	served []served
}

// wait puts a waiter into the queue.
func (l *line) wait(t testing.TB, name string, tried ...*Backend) *Waiter {
	t.Helper()
	w := l.waiter(name, tried...)
	must(t, l.pool.Wait(w))
	return w
}

// waiter returns a waiter that is not in the queue yet.
func (l *line) waiter(name string, tried ...*Backend) *Waiter {
	w := &Waiter{Context: PickContext{Client: client(len(name)), Tried: tried}}
	w.Serve = func(lease Lease, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.served = append(l.served, served{name, lease, err})
	}
	return w
}

// names returns the waiters served since the last call, with "!" for an error.
func (l *line) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, s := range l.served {
		if s.err != nil {
			s.name += "!"
		}
		names = append(names, s.name)
	}
	l.served = nil
	return names
}

// TestQueueIsFair holds the order, the bound and that nobody overtakes.
func TestQueueIsFair(t *testing.T) {
	p := made(t, Options{QueueMax: 3, QueueTimeout: time.Minute}, at("a", 0, "", 1))
	_, leases := picks(p, 1)
	l := &line{pool: p}
	for _, name := range []string{"first", "second", "third"} {
		l.wait(t, name)
	}
	if err := p.Wait(&Waiter{Serve: func(Lease,
		error) {
		t.Error("one that was not queued is served")
	}}); err != ErrQueueFull {
		t.Errorf("a fourth: error %v, want ErrQueueFull", err)
	}
	if n := p.Waiting(); n != 3 {
		t.Errorf("%d wait, want 3", n)
	}
	goleak.VerifyNone(t) // a waiting session costs no goroutine
	must(t, p.SetMaxSessions("a", 2))
	wantIDs(t, "with a second place", l.names(), "first")
	ids, _ := picks(p, 1)
	wantIDs(t, "a newcomer, while others wait", ids, "busy")
	leases[0].Release(Served)
	wantIDs(t, "with a lease given back", l.names(), "second")
	must(t, p.Add(at("b", 0, "", 1)))
	wantIDs(t, "with another backend", l.names(), "third")
	if n := p.Waiting(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
	p = made(t, Options{}, at("a", 0, "", 1))
	if err := p.Wait(&Waiter{}); err != ErrQueueFull {
		t.Errorf("in a pool without a queue: error %v, want ErrQueueFull", err)
	}
}

// TestQueueIsServedByAnyChange holds what else makes room.
func TestQueueIsServedByAnyChange(t *testing.T) {
	for name, change := range map[string]func(p *Pool) error{
		"ready":   func(p *Pool) error { return p.SetMode("drained", Ready) },
		"healthy": func(p *Pool) error { return p.SetVerdict("ill", Healthy, "test") },
		"weight":  func(p *Pool) error { return p.SetWeight("light", 1) },
		"limit":   func(p *Pool) error { return p.SetMaxSessions("a", 0) },
		"discovery": func(p *Pool) error {
			_, err := p.Reconcile("file", []Spec{at("found", 0, "", 0)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := made(t, Options{QueueMax: 1, QueueTimeout: time.Minute}, at("a", 0, "", 1), at("drained", 0, "", 0),
				at("ill", 0, "", 0), at("light", 0, "", 0))
			must(t, p.SetMode("drained", Drain))
			must(t, p.SetVerdict("ill", Unhealthy, "test"))
			must(t, p.SetWeight("light", 0))
			picks(p, 1)
			l := &line{pool: p}
			l.wait(t, "w")
			wantIDs(t, "before", l.names())
			must(t, change(p))
			wantIDs(t, "after", l.names(), "w")
		})
	}
}

// TestQueueOutlastsAMomentWithoutBackends takes the last eligible backend out of use for a moment, in every way:
// waiters keep waiting, newcomers are refused and do not queue, and the waiters are served when a backend is back.
func TestQueueOutlastsAMomentWithoutBackends(t *testing.T) {
	reconcile := func(p *Pool, specs ...Spec) error {
		_, err := p.Reconcile("file", specs)
		return err
	}
	moved := at("a", 0, "", 1)
	moved.Addr = At(netip.MustParseAddrPort("127.9.9.9:9"))
	for name, moment := range map[string]struct{ out, back func(p *Pool) error }{
		"weight 0": {func(p *Pool) error { return p.SetWeight("a", 0) },
			func(p *Pool) error { return p.SetWeight("a", 1) }},
		"maintenance": {func(p *Pool) error { return p.SetMode("a", Maintenance) },
			func(p *Pool) error { return p.SetMode("a", Ready) }},
		"drain": {func(p *Pool) error { return p.SetMode("a", Drain) },
			func(p *Pool) error { return p.SetMode("a", Ready) }},
		"unhealthy": {func(p *Pool) error { return p.SetVerdict("a", Unhealthy, "test") },
			func(p *Pool) error { return p.SetVerdict("a", Healthy, "test") }},
		"unknown": {func(p *Pool) error { return p.SetVerdict("a", Unknown, "stale") },
			func(p *Pool) error { return p.SetVerdict("a", Healthy, "test") }},
		"wrong role": {func(p *Pool) error { return p.SetVerdict("a", WrongRole, "test") },
			func(p *Pool) error { return p.SetVerdict("a", Healthy, "test") }},
		"removed": {func(p *Pool) error { return p.Remove("a") },
			func(p *Pool) error { return p.Add(at("other", 0, "", 1)) }},
		"replaced by one not judged": {func(p *Pool) error { return reconcile(p, moved) },
			func(p *Pool) error { return p.SetVerdict("a", Healthy, "test") }},
		"an empty answer": {func(p *Pool) error { return reconcile(p) },
			func(p *Pool) error { return p.Add(at("other", 0, "", 1)) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute})
			must(t, reconcile(p, at("a", 0, "", 1)))
			_, leases := picks(p, 1)
			reconfigured(t, p, func(o *Options) { o.Initial = Unknown })
			l := &line{pool: p}
			first, second := l.wait(t, "first"), l.wait(t, "second")
			must(t, moment.out(p))
			wantIDs(t, "with nobody eligible", l.names())
			ids, _ := picks(p, 1)
			wantIDs(t, "a newcomer, meanwhile", ids, "none")
			if x := p.Explain(PickContext{Client: client(1)}); x.Err != ErrNoBackend || x.MayWait {
				t.Errorf("explained as %v, may wait: %v; want %v and false", x.Err, x.MayWait, ErrNoBackend)
			}
			leases[0].Release(Served)
			wantIDs(t, "with a lease given back", l.names())
			reconfigured(t, p, func(o *Options) { o.Initial = Healthy })
			must(t, moment.back(p))
			wantIDs(t, "with one back", l.names(), "first")
			if p.Leave(first) || !p.Leave(second) {
				t.Error("the first waits still, or the second does not")
			}
			if s := p.Stats(); s.InVain != 0 {
				t.Errorf("%d waited in vain", s.InVain)
			}
		})
	}
}

// TestQueueEndsWithThePool holds that nobody waits in a closed pool, and that existing waiters get an error.
func TestQueueEndsWithThePool(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 1))
	picks(p, 1)
	l := &line{pool: p}
	l.wait(t, "first")
	l.wait(t, "second")
	must(t, p.Remove("a"))
	wantIDs(t, "with the last one gone", l.names())
	p.Close()
	wantIDs(t, "closed", l.names(), "first!", "second!")
	l.wait(t, "late")
	wantIDs(t, "closed before", l.names(), "late!")
}

// TestQueueLeave holds that leaving is final, and too late once served.
func TestQueueLeave(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 1))
	_, leases := picks(p, 1)
	l := &line{pool: p}
	first, second, third := l.wait(t, "first"), l.wait(t, "second"), l.wait(t, "third")
	if !p.Leave(second) || p.Leave(second) {
		t.Error("the second did not leave once")
	}
	leases[0].Release(Served)
	if p.Leave(first) {
		t.Error("the first left after it was served")
	}
	wantIDs(t, "served", l.names(), "first")
	if !p.Leave(third) || p.Waiting() != 0 {
		t.Errorf("the third did not leave; %d wait", p.Waiting())
	}
	if n := p.Backends()[0].Leases; n != 1 {
		t.Errorf("%d leases, want that of the first, which still has it", n)
	}
	must(t, p.Wait(third)) // a waiter may be used again
}

// TestQueuePassesOverTheTried holds that a waiter that has tried the only backend with room does not block the next
// one.
func TestQueuePassesOverTheTried(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 1), at("b", 0, "", 1))
	_, leases := picks(p, 2)
	byID := map[string]Lease{}
	for _, l := range leases {
		byID[l.Backend().ID()] = l
	}
	l := &line{pool: p}
	l.wait(t, "not a", byID["a"].Backend())
	l.wait(t, "any")
	byID["a"].Release(Served)
	wantIDs(t, "with room on a", l.names(), "any")
	byID["b"].Release(Served)
	wantIDs(t, "with room on b", l.names(), "not a")
}

// TestQueueEndsWaitsInVain holds that a waiter that has tried all backends gets ErrNoBackend once no earlier waiter may
// take any backend.
func TestQueueEndsWaitsInVain(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 1), at("b", 0, "", 1))
	_, leases := picks(p, 2)
	a, b := leases[0].Backend(), leases[1].Backend()
	l := &line{pool: p}
	any := l.wait(t, "any")
	if _, err := p.Pick(PickContext{Tried: []*Backend{a, b}}); err != ErrNoBackend {
		t.Errorf("one that has tried all there are and does not wait yet gets %v", err)
	}
	l.wait(t, "neither", a, b)
	l.wait(t, "not "+a.ID(), a)
	wantIDs(t, "behind one who waits for any", l.names())
	if !p.Leave(any) {
		t.Error("one that waits cannot leave")
	}
	wantIDs(t, "with that one gone", l.names(), "neither!")
	must(t, p.Remove(b.ID()))
	wantIDs(t, "with its only hope gone", l.names(), "not "+a.ID()+"!")
}

// TestQueueLosesNoWakeUp holds that a lease released between Pick and Wait serves the new waiter.
func TestQueueLosesNoWakeUp(t *testing.T) {
	p := made(t, Options{QueueMax: 2, QueueTimeout: time.Minute}, at("a", 0, "", 1), at("b", 0, "", 1))
	_, leases := picks(p, 2)
	if ids, _ := picks(p, 1); ids[0] != "busy" {
		t.Fatalf("picked %v", ids)
	}
	leases[0].Release(Served)
	l := &line{pool: p}
	l.wait(t, "w")
	wantIDs(t, "at once", l.names(), "w")
	if p.QueueMax() != 2 || p.QueueTimeout() != time.Minute {
		t.Errorf("the queue is of %d for %v", p.QueueMax(), p.QueueTimeout())
	}
}

// TestQueueWaitsForTrials holds that a waiting session is served by a breaker that becomes half-open, and by one that
// closes.
func TestQueueWaitsForTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, Options{
			Algorithm: "first", Breaker: usual, ConnectTimeout: 5 * time.Second, QueueMax: 9, QueueTimeout: time.Minute,
		}, at("a", 0, "", 0), at("b", 0, "", 1))
		defer running(t, p)()
		failThrice(p, "a", ConnectRefused)
		synctest.Wait()
		ids, _ := picks(p, 2)
		wantIDs(t, "with the first open", ids, "b", "busy")
		l := &line{pool: p}
		l.wait(t, "trial")
		l.wait(t, "next")
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if len(l.served) != 1 || l.served[0].name != "trial" || l.served[0].lease.Backend().ID() != "a" {
			t.Fatalf("half-open, served are %+v", l.served)
		}
		trial := l.served[0].lease
		trial.FirstByteTook(0, 0)
		synctest.Wait()
		wantIDs(t, "closed", l.names(), "trial", "next")
	})
}

// A visitor is one session of TestQueueUnderContention that waits.
type visitor struct {
	Waiter
	results chan served
	calls   atomic.Int32 // of Serve
	left    bool
}

// TestQueueUnderContention has many goroutines pick, wait, leave and release on few places, while limits and modes
// change: each waiter is served once or has left, and no lease is lost. After a lost wake-up all would wait for ever,
// which synctest detects.
func TestQueueUnderContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := made(t, Options{Algorithm: "least_conn", QueueMax: 1000, QueueTimeout: time.Minute}, at("a", 0, "", 2),
			at("b", 0, "", 1))
		a, b := p.snap.Load().tiers[0].backends[0], p.snap.Load().tiers[0].backends[1]
		var waited, left, vain atomic.Int64
		var mu sync.Mutex
		var visitors []*visitor
		var wg sync.WaitGroup
		visit := func(number, round int) {
			pc := PickContext{Client: client(number)}
			if round%7 == 0 {
				pc.Tried = []*Backend{a}
			}
			if round%11 == 0 {
				pc.Tried = []*Backend{a, b}
			}
			lease, err := p.Pick(pc)
			if err == ErrBusy {
				v := &visitor{Waiter: Waiter{Context: pc}, results: make(chan served, 2)}
				v.Serve = func(l Lease, err error) {
					v.calls.Add(1)
					v.results <- served{lease: l, err: err}
				}
				mu.Lock()
				visitors = append(visitors, v)
				mu.Unlock()
				if err := p.Wait(&v.Waiter); err != nil {
					t.Error(err)
				}
				if round%3 == 0 {
					runtime.Gosched()
				}
				if round%5 == 0 && p.Leave(&v.Waiter) {
					v.left = true
					left.Add(1)
					return
				}
				result := <-v.results
				waited.Add(1)
				lease, err = result.lease, result.err
			}
			if err != nil {
				vain.Add(1)
				if err != ErrNoBackend || len(pc.Tried) == 0 { // a is always there
					t.Errorf("a session that has tried %d gets %v", len(pc.Tried), err)
				}
				return
			}
			runtime.Gosched() // so that others find it taken
			lease.Release(Served)
		}
		for number := range 16 {
			wg.Go(func() {
				for round := range 300 {
					visit(number, round)
				}
			})
		}
		wg.Go(func() {
			for i := range 300 {
				if err := errors.Join(p.SetMaxSessions("a", 1+i%3), p.SetMode("b", Mode(i%2))); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
			must(t, p.SetMode("b", Ready)) // who cannot go to a may wait for it
		})
		wg.Wait()
		if waited.Load() == 0 || left.Load() == 0 || vain.Load() == 0 {
			t.Errorf("%d waited, %d left, %d came in vain: too little happened",
				waited.Load(), left.Load(), vain.Load())
		}
		for _, v := range visitors {
			if n := v.calls.Load(); n != 1 && !v.left || n != 0 && v.left {
				t.Errorf("one that left: %v was served %d times", v.left, n)
			}
		}
		for _, b := range p.Backends() {
			if b.Leases != 0 {
				t.Errorf("%s ends with %d leases", b.ID, b.Leases)
			}
		}
		if n := p.Waiting(); n != 0 {
			t.Errorf("%d wait at the end", n)
		}
	})
}
