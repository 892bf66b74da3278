package gate

import (
	"net/netip"
	"testing"
)

// TestDNSClientShare holds that a client without a limit has no more than its share when half of all places are taken.
func TestDNSClientShare(t *testing.T) {
	clientAt := func(address string) ClientID { return IDOf(netip.MustParseAddr(address).As16()) }
	q := Questions{waiting: make(map[ClientID]int)}
	one, other := clientAt("2001:db8::1"), clientAt("192.0.2.1")
	if clientAt("2001:db8::ffff:2") != one {
		t.Error("an address of the same /64 is another client")
	}
	for range clientShare {
		if q.WaitOfSession(one, 0) != Admitted {
			t.Fatal("refused")
		}
	}
	for _, tc := range []struct {
		id   ClientID
		all  int
		want Reason
	}{{one, crowdedQuestions - 1, Admitted}, {one, crowdedQuestions, ClientFull}, {other, crowdedQuestions, Admitted}} {
		if got := q.WaitOfSession(tc.id, tc.all); got != tc.want {
			t.Errorf("%d wait: %v", tc.all, got)
		}
		if tc.want == Admitted {
			q.Leave(tc.id)
		}
	}
	if len(q.waiting) != 1 || q.waiting[one] != clientShare {
		t.Errorf("%v", q.waiting)
	}
}
