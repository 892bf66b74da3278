package pool

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A hand is a clock that a test moves.
type hand struct{ at atomic.Int64 }

func (h *hand) now() time.Duration   { return time.Duration(h.at.Load()) }
func (h *hand) pass(d time.Duration) { h.at.Add(int64(d)) }
func from(number int) PickContext {
	return PickContext{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(number >> 8), byte(number)}),
		4000)}
}

// pickOnce picks for a client, releases the lease and returns the id of the backend.
func pickOnce(t testing.TB, p *Pool, pc PickContext) string {
	t.Helper()
	l, err := p.Pick(pc)
	must(t, err)
	l.Release(Served)
	return l.Backend().ID()
}

func stickyPool(t testing.TB, h *hand, ttl time.Duration, entries int, specs ...Spec) *Pool {
	t.Helper()
	return made(t, Options{StickyTTL: ttl, StickyEntries: entries, Clock: h.now}, specs...)
}

// TestStickyLastsItsTime holds that each session renews the time, and that it ends.
func TestStickyLastsItsTime(t *testing.T) {
	var h hand
	p := stickyPool(t, &h, time.Minute, 100, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	first := pickOnce(t, p, from(1))
	for range 10 {
		h.pass(50 * time.Second)
		if got := pickOnce(t, p, from(1)); got != first {
			t.Fatalf("went to %s and then, within the time, to %s", first, got)
		}
	}
	h.pass(time.Minute)
	if got := pickOnce(t, p, from(1)); got == first { // round_robin's next one is another
		t.Errorf("returned to %s after the time", got)
	}
}

// TestStickyYields holds when a client does not return, and that it then stays where it went.
func TestStickyYields(t *testing.T) {
	for name, away := range map[string]func(p *Pool, id string) error{
		"unhealthy": func(p *Pool, id string) error { return p.SetVerdict(id, Unhealthy, "test") },
		"drained":   func(p *Pool, id string) error { return p.SetMode(id, Drain) },
		"weight 0":  func(p *Pool, id string) error { return p.SetWeight(id, 0) },
		"removed":   (*Pool).Remove,
		"full": func(p *Pool, id string) error {
			if err := p.SetMaxSessions(id, 1); err != nil {
				return err
			}
			_, err := p.Pick(from(1)) // it is there itself
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h hand
			p := stickyPool(t, &h, time.Hour, 100, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
			first := pickOnce(t, p, from(1))
			must(t, away(p, first))
			second := pickOnce(t, p, from(1))
			if second == first {
				t.Fatalf("went to %s all the same", first)
			}
			for range 5 {
				if got := pickOnce(t, p, from(1)); got != second {
					t.Errorf("went to %s and then to %s", second, got)
				}
			}
		})
	}
	var h hand
	p := stickyPool(t, &h, time.Hour, 100, at("a", 0, "", 0), at("b", 0, "", 0))
	l, err := p.Pick(from(1))
	must(t, err)
	l.Release(ConnectRefused)
	pc := from(1)
	pc.Tried = []*Backend{l.Backend()}
	if got := pickOnce(t, p, pc); got == l.Backend().ID() {
		t.Errorf("went to %s again in the same session", got)
	}
}

// TestStickySurvivesChanges holds that changes of other backends move no client.
func TestStickySurvivesChanges(t *testing.T) {
	var h hand
	p := stickyPool(t, &h, time.Hour, 1000, at("a", 0, "", 0), at("b", 0, "", 0), at("other", 0, "", 0))
	must(t, p.SetMode("other", Drain))
	before := map[int]string{}
	for i := range 100 {
		before[i] = pickOnce(t, p, from(i))
	}
	must(t, p.SetMode("other", Ready))
	must(t, p.Add(at("new", 0, "", 0)))
	must(t, p.SetWeight("a", 7))
	must(t, p.SetVerdict("other", Unhealthy, "test"))
	must(t, p.Remove("new"))
	for i := range 100 {
		if got := pickOnce(t, p, from(i)); got != before[i] {
			t.Fatalf("client %d went to %s and then to %s", i, before[i], got)
		}
	}
}

// TestStickyReturnsToItsTier holds that a client stays with a later tier only as long as it must.
func TestStickyReturnsToItsTier(t *testing.T) {
	var h hand
	p := stickyPool(t, &h, time.Hour, 100, at("primary", 0, "", 0), at("standin", 1, "", 0))
	must(t, p.SetVerdict("primary", Unhealthy, "test"))
	if got := pickOnce(t, p, from(1)); got != "standin" {
		t.Fatalf("went to %s", got)
	}
	must(t, p.SetVerdict("primary", Healthy, "test"))
	if got := pickOnce(t, p, from(1)); got != "primary" {
		t.Errorf("stays with %s although the primary is back", got)
	}
}

// TestStickyStaysWithItsStandin holds that a client stays with its backend of a later tier while the first tier is
// full, and that after its return to the first tier it stays there.
func TestStickyStaysWithItsStandin(t *testing.T) {
	var h hand
	p := stickyPool(t, &h, time.Hour, 100, at("primary", 0, "", 1), at("x", 3, "", 0), at("y", 3, "", 0),
		at("z", 3, "", 1), at("last", 4, "", 0))
	_, leases := picks(p, 1)
	standin := pickOnce(t, p, from(1))
	for i := range 6 {
		if got := pickOnce(t, p, from(1)); got != standin {
			t.Fatalf("with the primary full went to %s and then to %s", standin, got)
		}
		pickOnce(t, p, from(100+i)) // which moves round_robin on
	}
	must(t, p.SetVerdict(standin, Unhealthy, "test"))
	if got := pickOnce(t, p, from(1)); got == standin || got == "primary" || got == "last" {
		t.Errorf("with its stand-in ill went to %s", got)
	}
	leases[0].Release(Served)
	if got := pickOnce(t, p, from(1)); got != "primary" {
		t.Errorf("with room at the primary went to %s", got)
	}
	must(t, p.SetMaxSessions("primary", 9))
	if got := pickOnce(t, p, from(1)); got != "primary" {
		t.Errorf("returned to the first tier and went to %s", got)
	}
	must(t, p.SetMaxSessions("primary", 1))
	for _, id := range []string{"x", "y", "z", "last"} {
		must(t, p.SetMode(id, Drain))
	}
	picks(p, 1)
	if _, err := p.Pick(from(1)); err != ErrBusy {
		t.Errorf("with its only backend full: error %v, want ErrBusy", err)
	}
}

// TestStickyKeepsItsZone holds that the zone decides a client's first backend, and does not move it later.
func TestStickyKeepsItsZone(t *testing.T) {
	var h hand
	p := made(t, Options{StickyTTL: time.Hour, StickyEntries: 16, Clock: h.now, Zone: "here"}, at("near", 0, "here", 1),
		at("far", 0, "there", 0))
	_, leases := picks(p, 1)
	if got := pickOnce(t, p, from(1)); got != "far" {
		t.Fatalf("with the zone full went to %s", got)
	}
	leases[0].Release(Served)
	if got := pickOnce(t, p, from(1)); got != "far" {
		t.Errorf("with room in the zone moved to %s", got)
	}
	if got := pickOnce(t, p, from(2)); got != "near" {
		t.Errorf("a new client went to %s", got)
	}
}

// TestStickyTableForgetsTheOldest walks a table of one set through all that can happen to an entry.
func TestStickyTableForgetsTheOldest(t *testing.T) {
	const ttl = 100 * time.Second
	table := newStickyTable(ttl, stickyWays)
	backends := make([]*Backend, 2*stickyWays)
	for i := range backends {
		backends[i] = &Backend{id: fmt.Sprint(i)}
	}
	want := func(client uint64, id string, now time.Duration) {
		t.Helper()
		got := ""
		if b := table.backend(client, now); b != nil {
			got = b.id
		}
		if got != id {
			t.Errorf("at %v client %d had backend %q, want %q", now, client, got, id)
		}
	}
	// The keys of clients 0 and 1 mean something else in the table.
	clients := []uint64{0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}
	for i, client := range clients {
		table.remember(client, backends[i], time.Duration(i)*time.Second)
	}
	for i, client := range clients {
		want(client, fmt.Sprint(i), 20*time.Second)
	}
	table.remember(0, backends[20], 21*time.Second) // another backend, at the same place
	want(0, "20", 23*time.Second)
	table.remember(101, backends[21], 24*time.Second) // in the place of client 1, who was not seen for longest
	want(1, "", 24*time.Second)
	want(10, "2", 24*time.Second)
	want(101, "21", 24*time.Second)
	want(10, "", 102*time.Second) // its time is over, that of client 11 not yet
	want(11, "3", 102*time.Second)
	table.remember(102, backends[22], 102*time.Second)
	want(11, "3", 102*time.Second)
	want(102, "22", 102*time.Second)

	s, key := table.set(11)
	way, _ := s.way(key, 2*time.Second)
	s.keys[way].Store(stickyTaken) // another has the entry not seen for longest in hand: the next one goes
	table.remember(104, backends[24], 103*time.Second)
	want(104, "24", 103*time.Second)
	want(12, "", 103*time.Second)
	for i := range s.keys {
		s.keys[i].Store(stickyTaken) // others have every entry in hand
	}
	table.remember(103, backends[23], 103*time.Second)
	want(103, "", 103*time.Second)
	for i := range s.keys {
		if k := s.keys[i].Load(); k != stickyTaken {
			t.Errorf("entry %d was taken from another's hand", i)
		}
	}
}

// TestStickyIsBounded has many more clients than entries: most of the recent ones are remembered.
func TestStickyIsBounded(t *testing.T) {
	const entries = 1024
	var h hand
	p := stickyPool(t, &h, time.Hour, entries, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0),
		at("d", 0, "", 0), at("e", 0, "", 0))
	before := map[int]string{}
	for i := range 20 * entries {
		h.pass(time.Millisecond)
		before[i] = pickOnce(t, p, from(i))
	}
	if n := len(p.settings().sticky.sets) * stickyWays; n != entries {
		t.Errorf("the table has %d entries", n)
	}
	var kept int
	for i := 20*entries - entries/2; i < 20*entries; i++ {
		if pickOnce(t, p, from(i)) == before[i] {
			kept++
		}
	}
	if kept < entries/2*95/100 {
		t.Errorf("of the last %d clients %d were remembered", entries/2, kept)
	}
}

