package algo

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestReplicaPredicts holds for every algorithm that does not draw at random that a replica's picks are the next picks,
// and that they change nothing: with limits, weights, growing shares and a bound, after any history, in one block and
// in many.
func TestReplicaPredicts(t *testing.T) {
	seeds := uint64(10)
	if testing.Short() {
		seeds = 2 // without and with a bound
	}
	for _, k := range Kinds() {
		if k.Drawn {
			continue
		}
		for _, n := range []int{1, 5, 1000} {
			for seed := range seeds {
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				o := Options{State: new(State), Total: new(Total)}
				if k.Hash && seed%2 == 1 {
					o.Balance = 1.25
				}
				members := make([]Member, n)
				for i := range members {
					members[i] = Member{ID: fmt.Sprint(i), Weight: r.Uint32N(4), Load: new(Load)}
					members[i].Load.SetLimit(r.Int64N(4))
					if r.IntN(4) == 0 {
						members[i].Load.SetShare(r.Float64())
					}
					o.Total.Join(members[i].Load)
				}
				p := build(t, k.Name, members, o)
				for step := range 60 {
					for range r.IntN(1 + n/4) { // leases that others take and give back, which leave hints behind
						l := members[r.IntN(n)].Load
						if l.TryAcquire() && r.IntN(2) == 0 {
							l.Release()
						}
					}
					copies, replica := replicate(members, p, o)
					for range 3 {
						key := r.Uint64N(20)
						before := o.State.position.Load()
						want := replica.Pick(key)
						if o.State.position.Load() != before {
							t.Fatalf("%s: the replica moved the state on", k.Name)
						}
						got := p.Pick(key)
						if got != want {
							t.Fatalf("%s of %d, seed %d, step %d: picked %d, foretold %d",
								k.Name, n, seed, step, got, want)
						}
						if got >= 0 {
							members[got].Load.TryAcquire()
							copies[got].TryAcquire()
						}
					}
				}
			}
		}
	}
}

// replicate returns a replica of a picker, and its loads.
func replicate(members []Member, p Picker, o Options) ([]*Load, Picker) {
	loads, c := make([]*Load, len(members)), Options{State: new(State), Total: new(Total)}
	c.State.CopyFrom(o.State)
	for i, m := range members {
		loads[i] = new(Load)
		loads[i].CopyFrom(m.Load)
		c.Total.Join(loads[i])
	}
	return loads, Replica(p, loads, c)
}

// TestReplicaLeavesTheLoads holds for every algorithm that a replica picks by its own loads, and takes no seat from the
// others.
func TestReplicaLeavesTheLoads(t *testing.T) {
	for _, k := range Kinds() {
		members := make([]Member, 200)
		for i := range members {
			members[i] = Member{ID: fmt.Sprint(i), Weight: 1, Load: new(Load)}
			members[i].Load.SetLimit(2)
			members[i].Load.acquire()
			members[i].Load.ObserveFirstByte(time.Duration(i)*time.Millisecond, time.Second)
		}
		o := Options{State: new(State), Total: new(Total)}
		p := build(t, k.Name, members, o)
		loads, replica := replicate(members, p, o)
		for i := range members {
			seat := members[i].Load.seat.Load()
			if took, is := loads[i].Latency(); !is ||
				i > 0 && took.Round(time.Millisecond) != time.Duration(i)*time.Millisecond {
				t.Fatalf("%s: a copy took %v, %v", k.Name, took, is)
			}
			if (seat != nil) != (k.Name == "first" || k.Name == "least_conn") || loads[i].seat.Load() != nil {
				t.Fatalf("%s: seats are %v and %v", k.Name, seat, loads[i].seat.Load())
			}
		}
		for range members {
			i := replica.Pick(7)
			if i < 0 || !loads[i].TryAcquire() {
				t.Fatalf("%s: the replica picked %d", k.Name, i)
			}
		}
		if i := replica.Pick(7); i >= 0 {
			t.Errorf("%s: with all copies full the replica picked %d", k.Name, i)
		}
		if i := p.Pick(7); i < 0 || members[i].Load.Leases() != 1 {
			t.Errorf("%s: with all copies full the original picked %d", k.Name, i)
		}
	}
	if i := Replica(build(t, "first", nil, Options{}), nil, Options{}).Pick(0); i != -1 {
		t.Errorf("a replica of nobody picked %d", i)
	}
}

// TestBuildForgetsSeats holds that a picker of a kind without hints gets no notice of released leases, which would slow
// each release.
func TestBuildForgetsSeats(t *testing.T) {
	members := make([]Member, 2*blockSize)
	for i := range members {
		members[i] = Member{ID: fmt.Sprint(i), Weight: 1, Load: new(Load)}
	}
	build(t, "least_conn", members, Options{})
	if members[0].Load.seat.Load() == nil {
		t.Fatal("least_conn has no seats")
	}
	build(t, "maglev", members, Options{})
	for i := range members {
		if members[i].Load.seat.Load() != nil {
			t.Fatalf("member %d has a seat of least_conn in maglev", i)
		}
	}
}
