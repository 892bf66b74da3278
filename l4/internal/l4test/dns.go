package l4test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/pool"
)

// DNSSpec is a DNS listener of UDP on a free port of 127.0.0.1, with a cache. Backends have 30 seconds for an answer.
func DNSSpec(p *pool.Pool) l4.ListenerSpec {
	s := FlowSpec(p)
	s.DNS = dnsSettings()
	return s
}

// DNSOverTCPSpec is DNSSpec for clients that come by TCP.
func DNSOverTCPSpec(p *pool.Pool) l4.ListenerSpec {
	s := Spec(p)
	s.DNS = dnsSettings()
	return s
}

func dnsSettings() *l4.DNSSettings {
	d := &l4.DNSSettings{Cache: l4.DNSCacheSettings{MaxEntries: 1000, NegativeTTL: time.Hour}}
	SetDNSTimeout(d, 30*time.Second)
	return d
}

// SetDNSTimeout says how long a backend has for an answer. It sets a field that only tests have a use for.
func SetDNSTimeout(d *l4.DNSSettings, timeout time.Duration) {
	*field[time.Duration](d, "timeoutForTest") = timeout
}

// EitherWay runs f with a listener that has a cache, and with one that has none.
func EitherWay(t *testing.T, f func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec)) {
	t.Run("cache", func(t *testing.T) { f(t, DNSSpec) })
	t.Run("no cache", func(t *testing.T) {
		f(t, func(p *pool.Pool) l4.ListenerSpec {
			s := DNSSpec(p)
			s.DNS.Cache = l4.DNSCacheSettings{}
			return s
		})
	})
}

// DNSInfo is what the first listener of a server has counted of questions.
func DNSInfo(s *l4.Server) l4.DNSInfo { return *Info(s).DNS }

// DNSQuery is a query as it is sent.
func DNSQuery(t testing.TB, id uint16, name string, typ uint16, changes ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, typ)
	m.Id = id
	for _, change := range changes {
		change(m)
	}
	return DNSPack(t, m)
}

// DNSPack is a message as it is sent.
func DNSPack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatalf("pack %v: %v", m, err)
	}
	return wire
}

// DNSUnpack reads a message.
func DNSUnpack(t testing.TB, wire []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("miekg/dns does not read %x: %v", wire, err)
	}
	return m
}

// Exchange sends a query once and returns the answer.
func Exchange(t testing.TB, c *net.UDPConn, query []byte) *dns.Msg {
	t.Helper()
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	return DNSUnpack(t, AwaitUDP(t, c))
}

// AwaitUDP returns the next datagram, which has to come.
func AwaitUDP(t testing.TB, c *net.UDPConn) []byte {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, ok := ReadUDP(t, c, buf, 20*time.Second)
	if !ok {
		t.Fatal("no answer")
	}
	return buf[:n]
}

// NameOf is the i-th name that tests ask for.
func NameOf(i int) string { return fmt.Sprintf("n%d.example.com.", i) }

// AddressOf is the address that DNSAnswer gives a name: another one for each.
func AddressOf(name string) net.IP {
	h := fnv.New32a()
	fmt.Fprint(h, dns.CanonicalName(name))
	sum := h.Sum32()
	return net.IPv4(10, byte(sum>>16), byte(sum>>8), byte(sum))
}

// DNSAnswer is the answer of a backend to a query, with a TTL in seconds.
func DNSAnswer(query []byte, ttl uint32) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	answer := new(dns.Msg).SetReply(m)
	if len(m.Question) == 1 && m.Question[0].Qtype == dns.TypeA {
		name := m.Question[0].Name
		answer.Answer = append(answer.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: AddressOf(name),
		})
	}
	if opt := m.IsEdns0(); opt != nil {
		answer.SetEdns0(1232, opt.Do())
	}
	return answer, nil
}

