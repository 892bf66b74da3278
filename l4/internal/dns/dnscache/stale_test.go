package dnscache

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The entry of these tests is fresh for 300 s, and stale for an hour after that.
const (
	expired = 300 * time.Second
	window  = time.Hour
)

func staleResolver(t *testing.T) (*Resolver[int], *dns.Msg) {
	o := testOptions()
	o.StaleTTL = window
	r := newTestResolver(o)
	q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
	fill(t, r, q, 0, usualAnswer(t))
	return r, q
}

// wantStale checks that an answer is a stale one.
func wantStale(t *testing.T, m *dns.Msg) {
	t.Helper()
	wantTTLs(t, m, []uint32{30, 30, 30}, 0)
	if opt := m.IsEdns0(); opt == nil || len(opt.Option) != 1 ||
		opt.Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("options of a stale answer: %v", opt)
	}
}

// TestStaleIsForFailures checks that a client waits for the backend before it gets a stale answer.
func TestStaleIsForFailures(t *testing.T) {
	t.Parallel()
	r, q := staleResolver(t)
	f := forward(t, r, q, 1, expired)
	wantVerdict(t, r, q, expired, Wait)
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), expired)
	if !ok || answers.Len() != 2 {
		t.Fatalf("taken is %v for %d clients", ok, answers.Len())
	}
	wantTTLs(t, unpack(t, answers.Append(nil, 1)), []uint32{300, 300, 300}, 0)
	wantVerdict(t, r, q, expired, Hit)
}

func TestStaleWhenFailed(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*testing.T, *Resolver[int], *Flight[int], time.Duration) Answers[int]{
		"failed": func(_ *testing.T, r *Resolver[int], f *Flight[int], now time.Duration) Answers[int] {
			return r.Failed(f, now)
		},
		"servfail": func(t *testing.T, r *Resolver[int], f *Flight[int], now time.Duration) Answers[int] {
			answers, _ := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID),
				func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), now)
			return answers
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, q := staleResolver(t)
			now := expired + time.Minute
			f := forward(t, r, q, 1, now)
			wantVerdict(t, r, q, now, Wait)
			answers := fail(t, r, f, now)
			if answers.Len() != 2 {
				t.Fatalf("%d answers, expected 2", answers.Len())
			}
			wantStale(t, unpack(t, answers.Append(nil, 0)))
			wantStale(t, unpack(t, answers.Append(nil, 1)))

			// from now on clients get it at once, and the backend is asked in the background, at most every 30 s
			got := r.Ask(pack(t, q), UDP, 1, now+retryPause-1, nil)
			if got.Verdict != Stale || got.Flight != nil {
				t.Fatalf("%+v, expected a stale answer and no flight", got)
			}
			wantStale(t, unpack(t, got.Answer))
			got = r.Ask(pack(t, q), UDP, 1, now+retryPause, nil)
			if got.Verdict != Stale || got.Flight == nil {
				t.Fatalf("%+v, expected a stale answer and a flight", got)
			}
			if again := r.Ask(pack(t, q), UDP, 1, now+2*retryPause, nil); again.Verdict != Stale ||
				again.Flight != nil {
				t.Fatalf("%+v, expected no second flight", again)
			}
			if n := r.cache.Counters(); n.Stale != 5 || n.Waiting != 0 {
				t.Errorf("%+v, expected 5 stale", n)
			}
			answers, ok := r.Answered(got.Flight, flightID,
				reply(t, got.Flight.AppendQuery(nil, flightID), usualAnswer(t)), now+2*retryPause)
			if !ok || answers.Len() != 0 {
				t.Errorf("taken is %v for %d clients", ok, answers.Len())
			}
			wantTTLs(t, wantVerdict(t, r, q, now+2*retryPause, Hit), []uint32{300, 300, 300}, 0)
		})
	}
}

// TestStaleWhenLate checks that clients get the stale answer while the flight continues, and that the flight's answer
// is still used.
func TestStaleWhenLate(t *testing.T) {
	t.Parallel()
	r, q := staleResolver(t)
	f := forward(t, r, q, 1, expired)
	late := r.Late(f, expired+2*time.Second)
	if late.Len() != 1 {
		t.Fatalf("%d answers, expected 1", late.Len())
	}
	wantStale(t, unpack(t, late.Append(nil, 0)))
	wantVerdict(t, r, q, expired+3*time.Second, Stale)
	if again := r.Late(f, expired+3*time.Second); again.Len() != 0 {
		t.Errorf("%d answers again", again.Len())
	}
	if got := r.Ask(pack(t, q), UDP, 1, expired+time.Minute, nil); got.Verdict != Stale || got.Flight != nil {
		t.Fatalf("%+v, expected no second flight beside the late one", got)
	}
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), expired+time.Minute)
	if !ok || answers.Len() != 0 {
		t.Errorf("taken is %v for %d clients", ok, answers.Len())
	}
	wantVerdict(t, r, q, expired+time.Minute, Hit)
	if n := r.Late(f, expired+time.Minute).Len(); n != 0 {
		t.Errorf("%d answers of a flight that has ended", n)
	}
}

