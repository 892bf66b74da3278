package dns_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// largeAnswer is an answer of some 63 KB to a framed question, framed.
func largeAnswer(t testing.TB, query []byte) []byte {
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		t.Errorf("the backend got %x: %v", query, err)
		return nil
	}
	m.SetReply(m)
	m.Compress = true
	for range 237 {
		m.Answer = append(m.Answer, &dns.TXT{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
			Txt: []string{strings.Repeat("x", 250)},
		})
	}
	wire, err := m.Pack()
	if err != nil {
		t.Error(err)
		return nil
	}
	return framed(wire)
}

// heapPeak watches how large the heap is until it is told to end, and returns the largest size.
func heapPeak() (end func() uint64) {
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var m runtime.MemStats
		var most uint64
		for {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(done); return <-peak }
}

// askWithoutReading connects clients that pipeline 100 questions each, for the names that name returns, and read no
// answers.
func askWithoutReading(t *testing.T, s *l4.Server, clients int, name func(client, i int) string) (conns []net.Conn) {
	for client := range clients {
		c := dial(t, address(s))
		if err := c.SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		var queries []byte
		for i := range room.MaxPipelined {
			queries = append(queries, framed(dnsQuery(t, uint16(i), name(client, i), dns.TypeTXT))...)
		}
		write(t, c, queries)
		conns = append(conns, c)
	}
	return conns
}

func talkServer(t *testing.T, address string, loops int) *l4.Server {
	spec := talkSpec(newPool(t, address))
	spec.IdleTimeout = time.Minute
	return start(t, l4.Options{Loops: loops}, spec)
}

// TestDNSFanOut holds that one large answer to thousands of questions costs little more than the answer itself and what
// is written for each client, while the clients do not read. Another client is served meanwhile, and clients who then
// read get all of their answers.
func TestDNSFanOut(t *testing.T) {
	const clients = 160
	held := make(chan heldFrame, 10)
	b := startStream(t, func(h heldFrame) bool {
		if bytes.Contains(h.query, []byte("neighbour")) {
			h.answer(t)
			return true
		}
		held <- h
		return true
	})
	s := talkServer(t, b.address, 2)
	neighbour := dial(t, address(s))
	conns := askWithoutReading(t, s, clients, func(int, int) string { return "large.example.com." })
	eventually(t, "all wait", func() bool { return dnsInfo(s).Cache.Waiting == clients*room.MaxPipelined })
	runtime.GC()
	peak := heapPeak()
	one := <-held
	_, _ = one.c.Write(largeAnswer(t, one.query))
	var slowest time.Duration
	answered := func() bool {
		waiting := 0
		for i := range loops(s) {
			eachSession(s, i, func(one *session.Session) { waiting += room.Waiting(one) })
		}
		return waiting == 0
	}
	for i := 0; i < 50 || !answered(); i++ {
		began := time.Now()
		write(t, neighbour, framed(dnsQuery(t, 1, "neighbour.example.com.", dns.TypeA)))
		wantAddress(t, nextFrame(t, neighbour), 1, "neighbour.example.com.")
		slowest = max(slowest, time.Since(began))
	}
	grown := peak()
	t.Logf("%d MiB of heap, the slowest answer to a neighbour after %v", grown>>20, slowest.Round(time.Millisecond))
	if grown > 128<<20 {
		t.Errorf("%d MiB of heap for %d clients", grown>>20, clients)
	}
	if len(held) > 0 {
		t.Errorf("the backend was asked %d times more", len(held))
	}
	var reading sync.WaitGroup
	for _, c := range conns[:8] {
		reading.Go(func() {
			for i := range room.MaxPipelined {
				m, err := readFrame(c)
				if err != nil || len(m) < 60_000 {
					t.Errorf("answer %d is %d bytes: %v", i, len(m), err)
					return
				}
			}
		})
	}
	reading.Wait()
	if n := s.Sessions(); n != clients+1 {
		t.Errorf("%d sessions", n)
	}
}

// TestDNSFanOutIsBounded holds that there is a bound for different answers that are held: when it is reached, sessions
// end whose clients do not read, and other sessions go on.
func TestDNSFanOutIsBounded(t *testing.T) {
	const clients = 40
	name := func(client, i int) string { return fmt.Sprintf("n%05d.example.com.", client*room.MaxPipelined+i) }
	template := largeAnswer(t, dnsQuery(t, 0, name(0, 0), dns.TypeTXT)) // whose records point to the name in the question
	b := startStream(t, func(h heldFrame) bool {
		if bytes.Contains(h.query, []byte("neighbour")) {
			h.answer(t)
			return true
		}
		answer := slices.Clone(template)
		copy(answer[wire.DNSLengthBytes:], h.query[:2])
		copy(answer[wire.DNSLengthBytes+wire.DNSHeaderBytes:], h.query[wire.DNSHeaderBytes:])
		_, _ = h.c.Write(answer)
		return true
	})
	s := talkServer(t, b.address, 2)
	neighbour := dial(t, address(s))
	peak := heapPeak()
	askWithoutReading(t, s, clients, name)
	eventually(t, "some are let go", func() bool { return info(s).Ended[tally.NotReading] > 0 })
	eventually(t, "all are answered", func() bool { return dnsInfo(s).Cache.Waiting == 0 })
	write(t, neighbour, framed(dnsQuery(t, 1, "neighbour.example.com.", dns.TypeA)))
	wantAddress(t, nextFrame(t, neighbour), 1, "neighbour.example.com.")
	// twice what is held, by the collector's measure, what is written and what the test has
	if grown := peak(); grown > 512<<20 {
		t.Errorf("%d MiB of heap", grown>>20)
	} else {
		t.Logf("%d MiB of heap", grown>>20)
	}
	if n := info(s).Ended[tally.NotReading]; n >= clients {
		t.Errorf("all %d are let go", n)
	}
}
