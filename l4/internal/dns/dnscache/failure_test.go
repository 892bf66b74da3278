package dnscache

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

func failureResolver() *Resolver[int] {
	o := testOptions()
	o.FailureTTL = 5 * time.Second
	return newTestResolver(o)
}

// TestFailuresAreRemembered checks that after a failure no backend is asked for a while, which gets longer each time.
func TestFailuresAreRemembered(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*testing.T, *Resolver[int], *Flight[int], time.Duration) Answers[int]{
		"unanswered": func(_ *testing.T, r *Resolver[int], f *Flight[int], now time.Duration) Answers[int] {
			return r.Unanswered(f, now)
		},
		"servfail": func(t *testing.T, r *Resolver[int], f *Flight[int], now time.Duration) Answers[int] {
			answers, _ := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID),
				func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), now)
			return answers
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := failureResolver()
			q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
			now := time.Hour
			for _, lasts := range []time.Duration{1, 2, 4, 5, 5} {
				lasts *= time.Second
				first := fail(t, r, forward(t, r, q, 1, now), now)
				if got := unpack(t, first.Append(nil, 0)); got.Rcode != dns.RcodeServerFailure ||
					len(got.IsEdns0().Option) != 0 {
					t.Fatalf("the first client gets %v", got)
				}
				for _, at := range []time.Duration{now, now + lasts - 1} {
					got := wantVerdict(t, r, q, at, Hit)
					if got.Rcode != dns.RcodeServerFailure || len(got.IsEdns0().Option) != 1 ||
						got.IsEdns0().Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeCachedError {
						t.Fatalf("after %v: %v", at-now, got)
					}
					wantVerdict(t, r, ask("www.example.com.", dns.TypeA), at, Hit)
				}
				now += lasts
			}
			now += 5 * time.Second // by then the failure is forgotten
			fail(t, r, forward(t, r, q, 1, now), now)
			fill(t, r, q, now+time.Second, usualAnswer(t))
			wantVerdict(t, r, q, now+2*time.Second, Hit)
		})
	}
}

// TestFailuresThatAreNotRemembered has failures that other clients may not get.
func TestFailuresThatAreNotRemembered(t *testing.T) {
	t.Parallel()
	answered := func(change func(*dns.Msg)) func(*testing.T, *Resolver[int], *Flight[int]) {
		return func(t *testing.T, r *Resolver[int], f *Flight[int]) {
			if _, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), change), 0); !ok {
				t.Error("rejected")
			}
		}
	}
	for name, end := range map[string]func(*testing.T, *Resolver[int], *Flight[int]){
		"nobody was asked": func(_ *testing.T, r *Resolver[int], f *Flight[int]) { r.Failed(f, 0) },
		"format error":     answered(func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError }),
		"without EDNS":     answered(func(m *dns.Msg) { m.Rcode, m.Extra = dns.RcodeServerFailure, nil }),
		"header alone": answered(func(m *dns.Msg) {
			m.Rcode, m.Extra, m.Question = dns.RcodeServerFailure, nil, nil
		}),
		"bad version": answered(func(m *dns.Msg) { m.Rcode = dns.RcodeBadVers }),
		"purged": func(_ *testing.T, r *Resolver[int], f *Flight[int]) {
			r.cache.PurgeAll()
			r.Unanswered(f, 0)
		},
	} {
		r := failureResolver()
		q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
		end(t, r, forward(t, r, q, 1, 0))
		if got := r.Ask(pack(t, q), UDP, 1, 0, nil).Verdict; got != Forward {
			t.Errorf("%s: %v, expected forward", name, got)
		}
	}
}

// TestFailureIsNoAnswer checks that a failure replaces no fresh or stale answer, and is never used as a stale answer.
func TestFailureIsNoAnswer(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.FailureTTL, o.StaleTTL, o.Prefetch = 5*time.Second, window, true
	r := newTestResolver(o)
	q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
	fill(t, r, q, 0, usualAnswer(t))
	answers := r.Unanswered(forward(t, r, q, 1, expired), expired)
	wantStale(t, unpack(t, answers.Append(nil, 0)))
	wantStale(t, wantVerdict(t, r, q, expired, Stale))

	other := ask("other.example.com.", dns.TypeA)
	r.Unanswered(forward(t, r, other, 1, 0), 0)
	for range 5 {
		if got := r.Ask(pack(t, other), UDP, 1, 999*time.Millisecond, nil); got.Verdict != Hit || got.Flight != nil {
			t.Fatalf("%+v, expected a hit and no prefetch", got)
		}
	}
	r.Failed(forward(t, r, other, 1, time.Second), time.Second)
}
