package algo

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// longTest leaves a test of one goroutine out of a short run. The race detector makes these ten times slower and can find
// nothing in them, so `make race` runs them without it.
func longTest(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("computes for long in one goroutine: left out with -short")
	}
}

// membersOf returns members a, b, c, ... of the given weights, without load.
func membersOf(weights ...uint32) []Member {
	members := make([]Member, len(weights))
	for i, w := range weights {
		members[i] = Member{ID: string(rune('a' + i)), Weight: w, Load: new(Load)}
	}
	return members
}

// drawMembers returns 1 to 40 members of any weight, load, limit and share: alone, equal, lopsided, busy, full, still
// growing or all of weight 0. Their loads have joined the total.
func drawMembers(t *rapid.T, total *Total) []Member {
	weight := rapid.OneOf(
		rapid.Just(uint32(0)), rapid.Just(uint32(1)), rapid.Uint32Range(0, 5), rapid.Uint32Range(0, MaxWeight),
	)
	weights := rapid.SliceOfN(weight, 1, 40).Draw(t, "weights")
	members := membersOf(weights...)
	for i := range members {
		l := members[i].Load
		total.Join(l)
		for range rapid.IntRange(0, 20).Draw(t, "leases") {
			l.acquire()
		}
		if rapid.Bool().Draw(t, "limited") {
			l.SetLimit(rapid.Int64Range(1, 25).Draw(t, "limit"))
		}
		if rapid.IntRange(0, 9).Draw(t, "grows") == 0 {
			l.SetShare(rapid.Float64Range(0, 1).Draw(t, "share"))
		}
	}
	return members
}

// drawOptions returns options that fit the kind.
func drawOptions(t *rapid.T, k Kind, total *Total) Options {
	o := Options{Total: total}
	if k.Hash && rapid.Bool().Draw(t, "bounded") {
		o.Balance = rapid.Float64Range(1.01, 4).Draw(t, "balance")
	}
	return o
}

func build(t testing.TB, kind string, members []Member, o Options) Picker {
	t.Helper()
	p, err := Build(kind, members, o)
	if err != nil {
		t.Fatalf("Build(%q): %v", kind, err)
	}
	return p
}

// wantPanic fails the test unless f panics. Only tests may use recover, since here it hides nothing.
func wantPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}

// forEachKind runs f as a subtest for every algorithm, so that a new one is tested for the contract too.
func forEachKind(t *testing.T, f func(t *testing.T, k Kind)) {
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) { f(t, k) })
	}
}

func TestPickReturnsAMemberWheneverThereIsOne(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		rapid.Check(t, func(t *rapid.T) {
			var total Total
			members := drawMembers(t, &total)
			p, err := Build(k.Name, members, drawOptions(t, k, &total))
			if err != nil {
				t.Fatal(err)
			}
			someWeigh := slices.ContainsFunc(members, func(m Member) bool { return m.Weight > 0 })
			pickable := func(m Member) bool { return !m.Load.Full() && (m.Weight > 0 || !someWeigh) }
			for _, key := range rapid.SliceOfN(rapid.Uint64(), 1, 100).Draw(t, "keys") {
				i := p.Pick(key)
				if is := slices.ContainsFunc(members, pickable); is != (i >= 0) || i >= len(members) {
					t.Fatalf("Pick = %d of %d members; some may be picked: %v", i, len(members), is)
				}
				if i < 0 {
					return // full, and nobody releases
				}
				if !pickable(members[i]) {
					t.Fatalf("Pick = %d, of weight %d and full: %v", i, members[i].Weight, members[i].Load.Full())
				}
				if !members[i].Load.TryAcquire() {
					t.Fatalf("member %d was not full, and is", i)
				}
			}
		})
	})
}

func TestPickOfNobody(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		if got := build(t, k.Name, nil, Options{}).Pick(1); got != -1 {
			t.Errorf("Pick without members = %d, want -1", got)
		}
	})
}

