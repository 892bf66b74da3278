package gate

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestPromises holds who may have something of a budget: what nobody was promised goes to anybody, and the rest to
// those who have less than they were promised.
func TestPromises(t *testing.T) {
	have := map[string]int64{}
	has := func(ls *Listener) int64 { return have[ls.Name] }
	a, b, c := &Listener{Name: "a"}, &Listener{Name: "b"}, &Listener{Name: "c"}
	all := []*Listener{a, b, c}
	const total = 120 // 10 are promised to each
	for _, tt := range []struct {
		a, b, c int64 // what they have, with what a is to get
		may     bool
	}{
		{1, 0, 0, true},
		{100, 0, 0, true},
		{101, 0, 0, false},
		{95, 5, 0, true},
		{95, 10, 10, true},
		{100, 10, 9, true},
		{101, 10, 9, false},
		{101, 10, 10, false},
		{1, 109, 0, true},
		{10, 100, 0, true},
		{11, 100, 0, false},
		{10, 50, 60, true},
		{10, 50, 61, false},
	} {
		have["a"], have["b"], have["c"] = tt.a, tt.b, tt.c
		if may := a.keepsPromises(total-tt.a-tt.b-tt.c, total, all, has); may != tt.may {
			t.Errorf("%+v: %v", tt, may)
		}
	}
}

// TestPromisesAreKept holds, whatever order listeners take and give back in, that no more is given out than there is,
// that a listener which has less than it was promised always gets one more, and that one is refused only if the others
// were promised what is left.
func TestPromisesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Int64Range(1, 200).Draw(t, "total")
		sharers := make([]*Listener, rapid.IntRange(1, 6).Draw(t, "listeners"))
		have := make(map[*Listener]int64)
		for i := range sharers {
			sharers[i] = new(Listener)
		}
		each := total / promisedPart / int64(len(sharers))
		left := total
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			ls := rapid.SampledFrom(sharers).Draw(t, "listener")
			n := rapid.SampledFrom([]int64{1, 1, 2, -1}).Draw(t, "takes") // a flow's, a session's; or it gives one back
			if n < 0 {
				if have[ls] > 0 {
					have[ls]--
					left++
				}
				continue
			}
			promised := int64(0) // to the others
			for _, other := range sharers {
				if other != ls {
					promised += max(0, each-have[other])
				}
			}
			may := ls.keepsPromises(left-n, total, sharers, func(ls *Listener) int64 { return have[ls] })
			switch {
			case !may && have[ls]+n <= each:
				t.Fatalf("it has %d, was promised %d, and gets no %d", have[ls], each, n)
			case may != (left-n >= promised):
				t.Fatalf("%d of %d are left, %d are promised to the others, and it may have %d: %v",
					left, total, promised, n, may)
			case may:
				have[ls] += n
				left -= n
			}
		}
		if left < 0 {
			t.Fatalf("%d more were given out than there are", -left)
		}
	})
}

// TestListenersGetWhatIsPromised holds of the gate as a whole what TestPromisesAreKept does of its rule: however much
// sessions and flows of some listeners have, each other listener gets its part of the descriptors, and one of UDP its
// part of the ports.
func TestListenersGetWhatIsPromised(t *testing.T) {
	const room, ports = 40, 60 // 80 descriptors
	greedy := []*Sharer{{Protocol: sock.TCP}, {Protocol: sock.UDP}}
	modest := []*Sharer{{Protocol: sock.TCP}, {Protocol: sock.UDP}}
	for _, first := range []int{0, 1} {
		g := newGate(t, room, ports, greedy[0], greedy[1], modest[0], modest[1])
		take := func(s *Sharer, most int) (got int) {
			flows := s.Listener.NewFlows()
			for got < most {
				if s.Protocol == sock.TCP {
					if !s.Listener.Room() {
						return got
					}
					if why := s.Listener.AdmitSession(someone(), new(Place), false, 0); why != Admitted {
						t.Fatalf("a session with room for it: reason %d", why)
					}
				} else {
					var place FlowPlace
					if why := enter(flows, &place, someone().Addr.Addr(), 0); why != Admitted {
						return got
					}
					flows.Answered(&place)
				}
				got++
			}
			return got
		}
		for i := range greedy {
			if take(greedy[(first+i)%2], plenty) == plenty {
				t.Fatal("there is no end to it")
			}
		}
		const each = 2 * room / promisedPart / 4 // descriptors
		if n := take(modest[1], each); n != each {
			t.Errorf("a listener of UDP got %d flows, and was promised %d", n, each)
		}
		if n := take(modest[0], each/2); n != each/2 {
			t.Errorf("a listener of TCP got %d sessions, and was promised %d", n, each/2)
		}
		if g.descriptorsLeft() < 0 || g.portsLeft(0) < 0 {
			t.Errorf("%d descriptors and %d ports are left", g.descriptorsLeft(), g.portsLeft(0))
		}
	}
}

// TestAloneItHasAll holds that nothing is held back from a listener that is alone.
func TestAloneItHasAll(t *testing.T) {
	var s Sharer
	g := newGate(t, 10, plenty, &s)
	for i := range 10 {
		if !s.Listener.Room() || s.Listener.AdmitSession(someone(), new(Place), false, 0) != Admitted {
			t.Fatalf("no room for session %d of 10", i)
		}
	}
	if s.Listener.Room() || g.descriptorsLeft() != 0 {
		t.Errorf("%d descriptors are left", g.descriptorsLeft())
	}
}
