package dnscache

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestHitIsTheClientsOwn checks that an answer has the id, the spelling and the flags of the client's query.
func TestHitIsTheClientsOwn(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	fill(t, r, ask("www.example.com.", dns.TypeA), 0, func(m *dns.Msg) {
		usualAnswer(t)(m)
		m.Authoritative, m.AuthenticatedData, m.Zero = true, true, true
		m.RecursionDesired = false // a backend should copy it
	})
	q := ask("wWw.eXample.COM.", dns.TypeA, withID(0xbeef), withEDNS(1232, false))
	got := wantVerdict(t, r, q, 0, Hit)
	if got.Id != 0xbeef || got.Question[0] != q.Question[0] {
		t.Errorf("id %#x, question %v", got.Id, got.Question)
	}
	if !got.Response || !got.Authoritative || !got.AuthenticatedData || !got.RecursionAvailable ||
		!got.RecursionDesired || got.Zero || got.CheckingDisabled {
		t.Errorf("flags %+v", got.MsgHdr)
	}
	if got.Answer[0].Header().Name != "wWw.eXample.COM." ||
		got.Answer[1].String() != records(t, "web.example.net. 300 IN A 192.0.2.1")[0].String() {
		t.Errorf("records %v", got.Answer)
	}
	if r.cache.Counters().Hit != 1 {
		t.Errorf("%+v, expected a hit", r.cache.Counters())
	}
}

func TestEDNSIsTheClientsOwn(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	cookie := func(text string) *dns.EDNS0_COOKIE { return &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: text} }
	first := fill(t, r, ask("www.example.com.", dns.TypeA, withEDNS(1232, false, cookie("0123456789abcdef"))), 0,
		func(m *dns.Msg) {
			usualAnswer(t)(m)
			m.IsEdns0().Option = []dns.EDNS0{
				cookie("0123456789abcdef0011223344556677"), &dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "aa"},
				&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "why"},
				&dns.EDNS0_PADDING{Padding: make([]byte, 9)},
			}
		})
	check := func(m *dns.Msg) {
		t.Helper()
		opt := m.IsEdns0()
		if opt == nil || opt.Do() || opt.Version() != 0 || opt.UDPSize() != advertisedUDP || len(m.Extra) != 1 {
			t.Fatalf("OPT record %v in %v", opt, m.Extra)
		}
		if len(opt.Option) != 1 || opt.Option[0].String() != "15 (Blocked): (why)" {
			t.Errorf("options %v, expected the extended error alone", opt.Option)
		}
	}
	check(first)
	check(wantVerdict(t, r, ask("www.example.com.", dns.TypeA, withEDNS(512, false)), 0, Hit))
	check(wantVerdict(t, r, ask("www.example.com.", dns.TypeA, withEDNS(512, false, cookie("fedcba9876543210"))), 0,
		Hit))
	if got := wantVerdict(t, r, ask("www.example.com.", dns.TypeA), 0, Hit); got.IsEdns0() != nil ||
		len(got.Extra) != 0 {
		t.Errorf("an OPT record for a client that sent none: %v", got)
	}
	q := ask("www.example.com.", dns.TypeA, withEDNS(512, true))
	fill(t, r, q, 0, usualAnswer(t))
	if got := wantVerdict(t, r, q, 0, Hit).IsEdns0(); got == nil || !got.Do() {
		t.Errorf("OPT record %v, expected DO as in the query", got)
	}
}

// TestFailuresOfOldBackends checks that failures without an OPT record reach clients without one, which says that EDNS
// is not known.
func TestFailuresOfOldBackends(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	for _, alone := range []bool{false, true} {
		got := fill(t, r, ask("wWw.example.com.", dns.TypeA, withEDNS(1232, false)), 0, func(m *dns.Msg) {
			m.Rcode, m.Extra = dns.RcodeFormatError, nil
			if alone {
				m.Question = nil
			}
		})
		if got.Rcode != dns.RcodeFormatError || got.IsEdns0() != nil || got.Question[0].Name != "wWw.example.com." {
			t.Errorf("header alone is %v: %v", alone, got)
		}
	}
}

