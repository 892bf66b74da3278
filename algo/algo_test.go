package algo

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// membersOf returns members a, b, c, ... of the given weights, without load.
func membersOf(weights ...uint32) []Member {
	members := make([]Member, len(weights))
	for i, w := range weights {
		members[i] = Member{ID: string(rune('a' + i)), Weight: w, Load: new(Load)}
	}
	return members
}

// drawMembers returns 1 to 40 members of any weight and load: alone, equal, lopsided, busy or all of weight 0.
func drawMembers(t *rapid.T) []Member {
	weight := rapid.OneOf(
		rapid.Just(uint32(0)), rapid.Just(uint32(1)), rapid.Uint32Range(0, 5), rapid.Uint32Range(0, MaxWeight),
	)
	weights := rapid.SliceOfN(weight, 1, 40).Draw(t, "weights")
	members := membersOf(weights...)
	for i := range members {
		for range rapid.IntRange(0, 20).Draw(t, "leases") {
			members[i].Load.Acquire()
		}
	}
	return members
}

func build(t testing.TB, kind string, members []Member, o Options) Picker {
	t.Helper()
	p, err := Build(kind, members, o)
	if err != nil {
		t.Fatalf("Build(%q): %v", kind, err)
	}
	return p
}

// wantPanic fails the test when f returns. A test is the one place where recover has its use: it hides nothing here.
func wantPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}

// forEachKind runs f as a subtest for every algorithm there is, so that a new one meets the contract, too.
func forEachKind(t *testing.T, f func(t *testing.T, kind string)) {
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) { f(t, k.Name) })
	}
}

func TestPickReturnsAMemberWheneverThereIsOne(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		rapid.Check(t, func(t *rapid.T) {
			members := drawMembers(t)
			p, err := Build(kind, members, Options{})
			if err != nil {
				t.Fatal(err)
			}
			someWeigh := slices.ContainsFunc(members, func(m Member) bool { return m.Weight > 0 })
			for _, key := range rapid.SliceOfN(rapid.Uint64(), 1, 100).Draw(t, "keys") {
				i := p.Pick(key)
				if i < 0 || i >= len(members) {
					t.Fatalf("Pick = %d of %d members", i, len(members))
				}
				if someWeigh && members[i].Weight == 0 {
					t.Fatalf("Pick = %d, of weight 0 among others of weight", i)
				}
			}
		})
	})
}

func TestPickOfNobody(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		if got := build(t, kind, nil, Options{}).Pick(1); got != -1 {
			t.Errorf("Pick without members = %d, want -1", got)
		}
	})
}

func TestAllWeightsZeroAreAllAlike(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		p := build(t, kind, membersOf(0, 0, 0), Options{})
		var counts [3]int
		for range 30 {
			counts[p.Pick(0)]++
		}
		if counts != [3]int{10, 10, 10} {
			t.Errorf("30 picks of three members of weight 0 = %v, want 10 each", counts)
		}
	})
}

func TestSharesFollowWeights(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		members := membersOf(1, 2, 0, 5)
		p := build(t, kind, members, Options{})
		var counts [4]int
		for range 800 { // leases are kept, as by long sessions
			i := p.Pick(0)
			members[i].Load.Acquire()
			counts[i]++
		}
		if counts != [4]int{100, 200, 0, 500} {
			t.Errorf("shares for weights 1, 2, 0, 5 = %v, want 100, 200, 0, 500", counts)
		}
	})
}

func TestBuildDoesNotKeepTheMembers(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		members := membersOf(1, 1)
		p := build(t, kind, members, Options{})
		clear(members)
		if i := p.Pick(0); i < 0 || i > 1 {
			t.Errorf("Pick = %d of 2 members", i)
		}
	})
}

func TestPickFromManyGoroutinesWhileRebuilding(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		members := membersOf(3, 1, 2)
		var s State
		var wg sync.WaitGroup
		for n := range len(members) {
			p := build(t, kind, members[:n+1], Options{State: &s})
			for range 4 {
				wg.Go(func() {
					for key := range uint64(2000) {
						i := p.Pick(key)
						if i < 0 || i > n {
							t.Errorf("Pick = %d of %d members", i, n+1)
							return
						}
						members[i].Load.Acquire()
						members[i].Load.Release()
					}
				})
			}
		}
		wg.Wait()
		for _, m := range members {
			if n := m.Load.Leases(); n != 0 {
				t.Errorf("member %s: %d leases at the end, want 0", m.ID, n)
			}
		}
	})
}

func TestPickAllocatesNothing(t *testing.T) {
	forEachKind(t, func(t *testing.T, kind string) {
		p := build(t, kind, membersOf(3, 1, 2), Options{})
		if n := testing.AllocsPerRun(1000, func() { p.Pick(7) }); n != 0 {
			t.Errorf("Pick allocates %v times, want 0", n)
		}
	})
}

func TestBuildUnknownKind(t *testing.T) {
	for _, kind := range []string{"", "roundrobin", "Round_Robin", "least_conn "} {
		p, err := Build(kind, membersOf(1), Options{})
		var unknown *UnknownKindError
		if !errors.As(err, &unknown) {
			t.Fatalf("Build(%q): error %v, want an *UnknownKindError", kind, err)
		}
		if p != nil {
			t.Errorf("Build(%q) returned a picker with its error", kind)
		}
		if unknown.Kind != kind || !slices.Equal(unknown.Known, []string{"round_robin", "least_conn"}) {
			t.Errorf("Build(%q): error names %q and %q", kind, unknown.Kind, unknown.Known)
		}
		want := fmt.Sprintf("unknown algorithm %q (known: round_robin, least_conn)", kind)
		if err.Error() != want {
			t.Errorf("Build(%q): error %q, want %q", kind, err, want)
		}
	}
}

func TestBuildPanicsOnBrokenMembers(t *testing.T) {
	for name, m := range map[string]Member{
		"no load":   {ID: "a", Weight: 1},
		"too heavy": {ID: "a", Weight: MaxWeight + 1, Load: new(Load)},
	} {
		t.Run(name, func(t *testing.T) {
			wantPanic(t, func() { _, _ = Build("round_robin", []Member{m}, Options{}) })
		})
	}
}

func TestKindsDescribeThemselves(t *testing.T) {
	for _, k := range Kinds() {
		if k.Name == "" || k.Use == "" {
			t.Errorf("kind %+v lacks its name or use", k)
		}
	}
}
