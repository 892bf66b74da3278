package dns_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// dnsSpec is a DNS listener on a free port of 127.0.0.1, with a cache.
func dnsSpec(p *pool.Pool) l4.ListenerSpec {
	s := flowSpec(p)
	s.DNS = &l4.DNSSettings{
		Cache: l4.DNSCacheSettings{MaxEntries: 1000, NegativeTTL: time.Hour}, timeoutForTest: 30 * time.Second,
	}
	return s
}

// eitherWay runs f with a listener that has a cache, and with one that has none.
func eitherWay(t *testing.T, f func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec)) {
	t.Run("cache", func(t *testing.T) { f(t, dnsSpec) })
	t.Run("no cache", func(t *testing.T) {
		f(t, func(p *pool.Pool) l4.ListenerSpec {
			s := dnsSpec(p)
			s.DNS.Cache = l4.DNSCacheSettings{}
			return s
		})
	})
}

func (s *l4.Server) dnsInfo() l4.DNSInfo { return *info(s).DNS }

// dnsQuery is a query on the wire.
func dnsQuery(t testing.TB, id uint16, name string, typ uint16, changes ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	m.Id = id
	for _, change := range changes {
		change(m)
	}
	return dnsPack(t, m)
}

func dnsPack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatalf("pack %v: %v", m, err)
	}
	return wire
}

func dnsUnpack(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("miekg/dns does not read %x: %v", wire, err)
	}
	return m
}

// exchange sends a query once and returns the answer.
func exchange(t testing.TB, c *net.UDPConn, query []byte) *dns.Msg {
	t.Helper()
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	return dnsUnpack(t, awaitUDP(t, c))
}

// awaitUDP returns the next datagram, which has to come.
func awaitUDP(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, ok := readUDP(t, c, buf, 20*time.Second)
	if !ok {
		t.Fatal("no answer")
	}
	return buf[:n]
}

// addressOf is the address that a startDNS backend gives a name: another one for each.
func addressOf(name string) net.IP {
	h := fnv.New32a()
	fmt.Fprint(h, dns.CanonicalName(name))
	sum := h.Sum32()
	return net.IPv4(10, byte(sum>>16), byte(sum>>8), byte(sum))
}

// dnsAnswer is the answer that a startDNS backend has to a query, with a TTL in seconds.
func dnsAnswer(query []byte, ttl uint32) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	answer := new(dns.Msg).SetReply(m)
	if len(m.Question) == 1 && m.Question[0].Qtype == dns.TypeA {
		name := m.Question[0].Name
		answer.Answer = append(answer.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: addressOf(name),
		})
	}
	if opt := m.IsEdns0(); opt != nil {
		answer.SetEdns0(1232, opt.Do())
	}
	return answer, nil
}

// answering answers each query, with a TTL.
func answering(t testing.TB, ttl uint32) func(*l4test.UDPBackend, netip.AddrPort, []byte) {
	return func(b *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		answer, err := dnsAnswer(query, ttl)
		if err != nil {
			t.Errorf("the backend got %x: %v", query, err)
			return
		}
		b.send(t, from, answer)
	}
}

// send sends a message; after the test's end it may fail.
func (b *l4test.UDPBackend) send(t testing.TB, to netip.AddrPort, m *dns.Msg) {
	wire, err := m.Pack()
	if err != nil {
		t.Errorf("pack %v: %v", m, err)
		return
	}
	if _, err := b.WriteToUDPAddrPort(wire, to); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// An askedOnce is a query that came to a backend which does not answer by itself.
type askedOnce struct {
	from  netip.AddrPort
	query []byte
}

// holding puts what the backend gets into a channel.
func holding(size int) (chan askedOnce, func(*l4test.UDPBackend, netip.AddrPort, []byte)) {
	held := make(chan askedOnce, size)
	return held, func(_ *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		held <- askedOnce{from, append([]byte(nil), query...)}
	}
}

// answer answers what was held, with a TTL of 60.
func (b *l4test.UDPBackend) answer(t testing.TB, a askedOnce) {
	t.Helper()
	answering(t, 60)(b, a.from, a.query)
}

// wantAddress checks that a message is the answer to a question of this id for a name as it is spelled.
func wantAddress(t testing.TB, m *dns.Msg, id uint16, name string) {
	t.Helper()
	if m.Id != id || m.Rcode != dns.RcodeSuccess || len(m.Question) != 1 || m.Question[0].Name != name || len(m.Answer) != 1 {
		t.Fatalf("want the answer %d for %s, got\n%v", id, name, m)
	}
	if got := m.Answer[0].(*dns.A).A; !got.Equal(addressOf(name)) {
		t.Fatalf("%s has %v, got %v", name, addressOf(name), got)
	}
}

// wantCode checks a message's id and code.
func wantCode(t testing.TB, m *dns.Msg, id uint16, code int) {
	t.Helper()
	if m.Id != id || m.Rcode != code || !m.Response {
		t.Fatalf("want %s with id %d, got\n%v", dns.RcodeToString[code], id, m)
	}
}

// collect reads datagrams until so many have come, and hands each to take.
func collect(c *net.UDPConn, count int, take func([]byte) error) error {
	buf := make([]byte, 1<<16)
	for i := range count {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%d of %d answers came", i, count)
		}
		if err != nil {
			return err
		}
		if err := take(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func idOfMessage(m []byte) uint16 { return binary.BigEndian.Uint16(m) }
