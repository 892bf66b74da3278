package dnscache

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A world is many loops that use one cache at once, with clients, with backends that answer, fail and lie, and with an
// operator who purges. Each answer contains its question, so that a client can check that it got its own.
type world struct {
	t       *testing.T
	cache   *Cache[client]
	clock   atomic.Int64
	got     atomic.Int64 // answers that clients got
	waiting sync.Map     // client to the *dns.Msg that waits
	flights chan inFlight
}

// A client is identified by its loop and a number.
type client struct{ loop, number int }

type inFlight struct {
	flight *Flight[client]
	id     uint16
}

// fingerprintOf returns the content of an answer to a question.
func fingerprintOf(q *dns.Msg) string {
	question := q.Question[0]
	text := fmt.Sprintf("%s %d rd=%v cd=%v ad=%v", strings.ToLower(question.Name), question.Qtype, q.RecursionDesired,
		q.CheckingDisabled, q.AuthenticatedData)
	if opt := q.IsEdns0(); opt != nil && opt.Do() {
		text += " do"
	}
	return text
}

// subnetOf returns a query's or an answer's subnet; empty without one.
func subnetOf(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, is := o.(*dns.EDNS0_SUBNET); is {
				return fmt.Sprintf("%v/%d", s.Address, s.SourceNetmask)
			}
		}
	}
	return ""
}

func randomQuery(random *rand.Rand) *dns.Msg {
	name := []byte(fmt.Sprintf("n%d.example.com.", random.IntN(24)))
	for i := range name {
		if random.IntN(2) == 0 {
			name[i] = strings.ToUpper(string(name[i]))[0]
		}
	}
	q := ask(string(name), []uint16{dns.TypeTXT, dns.TypeSPF}[random.IntN(2)], withID(uint16(random.Uint32())))
	q.RecursionDesired = random.IntN(4) > 0
	q.CheckingDisabled = random.IntN(8) == 0
	q.AuthenticatedData = random.IntN(8) == 0
	if random.IntN(2) == 0 {
		var options []dns.EDNS0
		if random.IntN(3) == 0 {
			options = append(options, subnetOption(fmt.Sprintf("192.0.%d.0", random.IntN(3)), 24, 0))
		}
		if random.IntN(2) == 0 {
			options = append(options, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE,
				Cookie: fmt.Sprintf("%016x", random.Uint64())})
		}
		withEDNS([]uint16{512, 1232, 4096}[random.IntN(3)], random.IntN(3) == 0, options...)(q)
	}
	return q
}

// texts returns record data of a kind.
func texts(q *dns.Msg, ttl uint32, values ...string) dns.RR {
	question := q.Question[0]
	h := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
	if question.Qtype == dns.TypeSPF {
		return &dns.SPF{Hdr: h, Txt: values}
	}
	return &dns.TXT{Hdr: h, Txt: values}
}

// backend answers a forwarded query in a random way. Some messages are not answers at all.
func (w *world) backend(random *rand.Rand, f inFlight) []byte {
	q := new(dns.Msg)
	if err := q.Unpack(f.flight.AppendQuery(nil, f.id)); err != nil {
		w.t.Errorf("forwarded query: %v", err)
		return nil
	}
	subnet := subnetOf(q)
	m := new(dns.Msg).SetReply(q)
	m.CheckingDisabled, m.Compress = q.CheckingDisabled, true
	m.Answer = []dns.RR{texts(q, uint32(random.IntN(20)), fingerprintOf(q), subnet)}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(4096, opt.Do())
		for _, o := range opt.Option {
			s, is := o.(*dns.EDNS0_SUBNET)
			if !is {
				w.t.Errorf("option %v reaches a backend", o)
				continue
			}
			scoped := *s
			if scoped.SourceScope = 24; random.IntN(3) == 0 {
				scoped.SourceScope = 0
				m.Answer = []dns.RR{texts(q, uint32(random.IntN(20)), fingerprintOf(q), "any")}
			}
			m.IsEdns0().Option = append(m.IsEdns0().Option, &scoped)
		}
	}
	switch random.IntN(12) {
	case 0:
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
	case 1:
		m.Truncated, m.Answer = true, nil
	case 2:
		m.Id++
	case 3:
		m.Question[0].Name = "other.example.com."
	case 4:
		m.Question[0].Qtype++
	case 5:
		m.Answer = append(m.Answer, texts(q, 9, strings.Repeat("x", 255)), texts(q, 9, strings.Repeat("y", 255)))
	}
	wire, err := m.Pack()
	if err != nil {
		w.t.Errorf("pack: %v", err)
	}
	return wire
}

