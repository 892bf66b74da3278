package pool

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A served is what a waiter was told.
type served struct {
	name  string
	lease Lease
	err   error
}

// A line is a queue of named waiters and what they were told, in that order.
type line struct {
	pool *Pool

	mu   sync.Mutex
	told []served
}

// wait puts a waiter into the queue.
func (l *line) wait(t testing.TB, name string, tried ...*Backend) *Waiter {
	t.Helper()
	w := &Waiter{Context: PickContext{Client: client(len(name)), Tried: tried}}
	w.Serve = func(lease Lease, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.told = append(l.told, served{name, lease, err})
	}
	must(t, l.pool.Wait(w))
	return w
}

// names returns who was told something since the last call, with "!" for an error.
func (l *line) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, s := range l.told {
		if s.err != nil {
			s.name += "!"
		}
		names = append(names, s.name)
	}
	l.told = nil
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
	if err := p.Wait(&Waiter{Serve: func(Lease, error) { t.Error("one that was not queued is served") }}); err != ErrQueueFull {
		t.Errorf("a fourth: error %v, want ErrQueueFull", err)
	}
	if n := p.Waiting(); n != 3 {
		t.Errorf("%d wait, want 3", n)
	}
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
}

// TestQueueIsServedByAnyChange holds what else makes room.
func TestQueueIsServedByAnyChange(t *testing.T) {
	for name, change := range map[string]func(p *Pool) error{
		"ready":   func(p *Pool) error { return p.SetMode("drained", Ready) },
		"healthy": func(p *Pool) error { return p.SetVerdict("ill", Healthy, "test") },
		"weight":  func(p *Pool) error { return p.SetWeight("light", 1) },
		"discovery": func(p *Pool) error {
			_, err := p.Reconcile("file", []Spec{at("found", 0, "", 0)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := made(t, Options{QueueMax: 1, QueueTimeout: time.Minute}, at("a", 0, "", 1), at("drained", 0, "", 0), at("ill", 0, "", 0), at("light", 0, "", 0))
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

// TestQueueEndsWithTheBackends holds that nobody waits for a backend that cannot come, and that whoever waits is told.
func TestQueueEndsWithTheBackends(t *testing.T) {
	p := made(t, Options{QueueMax: 9, QueueTimeout: time.Minute}, at("a", 0, "", 1))
	picks(p, 1)
	l := &line{pool: p}
	l.wait(t, "first")
	l.wait(t, "second")
	must(t, p.Remove("a"))
	wantIDs(t, "with the last backend gone", l.names(), "first!", "second!")
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
	l.told = nil
	p.Backends() // the lease of the first is still held by it
	if n := p.Backends()[0].Leases; n != 1 {
		t.Errorf("%d leases, want that of the first", n)
	}
	must(t, p.Wait(third)) // a waiter may be used again
}

// TestQueuePassesOverTheTried holds that one that has tried the only backend with room does not hold up the one behind it.
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

// TestQueueFollowsItsModel makes any sequence of waits, leaves, releases and limits, and holds who is served against a list.
func TestQueueFollowsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 3).Draw(t, "limit")
		most := rapid.IntRange(0, 4).Draw(t, "queue")
		p, err := New(Options{Name: "test", Algorithm: "first", Initial: Healthy, QueueMax: most, QueueTimeout: time.Minute})
		if err == nil {
			err = p.Add(at("a", 0, "", limit))
		}
		if err != nil {
			t.Fatal(err)
		}
		l := &line{pool: p}
		var held []Lease
		var waiting []string
		waiters := map[string]*Waiter{}
		next := 0
		settle := func() {
			for len(waiting) > 0 && len(held) < limit {
				if len(l.told) == 0 || l.told[0].name != waiting[0] || l.told[0].err != nil {
					t.Fatalf("there is room, and of %v those told are %v", waiting, l.told)
				}
				held = append(held, l.told[0].lease)
				l.told, waiting = l.told[1:], waiting[1:]
			}
			if len(l.told) > 0 || p.Waiting() != len(waiting) {
				t.Fatalf("%v wait, %d by the pool; told besides: %v", waiting, p.Waiting(), l.told)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				lease, err := p.Pick(PickContext{})
				if room := len(held) < limit && len(waiting) == 0; room != (err == nil) {
					t.Fatalf("%d of %d held, %v wait: Pick gives %v", len(held), limit, waiting, err)
				}
				if err == nil {
					held = append(held, lease)
					return
				}
				name := fmt.Sprint(next)
				next++
				w := &Waiter{}
				w.Serve = func(lease Lease, err error) { l.told = append(l.told, served{name, lease, err}) }
				if err := p.Wait(w); (err == nil) != (len(waiting) < most) {
					t.Fatalf("%d of %d wait: Wait gives %v", len(waiting), most, err)
				} else if err == nil {
					waiting, waiters[name] = append(waiting, name), w
				}
			},
			"leave": func(t *rapid.T) {
				if len(waiting) == 0 {
					return
				}
				i := rapid.IntRange(0, len(waiting)-1).Draw(t, "who")
				if !p.Leave(waiters[waiting[i]]) {
					t.Fatalf("%s waits and cannot leave", waiting[i])
				}
				waiting = slices.Delete(waiting, i, i+1)
			},
			"release": func(t *rapid.T) {
				if len(held) > 0 {
					lease := held[0]
					held = held[1:]
					lease.Release(Served)
				}
			},
			"limit": func(t *rapid.T) {
				limit = rapid.IntRange(1, 3).Draw(t, "limit")
				if err := p.SetMaxSessions("a", limit); err != nil {
					t.Fatal(err)
				}
			},
			"": func(*rapid.T) { settle() },
		})
	})
}

// TestQueueUnderContention has many goroutines pick, wait, leave and release on few places: everybody is served, or left;
// nobody is told anything twice; and no lease is lost.
func TestQueueUnderContention(t *testing.T) {
	p := made(t, Options{Algorithm: "least_conn", QueueMax: 1000, QueueTimeout: time.Minute}, at("a", 0, "", 2), at("b", 0, "", 1))
	var waited, left atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for round := range 500 {
				lease, err := p.Pick(PickContext{Client: client(i)})
				if err == ErrBusy {
					told := make(chan Lease, 2)
					w := &Waiter{Context: PickContext{Client: client(i)}, Serve: func(l Lease, err error) {
						must(t, err)
						told <- l
					}}
					must(t, p.Wait(w))
					if round%5 == 0 && p.Leave(w) {
						left.Add(1)
						if len(told) > 0 {
							t.Error("one that left was served")
						}
						continue
					}
					lease = <-told
					waited.Add(1)
				}
				runtime.Gosched() // so that others find it taken
				lease.Release(Served)
			}
		})
	}
	wg.Wait()
	if waited.Load() == 0 || left.Load() == 0 {
		t.Errorf("%d waited, %d left: too little happened", waited.Load(), left.Load())
	}
	for _, b := range p.Backends() {
		if b.Leases != 0 {
			t.Errorf("%s ends with %d leases", b.ID, b.Leases)
		}
	}
	if n := p.Waiting(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
}