// TestStickyByName holds that with StickyName the name alone decides, that it moves with its backend's loss and stays
// where it went, and that sessions without a name are remembered by their address.
func TestStickyByName(t *testing.T) {
	var h hand
	p := made(t, Options{StickyTTL: time.Hour, StickyEntries: 1024, StickyName: true, NamedBy: MQTTClientID,
		Clock: h.now}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 0, "", 0))
	named := func(name string, client int) PickContext {
		pc := from(client)
		pc.Name = NameKey([]byte(name))
		return pc
	}
	before, used := map[string]string{}, map[string]bool{}
	for i := range 30 {
		name := fmt.Sprint("device-", i)
		before[name] = pickOnce(t, p, named(name, 1)) // all from one address
		used[before[name]] = true
	}
	if len(used) != 3 {
		t.Errorf("the names of one address came to %d of 3 backends", len(used))
	}
	for i := range 30 {
		name := fmt.Sprint("device-", i)
		if x := p.Explain(named(name, 2+i)); x.By != BySticky || x.Backend != before[name] {
			t.Errorf("Explain sends %s to %s by %v, it had %s", name, x.Backend, x.By, before[name])
		}
		if got := pickOnce(t, p, named(name, 2+i)); got != before[name] {
			t.Errorf("from another address %s went to %s, it had %s", name, got, before[name])
		}
	}
	must(t, p.SetVerdict("a", Unhealthy, "test"))
	after := map[string]string{}
	for name, had := range before {
		after[name] = pickOnce(t, p, named(name, 1))
		if had != "a" && after[name] != had || after[name] == "a" {
			t.Errorf("without a, %s went from %s to %s", name, had, after[name])
		}
	}
	must(t, p.SetVerdict("a", Healthy, "test"))
	for name, had := range after {
		if got := pickOnce(t, p, named(name, 1)); got != had {
			t.Errorf("with a back, %s went from %s to %s", name, had, got)
		}
	}
	nameless := pickOnce(t, p, from(1))
	for range 5 {
		if got := pickOnce(t, p, from(1)); got != nameless {
			t.Errorf("without a name one address went to %s and to %s", nameless, got)
		}
	}
	if !p.NeedsName(MQTTClientID) || p.NeedsName(ServerName) {
		t.Error("the pool does not say which names it needs")
	}
	reconfigured(t, p, func(o *Options) { o.NamedBy = ServerName })
	if n := p.Stats().Remembered; n != 0 {
		t.Errorf("%d names of another kind are remembered", n)
	}
	reconfigured(t, p, func(o *Options) { o.StickyTTL = 0 })
	if p.NeedsName(ServerName) {
		t.Error("without stickiness the pool needs names")
	}
}

