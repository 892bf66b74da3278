package pool

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/algo"
)

// client returns one of 50,000 clients behind a single address.
func client(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(10_000+port))
}

func TestPickNeverRepeatsATriedOne(t *testing.T) {
	for _, k := range algo.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			p := newPool(t, k.Name, "a", "b", "c", "d", "e")
			if got, want := pickable(p), []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
				t.Errorf("picks until ErrNoBackend = %v, want each once: %v", got, want)
			}
		})
	}
}

func TestPickWithAllTried(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	l, err := p.Pick(PickContext{})
	must(t, err)
	l.Release(ConnectRefused)
	if _, err := p.Pick(PickContext{Tried: []*Backend{l.Backend()}}); err != ErrNoBackend {
		t.Errorf("Pick of the only backend again: error %v, want ErrNoBackend", err)
	}
	if n := p.Backends()[0].Leases; n != 0 {
		t.Errorf("%d leases after a refused pick, want 0", n)
	}
}

// TestRetriesDoNotHerd has one client address try a backend that is always the least loaded, since it refuses everyone.
// Its sessions must spread over the other eight instead of all going to one neighbour.
func TestRetriesDoNotHerd(t *testing.T) {
	p := newPool(t, "least_conn", "dead", "a", "b", "c", "d", "e", "f", "g", "h")
	var held []Lease
	for range 9 * 10 { // nobody but the dead one will ever be without a lease
		l, err := p.Pick(PickContext{})
		must(t, err)
		held = append(held, l)
	}
	for _, l := range held {
		if l.Backend().ID() == "dead" {
			l.Release(Neutral)
		}
	}
	const sessions = 800
	counts := make(map[string]int)
	for i := range sessions {
		first, err := p.Pick(PickContext{Client: client(i)})
		must(t, err)
		if id := first.Backend().ID(); id != "dead" {
			t.Fatalf("session %d begins with %q, want the least loaded", i, id)
		}
		first.Release(ConnectRefused)
		second, err := p.Pick(PickContext{Client: client(i), Tried: []*Backend{first.Backend()}})
		must(t, err)
		counts[second.Backend().ID()]++
	}
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if n := counts[id]; n < 50 || n > 150 {
			t.Errorf("%s took %d of %d retries, want about 100", id, n, sessions)
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	const runs = 1000
	for _, k := range algo.Kinds() {
		p := newPool(t, k.Name, "a", "b", "c")
		must(t, p.SetWeight("b", 5))
		first, err := p.Pick(PickContext{Client: client(0)})
		must(t, err)
		tried := []*Backend{first.Backend()}
		leases := make([]Lease, 0, 2*(runs+1)) // AllocsPerRun runs once more than asked
		pick := func(pc PickContext) func() {
			return func() {
				l, _ := p.Pick(pc)
				leases = append(leases, l)
			}
		}
		for name, f := range map[string]func(){
			"Pick":       pick(PickContext{Client: client(1)}),
			"Pick again": pick(PickContext{Client: client(1), Tried: tried}),
		} {
			if n := testing.AllocsPerRun(runs, f); n != 0 {
				t.Errorf("%s: %s allocates %v times, want 0", k.Name, name, n)
			}
		}
		i := 0
		if n := testing.AllocsPerRun(runs, func() { leases[i].Release(Served); i++ }); n != 0 {
			t.Errorf("%s: Release allocates %v times, want 0", k.Name, n)
		}
		empty := newPool(t, k.Name)
		if n := testing.AllocsPerRun(runs, func() { _, _ = empty.Pick(PickContext{}) }); n != 0 {
			t.Errorf("%s: a refused Pick allocates %v times, want 0", k.Name, n)
		}
	}
}

// TestBusyOrNone holds which error says what: ErrBusy that a backend may have room later, ErrNoBackend that waiting is
// in vain.
func TestBusyOrNone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(p *Pool) error
		tried  []string
		want   error
	}{
		{"all full", nil, nil, ErrBusy},
		{"some of the full ones tried", nil, []string{"a", "low"}, ErrBusy},
		{"all but a stand-in tried", nil, []string{"a", "b"}, ErrBusy},
		{"all tried", nil, []string{"a", "b", "low"}, ErrNoBackend},
		{"the untried one is drained", func(p *Pool) error { return p.SetMode("b", Drain) }, []string{"a", "low"},
			ErrNoBackend},
		{"the untried one is ill", func(p *Pool) error { return p.SetVerdict("b", Unhealthy, "") },
			[]string{"a", "low"}, ErrNoBackend},
		{"the untried one is gone", func(p *Pool) error { return p.Remove("b") }, []string{"a", "low"}, ErrNoBackend},
		{"the one with room is tried", func(p *Pool) error { return p.SetMaxSessions("a", 0) }, []string{"a"}, ErrBusy},
		{"all with room are tried", func(p *Pool) error { return p.SetMaxSessions("a", 0) }, []string{"a", "b", "low"},
			ErrNoBackend},
		{"one has room", func(p *Pool) error { return p.SetMaxSessions("low", 2) }, []string{"a"}, nil},
		{"limits below what there is", func(p *Pool) error { return p.SetMaxSessions("low", 1) }, nil, ErrBusy},
	} {
		for _, k := range algo.Kinds() {
			p := made(t, Options{Algorithm: k.Name}, at("a", 0, "", 1), at("b", 0, "", 1), at("low", 1, "", 1))
			_, leases := picks(p, 3)
			if tt.change != nil {
				must(t, tt.change(p))
			}
			var pc PickContext
			for _, l := range leases {
				if slices.Contains(tt.tried, l.Backend().ID()) {
					pc.Tried = append(pc.Tried, l.Backend())
				}
			}
			if _, err := p.Pick(pc); err != tt.want {
				t.Errorf("%s, %s: error %v, want %v", k.Name, tt.name, err, tt.want)
			}
		}
	}
}

