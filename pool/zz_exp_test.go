package pool

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"github.com/limeload/limeload-l4/algo"
)

func TestExpSpuriousBusy(t *testing.T) {
	for _, k := range algo.Kinds() {
		for _, n := range []int{10, 64, 65, 200, 700, 1000} {
			var specs []Spec
			for i := range n {
				s := spec(fmt.Sprint("b", i), i)
				s.MaxSessions = 1
				specs = append(specs, s)
			}
			p := made(t, Options{Algorithm: k.Name}, specs...)
			got := 0
			for i := range n {
				if _, err := p.Pick(from(i)); err == nil { got++ }
			}
			if got != n { t.Errorf("%s %d: only %d leases of %d picks", k.Name, n, got, n) }
		}
	}
}

func TestExpRaceBusy(t *testing.T) {
	for _, k := range algo.Kinds() {
		var specs []Spec
		for i := range 40 {
			s := spec(fmt.Sprint("b", i), i)
			s.MaxSessions = 1
			specs = append(specs, s)
		}
		p := made(t, Options{Algorithm: k.Name}, specs...)
		var busy, ok atomic.Int64
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				end := time.Now().Add(300*time.Millisecond)
				for i := g; time.Now().Before(end); i++ {
					var ls [4]Lease
					n := 0
					for range 4 {
						l, err := p.Pick(from(i % 500))
						if err != nil { busy.Add(1); continue }
						ok.Add(1)
						ls[n] = l; n++
					}
					for _, l := range ls[:n] { l.Release(Served) }
				}
			})
		}
		wg.Wait()
		t.Logf("%s: %d ok, %d busy (never more than 32 of 40 held)", k.Name, ok.Load(), busy.Load())
	}
}

func TestExpStickyStandin(t *testing.T) {
	var h hand
	p := stickyPool(t, &h, time.Hour, 100, at("primary", 0, "", 1), at("s1", 1, "", 0), at("s2", 1, "", 0), at("s3", 1, "", 0))
	p.Pick(from(99))
	for range 6 { t.Log(home(t, p, from(1))) }
}

func TestExpReconcileDup(t *testing.T) {
	p := made(t, Options{}, at("static", 0, "", 0))
	t.Log(p.Reconcile("dns", []Spec{at("static", 0, "", 0), at("static", 0, "", 0)}))
}

func TestExpRevoke(t *testing.T) {
	p := made(t, Options{CloseOnUnhealthy: true, TryAllWhenNone: true}, at("a", 0, "", 0), at("b", 0, "", 0))
	p.OnRevoke(func(b *Backend, why Revocation) { t.Log("revoked", b.ID(), why) })
	must(t, p.SetVerdicts(Judgement{"a", Unhealthy, ""}, Judgement{"b", Unhealthy, ""}))
	t.Log("a wrong role"); must(t, p.SetVerdict("a", WrongRole, ""))
	must(t, p.SetVerdict("a", Unhealthy, ""))
	t.Log("b healthy"); must(t, p.SetVerdict("b", Healthy, ""))
}
