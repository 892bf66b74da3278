package dnscache

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// bigBuffer has room for the largest message.
func bigBuffer() []byte { return make([]byte, 0, maxMessage) }

func testOptions() Options {
	return Options{MaxEntries: 1000, MaxTTL: 24 * time.Hour, NegativeTTL: time.Hour, MaxUDP: maxMessage}
}

func newTestResolver(o Options) *Resolver[int] { return New[int](o).NewResolver() }

// ask returns a query for a name and type, with these changes.
func ask(name string, typ uint16, changes ...func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, typ)
	for _, change := range changes {
		change(m)
	}
	return m
}

func withID(id uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.Id = id } }

// withEDNS adds an OPT record with that size and these options to a query.
func withEDNS(size uint16, do bool, options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(size, do)
		m.IsEdns0().Option = options
	}
}

func subnetOption(address string, source, scope uint8) *dns.EDNS0_SUBNET {
	ip := net.ParseIP(address)
	family := uint16(2)
	if v4 := ip.To4(); v4 != nil {
		ip, family = v4, 1
	}
	return &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: source, SourceScope: scope,
		Address: ip}
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatalf("pack %v: %v", m, err)
	}
	return wire
}

func unpack(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("miekg/dns does not read %x: %v", wire, err)
	}
	return m
}

func records(t testing.TB, texts ...string) []dns.RR {
	t.Helper()
	var rrs []dns.RR
	for _, text := range texts {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatalf("record %q: %v", text, err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// reply returns a backend's answer to a forwarded query.
func reply(t testing.TB, query []byte, change func(*dns.Msg)) []byte {
	t.Helper()
	q := unpack(t, query)
	m := new(dns.Msg).SetReply(q)
	m.CheckingDisabled, m.RecursionAvailable, m.Compress = q.CheckingDisabled, true, true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(4096, opt.Do())
	}
	change(m)
	return pack(t, m)
}

// flightID is the id under which tests send flights.
const flightID = 0x5eed

// forward asks and expects a flight.
func forward(t testing.TB, r *Resolver[int], q *dns.Msg, who int, now time.Duration) *Flight[int] {
	t.Helper()
	got := r.Ask(pack(t, q), UDP, who, now, nil)
	if got.Verdict != Forward || got.Flight == nil || got.Answer != nil {
		t.Fatalf("%s at %v: %+v, expected forward with a flight", q.Question[0].Name, now, got)
	}
	return got.Flight
}

// fill asks, answers as the backend, and returns the client's answer.
func fill(t testing.TB, r *Resolver[int], q *dns.Msg, now time.Duration, change func(*dns.Msg)) *dns.Msg {
	t.Helper()
	f := forward(t, r, q, 1, now)
	answers, ok := r.Answered(f, flightID, reply(t, f.AppendQuery(nil, flightID), change), now)
	if !ok || answers.Len() != 1 {
		t.Fatalf("%s: answered is %v for %d clients, expected one", q.Question[0].Name, ok, answers.Len())
	}
	return unpack(t, answers.Append(nil, 0))
}

// wantVerdict asks, expects a verdict and returns the answer, if there is one.
func wantVerdict(t testing.TB, r *Resolver[int], q *dns.Msg, now time.Duration, want Verdict) *dns.Msg {
	t.Helper()
	got := r.Ask(pack(t, q), UDP, 1, now, bigBuffer())
	if got.Verdict != want {
		t.Fatalf("%s at %v: %v, expected %v", q.Question[0].Name, now, got.Verdict, want)
	}
	if got.Flight != nil && want != Forward {
		r.Failed(got.Flight, now)
	}
	if got.Answer == nil {
		return nil
	}
	return unpack(t, got.Answer)
}
