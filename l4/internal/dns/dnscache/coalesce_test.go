package dnscache

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestFlightsForOneName checks that variants of a question do not start more and more flights: a forger would have as
// many answers to hit as there are questions (RFC 5452, 5).
func TestFlightsForOneName(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	flights := 0
	try := func(q *dns.Msg) {
		t.Helper()
		if got := r.Ask(pack(t, q), UDP, 1, 0, nil); got.Flight != nil {
			flights++
		}
	}
	want := func(what string, most int) {
		t.Helper()
		if flights > most {
			t.Errorf("%s: %d flights for one name, expected %d at most", what, flights, most)
		}
	}
	for size := range uint16(10_000) {
		try(ask("www.example.com.", dns.TypeA, withEDNS(size, false)))
	}
	want("sizes", 1)
	for i := range 10_000 {
		try(ask("www.example.com.", dns.TypeA, withEDNS(1232, false,
			subnetOption(fmt.Sprintf("10.0.%d.%d", i/256, i%256), 32, 0))))
	}
	want("subnets", 1+maxSubnetFlights)
	for i := range 1000 {
		try(ask("www.example.com.", dns.TypeA, withEDNS(1232, false,
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: fmt.Sprintf("%016x", i)})))
		try(ask([]string{"WWW.example.com.", "www.EXAMPLE.com."}[i%2], dns.TypeA))
	}
	want("cookies and spellings", 2+maxSubnetFlights)
	for i := range 64 {
		q := ask("www.example.com.", dns.TypeA)
		q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData = i&1 > 0, i&2 > 0, i&4 > 0
		if i&8 > 0 {
			withEDNS(1232, i&16 > 0)(q)
		}
		try(q)
	}
	want("flags", 24+maxSubnetFlights)
	if n := r.cache.Counters(); n.Refused != 10_000-maxSubnetFlights {
		t.Errorf("%d refused, expected the other subnets", n.Refused)
	}
	forward(t, r, ask("www.example.com.", dns.TypeAAAA, withEDNS(1232, false, subnetOption("10.0.0.0", 32, 0))), 1, 0)
}

// TestSubnetFlightsEnd checks that a flight that ends makes room for another.
func TestSubnetFlightsEnd(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	query := func(i int) *dns.Msg {
		return ask("www.example.com.", dns.TypeA,
			withEDNS(1232, false, subnetOption(fmt.Sprintf("10.0.%d.0", i), 24, 0)))
	}
	var flights []*Flight[int]
	for i := range maxSubnetFlights {
		flights = append(flights, forward(t, r, query(i), 1, 0))
	}
	wantVerdict(t, r, query(99), 0, Refuse)
	wantVerdict(t, r, query(3), 0, Wait)
	r.Failed(flights[3], 0)
	flights[3] = forward(t, r, query(99), 1, 0)
	wantVerdict(t, r, query(100), 0, Refuse)
}

// TestSpellingIsChecked checks that an answer whose name is not spelled like the question's is rejected.
func TestSpellingIsChecked(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	f := forward(t, r, ask("wWw.exAmple.com.", dns.TypeA), 1, 0)
	wantVerdict(t, r, ask("www.EXAMPLE.com.", dns.TypeA, withID(2)), 0, Wait)
	query := f.AppendQuery(nil, flightID)
	for _, spelled := range []string{"www.example.com.", "WWW.EXAMPLE.COM.", "wWw.exAmple.coM."} {
		if _, ok := r.Answered(f, flightID, reply(t, query, func(m *dns.Msg) {
			usualAnswer(t)(m)
			m.Question[0].Name = spelled
		}), 0); ok {
			t.Fatalf("%s is believed", spelled)
		}
	}
	answers, ok := r.Answered(f, flightID, reply(t, query, usualAnswer(t)), 0)
	if !ok || answers.Len() != 2 {
		t.Fatal("the true answer is rejected")
	}
	if got := unpack(t, answers.Append(nil, 1)); got.Question[0].Name != "www.EXAMPLE.com." {
		t.Errorf("the second client gets %v", got.Question)
	}
}

// TestLargestByUDP checks that no answer by UDP is larger than MaxUDP, even for a client that takes more, and that
// backends get that limit.
func TestLargestByUDP(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.MaxUDP = 0
	r := newTestResolver(o)
	q := ask("www.example.com.", dns.TypeA, withEDNS(4096, false))
	f := forward(t, r, q, 1, 0)
	if got := unpack(t, f.AppendQuery(nil, 1)).IsEdns0().UDPSize(); got != 1232 {
		t.Errorf("a backend is asked for %d bytes", got)
	}
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), func(m *dns.Msg) {
		for range 100 {
			m.Answer = append(m.Answer, anyRecord(m))
		}
	}), 0)
	if !ok {
		t.Fatal("rejected")
	}
	for _, wire := range [][]byte{answers.Append(nil, 0), r.Ask(pack(t, q), UDP, 1, 0, nil).Answer} {
		if m := unpack(t, wire); len(wire) > 1232 || !m.Truncated || m.IsEdns0() == nil || len(m.Question) != 1 {
			t.Errorf("%d bytes: %v", len(wire), m)
		}
	}
	if got := r.Ask(pack(t, q), TCP, 1, 0, nil); len(got.Answer) < 1600 {
		t.Errorf("%d bytes by TCP", len(got.Answer))
	}
}

