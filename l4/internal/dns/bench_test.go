package dns_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// BenchmarkDNS is a question and its answer over loopback, with the work of the client and the backend: from the cache,
// through it, and without one.
func BenchmarkDNS(b *testing.B) {
	for _, tc := range []struct {
		name    string
		entries int
		names   int
	}{
		{"hit", 10_000, 1}, {"miss", 100, 1 << 16}, {"relayed", 0, 1 << 16},
	} {
		b.Run(tc.name, func(b *testing.B) {
			backend := startUDP(b, answerUDP)
			spec := flowSpec(newPool(b, backend.Address()))
			spec.DNS = &l4.DNSSettings{Cache: l4.DNSCacheSettings{MaxEntries: tc.entries}}
			s := start(b, l4.Options{Loops: 1}, spec)
			c := dialUDP(b, address(s))
			queries := make([][]byte, tc.names)
			for i := range queries {
				queries[i] = dnsQuery(b, uint16(i), fmt.Sprintf("name-%d.example.com.", i), dns.TypeA)
			}
			buf := make([]byte, 1000)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				askRaw(b, c, queries[i%len(queries)], buf)
			}
		})
	}
}

// answerUDP makes a query the answer, with one A record of a TTL of 3600, without the work of miekg/dns.
func answerUDP(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
	answer := append(query, 0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 1)
	answer[2] |= 0x80
	answer[7] = 1
	_, _ = b.WriteToUDPAddrPort(answer, from)
}

// askRaw sends a query and waits for what comes back.
func askRaw(t testing.TB, c *net.UDPConn, query, buf []byte) {
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || buf[0] != query[0] || buf[1] != query[1] {
		t.Fatalf("%x came back for %x: %v", buf[:n], query, err)
	}
}

// TestDNSAllocatesNothing holds that a question allocates nothing when it is answered from the cache, or by a backend
// without a cache.
func TestDNSAllocatesNothing(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		b := startUDP(t, answerUDP)
		s := start(t, l4.Options{Loops: 1}, spec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		buf := make([]byte, 1000)
		query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
		askRaw(t, c, query, buf)
		const rounds = 1000
		if n := allocations(rounds, func() { askRaw(t, c, query, buf) }); n >= rounds/10 {
			t.Errorf("%d allocations for %d questions", n, rounds)
		}
		if n := info(s).DatagramsOut; n != rounds+1 {
			t.Errorf("%d answers", n)
		}
	})
}

// BenchmarkDNSTalk is a question answered from the cache over one connection on loopback, the client's work included:
// one at a time, and in hundreds.
func BenchmarkDNSTalk(b *testing.B) {
	for _, burst := range []int{1, 100} {
		b.Run(fmt.Sprint(burst), func(b *testing.B) {
			s := start(b, l4.Options{Loops: 1}, talkSpec(newPool(b, startAnswering(b).address)))
			c := dial(b, address(s))
			query := framed(dnsQuery(b, 1, "www.example.com.", dns.TypeA))
			write(b, c, query)
			answer, err := readFrame(c)
			if err != nil {
				b.Fatal(err)
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				b.Fatal(err)
			}
			queries := bytes.Repeat(query, burst)
			buf := make([]byte, burst*(wire.DNSLengthBytes+len(answer)))
			b.ReportAllocs()
			asked := 0
			for b.Loop() {
				if asked++; asked%burst != 0 {
					continue // it goes with the others
				}
				write(b, c, queries)
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