// An insistent picker always returns the same index, like a picker whose choice is always taken by others first.
type insistent int

func (i insistent) Pick(uint64) int { return int(i) }

// TestPickOutlastsLostRaces holds that a pick which loses every race for a place still finds a free one.
func TestPickOutlastsLostRaces(t *testing.T) {
	for _, kind := range []string{"first", "least_conn", "client_hash"} {
		for _, tried := range []int{0, 1, 2} { // of the backends, from the first on
			p := made(t, Options{Algorithm: kind}, at("a", 0, "", 1), at("b", 0, "", 1), at("c", 0, "", 1),
				at("d", 0, "", 1))
			was := p.snap.Load().tiers[0]
			first := tier{group: was.group, backends: was.backends, weights: was.weights, picker: insistent(0)}
			p.snap.Store(&snapshot{settings: p.settings(), tiers: []*tier{&first}})
			pc := PickContext{Tried: first.backends[:tried]}
			var ids []string
			for range 4 - max(tried, 1) {
				if tried == 0 && len(ids) == 0 {
					first.backends[0].load.TryAcquire()
				}
				l, err := p.Pick(pc)
				must(t, err)
				ids = append(ids, l.Backend().ID())
			}
			if kind != "first" { // only that has an order
				slices.Sort(ids)
			}
			wantIDs(t, fmt.Sprintf("%s with %d tried", kind, tried), ids, []string{"b", "c", "d"}[max(tried, 1)-1:]...)
			if _, err := p.Pick(pc); err != ErrBusy {
				t.Errorf("%s with %d tried and all others taken: error %v, want ErrBusy", kind, tried, err)
			}
		}
	}
}

