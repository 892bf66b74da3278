package gate

import (
	"net/netip"
	"testing"
)

// TestDNSClientShare holds that a client without a limit has no more than its share when half of all places are taken.
func TestDNSClientShare(t *testing.T) {
	mask := maskOf(new(Limits))
	clientAt := func(address string) ClientID { return mask.id(netip.MustParseAddr(address).As16()) }
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

// questionsOf returns the way in for the questions of a listener with a limit for each client.
func questionsOf(t *testing.T, limit int) *Questions {
	t.Helper()
	var s Sharer
	newGate(t, plenty, plenty, &s)
	s.Listener.Set(Settings{ClientFlows: limit})
	return s.Listener.NewQuestions()
}

// TestQuestionsWait holds that questions wait up to each limit of their client, that one that is refused does not
// count, and that one that leaves makes room for another.
func TestQuestionsWait(t *testing.T) {
	type wait = func(*Questions, ClientID, int) Reason
	of, ofSession := (*Questions).Wait, (*Questions).WaitOfSession
	for _, tt := range []struct {
		name    string
		limit   int
		wait    wait
		waiting int // in the whole cache
		may     int
	}{
		{"the listener's limit", 3, of, 0, 3},
		{"the listener's limit, crowded", 3, of, crowdedQuestions, 3},
		{"without a limit, crowded", 0, of, crowdedQuestions, clientShare},
		{"a limit above the share, crowded", 2 * clientShare, of, crowdedQuestions, clientShare},
		{"a limit above the share", 2 * clientShare, of, crowdedQuestions - 1, 2 * clientShare},
		{"a session's, crowded", 3, ofSession, crowdedQuestions, clientShare},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := questionsOf(t, tt.limit)
			one, other := ClientID{1}, ClientID{2}
			for i := range tt.may {
				if why := tt.wait(q, one, tt.waiting); why != Admitted {
					t.Fatalf("question %d: reason %d", i, why)
				}
			}
			for range 3 {
				if why := tt.wait(q, one, tt.waiting); why != ClientFull {
					t.Fatalf("one too many: reason %d", why)
				}
			}
			if why := tt.wait(q, other, tt.waiting); why != Admitted {
				t.Errorf("another client: reason %d", why)
			}
			q.Leave(one)
			if why := tt.wait(q, one, tt.waiting); why != Admitted {
				t.Errorf("after one has left: reason %d", why)
			}
			for range tt.may {
				q.Leave(one)
			}
			q.Leave(other)
			if len(q.waiting) != 0 {
				t.Errorf("clients without questions are kept: %v", q.waiting)
			}
		})
	}
}

// TestQuestionsWithoutALimit holds that a client may have any number of questions while there are few in all, and that
// those of a session do not know the listener's limit.
func TestQuestionsWithoutALimit(t *testing.T) {
	free, limited := questionsOf(t, 0), questionsOf(t, 1)
	for i := range 4 * clientShare {
		if why := free.Wait(ClientID{1}, crowdedQuestions-1); why != Admitted {
			t.Fatalf("question %d: reason %d", i, why)
		}
		if why := limited.WaitOfSession(ClientID{1}, crowdedQuestions-1); why != Admitted {
			t.Fatalf("a session's question %d: reason %d", i, why)
		}
	}
	if why := limited.Wait(ClientID{1}, 0); why != ClientFull { // one client's count all together
		t.Errorf("a datagram's question beside them: reason %d", why)
	}
}

// TestQuestionsCountNowhere holds that a question which does not wait is admitted, however many there are.
func TestQuestionsCountNowhere(t *testing.T) {
	q := questionsOf(t, 1)
	for range 10 {
		if why := q.Admit(someone(), 0); why != Admitted {
			t.Fatalf("reason %d", why)
		}
	}
	if len(q.waiting) != 0 {
		t.Errorf("%v wait", q.waiting)
	}
}
