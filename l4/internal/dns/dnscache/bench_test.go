package dnscache

import (
	"fmt"
	"hash/maphash"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"
)

// usualAnswer returns an alias and two addresses.
func usualAnswer(t testing.TB) func(*dns.Msg) {
	return func(m *dns.Msg) {
		name := m.Question[0].Name
		m.Answer = records(t, name+" 300 IN CNAME web.example.net.", "web.example.net. 300 IN A 192.0.2.1",
			"web.example.net. 300 IN A 192.0.2.2")
	}
}

// TestHitAllocatesNothing checks that the fast path does not allocate.
func TestHitAllocatesNothing(t *testing.T) {
	r := newTestResolver(testOptions())
	q := ask("www.Example.com.", dns.TypeA, withEDNS(1232, true,
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}))
	fill(t, r, q, 0, usualAnswer(t))
	query, into := pack(t, q), bigBuffer()
	if n := testing.AllocsPerRun(1000, func() {
		if got := r.Ask(query, UDP, 1, 3*time.Second, into); got.Verdict != Hit {
			t.Fatalf("%v, expected a hit", got.Verdict)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a hit, expected none", n)
	}
}

// BenchmarkAsk asks with EDNS for a stored name, and for one that is not stored and fails.
func BenchmarkAsk(b *testing.B) {
	r := newTestResolver(testOptions())
	q := ask("www.Example.com.", dns.TypeA, withEDNS(1232, false))
	fill(b, r, q, 0, usualAnswer(b))
	query, into := pack(b, q), bigBuffer()
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r.Ask(query, UDP, 1, 3*time.Second, into).Verdict != Hit {
				b.Fatal("no hit")
			}
		}
	})
	b.Run("hit/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			r, into := r.cache.NewResolver(), bigBuffer()
			for pb.Next() {
				if r.Ask(query, UDP, 1, 3*time.Second, into).Verdict != Hit {
					b.Error("no hit")
				}
			}
		})
	})
	unknown := pack(b, ask("unknown.example.com.", dns.TypeA, withEDNS(1232, false)))
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			got := r.Ask(unknown, UDP, 1, 0, into)
			if got.Verdict != Forward {
				b.Fatal("no miss")
			}
			r.Failed(got.Flight, 0)
		}
	})
}

// BenchmarkStore answers and stores misses, with four times as many names as there is room for.
func BenchmarkStore(b *testing.B) {
	r := newTestResolver(Options{MaxEntries: 10_000, MaxTTL: time.Hour})
	queries, answers := make([][]byte, 40_000), make([][]byte, 40_000)
	for i := range queries {
		q := ask(fmt.Sprintf("host-%d.example.com.", i), dns.TypeA, withID(flightID))
		queries[i] = pack(b, q)
		answers[i] = reply(b, queries[i], usualAnswer(b))
	}
	into := bigBuffer()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		got := r.Ask(queries[i%len(queries)], UDP, 1, 0, into)
		if got.Verdict != Forward {
			continue
		}
		done, ok := r.Answered(got.Flight, flightID, answers[i%len(queries)], 0)
		if !ok {
			b.Fatal("rejected")
		}
		into = done.Append(into[:0], 0)
	}
}

// BenchmarkParse compares our walk over a query with dnsmessage's.
func BenchmarkParse(b *testing.B) {
	query := pack(b, ask("www.Example.com.", dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0", 24, 0))))
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		var q question
		var buf [maxKeyLen]byte
		for b.Loop() {
			if !q.parse(query, UDP, &buf) {
				b.Fatal("not plain")
			}
		}
	})
	b.Run("dnsmessage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p dnsmessage.Parser
			if _, err := p.Start(query); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Question(); err != nil {
				b.Fatal(err)
			}
			if err := p.SkipAllQuestions(); err != nil {
				b.Fatal(err)
			}
			if err := p.SkipAllAnswers(); err != nil {
				b.Fatal(err)
			}
			if err := p.SkipAllAuthorities(); err != nil {
				b.Fatal(err)
			}
			if _, err := p.AdditionalHeader(); err != nil {
				b.Fatal(err)
			}
			if _, err := p.OPTResource(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTable measures the store alone: looking up one key, looking up many in turn, and storing four times as many
// as there is room for.
func BenchmarkTable(b *testing.B) {
	const room = 10_000
	c := New[int](Options{MaxEntries: 10 * room, MaxTTL: time.Hour})
	keys, hashes := make([][]byte, 10*room), make([]uint64, 10*room)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "\x08host%04d\x07example\x03com\x00\x00\x01\x01", i%room)
		keys[i][1+i/room] = 'x'
		hashes[i] = maphash.Bytes(c.seed, keys[i])
	}
	store := func(s *store, i int) {
		e := &entry{data: make([]byte, 180), hash: hashes[i], keyLen: uint16(len(keys[i])),
			nameLen: uint16(len(keys[i]) - 3), dead: time.Hour}
		copy(e.data, keys[i])
		s.put(e, 0)
	}
	for i := range keys {
		store(c.store, i)
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if c.store.find(maphash.Bytes(c.seed, keys[room]), keys[room]) == nil {
				b.Fatal("not there")
			}
		}
	})
	b.Run("many", func(b *testing.B) {
		found := 0
		for i := 0; b.Loop(); i++ {
			key := keys[i*7919%len(keys)]
			if c.store.find(maphash.Bytes(c.seed, key), key) != nil {
				found++
			}
		}
		b.ReportMetric(float64(found)/float64(b.N), "found/op")
	})
	b.Run("put", func(b *testing.B) {
		b.ReportAllocs()
		s := newStore(room, room*entryShare)
		for i := 0; b.Loop(); i++ {
			store(s, i%(4*room))
		}
	})
}
