package algo

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// benchMembers returns n members of mixed weights that hold some leases each, the same at every run.
func benchMembers(n int) []Member {
	r := rand.New(rand.NewPCG(1, 2))
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprint(i), Weight: 1 + r.Uint32N(10), Load: new(Load)}
		for range r.IntN(20) {
			members[i].Load.Acquire()
		}
	}
	return members
}

// benchSizes runs f as a benchmark for each algorithm and number of members.
func benchSizes(b *testing.B, f func(b *testing.B, kind string, members []Member)) {
	for _, k := range Kinds() {
		for _, n := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", k.Name, n), func(b *testing.B) { f(b, k.Name, benchMembers(n)) })
		}
	}
}

func BenchmarkPick(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		p := build(b, kind, members, Options{})
		var key uint64
		for b.Loop() {
			p.Pick(key)
			key++
		}
	})
}

func BenchmarkPickParallel(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		p := build(b, kind, members, Options{})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l := members[p.Pick(1)].Load
				l.Acquire()
				l.Release()
			}
		})
	})
}

func BenchmarkBuild(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		for b.Loop() {
			build(b, kind, members, Options{})
		}
	})
}