// TestSizes checks for which clients an answer of a certain size is cut.
func TestSizes(t *testing.T) {
	t.Parallel()
	const size = headerLen + 17 + questionLen + 60*16 // without OPT record
	fillAll := func(r *Resolver[int]) {
		fill(t, r, ask("www.example.com.", dns.TypeA, withEDNS(4096, false)), 0, func(m *dns.Msg) {
			for range 60 {
				m.Answer = append(m.Answer, anyRecord(m))
			}
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked}}
		})
	}
	for _, c := range []struct {
		udpSize   uint16 // 0 = no EDNS
		transport Transport
		want      int
		truncated bool
	}{
		{0, UDP, headerLen + 17 + questionLen, true},
		{0, TCP, size, false},
		{100, UDP, headerLen + 17 + questionLen + optLen, true},
		{100, TCP, size + optLen + 6, false},
		{size + optLen - 1, UDP, headerLen + 17 + questionLen + optLen, true},
		{size + optLen, UDP, size + optLen, false}, // no room for the extended error
		{size + optLen + 5, UDP, size + optLen, false},
		{size + optLen + 6, UDP, size + optLen + 6, false},
		{65_535, UDP, size + optLen + 6, false},
	} {
		r := newTestResolver(testOptions())
		fillAll(r)
		q := ask("www.EXAMPLE.com.", dns.TypeA)
		if c.udpSize > 0 {
			withEDNS(c.udpSize, false)(q)
		}
		reply := r.Ask(pack(t, q), c.transport, 1, 0, []byte("before"))
		wire, appended := bytes.CutPrefix(reply.Answer, []byte("before"))
		got := unpack(t, wire)
		if reply.Verdict != Hit || !appended || len(wire) != c.want || got.Truncated != c.truncated {
			t.Errorf("%+v: %v with %d bytes, truncated is %v", c, reply.Verdict, len(wire), got.Truncated)
		}
		if c.truncated && (len(got.Answer) > 0 || got.Question[0].Name != "www.EXAMPLE.com.") {
			t.Errorf("%+v: truncated to %v", c, got)
		}
	}
	small := newTestResolver(testOptions()) // 512 without EDNS exactly
	q := ask("www.example.com.", dns.TypeTXT)
	for extra, truncated := range map[int]bool{0: false, 1: true} {
		withEDNS(4096, false)(q)
		fill(t, small, q, 0, func(m *dns.Msg) {
			data := 512 - headerLen - 17 - questionLen - 12 + extra
			m.Answer = []dns.RR{&dns.RFC3597{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 9},
				Rdata: "ff" + strings.Repeat("61", 255) + fmt.Sprintf("%02x", data-257) +
					strings.Repeat("61", data-257),
			}}
		})
		q.Extra = nil
		if got := wantVerdict(t, small, q, 0, Hit); got.Truncated != truncated {
			t.Errorf("%d bytes: truncated is %v", 512+extra, got.Truncated)
		}
		small.cache.PurgeAll()
	}
}

// TestCoalesced lets clients wait for one flight. Each gets its own answer, whatever the answer is.
func TestCoalesced(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	other := r.cache.NewResolver()
	f := forward(t, r, ask("www.example.com.", dns.TypeA, withID(1), withEDNS(1232, false)), 1, 0)
	queries := []*dns.Msg{
		ask("WWW.example.com.", dns.TypeA, withID(2), withEDNS(100, false)),
		ask("www.eXaMpLe.com.", dns.TypeA, withID(3), withEDNS(600, false)),
		ask("www.example.COM.", dns.TypeA, withID(4), withEDNS(1232, false)),
	}
	for i, q := range queries {
		if got := other.Ask(pack(t, q), UDP, 2+i, 0, nil); got.Verdict != Wait || got.Flight != nil ||
			got.Answer != nil {
			t.Fatalf("client %d: %+v, expected wait", 2+i, got)
		}
	}
	queries = append(queries, ask("www.example.com.", dns.TypeA, withID(5), withEDNS(4096, false)))
	if got := other.Ask(pack(t, queries[3]), UDP, 5, 0, nil); got.Verdict != Wait {
		t.Fatalf("a client with more room: %v, expected wait", got.Verdict)
	}
	if got := other.Ask(pack(t, ask("www.example.com.", dns.TypeA)), UDP, 9, 0, nil); got.Verdict != Forward {
		t.Fatalf("a client without EDNS: %v, expected forward", got.Verdict)
	}
	if n := r.cache.Counters(); n.Miss != 2 || n.Coalesced != 4 || n.Waiting != 6 {
		t.Errorf("%+v, expected 2 misses, 4 coalesced, 6 waiting", n)
	}
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), 0)
	if !ok || answers.Len() != 5 {
		t.Fatalf("%d answers, expected 5", answers.Len())
	}
	for i, q := range queries {
		got := unpack(t, answers.Append(nil, i+1))
		if answers.Waiter(i+1) != i+2 || got.Id != q.Id || got.Question[0] != q.Question[0] || got.IsEdns0() == nil ||
			len(got.Answer) != 3 {
			t.Errorf("waiter %d: %v", answers.Waiter(i+1), got)
		}
	}
	if n := r.cache.Counters(); n.Waiting != 1 {
		t.Errorf("%d wait, expected the one without EDNS", n.Waiting)
	}
	wantVerdict(t, r, queries[3], 0, Hit)
}

