package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// reconfigured changes the options in force.
func reconfigured(t testing.TB, p *Pool, change func(o *Options)) {
	t.Helper()
	o := p.settings().Options
	change(&o)
	must(t, p.Reconfigure(o))
}

// TestReconfigureRefuses holds that what New refuses Reconfigure and CheckOptions refuse, too, and that nothing has
// changed then.
func TestReconfigureRefuses(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0))
	before := p.snap.Load()
	for name, change := range map[string]func(*Options){
		"name":      func(o *Options) { o.Name = "other" },
		"algorithm": func(o *Options) { o.Algorithm = "fastest" },
		"balance":   func(o *Options) { o.Algorithm, o.HashBalance = "maglev", 0.5 },
		"queue":     func(o *Options) { o.QueueMax, o.Retries = -1, 7 },
	} {
		o := p.settings().Options
		change(&o)
		if err := p.Reconfigure(o); err == nil || p.snap.Load() != before || p.settings() != before.settings {
			t.Errorf("another %s: error %v, changed: %v", name, err, p.snap.Load() != before)
		}
		if err := CheckOptions(o); (err == nil) != (name == "name") {
			t.Errorf("CheckOptions of another %s: %v", name, err)
		}
	}
	var unknown *algo.UnknownKindError
	o := p.settings().Options
	o.Algorithm = "fastest"
	if err := p.Reconfigure(o); !errors.As(err, &unknown) {
		t.Errorf("of an unknown algorithm: %v", err)
	}
}

// TestReconfigureChangesOnlyWhatItMust holds which options need a new snapshot, picker or sticky table.
func TestReconfigureChangesOnlyWhatItMust(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		change                   func(o *Options)
		snapshot, picker, sticky bool // another one
	}{
		{"nothing", func(o *Options) {}, false, false, false},
		{"the clock alone", func(o *Options) { o.Clock = new(hand).now }, false, false, false},
		{"no clock", func(o *Options) { o.Clock = nil }, false, false, false},
		{"retries", func(o *Options) { o.Retries = 5 }, true, false, false},
		{"timeout", func(o *Options) { o.ConnectTimeout = 5 }, true, false, false},
		{"queue", func(o *Options) { o.QueueMax, o.QueueTimeout = 5, 5 }, true, false, false},
		{"breaker", func(o *Options) { o.Breaker = BreakerOptions{} }, true, false, false},
		{"slow start", func(o *Options) { o.SlowStart = 5 }, true, false, false},
		{"key", func(o *Options) { o.HashPort = true }, true, false, false},
		{"name as key", func(o *Options) { o.HashName = true }, true, false, false},
		{"algorithm", func(o *Options) { o.Algorithm = "ring_hash" }, true, true, false},
		{"balance", func(o *Options) { o.HashBalance = 2 }, true, true, false},
		{"zone of nobody", func(o *Options) { o.Zone = "nowhere" }, true, true, false},
		{"zone of all", func(o *Options) { o.Zone = "z" }, true, false, false},
		{"sticky time", func(o *Options) { o.StickyTTL = 2 * time.Hour }, true, false, true},
		{"sticky entries", func(o *Options) { o.StickyEntries = 1000 }, true, false, true},
		{"sticky by name", func(o *Options) { o.StickyName = true }, true, false, true},
		{"names of another kind", func(o *Options) { o.NamedBy = MQTTClientID }, true, false, false},
		{"sticky entries that need as many sets", func(o *Options) { o.StickyEntries = 99 }, true, false, false},
	} {
		p := made(t, Options{Algorithm: "maglev", StickyTTL: time.Hour, StickyEntries: 100, Breaker: usual,
			HashBalance: 1.5},
			at("a", 0, "z", 0), at("b", 0, "z", 0))
		before := p.snap.Load()
		reconfigured(t, p, tt.change)
		after := p.snap.Load()
		if (after != before) != tt.snapshot || (after.tiers[0] != before.tiers[0]) != tt.picker ||
			(after.settings.sticky != before.settings.sticky) != tt.sticky {
			t.Errorf("%s: another snapshot %v, picker %v, sticky table %v; want %v, %v, %v", tt.name, after != before,
				after.tiers[0] != before.tiers[0], after.settings.sticky != before.settings.sticky, tt.snapshot,
				tt.picker, tt.sticky)
		}
		o := p.settings().Options
		if p.Retries() != o.Retries || p.ConnectTimeout() != o.ConnectTimeout || p.QueueMax() != o.QueueMax ||
			p.QueueTimeout() != o.QueueTimeout {
			t.Errorf("%s: %+v is not in force", tt.name, o)
		}
	}
}

