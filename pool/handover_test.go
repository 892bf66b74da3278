package pool

import (
	"encoding/json"
	"maps"
	"net/netip"
	"testing"
	"time"
)

// TestAdopt holds that a lease of another process is adopted whatever the pool thinks of its backend, and that neither
// its beginning nor its end here counts as a pick or an outcome.
func TestAdopt(t *testing.T) {
	at := At(netip.MustParseAddrPort("192.0.2.1:80"))
	p, err := New(Options{Name: "pool", Algorithm: "round_robin"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(Spec{ID: "one", Addr: at, Weight: 1, MaxSessions: 1, Mode: Maintenance}); err != nil {
		t.Fatal(err)
	}
	var leases []Lease
	for range 3 {
		l, is := p.Adopt("one", at)
		if !is {
			t.Fatal("it is not adopted")
		}
		leases = append(leases, l)
	}
	if _, is := p.Adopt("two", at); is {
		t.Error("a backend is adopted that the pool does not have")
	}
	if _, is := p.Adopt("one", At(netip.MustParseAddrPort("192.0.2.2:80"))); is {
		t.Error("a backend is adopted that is elsewhere")
	}
	if b := p.Backends()[0]; b.Leases != 3 || b.Outcomes != [numOutcomes]uint64{} {
		t.Errorf("%d leases, outcomes %v", b.Leases, b.Outcomes)
	}
	leases[0].Release(Served)
	leases[1].HandOver()
	leases[2].HandOver()
	if b := p.Backends()[0]; b.Leases != 0 || b.Outcomes != [numOutcomes]uint64{Served: 1} {
		t.Errorf("%d leases, outcomes %v", b.Leases, b.Outcomes)
	}
}

// TestCounts holds that counts go over as JSON, add up, and that unknown names are ignored.
func TestCounts(t *testing.T) {
	make := func() *Pool {
		p, err := New(Options{Name: "pool", Algorithm: "round_robin"})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(Spec{ID: "one", Addr: At(netip.MustParseAddrPort("192.0.2.1:80")), Weight: 1}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, other := make(), make()
	i := uint64(1)
	b := p.snap.Load().members[0].backend
	for o := range b.outcomes {
		b.outcomes[o].Store(i)
		i++
	}
	b.AddBytes(100, 200)
	b.openings.Store(7)
	b.moved.Store(8)
	b.rateReached.Store(9)
	b.took(connectTimes, 0, time.Microsecond)
	b.took(connectTimes, 1, time.Hour)
	b.took(firstByteTimes, 1, 20*time.Millisecond)
	p.counts.noBackend.Store(10)
	p.counts.busy.Store(11)
	p.counts.openings.Store(12)
	p.counts.revocations.Store(13)
	p.queue.waited = waited{1, 2, 3, 4, 5, 6}
	of, backends := p.Counts()
	for _, v := range []any{&of, &backends} {
		text, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	of["unknown"], backends["unknown"], backends["one"]["unknown"] = 1, Counts{"served": 1}, 1
	other.AddCounts(of, backends)
	delete(of, "unknown")
	delete(backends, "unknown")
	delete(backends["one"], "unknown")
	again, againBackends := other.Counts()
	if !maps.Equal(of, again) || !maps.Equal(backends["one"], againBackends["one"]) || len(againBackends) != 1 {
		t.Errorf("%v and %v became %v and %v", of, backends, again, againBackends)
	}
	if p.Stats() != other.Stats() {
		t.Errorf("%+v became %+v", p.Stats(), other.Stats())
	}
	if was, is := p.Backends()[0], other.Backends()[0]; was.ConnectTimes != is.ConnectTimes ||
		was.FirstByteTimes != is.FirstByteTimes || is.ConnectTimes.Count() != 2 || is.FirstByteTimes.Count() != 1 {
		t.Errorf("times %+v and %+v became %+v and %+v",
			was.ConnectTimes, was.FirstByteTimes, is.ConnectTimes, is.FirstByteTimes)
	}
	other.AddCounts(of, backends)
	if twice, _ := other.Counts(); twice["busy"] != 22 {
		t.Errorf("twice: %v", twice)
	}
}