// TestStickyUnderChange has many goroutines share a small table while backends leave for good: none is picked again.
func TestStickyUnderChange(t *testing.T) {
	var specs []Spec
	for i := range 40 {
		specs = append(specs, spec(fmt.Sprint("b", i), i))
	}
	p := made(t, Options{StickyTTL: time.Hour, StickyEntries: 32}, specs...)
	gone := make([]atomic.Bool, len(specs))
	var picked atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for i := g; !done.Load(); i++ {
				var before [40]bool
				for b := range gone {
					before[b] = gone[b].Load()
				}
				l, err := p.Pick(from(i % 50))
				if err != nil {
					t.Error(err)
					return
				}
				if picked.Add(1)%32 == 0 {
					runtime.Gosched() // to whoever makes the changes
				}
				var number int
				fmt.Sscanf(l.Backend().ID(), "b%d", &number)
				if before[number] {
					t.Errorf("%s was picked after it was removed", l.Backend().ID())
				}
				l.Release(Served)
			}
		})
	}
	for i := range len(specs) - 1 {
		must(t, p.Remove(fmt.Sprint("b", i)))
		gone[i].Store(true)
		for until := picked.Load() + 500; picked.Load() < until && !t.Failed(); { // some picks with each membership
			runtime.Gosched()
		}
	}
	done.Store(true)
	wg.Wait()
}

func TestStickyAllocatesNothing(t *testing.T) {
	p := made(t, Options{StickyTTL: time.Hour, StickyEntries: 64, SlowStart: time.Hour}, at("a", 0, "", 0),
		at("b", 0, "", 0))
	must(t, p.Add(at("c", 0, "", 0))) // which starts slowly
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		l, _ := p.Pick(from(i))
		l.Release(Served)
		i++
	}); n != 0 {
		t.Errorf("Pick and Release allocate %v times, want 0", n)
	}
}
