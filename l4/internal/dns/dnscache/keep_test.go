package dnscache

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestLifetime checks how long answers are stored, and the TTLs that clients get meanwhile.
func TestLifetime(t *testing.T) {
	t.Parallel()
	const soa = "example.com. 900 IN SOA ns.example.com. root.example.com. 1 2 3 4 600"
	answer := func(rcode int, answer, authority []string) func(*dns.Msg) {
		return func(m *dns.Msg) {
			m.Rcode, m.Answer, m.Ns = rcode, records(t, answer...), records(t, authority...)
		}
	}
	positive := func(ttls ...string) func(*dns.Msg) {
		var all []string
		for _, ttl := range ttls {
			all = append(all, "www.example.com. "+ttl+" IN A 192.0.2.1")
		}
		return answer(dns.RcodeSuccess, all, nil)
	}
	nothing := func(authority ...string) func(*dns.Msg) { return answer(dns.RcodeSuccess, nil, authority) }
	noName := func(authority ...string) func(*dns.Msg) { return answer(dns.RcodeNameError, nil, authority) }
	alias := []string{"www.example.com. 300 IN CNAME web.example.com."}
	limits := func(change func(*Options)) Options {
		o := testOptions()
		change(&o)
		return o
	}
	for name, c := range map[string]struct {
		options Options
		change  func(*dns.Msg)
		seconds uint32   // 0 = it is not stored
		ttls    []uint32 // in the first answer
	}{
		"one":                {testOptions(), positive("300"), 300, []uint32{300}},
		"the lowest decides": {testOptions(), positive("300", "70"), 70, []uint32{300, 70}},
		"another section decides": {testOptions(),
			answer(0, []string{"www.example.com. 300 IN A 192.0.2.1"},
				[]string{"example.com. 60 IN NS ns.example.com."}), 60, []uint32{300, 60}},
		"zero":             {testOptions(), positive("0"), 0, []uint32{0}},
		"one of them zero": {testOptions(), positive("300", "0"), 0, []uint32{300, 0}},
		"zero is never raised": {limits(func(o *Options) { o.MinTTL = time.Minute }), positive("300", "0"), 0,
			[]uint32{300, 0}},
		"top bit": {testOptions(), positive("2147483648"), 0, []uint32{2147483648}},
		"raised": {limits(func(o *Options) { o.MinTTL = time.Minute }), positive("300", "5"), 60,
			[]uint32{300, 60}},
		"lowered": {limits(func(o *Options) { o.MaxTTL = time.Minute }), positive("300", "5"), 5,
			[]uint32{60, 5}},
		"lowered to less": {limits(func(o *Options) { o.MaxTTL = time.Minute }), positive("300", "90"), 60,
			[]uint32{60, 60}},
		"the upper bound wins": {limits(func(o *Options) { o.MinTTL, o.MaxTTL = time.Hour, time.Minute }),
			positive("300"), 60, []uint32{60}},
		"no max_ttl": {limits(func(o *Options) { o.MaxTTL = 0 }), positive("300"), 0, []uint32{300}},
		"no name":    {testOptions(), noName(soa), 600, []uint32{600}},
		"no name, SOA's TTL": {testOptions(),
			noName("example.com. 30 IN SOA ns.example.com. root.example.com. 1 2 3 4 600"), 30, []uint32{30}},
		"no name without SOA": {testOptions(), noName(), 0, nil},
		"no name, minimum zero": {testOptions(),
			noName("example.com. 30 IN SOA ns.example.com. root.example.com. 1 2 3 4 0"), 0, []uint32{30}},
		"no name, but an alias": {testOptions(), answer(dns.RcodeNameError, alias, []string{soa}), 300,
			[]uint32{300, 600}},
		"no name, alias, no SOA": {testOptions(), answer(dns.RcodeNameError, alias, nil), 0, []uint32{300}},
		"nothing":                {testOptions(), nothing(soa), 600, []uint32{600}},
		"nothing without SOA":    {testOptions(), nothing(), 0, nil},
		"referral": {testOptions(), nothing("example.com. 300 IN NS ns.example.com."), 0,
			[]uint32{300}},
		"alias to nothing": {testOptions(), answer(0, alias, []string{soa}), 300, []uint32{300, 600}},
		"alias alone":      {testOptions(), answer(0, alias, nil), 300, []uint32{300}},
		"negative_ttl": {limits(func(o *Options) { o.NegativeTTL = time.Minute }), noName(soa), 60,
			[]uint32{60}},
		"negative and max_ttl": {limits(func(o *Options) { o.MaxTTL = time.Minute }), noName(soa), 60,
			[]uint32{60}},
		"no negative_ttl": {limits(func(o *Options) { o.NegativeTTL = 0 }), noName(soa), 0, []uint32{900}},
		"negative is never raised": {limits(func(o *Options) { o.MinTTL = 2 * time.Hour }), noName(soa), 600,
			[]uint32{600}},
		"negative_ttl is for these": {limits(func(o *Options) { o.NegativeTTL = 0 }), positive("300"), 300,
			[]uint32{300}},
		"SOA beside an answer": {testOptions(),
			answer(0, []string{"www.example.com. 800 IN A 192.0.2.1"}, []string{soa}), 800, []uint32{800, 900}},
		"servfail": {testOptions(), answer(dns.RcodeServerFailure, nil, []string{soa}), 0,
			[]uint32{900}},
		"refused": {testOptions(), answer(dns.RcodeRefused, nil, []string{soa}), 0, []uint32{900}},
		"formerr": {testOptions(), answer(dns.RcodeFormatError, nil, []string{soa}), 0,
			[]uint32{900}},
		"notimp": {testOptions(), answer(dns.RcodeNotImplemented, nil, nil), 0, nil},
		"extended code": {testOptions(), func(m *dns.Msg) {
			positive("300")(m)
			m.Rcode = dns.RcodeBadVers // a code that is in the OPT record only
		}, 0, []uint32{300}},
		"truncated": {testOptions(), func(m *dns.Msg) {
			positive("300")(m)
			m.Truncated = true
		}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestResolver(c.options)
			q := ask("www.example.com.", dns.TypeA, withEDNS(1232, false))
			start := 1000 * time.Hour
			got := fill(t, r, q, start, c.change)
			wantTTLs(t, got, c.ttls, 0)
			if c.seconds == 0 {
				wantVerdict(t, r, q, start, Forward)
				return
			}
			lifetime := time.Duration(c.seconds) * time.Second
			wantTTLs(t, wantVerdict(t, r, q, start-time.Second, Hit), c.ttls, 0) // another loop's clock may be late
			wantTTLs(t, wantVerdict(t, r, q, start+time.Second-1, Hit), c.ttls, 0)
			wantTTLs(t, wantVerdict(t, r, q, start+time.Second, Hit), c.ttls, 1)
			wantTTLs(t, wantVerdict(t, r, q, start+lifetime-1, Hit), c.ttls, c.seconds-1)
			wantVerdict(t, r, q, start+lifetime, Forward)
		})
	}
}

