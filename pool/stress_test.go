package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
)

// stress is a pool under change, with a clock that orders what the goroutines did. A backend is made ineligible for
// good only by being removed or put into maintenance, which is never taken back.
type stress struct {
	pool  *Pool
	clock atomic.Int64

	mu sync.Mutex
	// mu guards the fields below
	ids    []string
	next   int
	gone   map[string]int64 // when the call that made a backend ineligible for good had returned
	pooled map[*Backend]bool
}

// TestPicksUnderChange picks, waits and releases in many goroutines while others add, remove and change backends and a
// source names new ones. At the end no lease is left over and nobody waits, no pick that began after a backend was gone
// for good has returned it, and the events add up to the final state of the pool.
func TestPicksUnderChange(t *testing.T) {
	options := map[string]Options{
		"sticky":     {Algorithm: "round_robin", StickyTTL: time.Hour, StickyEntries: 64},
		"zone":       {Algorithm: "p2c", Zone: "z1", StickyTTL: time.Millisecond, StickyEntries: 16},
		"slow start": {Algorithm: "least_conn", SlowStart: 10 * time.Millisecond},
		"bounded":    {Algorithm: "ring_hash", HashBalance: 1.25},
		"breaker": {Algorithm: "least_conn", Breaker: BreakerOptions{
			Failures: 3, OpenFor: time.Millisecond, MaxOpenFor: 2 * time.Millisecond, Trials: 2, MaxOpenShare: 0.5,
		}},
		"try all": {Algorithm: "p2c", TryAllWhenNone: true, CloseOnRemove: true, CloseOnUnhealthy: true},
		"all": {
			Algorithm: "client_hash", HashPort: true, HashBalance: 1.5, Zone: "z0", SlowStart: time.Millisecond,
			StickyTTL:     time.Second,
			StickyEntries: 64, TryAllWhenNone: true, CloseOnRemove: true, CloseOnUnhealthy: true,
			Breaker: BreakerOptions{
				FailureRatio: 0.5, Window: 10 * time.Millisecond, MinSamples: 4, OpenFor: time.Millisecond,
				MaxOpenFor: 2 * time.Millisecond, Trials: 1, MaxOpenShare: 1,
			},
		},
	}
	for _, k := range algo.Kinds() {
		options[k.Name] = Options{Algorithm: k.Name}
	}
	for name, o := range options {
		t.Run(name, func(t *testing.T) {
			rounds := 500
			switch o.Algorithm { // whose tables take milliseconds each, more under the race detector
			case "ring_hash":
				rounds = 60
			case "maglev":
				rounds = 25
			}
			o.QueueMax, o.QueueTimeout = 100, time.Minute
			s := &stress{pool: made(t, o), gone: make(map[string]int64), pooled: make(map[*Backend]bool)}
			s.pool.OnRevoke(func(b *Backend, _ Revocation) {
				if !b.Revoked() || b.inUse.Load() {
					t.Errorf("%q is revoked with Revoked %v, in use %v", b.ID(), b.Revoked(), b.inUse.Load())
				}
			})
			defer running(t, s.pool)()
			for range 8 {
				s.add(t)
			}
			stuck, observer := s.pool.Subscribe(1), s.pool.Subscribe(1<<16)
			defer stuck.Close()
			start := s.pool.Backends()

			var pickers, writers sync.WaitGroup
			var done atomic.Bool
			for i := range 8 {
				pickers.Go(func() { s.pickAndRelease(t, i, &done) })
			}
			for i := range 4 {
				writers.Go(func() { s.change(t, rounds, rand.New(rand.NewPCG(uint64(i), 7))) })
			}
			writers.Go(func() { s.discover(t, rounds/2) })
			writers.Wait()
			s.add(t) // of those, one in three is without a limit; nobody is to wait for ever
			s.add(t)
			s.add(t)
			done.Store(true)
			pickers.Wait()
			observer.Close()

			s.checkEnd(t)
			s.checkEvents(t, start, observer)
		})
	}
}