// TestTenThousandClients checks that ten thousand clients cause one query to a backend.
func TestTenThousandClients(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	f := forward(t, r, ask("www.example.com.", dns.TypeA), 0, 0)
	for i := range 9999 {
		if got := r.Ask(pack(t, ask("www.example.com.", dns.TypeA, withID(uint16(i)))), UDP, i+1, 0,
			nil).Verdict; got != Wait {
			t.Fatalf("client %d: %v", i+1, got)
		}
	}
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), 0)
	if !ok || answers.Len() != 10_000 {
		t.Fatalf("%d answers", answers.Len())
	}
	for i := 1; i < answers.Len(); i++ {
		if got := unpack(t, answers.Append(nil, i)); answers.Waiter(i) != i || got.Id != uint16(i-1) {
			t.Fatalf("waiter %d, id %d at %d", answers.Waiter(i), got.Id, i)
		}
	}
}

func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.maxWaitersForTest, o.maxWaitingForTest = 3, 5
	r := newTestResolver(o)
	a, b := ask("a.example.", dns.TypeA), ask("b.example.", dns.TypeA)
	f := forward(t, r, a, 1, 0)
	wantVerdict(t, r, a, 0, Wait)
	wantVerdict(t, r, a, 0, Wait)
	wantVerdict(t, r, a, 0, Refuse)
	g := forward(t, r, b, 1, 0)
	wantVerdict(t, r, b, 0, Wait)
	wantVerdict(t, r, b, 0, Refuse)
	wantVerdict(t, r, ask("c.example.", dns.TypeA), 0, Refuse)
	if n := r.cache.Counters(); n.Waiting != 5 || n.Refused != 3 {
		t.Errorf("%+v, expected 5 waiting and 3 refused", n)
	}
	if n := r.Failed(f, 0).Len() + r.Failed(g, 0).Len() + r.Failed(g, 0).Len(); n != 5 {
		t.Errorf("%d answers, expected 5", n)
	}
	if n := r.cache.Counters(); n.Waiting != 0 {
		t.Errorf("%d still wait", n.Waiting)
	}
	forward(t, r, a, 1, 0)
}

func TestFailedIsServfail(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	f := forward(t, r, ask("www.example.com.", dns.TypeA), 1, 0)
	q := ask("wWw.example.com.", dns.TypeA, withID(9))
	wantVerdict(t, r, q, 0, Wait)
	if n := r.Late(f, 0).Len(); n != 0 {
		t.Fatalf("%d answers though nothing is known", n)
	}
	answers := r.Failed(f, 0)
	if answers.Len() != 2 {
		t.Fatalf("%d answers, expected 2", answers.Len())
	}
	got := unpack(t, answers.Append(nil, 1))
	want := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	want.RecursionAvailable = true
	if got.String() != want.String() {
		t.Errorf("got %v", got)
	}
	edns := ask("www.example.org.", dns.TypeA, withEDNS(1232, true), func(m *dns.Msg) { m.RecursionDesired = false })
	answers = r.Failed(forward(t, r, edns, 1, 0), 0)
	got = unpack(t, answers.Append(nil, 0))
	if opt := got.IsEdns0(); opt == nil || !opt.Do() || got.Rcode != dns.RcodeServerFailure || got.RecursionAvailable {
		t.Errorf("got %v", got)
	}
	forward(t, r, q, 1, 0)
}

