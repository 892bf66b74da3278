package pool

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestStickyHandOver holds that clients return to their backends in another process, for as long as they would have in
// the first, and that those who have come there before stay where they are.
func TestStickyHandOver(t *testing.T) {
	var clock time.Duration
	pools := make([]*Pool, 2)
	for i := range pools {
		began := clock
		p, err := New(Options{Name: "pool", Algorithm: "round_robin", Initial: Healthy, StickyTTL: time.Minute,
			StickyEntries: 1 << 12, Clock: func() time.Duration { return clock - began }})
		if err != nil {
			t.Fatal(err)
		}
		for k := range 3 {
			at := At(netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", k+1)))
			if err := p.Add(Spec{ID: fmt.Sprint(k), Addr: at, Weight: 1}); err != nil {
				t.Fatal(err)
			}
		}
		pools[i] = p
		clock += time.Hour
	}
	client := func(i int) PickContext {
		return PickContext{Client: netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:1", i))}
	}
	pick := func(p *Pool, i int) string {
		l, err := p.Pick(client(i))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release(Served)
		return l.Backend().ID()
	}
	want := make(map[int]string)
	for i := range 100 {
		want[i] = pick(pools[0], i)
	}
	early := pick(pools[1], 0)
	clock += 30 * time.Second
	text, err := json.Marshal(pools[0].StickyClients(1000))
	if err != nil {
		t.Fatal(err)
	}
	var c StickyClients
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	c.Clients["unknown"] = make([]byte, 100)
	c.Clients["0"] = append(c.Clients["0"], 1, 2, 3)
	pools[1].AddStickyClients(&c)
	want[0] = early
	for i, id := range want {
		if got := pick(pools[1], i); got != id {
			t.Errorf("client %d came to %s, want %s", i, got, id)
		}
	}
	if n := pools[1].Stats().Remembered; n != 100 {
		t.Errorf("%d are remembered", n)
	}
	if few := pools[0].StickyClients(10); len(few.Clients["0"])+len(few.Clients["1"])+len(few.Clients["2"]) != 120 {
		t.Errorf("ten clients are %v", few)
	}
	clock += 31 * time.Second
	if late := pools[0].StickyClients(10); late != nil {
		t.Errorf("%v are remembered for too long", late)
	}
	c.By = "server_name"
	other, err := New(Options{Name: "pool", Algorithm: "round_robin", StickyTTL: time.Minute, StickyEntries: 100})
	if err != nil {
		t.Fatal(err)
	}
	other.AddStickyClients(&c)
	other.AddStickyClients(nil)
	if n := other.Stats().Remembered; n != 0 {
		t.Errorf("%d are remembered by something else", n)
	}
}
