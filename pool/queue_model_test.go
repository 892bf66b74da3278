package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestQueueFollowsItsModel makes random sequences of waits, leaves, releases, limits and modes, until the pool is
// closed, and compares the served waiters and their results with a list.
func TestQueueFollowsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(0, 4).Draw(t, "queue")
		limits := map[string]int{"a": rapid.IntRange(1, 3).Draw(t, "a"), "b": rapid.IntRange(1, 2).Draw(t, "b")}
		p, err := New(Options{Name: "test", Algorithm: "first", Initial: Healthy, QueueMax: most,
			QueueTimeout: time.Minute})
		if err == nil {
			err = p.Add(at("a", 0, "", limits["a"]), at("b", 0, "", limits["b"]))
		}
		if err != nil {
			t.Fatal(err)
		}
		backends := p.snap.Load().tiers[0].backends
		l := &line{pool: p}
		held := map[string][]Lease{}
		var waiting []*Waiter
		names := map[*Waiter]string{}
		hasTried := func(tried []*Backend, id string) bool {
			return slices.ContainsFunc(tried, func(b *Backend) bool { return b.ID() == id })
		}
		out, closed := map[string]bool{}, false
		// expected returns the result for a session that has tried some backends: an id, "busy" or "none". A waiter
		// does not get "none" when no backend is eligible.
		expected := func(tried []*Backend, waits bool) string {
			hope := waits
			for _, id := range []string{"a", "b"} {
				if !hasTried(tried, id) && !out[id] {
					if len(held[id]) < limits[id] {
						return id
					}
					hope = true
				}
			}
			if len(tried) == len(backends) || !hope || waits && closed {
				return "none"
			}
			return "busy"
		}
		check := func(who, want string, lease Lease, err error) {
			switch {
			case err == nil && lease.Backend().ID() == want:
				held[want] = append(held[want], lease)
			case err == ErrNoBackend && want == "none", err == ErrBusy && want == "busy":
			default:
				t.Fatalf("%s gets %v, %v, want %s; held are %v of %v", who, lease, err, want, held, limits)
			}
		}
		settle := func() {
			for i := 0; i < len(waiting); {
				w := waiting[i]
				want := expected(w.Context.Tried, true)
				if want == "busy" {
					if i++; len(w.Context.Tried) == 0 {
						break
					}
					continue
				}
				if len(l.served) == 0 || l.served[0].name != names[w] {
					t.Fatalf("waiter %s should get %s; served are %v", names[w], want, l.served)
				}
				check(names[w], want, l.served[0].lease, l.served[0].err)
				l.served, waiting = l.served[1:], slices.Delete(waiting, i, i+1)
				i = 0
			}
			if len(l.served) > 0 || p.Waiting() != len(waiting) {
				t.Fatalf("%d wait, %d by the pool; served besides: %v", len(waiting), p.Waiting(), l.served)
			}
		}
		next := 0
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				tried := [][]*Backend{nil, backends[:1], backends[1:], backends}[rapid.IntRange(0, 3).Draw(t, "tried")]
				pc, want := PickContext{Tried: tried}, expected(tried, false)
				if len(waiting) > 0 {
					want = "busy"
					if out["a"] && out["b"] || len(tried) == len(backends) {
						want = "none"
					}
				}
				lease, err := p.Pick(pc)
				if check("a newcomer", want, lease, err); want != "busy" {
					return
				}
				w := &Waiter{Context: pc}
				names[w] = fmt.Sprint(next)
				next++
				w.Serve = func(lease Lease, err error) { l.served = append(l.served, served{names[w], lease, err}) }
				if err := p.Wait(w); (err == nil) != (len(waiting) < most) {
					t.Fatalf("%d of %d wait: Wait gives %v", len(waiting), most, err)
				} else if err == nil {
					waiting = append(waiting, w)
				}
			},
			"leave": func(t *rapid.T) {
				if len(waiting) == 0 {
					return
				}
				i := rapid.IntRange(0, len(waiting)-1).Draw(t, "who")
				w := waiting[i]
				waiting = slices.Delete(waiting, i, i+1)
				if !p.Leave(w) || p.Leave(w) {
					t.Fatalf("%s waits and cannot leave, or leaves twice", names[w])
				}
			},
			"release": func(t *rapid.T) {
				if id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of"); len(held[id]) > 0 {
					lease := held[id][0]
					held[id] = held[id][1:]
					lease.Release(Served)
				}
			},
			"limit": func(t *rapid.T) {
				id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of")
				limits[id] = rapid.IntRange(1, 3).Draw(t, "limit")
				if err := p.SetMaxSessions(id, limits[id]); err != nil {
					t.Fatal(err)
				}
			},
			"mode": func(t *rapid.T) {
				id := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "of")
				out[id] = !out[id]
				if err := p.SetMode(id, map[bool]Mode{true: Drain, false: Ready}[out[id]]); err != nil {
					t.Fatal(err)
				}
			},
			"close": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "once in ten") == 0 {
					closed = true
					p.Close()
				}
			},
			"": func(*rapid.T) { settle() },
		})
	})
}