// TestSubnets checks which clients may get the answer to a query with a client's subnet.
func TestSubnets(t *testing.T) {
	t.Parallel()
	query := func(option *dns.EDNS0_SUBNET) *dns.Msg {
		if option == nil {
			return ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
		}
		return ask("www.example.com.", dns.TypeA, withEDNS(1232, false, option))
	}
	a, b := subnetOption("192.0.2.0", 24, 0), subnetOption("198.51.100.0", 24, 0)
	answers := func(option dns.EDNS0) func(*dns.Msg) {
		return func(m *dns.Msg) {
			usualAnswer(t)(m)
			if option != nil {
				m.IsEdns0().Option = []dns.EDNS0{option}
			}
		}
	}
	for name, c := range map[string]struct {
		asked  *dns.EDNS0_SUBNET
		answer dns.EDNS0
		again  *dns.EDNS0_SUBNET
		want   Verdict
		scope  int // in the answer from the cache; -1 = no subnet
	}{
		"same":                 {a, subnetOption("192.0.2.0", 24, 24), a, Hit, 24},
		"same, wider scope":    {a, subnetOption("192.0.2.0", 24, 16), a, Hit, 16},
		"same, narrower scope": {a, subnetOption("192.0.2.0", 24, 32), a, Hit, 32},
		"other":                {a, subnetOption("192.0.2.0", 24, 24), b, Forward, 0},
		"within a wider scope": {a, subnetOption("192.0.2.0", 24, 1), subnetOption("192.0.3.0", 24, 0),
			Forward, 0},
		"other length": {a, subnetOption("192.0.2.0", 24, 24), subnetOption("192.0.2.0", 23, 0),
			Forward, 0},
		"other, scope 0":          {a, subnetOption("192.0.2.0", 24, 0), b, Hit, 0},
		"other, backend without":  {a, nil, b, Forward, 0},
		"same, backend without":   {a, nil, a, Hit, -1},
		"hidden":                  {subnetOption("0.0.0.0", 0, 0), subnetOption("0.0.0.0", 0, 0), b, Forward, 0},
		"hidden, backend without": {subnetOption("0.0.0.0", 0, 0), nil, b, Forward, 0},
		"IPv6, scope 0": {a, subnetOption("192.0.2.0", 24, 0), subnetOption("2001:db8::", 56, 0), Hit,
			0},
		"IPv6": {subnetOption("2001:db8::", 56, 0), subnetOption("2001:db8::", 56, 48),
			subnetOption("2001:db8::", 56, 0), Hit, 48},
		"odd length": {subnetOption("192.0.2.128", 25, 0), subnetOption("192.0.2.128", 25, 25),
			subnetOption("192.0.2.128", 25, 0), Hit, 25},
		"none afterwards": {a, subnetOption("192.0.2.0", 24, 0), nil, Forward, 0},
		"none before":     {nil, nil, a, Forward, 0},
		"hidden twice": {subnetOption("0.0.0.0", 0, 0), subnetOption("0.0.0.0", 0, 0),
			subnetOption("0.0.0.0", 0, 0), Hit, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestResolver(testOptions())
			fill(t, r, query(c.asked), 0, answers(c.answer))
			got := wantVerdict(t, r, query(c.again), 0, c.want)
			if c.want != Hit {
				return
			}
			options := got.IsEdns0().Option
			switch {
			case c.scope < 0 && len(options) == 0:
			case len(options) != 1:
				t.Errorf("options %v", options)
			default:
				want := *c.again
				want.SourceScope = uint8(c.scope)
				if options[0].String() != want.String() {
					t.Errorf("subnet %v, expected %v", options[0], &want)
				}
			}
		})
	}
	r := newTestResolver(testOptions()) // in flight
	if f := forward(t, r, query(a), 1, 0); f.key[f.base-1] != keyRD|keySubnet {
		t.Errorf("the key's bits are %b: looking for an answer for any subnet has changed it", f.key[f.base-1])
	}
	wantVerdict(t, r, query(a), 0, Wait)
	wantVerdict(t, r, query(b), 0, Forward)
	wantVerdict(t, r, query(nil), 0, Forward)

	unasked := newTestResolver(testOptions())
	got := fill(t, unasked, query(nil), 0, answers(subnetOption("192.0.2.0", 24, 24)))
	if len(got.IsEdns0().Option) != 0 {
		t.Errorf("a subnet nobody asked with: %v", got)
	}
}