// check checks the property: this answer is for this query.
func (w *world) check(q *dns.Msg, wire []byte) {
	w.got.Add(1)
	limit := 512
	if opt := q.IsEdns0(); opt != nil {
		limit = int(max(512, opt.UDPSize()))
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil || len(wire) > limit {
		w.t.Errorf("%d of %d bytes for %v: %v", len(wire), limit, q, err)
		return
	}
	if m.Id != q.Id || len(m.Question) != 1 || m.Question[0] != q.Question[0] ||
		m.RecursionDesired != q.RecursionDesired ||
		m.CheckingDisabled != q.CheckingDisabled || (m.IsEdns0() == nil) != (q.IsEdns0() == nil) {
		w.t.Errorf("asked\n%v\ngot\n%v", q, m)
	}
	for _, rr := range m.Answer {
		if rr.Header().Name != q.Question[0].Name || rr.Header().Rrtype != q.Question[0].Qtype {
			w.t.Errorf("asked\n%v\ngot\n%v", q, m)
		}
	}
	asked := subnetOf(q)
	if len(m.Answer) > 0 {
		var said []string
		if rr, is := m.Answer[0].(*dns.TXT); is {
			said = rr.Txt
		} else {
			said = m.Answer[0].(*dns.SPF).Txt
		}
		if said[0] != fingerprintOf(q) || said[1] != asked && (said[1] != "any" || asked == "") {
			w.t.Errorf("asked\n%v\ngot\n%v", q, m)
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, is := o.(*dns.EDNS0_SUBNET); is && fmt.Sprintf("%v/%d", s.Address, s.SourceNetmask) != asked ||
				o.Option() == dns.EDNS0COOKIE {
				w.t.Errorf("option %v in the answer to\n%v", o, q)
			}
		}
	}
}

func (w *world) deliver(answers Answers[client]) {
	for i := range answers.Len() {
		q, known := w.waiting.LoadAndDelete(answers.Waiter(i))
		if !known {
			w.t.Errorf("client %v is answered twice", answers.Waiter(i))
			continue
		}
		w.check(q.(*dns.Msg), answers.Append(nil, i))
	}
}

// loop asks, and ends its own flights and those of other loops.
func (w *world) loop(number int) {
	random := rand.New(rand.NewPCG(uint64(number), 42))
	r := w.cache.NewResolver()
	into := bigBuffer()
	for i := range 8000 {
		now := time.Duration(w.clock.Add(int64(20 * time.Millisecond)))
		q := randomQuery(random)
		wire, err := q.Pack()
		if err != nil {
			w.t.Error(err)
			return
		}
		who := client{number, i}
		w.waiting.Store(who, q)
		reply := r.Ask(wire, UDP, who, now, into)
		switch reply.Verdict {
		case Hit, Stale:
			w.waiting.Delete(who)
			w.check(q, reply.Answer)
		case Refuse:
			w.waiting.Delete(who)
		case Pass:
			w.t.Errorf("a plain query passes: %v", q)
		}
		if reply.Flight != nil {
			w.flights <- inFlight{reply.Flight, uint16(random.Uint32())}
		}
		for len(w.flights) > 32 {
			w.end(r, random, now)
		}
		if random.IntN(500) == 0 {
			if _, err := w.cache.Purge(q.Question[0].Name); err != nil {
				w.t.Error(err)
			}
		}
		if random.IntN(1000) == 0 {
			w.cache.PurgeAll()
			w.cache.Counters()
		}
	}
}

// end answers a random flight, or ends it as late or failed.
func (w *world) end(r *Resolver[client], random *rand.Rand, now time.Duration) {
	var f inFlight
	select {
	case f = <-w.flights:
	default:
		return
	}
	switch random.IntN(6) {
	case 0:
		w.deliver(r.Failed(f.flight, now))
		return
	case 2:
		w.deliver(r.Unanswered(f.flight, now))
		return
	case 1:
		w.deliver(r.Late(f.flight, now))
	}
	if answers, ok := r.Answered(f.flight, f.id, w.backend(random, f), now); ok {
		w.deliver(answers)
		return
	}
	w.deliver(r.Failed(f.flight, now))
}

// TestOneFlightForAll lets loops ask for the same cold names at the same time. The caller with the flight answers it at
// once. A client that saw no entry and then finds that the flight ended must find its stored answer.
func TestOneFlightForAll(t *testing.T) {
	t.Parallel()
	cache := New[int](Options{MaxEntries: 100_000, MaxTTL: time.Hour})
	var flights atomic.Int64
	var loops sync.WaitGroup
	const names = 5000
	for range 4 {
		loops.Go(func() {
			r := cache.NewResolver()
			for i := range names {
				query, err := ask(fmt.Sprintf("n%d.example.com.", i), dns.TypeA, withID(flightID)).Pack()
				if err != nil {
					t.Error(err)
					return
				}
				got := r.Ask(query, UDP, 1, 0, nil)
				if got.Flight == nil {
					continue
				}
				flights.Add(1)
				if _, ok := r.Answered(got.Flight, flightID,
					reply(t, query, func(m *dns.Msg) { m.Answer = []dns.RR{anyRecord(m)} }), 0); !ok {
					t.Error("rejected")
				}
			}
		})
	}
	loops.Wait()
	if n := flights.Load(); n != names {
		t.Errorf("%d flights for %d names", n, names)
	}
}

// TestNobodyGetsWhatOthersAsked checks the main property of the cache, with loops that do everything at once in a cache
// that is too small.
func TestNobodyGetsWhatOthersAsked(t *testing.T) {
	t.Parallel()
	w := &world{t: t, flights: make(chan inFlight, 100_000)}
	w.cache = New[client](Options{
		MaxEntries: 120, MaxTTL: time.Hour, NegativeTTL: time.Hour, StaleTTL: 5 * time.Second,
		FailureTTL: 2 * time.Second, Prefetch: true, maxWaitersForTest: 3, maxWaitingForTest: 200,
	})
	var loops sync.WaitGroup
	for number := range 4 {
		loops.Go(func() { w.loop(number) })
	}
	loops.Wait()
	last := w.cache.NewResolver()
	for len(w.flights) > 0 {
		w.end(last, rand.New(rand.NewPCG(7, 7)), time.Duration(w.clock.Load()))
	}
	w.waiting.Range(func(who, q any) bool {
		t.Errorf("client %v was never answered: %v", who, q)
		return false
	})
	n := w.cache.Counters()
	if n.Waiting != 0 || n.Entries > 120 {
		t.Errorf("at the end %+v", n)
	}
	if n.Hit == 0 || n.Miss == 0 || n.Stale == 0 || n.Coalesced == 0 || n.Evicted == 0 || n.Rejected == 0 ||
		n.Prefetched == 0 || n.Expired == 0 || n.Refused == 0 {
		t.Errorf("something never happened: %+v", n)
	}
	for i := range w.cache.boards {
		if left := len(w.cache.boards[i].flights); left != 0 {
			t.Errorf("%d flights are left", left)
		}
	}
}