// TestReconfigureKeepsTheBackends switches a pool through all algorithms: backends keep all their state, and
// round_robin continues where it was.
func TestReconfigureKeepsTheBackends(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	must(t, p.SetWeight("b", 2))
	must(t, p.SetMode("c", Drain))
	_, leases := picks(p, 6)
	leases[0].Release(ConnectRefused)
	want := p.Backends()
	for _, k := range algo.Kinds() {
		reconfigured(t, p, func(o *Options) { o.Algorithm = k.Name })
		if got := p.Backends(); !slices.Equal(got, want) {
			t.Fatalf("with %s the backends are %+v, want %+v", k.Name, got, want)
		}
		l, err := p.Pick(PickContext{Client: client(1)})
		must(t, err)
		l.b.load.Release()
	}
	for _, l := range leases[1:] {
		l.Release(Served)
	}
	for _, b := range p.Backends() {
		if b.Leases != 0 {
			t.Errorf("%q ends with %d leases", b.ID, b.Leases)
		}
	}

	p = made(t, Options{}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	first, _ := picks(p, 1)
	reconfigured(t, p, func(o *Options) { o.Retries = 3 })
	reconfigured(t, p, func(o *Options) { o.Algorithm = "least_conn" })
	reconfigured(t, p, func(o *Options) { o.Algorithm = "round_robin" })
	next, _ := picks(p, 2)
	wantIDs(t, "round_robin goes on", append(first, next...), "a", "b", "c")
}

// checkTotals holds that each group's total is that of its eligible backends, with a balance, and else 0.
func checkTotals(t *testing.T, p *Pool, what string) {
	t.Helper()
	want := make(map[*group]int64)
	for _, tier := range p.snap.Load().tiers {
		for _, b := range tier.backends {
			if g := b.group.Load(); g != tier.group {
				t.Errorf("%s: %q is of group %+v and competes in %+v", what, b.id, g, tier.group)
			}
			if p.settings().HashBalance > 0 {
				want[tier.group] += b.load.Leases()
			}
		}
	}
	for _, g := range p.groups {
		if got := g.total.Leases(); got != want[g] {
			t.Errorf("%s: the total of tier %d, other zone %v, is %d, want %d", what, g.tier, g.other, got, want[g])
		}
	}
}

// TestReconfigureMovesLeases changes zone and balance while leases are held, some of them on backends that are out of
// use.
func TestReconfigureMovesLeases(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	p := made(t, Options{Algorithm: "maglev"},
		at("a", 0, "x", 0), at("b", 0, "y", 0), at("c", 0, "", 0), at("d", 1, "x", 0), at("e", 1, "y", 0))
	var held []Lease
	for step := range 300 {
		switch r.IntN(6) {
		case 0:
			reconfigured(t, p, func(o *Options) { o.HashBalance = []float64{0, 1.5, 2}[r.IntN(3)] })
		case 1:
			reconfigured(t, p, func(o *Options) { o.Zone = []string{"", "x", "y", "z"}[r.IntN(4)] })
		case 2:
			must(t, p.SetVerdict(string('a'+rune(r.IntN(5))), Verdict(1+r.IntN(2)), "test"))
		default:
			_, leases := picks(p, r.IntN(10))
			held = append(held, leases...)
			for len(held) > 30 {
				held[0].Release(Served)
				held = held[1:]
			}
		}
		checkTotals(t, p, fmt.Sprint("step ", step))
	}
	for _, tier := range p.snap.Load().tiers {
		for _, b := range tier.backends {
			if zone := p.byID[b.id].spec.Zone; tier.group.other != (p.settings().Zone != "" &&
				zone != p.settings().Zone) {
				t.Errorf("with zone %q, %q of %q competes with the others: %v", p.settings().Zone, b.id, zone,
					tier.group.other)
			}
		}
	}
}

// TestReconfigureUnderLoad changes every option again and again while many pick: nobody is refused, no lease is lost,
// and the totals end right.
func TestReconfigureUnderLoad(t *testing.T) {
	p := made(t, Options{Breaker: usual}, at("a", 0, "x", 0), at("b", 0, "y", 0), at("c", 0, "", 3), at("d", 1, "x", 0),
		at("e", 1, "y", 3))
	defer running(t, p)()
	var pickers sync.WaitGroup
	var done atomic.Bool
	for i := range 4 {
		pickers.Go(func() {
			var held []Lease
			for n := i; !done.Load(); n += 4 {
				l, err := p.Pick(from(n))
				if err != nil {
					t.Errorf("refused: %v", err)
					break
				}
				l.ConnectTook(time.Millisecond, 0)
				l.FirstByteTook(time.Millisecond, 0)
				held = append(held, l)
				if len(held) > n%20 {
					held[0].Release(Served)
					held = held[1:]
				}
			}
			for _, l := range held {
				l.Release(Served)
			}
		})
	}
	r := rand.New(rand.NewPCG(4, 4))
	kinds := algo.Kinds()
	for range 300 {
		reconfigured(t, p, func(o *Options) {
			switch r.IntN(8) {
			case 0:
				k := kinds[r.IntN(len(kinds))]
				o.Algorithm, o.HashBalance = k.Name, 0
			case 1:
				o.Zone = []string{"", "x", "y"}[r.IntN(3)]
			case 2:
				if kinds[slices.IndexFunc(kinds, func(k algo.Kind) bool { return k.Name == o.Algorithm })].Hash {
					o.HashBalance = []float64{0, 1.1, 2}[r.IntN(3)]
				}
			case 3:
				o.StickyTTL, o.StickyEntries = time.Duration(r.IntN(3))*time.Millisecond, 16<<r.IntN(3)
			case 4:
				o.SlowStart = time.Duration(r.IntN(3)) * time.Millisecond
			case 5:
				o.Breaker = []BreakerOptions{{}, usual, {FailureRatio: 0.5, Window: time.Millisecond, OpenFor: 1,
					MaxOpenFor: 1, Trials: 2}}[r.IntN(3)]
			case 6:
				o.QueueMax, o.QueueTimeout, o.Retries = r.IntN(5), time.Minute, r.IntN(5)
			case 7:
				o.HashPort, o.TryAllWhenNone = r.IntN(2) == 0, r.IntN(2) == 0
			}
		})
	}
	reconfigured(t, p, func(o *Options) { o.Algorithm, o.HashBalance = "client_hash", 1.5 })
	done.Store(true)
	pickers.Wait()
	checkTotals(t, p, "at the end")
	for _, b := range p.Backends() {
		if b.Leases != 0 {
			t.Errorf("%q ends with %d leases", b.ID, b.Leases)
		}
	}
}

// TestStatsOfRefusals holds how refused picks are counted, and that waiters are not counted again.
func TestStatsOfRefusals(t *testing.T) {
	p := made(t, Options{QueueMax: 1, QueueTimeout: time.Minute})
	picks(p, 2)
	must(t, p.Add(at("a", 0, "", 1)))
	picks(p, 3)
	w := &Waiter{}
	must(t, p.Wait(w))
	picks(p, 1)
	if err := p.Wait(&Waiter{}); err != ErrQueueFull {
		t.Errorf("a second waiter: %v", err)
	}
	if got, want := p.Stats(), (Stats{Waiting: 1, Waited: 1, QueueFull: 1, NoBackend: 2, Busy: 3}); got != want {
		t.Errorf("numbers are %+v, want %+v", got, want)
	}
	p.Leave(w)
	if got := p.Stats(); got.Left != 1 || got.Waiting != 0 || got.Waited != 1 {
		t.Errorf("after it left: %+v", got)
	}
}