// pickAndRelease is one client after the other, each with up to two retries, until done.
func (s *stress) pickAndRelease(t *testing.T, number int, done *atomic.Bool) {
	mine := make(map[*Backend]bool)
	tried := make([]*Backend, 0, 3)
	for round := 0; !done.Load(); round++ {
		tried = tried[:0]
		if round%8 == 0 {
			runtime.Gosched() // to whoever makes the changes; without, the pickers have most of the time for themselves
		}
		for range cap(tried) {
			began := s.clock.Add(1)
			l, err := s.pool.Pick(PickContext{Client: client(number*1000 + round%1000), Tried: tried})
			if err == ErrBusy {
				l, err = s.wait(number*1000+round%1000, tried, round)
			}
			if err != nil {
				break
			}
			b := l.Backend()
			mine[b] = true
			if slices.Contains(tried, b) {
				t.Errorf("%q was picked again for the same session", b.ID())
			}
			s.mu.Lock()
			gone, is := s.gone[b.ID()]
			s.mu.Unlock()
			if is && gone < began {
				t.Errorf("%q was gone at %d and picked at %d", b.ID(), gone, began)
			}
			tried = append(tried, b)
			l.Release(Outcome(round % numOutcomes))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := range mine {
		s.pooled[b] = true
	}
}

// wait is one client that waits for a backend, and leaves or is served. Its backend may have been picked before the
// call began, so it releases that lease and picks again.
func (s *stress) wait(number int, tried []*Backend, round int) (Lease, error) {
	result := make(chan error, 1)
	w := &Waiter{Context: PickContext{Client: client(number), Tried: tried}, Serve: func(l Lease, err error) {
		if err == nil {
			l.Release(Neutral)
		}
		result <- err
	}}
	if err := s.pool.Wait(w); err != nil {
		return Lease{}, err
	}
	if round%2 == 0 && s.pool.Leave(w) {
		return Lease{}, ErrBusy
	}
	if err := <-result; err != nil {
		return Lease{}, err
	}
	return Lease{}, ErrBusy
}

// change makes changes of every kind. At the end there is room for all who wait.
func (s *stress) change(t *testing.T, rounds int, r *rand.Rand) {
	for range rounds {
		id := s.any(r)
		var err error
		switch r.IntN(10) {
		case 9:
			other := s.any(r)
			if other == id {
				continue // two verdicts of one call show as the last
			}
			err = s.pool.SetVerdicts(Judgement{id, Healthy, "stress"},
				Judgement{other, Verdict(r.IntN(int(Lagging) + 1)), "stress"})
		case 8:
			err = s.pool.SetMaxSessions(id, r.IntN(3))
			if err == nil {
				rates := []rate.Limit{{}, rate.PerSecond(1000, 1), rate.PerSecond(50_000, 9)}
				err = s.pool.SetMaxRate(id, rates[r.IntN(len(rates))])
			}
		case 0, 1:
			s.add(t)
		case 2:
			if err = s.pool.Remove(id); err == nil {
				s.goneForGood(id)
			}
		case 3:
			if err = s.pool.SetMode(id, Maintenance); err == nil {
				s.goneForGood(id)
			}
		case 4:
			err = s.pool.SetWeight(id, r.Uint32N(4))
		case 5, 6:
			err = s.pool.SetVerdict(id, Verdict(r.IntN(3)), "stress")
		case 7:
			_ = s.pool.Backends()
		}
		if err != nil && !errors.Is(err, ErrUnknownBackend) { // another writer may have removed it
			t.Error(err)
		}
	}
}

// discover is a source that names three backends at a time, each for three answers and with another weight in each.
func (s *stress) discover(t *testing.T, rounds int) {
	for round := range rounds {
		var specs []Spec
		for number := round; number < round+3; number++ {
			sp := spec(fmt.Sprint("found", number), 1<<14+number)
			sp.Weight, sp.Tier, sp.MaxSessions = uint32(1+round%5), number%2, number%3
			specs = append(specs, sp)
		}
		r, err := s.pool.Reconcile("stress", specs)
		want := Reconciled{Added: 1, Removed: 1, Changed: 2}
		if round == 0 {
			want = Reconciled{Added: 3}
		}
		if err != nil || r != want {
			t.Errorf("answer %d: %+v, error %v, want %+v", round, r, err, want)
		}
		s.pool.NoteDiscovery("stress", len(specs), r, nil)
		if round > 0 {
			s.goneForGood(fmt.Sprint("found", round-1))
		}
	}
}

func (s *stress) add(t *testing.T) {
	s.mu.Lock()
	id, number := fmt.Sprintf("b%d", s.next), s.next
	s.next++
	s.ids = append(s.ids, id)
	s.mu.Unlock()
	sp := spec(id, number)
	sp.Tier, sp.MaxSessions, sp.Zone = number%2, number%3, fmt.Sprint("z", number/2%2)
	if number/3%2 == 0 {
		sp.MaxRate = rate.PerSecond(20_000, 1+number%5)
	}
	if err := s.pool.Add(sp); err != nil {
		t.Error(err)
	}
}

// any returns one of the backends added last, which may be gone already.
func (s *stress) any(r *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.ids[max(0, len(s.ids)-20):]
	return last[r.IntN(len(last))]
}

func (s *stress) goneForGood(id string) {
	at := s.clock.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.gone[id]; !is {
		s.gone[id] = at
	}
}

// checkEnd looks for leases left over, also on backends that are no longer in the pool.
func (s *stress) checkEnd(t *testing.T) {
	if len(s.pooled) < 3 { // first has no use for more: those before are free again most of the time
		t.Errorf("only %d backends were ever picked", len(s.pooled))
	}
	if n := s.pool.Waiting(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
	for _, g := range s.pool.groups {
		if n := g.total.Leases(); n != 0 {
			t.Errorf("the total of tier %d ends with %d leases", g.tier, n)
		}
	}
	for b := range s.pooled {
		if n := b.load.Leases(); n != 0 {
			t.Errorf("%q ends with %d leases, want 0", b.ID(), n)
		}
	}
	for _, b := range s.pool.Backends() {
		if b.Leases != 0 {
			t.Errorf("%q ends with %d leases, want 0", b.ID, b.Leases)
		}
	}
}

// checkEvents replays what an observer saw, from several writers at once, and holds it against the pool at the end.
func (s *stress) checkEvents(t *testing.T, start []BackendInfo, observer *Subscription) {
	known, order := make(map[string]setting), []string(nil)
	for _, b := range start {
		known[b.ID], order = settingOf(b), append(order, b.ID)
	}
	for e := range observer.C() {
		order = replay(t, known, order, e)
	}
	if n := observer.Dropped(); n != 0 {
		t.Fatalf("%d events dropped", n)
	}
	for i, b := range s.pool.Backends() {
		if got := settingOf(b); i >= len(order) || order[i] != b.ID || got != known[b.ID] {
			t.Fatalf("backend %d is %q, %+v; by the events %v, %+v", i, b.ID, got, order, known[b.ID])
		}
	}
}
