package pool

import (
	"fmt"
	"testing"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool/rate"
)

// benchSizes runs f as a benchmark for each algorithm and number of backends, all eligible.
func benchSizes(b *testing.B, f func(b *testing.B, p *Pool)) {
	for _, k := range algo.Kinds() {
		for _, n := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", k.Name, n), func(b *testing.B) {
				specs := make([]Spec, n)
				for i := range specs {
					specs[i] = spec(fmt.Sprint(i), i)
				}
				p := newPool(b, k.Name)
				must(b, p.Add(specs...))
				f(b, p)
			})
		}
	}
}

func BenchmarkPick(b *testing.B) {
	benchSizes(b, func(b *testing.B, p *Pool) {
		pc := PickContext{Client: client(0)}
		for b.Loop() {
			l, _ := p.Pick(pc)
			l.Release(Served)
		}
	})
}

// BenchmarkPickWithRate is BenchmarkPick of backends with a max_rate that is never used up.
func BenchmarkPickWithRate(b *testing.B) {
	specs := make([]Spec, 10)
	for i := range specs {
		specs[i] = spec(fmt.Sprint(i), i)
		specs[i].MaxRate = rate.PerSecond(rate.MaxCount, rate.MaxBurst)
	}
	p := newPool(b, "round_robin")
	must(b, p.Add(specs...))
	pc := PickContext{Client: client(0)}
	for b.Loop() {
		l, _ := p.Pick(pc)
		l.Release(Served)
	}
}

func BenchmarkPickParallel(b *testing.B) {
	benchSizes(b, func(b *testing.B, p *Pool) {
		b.RunParallel(func(pb *testing.PB) {
			pc := PickContext{Client: client(0)}
			for pb.Next() {
				l, _ := p.Pick(pc)
				l.Release(Served)
			}
		})
	})
}

// BenchmarkSetVerdict is a change that needs another picker.
func BenchmarkSetVerdict(b *testing.B) {
	benchSizes(b, func(b *testing.B, p *Pool) {
		v := Healthy
		for b.Loop() {
			v = Healthy + Unhealthy - v
			_ = p.SetVerdict("5", v, "bench")
		}
	})
}
