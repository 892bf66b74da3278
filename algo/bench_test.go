package algo

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// benchMembers returns n members of mixed weights that hold some leases and have answered in some milliseconds each,
// the same at every run.
func benchMembers(n int) []Member {
	r := rand.New(rand.NewPCG(1, 2))
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprint(i), Weight: 1 + r.Uint32N(10), Load: new(Load)}
		for range r.IntN(20) {
			members[i].Load.acquire()
		}
		members[i].Load.ObserveFirstByte(time.Duration(1+r.IntN(20))*time.Millisecond, 0)
	}
	return members
}

// benchSizes runs f as a benchmark for each algorithm and number of members.
func benchSizes(b *testing.B, f func(b *testing.B, kind string, members []Member)) {
	for _, k := range Kinds() {
		for _, n := range []int{10, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", k.Name, n), func(b *testing.B) {
				b.ReportAllocs()
				f(b, k.Name, benchMembers(n))
			})
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

// BenchmarkChurn is a pick with a lease acquired and an older one released: what least_conn's hints have to follow.
func BenchmarkChurn(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		p := build(b, kind, members, Options{})
		held := make([]int32, 4*len(members))
		for i := range held {
			held[i] = int32(p.Pick(uint64(i)))
			members[held[i]].Load.acquire()
		}
		var key uint64
		for b.Loop() {
			at := Mix(key) % uint64(len(held))
			members[held[at]].Load.Release()
			held[at] = int32(p.Pick(key))
			members[held[at]].Load.acquire()
			key++
		}
	})
}

// BenchmarkBounded is a pick of the hashing algorithms with a bound that clients come up against.
func BenchmarkBounded(b *testing.B) {
	for _, k := range Kinds() {
		for _, n := range []int{10, 1000, 10000} {
			if !k.Hash {
				continue
			}
			b.Run(fmt.Sprintf("%s/%d", k.Name, n), func(b *testing.B) {
				var total Total
				members := benchMembers(n)
				for _, m := range members {
					total.Join(m.Load)
				}
				p := build(b, k.Name, members, Options{Balance: 1.25, Total: &total})
				var key uint64
				for b.Loop() {
					p.Pick(key)
					key++
				}
			})
		}
	}
}

func BenchmarkPickParallel(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		p := build(b, kind, members, Options{})
		b.ResetTimer() // building a large one takes longer than all its picks
		b.RunParallel(func(pb *testing.PB) {
			key := rand.Uint64()
			for pb.Next() {
				p.Pick(key)
				key++
			}
		})
	})
}

// BenchmarkBuildMaglev is the size that has a bound: 50 ms for 1,000 members of weight 1 to 10.
func BenchmarkBuildMaglev(b *testing.B) {
	members := named(1000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	for b.Loop() {
		build(b, "maglev", members, Options{})
	}
}

func BenchmarkBuild(b *testing.B) {
	benchSizes(b, func(b *testing.B, kind string, members []Member) {
		for b.Loop() {
			build(b, kind, members, Options{})
		}
	})
}