func TestPickOfOneMember(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		for _, weight := range []uint32{0, 1, MaxWeight} {
			members := membersOf(weight)
			p := build(t, k.Name, members, Options{})
			for key := range uint64(100) {
				if got := p.Pick(key); got != 0 {
					t.Fatalf("Pick of the one member of weight %d = %d", weight, got)
				}
				members[0].Load.acquire()
			}
			members[0].Load.SetLimit(100)
			if got := p.Pick(1); got != -1 {
				t.Errorf("Pick of the one full member = %d, want -1", got)
			}
		}
	})
}

// sharesOf picks for many keys, keeping the leases as long sessions do, and returns how often each member was picked.
func sharesOf(p Picker, members []Member, picks int) []int {
	counts := make([]int, len(members))
	for key := range uint64(picks) {
		i := p.Pick(key)
		members[i].Load.acquire()
		counts[i]++
	}
	return counts
}

// tolerance returns how far a member's picks may be from its share of them: not at all, or by five standard deviations
// of a fair draw, which happens by chance in a test of two million, and for a ring by those of its points besides.
func tolerance(k Kind, picks, share float64, weight uint32) float64 {
	switch chance := 5 * math.Sqrt(picks*share*(1-share)); k.Name {
	case "round_robin", "least_conn":
		return 0
	case "ring_hash":
		return chance + 5*picks*share/math.Sqrt(pointsPerWeight*float64(weight))
	default:
		return chance + picks/65537*2 // maglev's table
	}
}

// TestSharesFollowWeights includes members that all have weight 0, which count as equal, and a single weight of 0.
func TestSharesFollowWeights(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		for _, weights := range [][]uint32{{0, 0, 0}, {1, 2, 0, 5}, {7, 7}, {MaxWeight, 1, 1},
			{1, 1, 1, 1, 1, 1, 1, 1, 1, 11}} {
			members := membersOf(weights...)
			var sum uint32
			for _, w := range weights {
				sum += w
			}
			const rounds = 100
			picks := rounds * int(max(sum, uint32(len(weights))))
			counts := sharesOf(build(t, k.Name, members, Options{}), members, picks)
			for i, n := range counts {
				w := weights[i]
				share := float64(w) / float64(sum)
				if sum == 0 {
					w, share = 1, 1/float64(len(weights))
				}
				if k.Name == "first" {
					share = 0
					if i == 0 {
						share = 1
					}
				}
				if off := math.Abs(float64(n) - share*float64(picks)); off > tolerance(k, float64(picks), share, w) {
					t.Errorf("weights %v: member %d got %d of %d, want %.0f +- %.0f", weights, i, n, picks,
						share*float64(picks), tolerance(k, float64(picks), share, w))
				}
			}
		}
	})
}

// TestTenThousandMembers holds that large tables reach all members.
func TestTenThousandMembers(t *testing.T) {
	longTest(t)
	forEachKind(t, func(t *testing.T, k Kind) {
		if k.Name == "first" {
			return // it has no use for more than one; see TestFirstFills
		}
		const n, each = 10_000, 10
		members := make([]Member, n)
		for i := range members {
			members[i] = Member{ID: fmt.Sprintf("10.1.%d.%d:5432", i/256, i%256), Weight: 1, Load: new(Load)}
		}
		picks := n * each
		if k.Name == "client_hash" {
			picks /= 10 // each looks at all of them
		}
		counts := sharesOf(build(t, k.Name, members, Options{}), members, picks)
		var most, none int
		for _, c := range counts {
			most = max(most, c)
			if c == 0 {
				none++
			}
		}
		t.Logf("%d picks of %d: at most %d, %d without", picks, n, most, none)
		if limit := 5 * max(picks/n, 2); most > limit {
			t.Errorf("a member got %d of %d picks over %d members, want at most %d", most, picks, n, limit)
		}
		if float64(none) > n*math.Exp(-float64(picks)/n)*3+20 { // of a random throw, e^-mean are missed
			t.Errorf("%d of %d members got none of %d picks", none, n, picks)
		}
	})
}