// TestNobodyIsTurnedAwayWhileThereIsRoom has eight goroutines take and give back up to four places each, of forty.
func TestNobodyIsTurnedAwayWhileThereIsRoom(t *testing.T) {
	for _, k := range algo.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			var specs []Spec
			for i := range 40 {
				specs = append(specs, at(fmt.Sprint("b", i), 0, "", 1))
			}
			p := made(t, Options{Algorithm: k.Name}, specs...)
			var refused atomic.Int64
			var wg sync.WaitGroup
			for number := range 8 {
				wg.Go(func() {
					leases := make([]Lease, 0, 4)
					for i := range 1000 {
						for range cap(leases) {
							if l, err := p.Pick(from(number*1000 + i)); err != nil {
								refused.Add(1)
							} else {
								leases = append(leases, l)
							}
						}
						for _, l := range leases {
							l.Release(Served)
						}
						leases = leases[:0]
					}
				})
			}
			wg.Wait()
			if n := refused.Load(); n != 0 {
				t.Errorf("of 32,000 picks %d were refused, with never more than 32 leases for 40 places", n)
			}
		})
	}
}

// TestLimitIsStrict has many goroutines take leases on few places, while the limit of one backend is raised and
// lowered.
func TestLimitIsStrict(t *testing.T) {
	for _, kind := range []string{"least_conn", "first", "p2c"} {
		t.Run(kind, func(t *testing.T) {
			p := made(t, Options{Algorithm: kind, StickyTTL: time.Hour, StickyEntries: 16}, at("a", 0, "", 3),
				at("b", 0, "", 3))
			var held, most [2]atomic.Int64
			most[0].Store(3)
			most[1].Store(3)
			var phase atomic.Int64 // odd while the limit changes
			var done atomic.Bool
			var served, busy atomic.Int64
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for !done.Load() {
						before := phase.Load()
						l, err := p.Pick(from(i))
						if err != nil {
							if err != ErrBusy {
								t.Error(err)
							}
							busy.Add(1)
							runtime.Gosched()
							continue
						}
						which := int(l.Backend().ID()[0] - 'a')
						n, limit := held[which].Add(1), most[which].Load()
						if before%2 == 0 && phase.Load() == before && n > limit {
							t.Errorf("%d leases on %s, which may have %d", n, l.Backend().ID(), limit)
						}
						runtime.Gosched()
						served.Add(1)
						held[which].Add(-1)
						l.Release(Served)
					}
				})
			}
			for i := range 200 {
				limit := []int{1, 4, 2, 0, 3}[i%5]
				phase.Add(1)
				if err := p.SetMaxSessions("b", limit); err != nil {
					t.Error(err)
				}
				most[1].Store(int64(limit))
				if limit == 0 {
					most[1].Store(math.MaxInt64)
				}
				phase.Add(1)
				// Eight goroutines compete for four places, so that some pick returns ErrBusy.
				for until := served.Load() + 20; served.Load() < until || i == 0 && busy.Load() == 0; {
					runtime.Gosched()
				}
			}
			done.Store(true)
			wg.Wait()
		})
	}
}

// TestLimitAtRunTime holds the effect of a limit below the number of leases, and that 0 is no limit.
func TestLimitAtRunTime(t *testing.T) {
	p := made(t, Options{Algorithm: "first"}, at("a", 0, "", 3), at("b", 0, "", 1))
	ids, leases := picks(p, 5)
	wantIDs(t, "at first", ids, "a", "a", "a", "b", "busy")
	must(t, p.SetMaxSessions("a", 1))
	for i := range 3 {
		ids, _ = picks(p, 1)
		wantIDs(t, fmt.Sprintf("with %d of 1 left", 3-i), ids, "busy")
		leases[i].Release(Served)
	}
	ids, _ = picks(p, 2)
	wantIDs(t, "with none of 1 left", ids, "a", "busy")
	must(t, p.SetMaxSessions("b", 0))
	ids, _ = picks(p, 3)
	wantIDs(t, "with no limit on b", ids, "b", "b", "b")
	must(t, p.SetMaxSessions("b", 2))
	ids, _ = picks(p, 1)
	wantIDs(t, "with a limit on b that it is above", ids, "busy")
}

