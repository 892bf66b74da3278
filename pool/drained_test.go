package pool

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitDrained holds that a drain ends with the last lease, or with what takes the backend out of Drain, and not
// before.
func TestWaitDrained(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(t *testing.T, p *Pool, leases []Lease) // what does not end the wait
		end       func(t *testing.T, p *Pool, leases []Lease)
		want      error
	}{
		"last lease": {
			meanwhile: func(_ *testing.T, _ *Pool, leases []Lease) { leases[0].Release(Served) },
			end:       func(_ *testing.T, _ *Pool, leases []Lease) { leases[1].Release(Served) },
		},
		"last lease after other changes": {
			meanwhile: func(t *testing.T, p *Pool, leases []Lease) {
				must(t, p.SetVerdict("a", Unhealthy, "test"))
				must(t, p.SetWeight("a", 7))
				leases[1].Release(ConnectRefused)
			},
			end: func(_ *testing.T, _ *Pool, leases []Lease) { leases[0].Release(Served) },
		},
		"another address": {
			meanwhile: func(t *testing.T, p *Pool, leases []Lease) {
				answer(t, p, Configuration, changed(at("a", 0, "", 0), elsewhere))
				leases[0].Release(Served)
			},
			end: func(_ *testing.T, _ *Pool, leases []Lease) { leases[1].Release(Served) },
		},
		"ready": {end: func(t *testing.T, p *Pool, _ []Lease) { must(t, p.SetMode("a", Ready)) },
			want: ErrNotDraining},
		"maintenance": {end: func(t *testing.T, p *Pool, _ []Lease) { must(t, p.SetMode("a", Maintenance)) },
			want: ErrNotDraining},
		"removed": {end: func(t *testing.T, p *Pool, _ []Lease) { must(t, p.Remove("a")) },
			want: ErrUnknownBackend},
		"named no more": {end: func(t *testing.T, p *Pool, _ []Lease) { answer(t, p, Configuration) },
			want: ErrUnknownBackend},
		"time is up": {end: func(*testing.T, *Pool, []Lease) { time.Sleep(time.Minute) },
			want: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := made(t, Options{})
				answer(t, p, Configuration, at("a", 0, "", 0))
				_, leases := picks(p, 2)
				must(t, p.SetMode("a", Drain))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				done := make(chan error, 2) // two may wait for one backend
				for range cap(done) {
					go func() { done <- p.WaitDrained(ctx, "a") }()
				}
				synctest.Wait()
				if tt.meanwhile != nil {
					tt.meanwhile(t, p, leases)
				}
				synctest.Wait()
				if len(done) > 0 {
					t.Fatalf("it ended early: %v", <-done)
				}
				tt.end(t, p, leases)
				synctest.Wait()
				for range cap(done) {
					if err := <-done; !errors.Is(err, tt.want) {
						t.Errorf("it ended with %v, want %v", err, tt.want)
					}
				}
			})
		})
	}
}

// TestWaitDrainedEndsAtOnce waits for backends that are drained already.
func TestWaitDrainedEndsAtOnce(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	if err := p.WaitDrained(t.Context(), "b"); !errors.Is(err, ErrUnknownBackend) {
		t.Errorf("of an unknown backend: %v", err)
	}
	if err := p.WaitDrained(t.Context(), "a"); !errors.Is(err, ErrNotDraining) {
		t.Errorf("of one that is ready: %v", err)
	}
	must(t, p.SetMode("a", Drain))
	must(t, p.WaitDrained(t.Context(), "a"))
}

// TestWaitDrainedMissesNoRelease has the last lease released while the wait begins.
func TestWaitDrainedMissesNoRelease(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	for range 2000 {
		must(t, p.SetMode("a", Ready))
		l, err := p.Pick(PickContext{})
		must(t, err)
		must(t, p.SetMode("a", Drain))
		var releasing sync.WaitGroup
		releasing.Go(func() { l.Release(Served) })
		must(t, p.WaitDrained(t.Context(), "a"))
		releasing.Wait()
	}
}
