package pool

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// drain returns what is queued now.
func drain(s *Subscription) []Event {
	var events []Event
	for len(s.C()) > 0 {
		events = append(events, <-s.C())
	}
	return events
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, "round_robin")
		s := p.Subscribe(10)
		defer s.Close()
		t0 := time.Now()
		must(t, p.Add(spec("a", 0)))
		time.Sleep(time.Second)
		must(t, p.SetVerdict("a", Unhealthy, "connect refused"))
		time.Sleep(time.Second)
		must(t, p.SetMode("a", Drain))
		must(t, p.SetWeight("a", 7))
		must(t, p.SetMaxSessions("a", 5))
		p.NoteDiscovery("dns", 2, Reconciled{Ignored: 2}, nil)
		must(t, p.Remove("a"))

		info := BackendInfo{
			ID: "a", Addr: At(netip.MustParseAddrPort("127.1.0.0:80")), Weight: 1,
			Verdict: Healthy, Reason: "initial", Since: t0, Given: spec("a", 0), Eligible: true,
		}
		change := func(after time.Duration) Change { return Change{Pool: "test", Backend: info, At: t0.Add(after)} }
		want := []Event{Added{change(0)}}
		info.Verdict, info.Reason, info.Since, info.Eligible = Unhealthy, "connect refused", t0.Add(time.Second), false
		want = append(want, VerdictChanged{change(time.Second), Healthy, Unhealthy, "connect refused"})
		info.Mode = Drain
		want = append(want, ModeChanged{change(2 * time.Second), Ready, Drain})
		info.Weight = 7
		want = append(want, WeightChanged{change(2 * time.Second), 1, 7})
		info.MaxSessions = 5
		want = append(want, LimitChanged{change(2 * time.Second), 0, 5}, Discovered{
			Change: Change{Pool: "test", At: t0.Add(2 * time.Second)}, Source: "dns", Found: 2,
			Changed: Reconciled{Ignored: 2},
		}, Removed{change(2 * time.Second)})

		if got := drain(s); !slices.Equal(got, want) {
			t.Errorf("events are\n%+v\nwant\n%+v", got, want)
		}
	})
}

func TestAnEventIsInEffectWhenRead(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	s := p.Subscribe(1)
	var observer sync.WaitGroup
	observer.Go(func() {
		for e := range s.C() {
			to := e.(VerdictChanged).To
			if _, err := p.Pick(PickContext{}); (err == nil) != (to == Healthy) {
				t.Errorf("after the event of %v, Pick gives error %v", to, err)
			}
			switch to {
			case Unhealthy:
				if err := p.SetVerdict("a", Healthy, "test"); err != nil { // an observer may call the pool
					t.Error(err)
				}
			case Healthy:
				s.Close()
			}
		}
	})
	must(t, p.SetVerdict("a", Unhealthy, "test"))
	observer.Wait()
}

func TestAStuckObserverDelaysNobody(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	stuck, attentive := p.Subscribe(3), p.Subscribe(100)
	defer stuck.Close()
	defer attentive.Close()
	for i := range uint32(100) {
		must(t, p.SetWeight("a", i+2)) // would hang here
	}
	if n := stuck.Dropped(); n != 97 {
		t.Errorf("the stuck observer lost %d events, want 97", n)
	}
	if n := attentive.Dropped(); n != 0 {
		t.Errorf("the other observer lost %d events, want 0", n)
	}
	for i, e := range drain(attentive) {
		if w := e.(WeightChanged); w.To != uint32(i+2) || w.From != uint32(i+1) {
			t.Errorf("event %d is of weight %d to %d", i, w.From, w.To)
		}
	}
	if first := (<-stuck.C()).(WeightChanged).To; first != 2 {
		t.Errorf("the stuck observer's first event is of weight %d, want 2: what is queued is kept", first)
	}
}

func TestSubscribeAlwaysHasRoomForOne(t *testing.T) {
	for _, buffer := range []int{-1, 0, 1} {
		p := newPool(t, "round_robin")
		s := p.Subscribe(buffer)
		must(t, p.Add(spec("a", 0)))
		if n := len(drain(s)); n != 1 {
			t.Errorf("Subscribe(%d) queues %d events, want 1", buffer, n)
		}
		s.Close()
	}
}

func TestCloseEndsTheQueue(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	s, other := p.Subscribe(10), p.Subscribe(10)
	defer other.Close()
	must(t, p.SetMode("a", Drain))
	s.Close()
	s.Close()
	must(t, p.SetMode("a", Ready)) // would panic if it still sent to the closed one
	var n int
	for range s.C() {
		n++
	}
	if n != 1 {
		t.Errorf("%d events before the end of the queue, want the 1 from before Close", n)
	}
	if n := len(drain(other)); n != 2 {
		t.Errorf("the other observer got %d events, want 2", n)
	}
}

func TestSubscribeAndCloseWhileChanging(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				s := p.Subscribe(2)
				drain(s)
				s.Close()
			}
		})
	}
	wg.Go(func() {
		for i := range uint32(400) {
			if err := p.SetWeight("a", i%2+1); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if n := len(p.subscriptions); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}