// wantTTLs checks that an answer's records have these TTLs, minus the time that passed.
func wantTTLs(t *testing.T, m *dns.Msg, ttls []uint32, gone uint32) {
	t.Helper()
	var got []uint32
	for _, rr := range append(append(m.Answer, m.Ns...), m.Extra...) {
		if rr.Header().Rrtype != dns.TypeOPT {
			got = append(got, rr.Header().Ttl+gone)
		}
	}
	if len(got) != len(ttls) {
		t.Fatalf("TTLs %d after %d s, expected %d, in\n%v", got, gone, ttls, m)
	}
	for i := range got {
		if got[i] != ttls[i] {
			t.Fatalf("TTLs %d after %d s, expected %d, in\n%v", got, gone, ttls, m)
		}
	}
}

// TestLargeAnswers checks that large answers are delivered, but not stored.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	// Each record has 16 bytes, and an offset of two bytes.
	for records, want := range map[int]Verdict{200: Hit, 255: Forward} {
		r := newTestResolver(testOptions())
		q := ask("www.example.com.", dns.TypeA, withEDNS(65_000, false))
		got := fill(t, r, q, 0, func(m *dns.Msg) {
			for range records {
				m.Answer = append(m.Answer, anyRecord(m))
			}
		})
		if len(got.Answer) != records {
			t.Errorf("%d records, expected %d", len(got.Answer), records)
		}
		wantVerdict(t, r, q, 0, want)
	}
}
