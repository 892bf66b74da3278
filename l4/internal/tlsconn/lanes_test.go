package tlsconn

import (
	"net/netip"
	"testing"
)

// TestLanes holds that lines have their turn one after the other, and each its own in their order.
func TestLanes(t *testing.T) {
	var l Lanes[int]
	if l.First() != 0 || l.Take() != 0 || l.Waiting() != 0 {
		t.Error("something waits in empty lines")
	}
	for i := range 1000 {
		l.Put(7, 1+i)
	}
	l.Put(3, -1)
	l.Put(5, -2)
	l.Put(3, -3)
	for i, want := range []int{1, -1, -2, 2, -3, 3, 4} {
		if first, waiting := l.First(), l.Waiting(); first != want || l.Take() != want || l.Waiting() != waiting-1 {
			t.Errorf("turn %d: %d, want %d; %d waited", i, first, want, waiting)
		}
	}
	for l.Waiting() > 0 {
		l.Take()
	}
	if l.Put(9, 1); l.Take() != 1 || l.First() != 0 {
		t.Error("lines that were empty are of no use")
	}
}

// TestLaneOf holds that addresses of one network share a line, and that others spread.
func TestLaneOf(t *testing.T) {
	if LaneOf(netip.MustParseAddr("2001:db8::1")) != LaneOf(netip.MustParseAddr("2001:db8::2:3:4:5")) {
		t.Error("two addresses of a network of 64 bits are in different lines")
	}
	seen := make(map[uint8]bool)
	for i := range 200 {
		seen[LaneOf(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))] = true
	}
	if len(seen) < laneCount/2 || len(seen) > laneCount {
		t.Errorf("200 addresses are in %d of %d lines", len(seen), laneCount)
	}
}