func TestStaleEnds(t *testing.T) {
	t.Parallel()
	r, q := staleResolver(t)
	answers := r.Failed(forward(t, r, q, 1, expired+window-1), expired+window-1)
	wantStale(t, unpack(t, answers.Append(nil, 0)))
	wantVerdict(t, r, q, expired+window-1, Stale)
	answers = r.Failed(forward(t, r, q, 1, expired+window), expired+window)
	if got := unpack(t, answers.Append(nil, 0)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("after the window: %v", got)
	}

	off := newTestResolver(testOptions())
	fill(t, off, q, 0, usualAnswer(t))
	answers = off.Failed(forward(t, off, q, 1, expired), expired)
	if got := unpack(t, answers.Append(nil, 0)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("without stale_ttl: %v", got)
	}
}

// TestStaleIsRefuted checks that a different answer removes the stale one, even if it is not stored itself (RFC 8767,
// 4).
func TestStaleIsRefuted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		rcode  int // the clients' code when a backend fails next
	}{
		"nothing without SOA": {func(*dns.Msg) {}, dns.RcodeServerFailure},
		"no such name":        {func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, dns.RcodeServerFailure},
		"TTL zero": {func(m *dns.Msg) { m.Answer = records(t, "www.example.com. 0 IN A 192.0.2.1") },
			dns.RcodeServerFailure},
		"truncated": {func(m *dns.Msg) { m.Truncated = true }, dns.RcodeSuccess}, // proves nothing
	} {
		r, q := staleResolver(t)
		fill(t, r, q, expired, c.change)
		answers := r.Failed(forward(t, r, q, 1, expired), expired)
		if got := unpack(t, answers.Append(nil, 0)); got.Rcode != c.rcode {
			t.Errorf("%s: then %v", name, got)
		}
	}
}

// TestStaleNoName has a name that did not exist when a backend last answered.
func TestStaleNoName(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.StaleTTL = window
	r := newTestResolver(o)
	q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
	fill(t, r, q, 0, func(m *dns.Msg) {
		m.Rcode = dns.RcodeNameError
		m.Ns = records(t, "example.com. 300 IN SOA a. b. 1 2 3 4 300")
	})
	answers := r.Failed(forward(t, r, q, 1, expired), expired)
	got := unpack(t, answers.Append(nil, 0))
	if code := got.IsEdns0().Option[0].(*dns.EDNS0_EDE).InfoCode; got.Rcode != dns.RcodeNameError ||
		code != dns.ExtendedErrorCodeStaleNXDOMAINAnswer {
		t.Errorf("extended error %d in %v", code, got)
	}
}

// TestStaleOfTheSubnet checks that of two stale answers, for the client's subnet and for any, the client gets the
// younger one.
func TestStaleOfTheSubnet(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.StaleTTL = window
	r := newTestResolver(o)
	query := func(address string) *dns.Msg {
		return ask("www.example.com.", dns.TypeA, withEDNS(1232, false, subnetOption(address, 24, 0)))
	}
	answer := func(address, record string, scope uint8) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.Answer = records(t, "www.example.com. 5 IN A "+record)
			m.IsEdns0().Option = []dns.EDNS0{subnetOption(address, 24, scope)}
		}
	}
	fail := func(address string, now time.Duration, want string) {
		t.Helper()
		answers := r.Failed(forward(t, r, query(address), 1, now), now)
		if got := unpack(t, answers.Append(nil, 0)); len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.String() != want {
			t.Errorf("for %s at %v: %v", address, now, got)
		}
	}
	fill(t, r, query("192.0.2.0"), 0, answer("192.0.2.0", "203.0.113.1", 0))
	fill(t, r, query("192.0.3.0"), 10*time.Second, answer("192.0.3.0", "203.0.113.2", 24))
	fail("192.0.3.0", 20*time.Second, "203.0.113.2")
	fill(t, r, query("192.0.5.0"), 30*time.Second, answer("192.0.5.0", "203.0.113.3", 0))
	fail("192.0.3.0", 40*time.Second, "203.0.113.3")
}
