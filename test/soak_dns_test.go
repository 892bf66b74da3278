//go:build soak

package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// forgedAddress is the address in forged answers.
const forgedAddress = "203.0.113.66"

// A forger knows the backend's address and the ports of the questions, and guesses ids: it has a much better chance
// than an attacker on another network.
type forger struct {
	backend *net.UDPConn
	answer  []byte
	sent    atomic.Int64

	mu    sync.Mutex
	ports []netip.AddrPort // the newest last
}

// take records the source ports of questions. It answers none.
func (f *forger) take() {
	buffer := make([]byte, 1<<16)
	for {
		_, from, err := f.backend.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed
		}
		f.mu.Lock()
		if n := len(f.ports); n == 0 || f.ports[n-1] != from {
			f.ports = append(f.ports, from)
			f.ports = f.ports[max(0, len(f.ports)-32):]
		}
		f.mu.Unlock()
	}
}

// guess sends answers until end is closed.
func (f *forger) guess(end <-chan struct{}) {
	message := append([]byte(nil), f.answer...)
	for {
		select {
		case <-end:
			return
		default:
		}
		f.mu.Lock()
		ports := append([]netip.AddrPort(nil), f.ports...)
		f.mu.Unlock()
		for _, port := range ports {
			id := rand.Uint32()
			message[0], message[1] = byte(id>>8), byte(id)
			if _, err := f.backend.WriteToUDPAddrPort(message, port); err == nil {
				f.sent.Add(1)
			}
		}
		if len(ports) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// forgedQuery returns a question as one of many: of an EDNS size, and with a client's subnet unless that is nil.
func forgedQuery(t *testing.T, name string, size uint16, subnet net.IP) []byte {
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	q.SetEdns0(size, false)
	if subnet != nil {
		q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32,
			Address: subnet.To4()}}
	}
	wire, err := q.Pack()
	if err != nil {
		t.Error(err)
	}
	return wire
}

// TestSoakDNSForger asks for one name in all possible ways, repeatedly, while a forger guesses ids. It reports how long
// it takes until another client gets a forged answer. It asserts nothing about luck, but that no client can multiply
// the forger's chances.
func TestSoakDNSForger(t *testing.T) {
	const variants, limit = 20_000, 30 * time.Second
	backend, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	defer backend.Close()
	const name = "www.example.com."
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response, m.RecursionAvailable = true, true
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600},
		A: net.ParseIP(forgedAddress)}}
	answer, err := m.Pack()
	check(t, err)
	f := &forger{backend: backend, answer: answer}
	b := world{
		Backends: []string{backend.LocalAddr().String()}, Listener: []string{`protocol = "udp"`, `cache = {}`},
		Measured: true,
		Breaker:  []string{"failures = 0"},
	}.start(t)
	c, victim := harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, b.Address(t, "main"))
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(f.take)
	running.Go(func() { f.guess(end) })
	running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			default:
			}
			if i%2 == 0 {
				_, _ = c.Write(forgedQuery(t, name, uint16(512+i%variants), nil))
			} else {
				_, _ = c.Write(forgedQuery(t, name, 1232, net.IPv4(10, 0, byte(i%variants>>8), byte(i))))
			}
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	began, most, poisoned := time.Now(), 0.0, time.Duration(0)
	buffer := make([]byte, 1<<16)
	for i := 0; time.Since(began) < limit && poisoned == 0; i++ {
		var subnet net.IP
		if i%2 > 0 {
			subnet = net.IPv4(198, 51, 100, 1)
		}
		_, err := victim.Write(forgedQuery(t, name, 1232, subnet))
		check(t, err)
		check(t, victim.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if n, err := victim.Read(buffer); err == nil {
			got := new(dns.Msg)
			if got.Unpack(buffer[:n]) == nil && len(got.Answer) > 0 {
				poisoned = time.Since(began)
			}
		}
		most = max(most, metrics(t, b)[`limeload_dns_in_flight{listener="main"}`])
	}
	close(end)
	backend.Close()
	running.Wait()
	if poisoned > 0 {
		t.Logf("a forged answer after %v, with %d guesses and up to %.0f questions in flight",
			poisoned.Round(time.Millisecond), f.sent.Load(), most)
	} else {
		t.Logf("no forged answer in %v, with %d guesses and up to %.0f questions in flight", limit, f.sent.Load(), most)
	}
	if most > 2*9 { // each loop's counts are read at another moment
		t.Errorf("%.0f questions for one name were in flight", most)
	}
}

// TestSoakDNSFanOut has one large answer for 16,000 questions of clients that do not read, and reports the cost in
// memory and the delay for another client.
func TestSoakDNSFanOut(t *testing.T) {
	const clients, each = 160, 100
	release := make(chan struct{})
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	server := &dns.Server{Listener: backend, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}
		count := 1
		if strings.HasPrefix(h.Name, "large.") {
			<-release
			count = 237
		}
		for range count {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{strings.Repeat("x", 250)}})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	defer server.Shutdown()
	b := world{
		Backends: []string{backend.Addr().String()}, Measured: true,
		Listener: []string{`profile = "dns"`, `idle_timeout = "5m"`, `cache = {}`},
	}.start(t)
	address := b.Address(t, "main")
	neighbour := &dns.Client{Net: "tcp", Timeout: harness.Patience}
	ask := func(i int) time.Duration {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.com.", i), dns.TypeTXT)
		_, took, err := neighbour.Exchange(q, address)
		check(t, err)
		return took
	}
	ask(0)
	before := b.AnonMemory(t)
	for range clients {
		c, err := net.Dial("tcp", address)
		check(t, err)
		defer c.Close()
		conn := &dns.Conn{Conn: c}
		for range each {
			check(t, conn.WriteMsg(new(dns.Msg).SetQuestion("large.example.com.", dns.TypeTXT)))
		}
	}
	for metrics(t, b)[`limeload_dns_cache_waiting{listener="main"}`] < clients*each {
		time.Sleep(10 * time.Millisecond)
	}
	close(release)
	var slowest time.Duration
	var most int64
	for i, began := 1, time.Now(); time.Since(began) < 5*time.Second; i++ {
		slowest, most = max(slowest, ask(i)), max(most, b.AnonMemory(t))
	}
	t.Logf("memory before %d KiB, at most %d KiB; the slowest answer to a neighbour took %v",
		before>>10, most>>10, slowest.Round(time.Millisecond))
	if most-before > 128<<20 {
		t.Errorf("%d MiB more for one answer", (most-before)>>20)
	}
}