func TestPrefetch(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Prefetch = true
	r := newTestResolver(o)
	q := ask("www.example.com.", dns.TypeA)
	askAt := func(now time.Duration) *Flight[int] {
		t.Helper()
		got := r.Ask(pack(t, q), UDP, 1, now, nil)
		if got.Verdict != Hit || len(got.Answer) == 0 {
			t.Fatalf("at %v: %v, expected a hit", now, got.Verdict)
		}
		return got.Flight
	}
	fill(t, r, q, 0, usualAnswer(t)) // 300 s
	if askAt(271*time.Second) != nil {
		t.Error("prefetched for one client")
	}
	r.cache.PurgeAll()
	fill(t, r, q, 0, usualAnswer(t))
	if askAt(time.Second) != nil || askAt(270*time.Second-1) != nil {
		t.Error("prefetched early")
	}
	f := askAt(270 * time.Second)
	if f == nil {
		t.Fatal("not prefetched")
	}
	if askAt(271*time.Second) != nil {
		t.Error("prefetched twice")
	}
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), 272*time.Second)
	if !ok || answers.Len() != 0 {
		t.Errorf("taken is %v, with %d answers", ok, answers.Len())
	}
	if got := wantVerdict(t, r, q, 400*time.Second, Hit); got.Answer[0].Header().Ttl != 300-128 {
		t.Errorf("after the prefetch: %v", got)
	}
	if f = askAt(571 * time.Second); f == nil {
		t.Error("the refreshed entry is not prefetched")
	}
	r.Failed(f, 571*time.Second)
	askAt(571*time.Second + time.Second/2)
	wantVerdict(t, r, q, 572*time.Second, Forward)
	if n := r.cache.Counters(); n.Prefetched != 2 {
		t.Errorf("%+v, expected 2 prefetched", n)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	names := []string{"example.com.", "www.example.com.", "a.b.example.com.", "notexample.com.", "example.org.",
		`www\.example.com.`, "com."}
	for purge, want := range map[string][]string{
		"name www.EXAMPLE.com":   {"www.example.com."},
		"suffix example.com.":    {"example.com.", "www.example.com.", "a.b.example.com."},
		"suffix b.example.com":   {"a.b.example.com."},
		"suffix .":               names,
		"suffix net":             nil,
		"name b.example.com":     nil,
		`name www\.example.com.`: {`www\.example.com.`},
		"all":                    names,
	} {
		o := testOptions()
		o.StaleTTL = time.Hour
		r := newTestResolver(o)
		for _, name := range names {
			fill(t, r, ask(name, dns.TypeA), 0, usualAnswer(t))
			fill(t, r, ask(name, dns.TypeMX), 0, func(m *dns.Msg) { m.Answer = records(t, name+" 300 IN MX 1 .") })
		}
		removed, err := 0, error(nil)
		switch what, name, _ := strings.Cut(purge, " "); what {
		case "name":
			removed, err = r.cache.Purge(name)
		case "suffix":
			removed, err = r.cache.PurgeSuffix(name)
		default:
			removed = r.cache.PurgeAll()
		}
		if err != nil || removed != 2*len(want) {
			t.Errorf("%s: %d removed, %v, expected %d", purge, removed, err, 2*len(want))
		}
		if n := r.cache.Counters(); n.Entries != 2*(len(names)-len(want)) {
			t.Errorf("%s: %+v", purge, n)
		}
		for _, name := range names {
			verdict := Hit
			for _, gone := range want {
				if name == gone {
					verdict = Forward
				}
			}
			wantVerdict(t, r, ask(name, dns.TypeA), 0, verdict)
		}
	}
	r := newTestResolver(testOptions())
	if _, err := r.cache.Purge("a..b"); err == nil {
		t.Error("a..b is purged")
	}
	if _, err := r.cache.PurgeSuffix("a..b"); err == nil {
		t.Error("what is below a..b is purged")
	}
}

// TestPurgeInFlight checks that a question in flight during a purge is answered, but its answer is not stored.
func TestPurgeInFlight(t *testing.T) {
	t.Parallel()
	r := newTestResolver(testOptions())
	for name, want := range map[string]Verdict{"www.example.com.": Forward, "www.example.org.": Hit} {
		q := ask(name, dns.TypeA)
		f := forward(t, r, q, 1, 0)
		if _, err := r.cache.PurgeSuffix("example.com"); err != nil {
			t.Fatal(err)
		}
		answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), usualAnswer(t)), 0)
		if !ok || answers.Len() != 1 {
			t.Errorf("%s: taken is %v, for %d", name, ok, answers.Len())
		}
		wantVerdict(t, r, q, 0, want)
	}
}

func TestVerdictNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for v := Pass; v <= Refuse; v++ {
		if seen[v.String()] || v.String() == "" {
			t.Errorf("verdict %d is %q", v, v)
		}
		seen[v.String()] = true
	}
}