// TestTransportsShareAnswers checks that a client of TCP does not wait for a question that is asked by UDP, as its answer
// may be cut; that a client of UDP waits for one that is asked by TCP; and that both get its answer from then on.
func TestTransportsShareAnswers(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	q := ask("www.example.com.", dns.TypeA)
	udp := forward(t, r, q, 1, 0)
	byTCP := r.Ask(pack(t, q), TCP, 2, 0, nil)
	if byTCP.Verdict != Forward {
		t.Fatalf("by TCP, while it is asked by UDP: %v", byTCP.Verdict)
	}
	if again := r.Ask(pack(t, q), TCP, 3, 0, nil); again.Verdict != Wait {
		t.Errorf("by TCP again: %v", again.Verdict)
	}
	cutMessage := reply(t, udp.AppendQuery(nil, flightID), func(m *dns.Msg) { m.Truncated = true })
	cut, ok := r.Answered(udp, flightID, cutMessage, 0)
	if !ok || cut.Len() != 1 || !unpack(t, cut.Append(nil, 0)).Truncated {
		t.Errorf("by UDP: answered %v, %d clients", ok, cut.Len())
	}
	wantVerdict(t, r, q, 0, Wait) // by UDP: for what is asked by TCP
	wholeMessage := reply(t, byTCP.Flight.AppendQuery(nil, flightID), usualAnswer(t))
	whole, ok := r.Answered(byTCP.Flight, flightID, wholeMessage, 0)
	if !ok || whole.Len() != 3 {
		t.Errorf("by TCP: answered %v, %d clients", ok, whole.Len())
	}
	wantVerdict(t, r, q, 0, Hit)
	if hit := r.Ask(pack(t, q), TCP, 4, 0, nil); hit.Verdict != Hit {
		t.Errorf("by TCP, afterwards: %v", hit.Verdict)
	}
}

// TestHeldShareMemory checks that an answer that many clients hold counts once, that the held bytes are bounded, and
// that a held answer is written as the client's own.
func TestHeldShareMemory(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	other := r.cache.NewResolver()
	large := func(i int) Answers[int] {
		name := fmt.Sprintf("n%d.example.com.", i)
		f := r.Ask(pack(t, ask(name, dns.TypeA)), TCP, 1, 0, nil).Flight
		for who := range 9 {
			r.Ask(pack(t, ask(name, dns.TypeA, withID(uint16(who)))), TCP, who, 0, nil)
		}
		answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), func(m *dns.Msg) {
			for range 3900 {
				m.Answer = append(m.Answer, anyRecord(m))
			}
		}), 0)
		if !ok || answers.Len() != 10 {
			t.Fatal("not answered")
		}
		return answers
	}
	var held []Held
	names := 0
	for ; ; names++ {
		answers := large(names)
		before := len(held)
		for i := range answers.Len() {
			h, ok := []*Resolver[int]{r, other}[i%2].Hold(answers, i)
			if ok {
				held = append(held, h)
			}
		}
		if len(held) == before {
			break
		}
		if len(held) != before+10 {
			t.Fatalf("%d of 10 clients hold the same answer", len(held)-before)
		}
	}
	if bytes := r.cache.held.Load(); bytes > maxHeldBytes ||
		bytes < maxHeldBytes-maxMessage-entryBytes-2*3900-maxKeyLen || names < 800 {
		t.Errorf("%d bytes of %d names are held", bytes, names)
	}
	if got := unpack(t, held[9].Append(nil)); got.Id != 8 || len(got.Answer) != 3900 {
		t.Errorf("id %d, %d records", got.Id, len(got.Answer))
	}
	for i := range held {
		held[i].Release()
	}
	if bytes := r.cache.held.Load(); bytes != 0 {
		t.Errorf("%d bytes are left", bytes)
	}
}

// TestAdmit checks that a client that Admit refuses is not in the flight, and still gets answers from memory.
func TestAdmit(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	may := true
	r.Admit = func(who int) (int, bool) { return who + 100, may }
	q := ask("www.example.com.", dns.TypeA)
	f := forward(t, r, q, 1, 0)
	may = false
	wantVerdict(t, r, q, 0, Refuse)
	wantVerdict(t, r, ask("other.example.com.", dns.TypeA), 0, Refuse)
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), 0)
	if !ok || answers.Len() != 1 || answers.Waiter(0) != 101 {
		t.Errorf("%d answers", answers.Len())
	}
	wantVerdict(t, r, q, time.Second, Hit)
	if n := r.cache.Counters(); n.Waiting != 0 || n.Refused != 2 {
		t.Errorf("%+v", n)
	}
}
