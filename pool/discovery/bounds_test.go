package discovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// targetZone answers by TCP, as the size requires, for a service of n targets with a TTL of one second.
func targetZone(n int, answer func(q *dns.Msg) *dns.Msg) func(q *dns.Msg, network string) [][]byte {
	return func(q *dns.Msg, network string) [][]byte {
		switch {
		case q.Question[0].Qtype != dns.TypeSRV:
			return packed(answer(q))
		case network == "udp":
			return packed(with(reply(q), func(m *dns.Msg) { m.Truncated = true }))
		}
		var targets []string
		for i := range n {
			targets = append(targets, fmt.Sprintf("db.test. 1 SRV 0 1 1 t%04d.test.", i))
		}
		return packed(reply(q, targets...))
	}
}

// TestTooManyTargets holds that an answer of two thousand targets causes two questions, by UDP and by TCP. Without a
// bound it was 4,002, every second.
func TestTooManyTargets(t *testing.T) {
	s := serve(t, targetZone(2000, func(q *dns.Msg) *dns.Msg { return reply(q) }))
	f, err := SRV{Name: "db.test", Resolver: s.address}.Find(t.Context())
	if !errors.Is(err, ErrTooMany) || len(f.Backends) != 0 ||
		!strings.HasSuffix(err.Error(), "more than 1000 targets") {
		t.Errorf("error %v", err)
	}
	if n := len(s.questions()); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
}

// TestTargetsThatFail holds that after a target without an address no further lookups start.
func TestTargetsThatFail(t *testing.T) {
	s := serve(t, targetZone(900, func(q *dns.Msg) *dns.Msg {
		return with(reply(q), func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
	}))
	f, err := SRV{Name: "db.test", Resolver: s.address}.Find(t.Context())
	wantFailure(t, f, err, ErrNoSuchName,
		"look up SRV of db.test.: target: look up A/AAAA of t0000.test.: no such name")
	if n := len(s.questions()); n > 2+2*2*targetConcurrency {
		t.Errorf("%d questions for 900 targets, the first of which fails", n)
	}
}

// TestPaceOfTargets holds the rate of lookups, and the pause until the next attempt.
func TestPaceOfTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range maxTargets {
			names = append(names, fmt.Sprint(i))
		}
		var asked, most, now atomic.Int64
		began := time.Now()
		found, err := inTurn(names, func(string) (addresses, error) {
			asked.Add(1)
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Millisecond)
			now.Add(-1)
			return addresses{}, nil
		})
		if err != nil || len(found) != maxTargets || asked.Load() != maxTargets || most.Load() > targetConcurrency {
			t.Errorf("%d found of %d asked, %d at once, error %v", len(found), asked.Load(), most.Load(), err)
		}
		if took := time.Since(began); took < (maxTargets-targetConcurrency)*targetPause || took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Name: "srv", Pool: new(fakePool), Refresh: 5 * time.Second,
			Source: fixed{Found{TTL: time.Second, Asked: 2000}}})
		if pause := r.ask(t.Context()); pause != 20*time.Second {
			t.Errorf("after 2,000 questions the next come in %v, want 20s", pause)
		}
		r = New(Options{Name: "srv", Pool: new(fakePool), Refresh: 5 * time.Second,
			Source: fixed{Found{TTL: 2 * time.Second, Asked: 20}}})
		if pause := r.ask(t.Context()); pause != 2*time.Second {
			t.Errorf("after 20 questions the next come in %v, want 2s", pause)
		}
	})
}

// A fixed source finds the same each time.
type fixed struct{ found Found }

// Find implements Source.
func (f fixed) Find(context.Context) (Found, error) { return f.found, nil }