// TestHashPort holds whether hashing algorithms use the client's port.
func TestHashPort(t *testing.T) {
	for _, port := range []bool{false, true} {
		p := made(t, Options{Algorithm: "client_hash", HashPort: port}, at("a", 0, "", 0), at("b", 0, "", 0),
			at("c", 0, "", 0))
		before := make(map[string]bool)
		for i := range 100 {
			pc := PickContext{Client: client(i)}
			before[pickOnce(t, p, pc)] = true
			if again := pickOnce(t, p, pc); !before[again] {
				t.Errorf("the client of port %d is sent to %s now", pc.Client.Port(), again)
			}
		}
		if want := map[bool]int{false: 1, true: 3}[port]; len(before) != want {
			t.Errorf("with hash_port = %v one address came to %d backends, want %d", port, len(before), want)
		}
	}
}

// TestHashName holds that with HashName the server name alone chooses, and the client's address where there is none.
func TestHashName(t *testing.T) {
	specs := []Spec{at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0)}
	byName, byAddr := made(t, Options{Algorithm: "client_hash", HashName: true}, specs...),
		made(t, Options{Algorithm: "client_hash"}, specs...)
	spread := make(map[string]bool)
	for i := range 100 {
		address := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		one := PickContext{Client: netip.AddrPortFrom(address, 1), Name: NameKey([]byte("one.example.com"))}
		want := pickOnce(t, byName, PickContext{Name: one.Name})
		if got := pickOnce(t, byName, one); got != want {
			t.Errorf("client %v comes to %s, another one to %s", address, got, want)
		}
		other := PickContext{Client: one.Client, Name: NameKey(fmt.Appendf(nil, "%d.example.com", i))}
		spread[pickOnce(t, byName, other)] = true
		if got, want := byName.Explain(other).Backend, pickOnce(t, byName, other); got != want {
			t.Errorf("Explain says %q, Pick %q", got, want)
		}
		nameless := PickContext{Client: one.Client}
		if got, want := pickOnce(t, byName, nameless), pickOnce(t, byAddr, nameless); got != want {
			t.Errorf("without a name %v comes to %s, want %s", address, got, want)
		}
		if got, want := pickOnce(t, byAddr, other), pickOnce(t, byAddr, nameless); got != want {
			t.Errorf("without HashName a name sends %v to %s, want %s", address, got, want)
		}
	}
	if len(spread) != 3 {
		t.Errorf("100 names come to %d of 3 backends", len(spread))
	}
}

// TestHotPathAllocatesNothingEver is TestHotPathAllocatesNothing with all else that a pick may meet.
func TestHotPathAllocatesNothingEver(t *testing.T) {
	var h hand
	o := Options{
		Zone: "here", HashPort: true, SlowStart: time.Hour, StickyTTL: time.Hour, StickyEntries: 64, Breaker: usual,
		QueueMax: 5, QueueTimeout: time.Minute, Clock: h.now,
	}
	for _, k := range algo.Kinds() {
		o.Algorithm, o.HashBalance = k.Name, 0
		if k.Hash {
			o.HashBalance = 1.25
		}
		p := made(t, o, at("a", 0, "here", 1), at("b", 0, "there", 3), at("c", 0, "there", 2))
		must(t, p.Add(at("d", 4, "here", 0))) // which starts slowly
		i := 0
		check := func(what string, f func()) {
			t.Helper()
			if n := testing.AllocsPerRun(200, func() {
				h.pass(o.SlowStart / slowSteps)
				f()
				i++
			}); n != 0 {
				t.Errorf("%s, %s: allocates %v times, want 0", k.Name, what, n)
			}
		}
		one := func() {
			l, err := p.Pick(from(i))
			must(t, err)
			l.ConnectTook(time.Millisecond, 0)
			l.FirstByteTook(time.Millisecond, 0)
			l.Release(Served)
		}
		check("with room", one)
		picks(p, 6)
		check("at the stand-in", one)
		must(t, p.SetMaxSessions("d", 1))
		picks(p, 1)
		check("with all full", func() { _, _ = p.Pick(from(i)) })
		must(t, p.Wait(&Waiter{Serve: func(Lease, error) { t.Error("served") }}))
		check("with one waiting", func() { _, _ = p.Pick(from(i)) })
	}
}