// Answering answers each query, with a TTL in seconds.
func Answering(t testing.TB, ttl uint32) func(*UDPBackend, netip.AddrPort, []byte) {
	return func(b *UDPBackend, from netip.AddrPort, query []byte) {
		answer, err := DNSAnswer(query, ttl)
		if err != nil {
			t.Errorf("the backend got %x: %v", query, err)
			return
		}
		SendDNS(t, b, from, answer)
	}
}

// SendDNS sends a message from a backend; after the test's end it may fail.
func SendDNS(t testing.TB, b *UDPBackend, to netip.AddrPort, m *dns.Msg) {
	wire, err := m.Pack()
	if err != nil {
		t.Errorf("pack %v: %v", m, err)
		return
	}
	if _, err := b.WriteToUDPAddrPort(wire, to); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// WantAddress checks that a message is the answer to a question of this id for a name as it is spelled.
func WantAddress(t testing.TB, m *dns.Msg, id uint16, name string) {
	t.Helper()
	q := m.Question
	if m.Id != id || m.Rcode != dns.RcodeSuccess || len(q) != 1 || q[0].Name != name || len(m.Answer) != 1 {
		t.Fatalf("want the answer %d for %s, got\n%v", id, name, m)
	}
	if got := m.Answer[0].(*dns.A).A; !got.Equal(AddressOf(name)) {
		t.Fatalf("%s has %v, got %v", name, AddressOf(name), got)
	}
}

// WantCode checks a message's id and code.
func WantCode(t testing.TB, m *dns.Msg, id uint16, code int) {
	t.Helper()
	if m.Id != id || m.Rcode != code || !m.Response {
		t.Fatalf("want %s with id %d, got\n%v", dns.RcodeToString[code], id, m)
	}
}

// FirstPool returns the pool of one of the server's listeners.
func FirstPool(s *l4.Server) *pool.Pool {
	mu := field[sync.Mutex](s, "mu")
	mu.Lock()
	defer mu.Unlock()
	for ls := reflect.ValueOf(s).Elem().FieldByName("listeners").MapRange(); ls.Next(); {
		spec := ls.Value().Elem().FieldByName("spec").Addr().UnsafePointer()
		return (*atomic.Pointer[l4.ListenerSpec])(spec).Load().Pool
	}
	return nil
}

// ShuttingDown reports whether Shutdown was called.
func ShuttingDown(s *l4.Server) bool {
	mu := field[sync.Mutex](s, "mu")
	mu.Lock()
	defer mu.Unlock()
	return *field[bool](s, "ended")
}

// AwaitsTheLast reports whether Shutdown waits for the last session and flow.
func AwaitsTheLast(s *l4.Server) bool { return field[atomic.Bool](RoomsOf(s).Gate, "draining").Load() }

// CountedClients is how many clients have questions that the gate counts. onLoop.
func CountedClients(q *gate.Questions) int { return len(*field[map[gate.ClientID]int](q, "waiting")) }

// HeldBytes is how much memory a queue holds. onLoop.
func HeldBytes(q *loop.ByteQueue) int { return cap(*field[[]byte](q, "buf")) }

// HalfClosed reports whether the client of a session has closed its half. onLoop.
func HalfClosed(s *session.Session) bool {
	return reflect.ValueOf(s).Elem().FieldByName("client").FieldByName("peerDone").Bool()
}

// EachSession calls f for every session of a loop, on that loop.
func EachSession(s *l4.Server, i int, f func(*session.Session)) {
	OnLoop(s, i, func() {
		for next := 0; next >= 0; {
			next = RoomsOf(s).Sessions[i].Some(next, f)
		}
	})
}

// OpenSockets is how many UDP sockets of a listener are open on a loop. onLoop.
func OpenSockets(s *l4.Server, i int, listener string) (n int) {
	for _, d := range *field[[]*flow.Socket](RoomsOf(s).Flows[i], "sockets") {
		if d != nil && d.Listener().Name == listener {
			n++
		}
	}
	return n
}

// KnownSockets is how many of its sockets the server knows to lead to its own listeners.
func KnownSockets(s *l4.Server) int64 {
	return field[atomic.Int64](&RoomsOf(s).Gate.Chains, "open").Load()
}