// TestGrowingShare holds for each algorithm that a member at a quarter of its weight gets about that share of sessions;
// with hashing, a quarter of its own keys.
func TestGrowingShare(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		if k.Name == "first" {
			return // weights do not matter to it, and so no part of one
		}
		const picks = 40_000
		members := membersOf(4, 4, 4)
		members[1].Load.SetShare(0.25)
		counts := sharesOf(build(t, k.Name, members, Options{}), members, picks)
		want := picks / 9.0
		if k.Hash {
			want = picks / 12.0
		}
		if got := float64(counts[1]); got < 0.85*want || got > 1.15*want {
			t.Errorf("of three equal members, the one at a quarter of its weight got %v of %d, want about %.0f",
				got, picks, want)
		}
	})
}

// TestRebuildDoesNotSendAllToOne rebuilds before each pick, as when verdicts come in by the hundred.
func TestRebuildDoesNotSendAllToOne(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		if k.Name == "first" {
			return
		}
		members := membersOf(1, 1, 1, 1, 1, 1, 1, 1)
		rebuilds := 400
		if k.Name == "maglev" {
			rebuilds = 80
		}
		var s State
		counts := make([]int, len(members))
		for key := range uint64(rebuilds) {
			counts[build(t, k.Name, members, Options{State: &s}).Pick(Mix(key))]++
		}
		if most := slices.Max(counts); most > rebuilds/2 {
			t.Errorf("with a rebuild before each of %d picks, the members got %v", rebuilds, counts)
		}
	})
}

func TestBuildDoesNotKeepTheMembers(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		members := membersOf(1, 1)
		p := build(t, k.Name, members, Options{})
		clear(members)
		if i := p.Pick(0); i < 0 || i > 1 {
			t.Errorf("Pick = %d of 2 members", i)
		}
	})
}

func TestPickFromManyGoroutinesWhileRebuilding(t *testing.T) {
	forEachKind(t, func(t *testing.T, k Kind) {
		members := membersOf(3, 1, 2)
		var s State
		var wg sync.WaitGroup
		for n := range len(members) {
			p := build(t, k.Name, members[:n+1], Options{State: &s})
			for range 4 {
				wg.Go(func() {
					for key := range uint64(2000) {
						i := p.Pick(key)
						if i < 0 || i > n {
							t.Errorf("Pick = %d of %d members", i, n+1)
							return
						}
						members[i].Load.acquire()
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
	forEachKind(t, func(t *testing.T, k Kind) {
		for name, arrange := range map[string]func(*Load){
			"idle":    func(*Load) {},
			"growing": func(l *Load) { l.SetShare(0.01) },
			"full":    func(l *Load) { l.SetLimit(1); l.acquire() },
		} {
			var total Total
			members := benchMembers(200)
			for i := range members[1:] {
				total.Join(members[i].Load)
				arrange(members[i].Load)
			}
			o := Options{Total: &total}
			if k.Hash {
				o.Balance = 1.25
			}
			p, key := build(t, k.Name, members, o), uint64(0)
			if n := testing.AllocsPerRun(1000, func() { p.Pick(key); key++ }); n != 0 {
				t.Errorf("%s: Pick allocates %v times, want 0", name, n)
			}
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
		if unknown.Kind != kind || len(unknown.Known) != len(Kinds()) {
			t.Errorf("Build(%q): error names %q and %q", kind, unknown.Kind, unknown.Known)
		}
		want := fmt.Sprintf("unknown algorithm %q (known: round_robin, random, least_conn, p2c, least_time, first, "+
			"client_hash, ring_hash, maglev)", kind)
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

func TestBuildPanicsOnABrokenBalance(t *testing.T) {
	for _, o := range []Options{{Balance: 1.5}, {Balance: 1, Total: new(Total)}, {Balance: -2, Total: new(Total)}} {
		wantPanic(t, func() { _, _ = Build("maglev", membersOf(1), o) })
	}
}

func TestKindsDescribeThemselves(t *testing.T) {
	for _, k := range Kinds() {
		if k.Name == "" || k.Use == "" {
			t.Errorf("kind %+v lacks its name or use", k)
		}
	}
}
