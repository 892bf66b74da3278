package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestUDPBackendRefuses has a backend whose port is closed, which the kernel reports by ICMP: only the first datagram
// is lost, the client's next one goes to another backend, and the breaker keeps others away.
func TestUDPBackendRefuses(t *testing.T) {
	t.Parallel()
	well := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{
		Backends: []string{harness.FreeAddress(t), well.Address()}, Pool: []string{`algorithm = "round_robin"`},
		Breaker: []string{"failures = 2", `open_for = "1h"`, `max_open_for = "1h"`},
	}.startUDP(t)
	started := time.Now()
	refused := 0
	for refused < 2 { // each in turn would have come to both
		c := harness.DialUDP(t, b.Address(t, "main"))
		check(t, harness.SendAll(c, "first"))
		answered := make(chan string, 1)
		go func() {
			answer := make([]byte, 10)
			n, _ := c.Read(answer)
			answered <- string(answer[:n])
		}()
		harness.Eventually(t, "the first datagram is answered or dropped", func() error {
			n := int(udpFigures(t, b).drops()["backend_refused"])
			if n > refused+1 {
				t.Fatalf("%d datagrams were dropped, expected %d", n, refused+1)
			}
			if n > refused {
				refused++
				check(t, harness.SendAll(c, "second"))
				return nil
			}
			if len(answered) == 0 {
				return fmt.Errorf("neither, %d are dropped", n)
			}
			return nil
		})
		if got := harness.Receive(t, "the answer", answered); got != "first" && got != "second" {
			t.Fatalf("answer %q", got)
		}
		if well.Received() > 20 {
			t.Fatal("nobody comes to the closed port")
		}
	}
	awaitBreaker(t, b, "b1", "open", started)
	for range 20 {
		if got := askOnce(t, b, "later"); got != "later" {
			t.Errorf("answer %q", got)
		}
	}
	if drops := udpFigures(t, b).drops(); len(drops) != 1 || drops["backend_refused"] != 2 {
		t.Errorf("dropped are %v", drops)
	}
}

// TestUDPBackendReturns closes the only backend's port under a client, and opens it again.
func TestUDPBackendReturns(t *testing.T) {
	t.Parallel()
	address := harness.FreeAddress(t)
	backend := harness.ServeUDPOn(t, address, harness.EchoDatagrams)
	b := world{Backends: []string{address}, Breaker: []string{"failures = 0"}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	ask(t, c, "before")
	backend.Close()
	for i := range 3 {
		check(t, harness.SendAll(c, "lost"))
		awaitDrops(t, b, "backend_refused", uint64(i+1))
	}
	harness.ServeUDPOn(t, address, harness.EchoDatagrams)
	if got := ask(t, c, "after"); got != "after" {
		t.Errorf("answer %q", got)
	}
}

// TestUDPBackendSilent has one silent backend of two: clients of the other one are not affected.
func TestUDPBackendSilent(t *testing.T) {
	t.Parallel()
	silent, well := harness.ServeUDP(t, harness.SilentDatagrams), harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{Backends: []string{silent.Address(), well.Address()},
		Pool: []string{`algorithm = "round_robin"`}}.startUDP(t)
	for i := range 20 {
		before := silent.Received()
		c := harness.DialUDP(t, b.Address(t, "main"))
		if i%2 == 1 { // its turn
			if got := ask(t, c, "?"); got != "?" {
				t.Errorf("answer %q", got)
			}
			continue
		}
		check(t, harness.SendAll(c, "?"))
		harness.Eventually(t, "the silent one has it", func() error {
			if silent.Received() == before {
				return fmt.Errorf("it has %d", before)
			}
			return nil
		})
	}
	if drops := udpFigures(t, b).drops(); len(drops) != 0 {
		t.Errorf("dropped are %v", drops)
	}
}

// A moodyUDP answers "moody" until the test makes it silent.
type moodyUDP struct {
	silent chan bool // holds one message: while it is there, the backend is silent
}

func newMoodyUDP() *moodyUDP { return &moodyUDP{silent: make(chan bool, 1)} }

func (m *moodyUDP) serve(c *net.UDPConn, from netip.AddrPort, _ []byte) {
	if len(m.silent) == 0 {
		_, _ = c.WriteToUDPAddrPort([]byte("moody"), from)
	}
}

// TestUDPFlowMoves fails a backend's check: the next datagram of its flows goes to the other backend.
func TestUDPFlowMoves(t *testing.T) {
	t.Parallel()
	well := harness.ServeUDP(t, harness.EchoDatagrams)
	moody := newMoodyUDP()
	flaky := harness.ServeUDP(t, moody.serve)
	started := time.Now()
	b := world{
		Backends: []string{flaky.Address(), well.Address()}, Pool: []string{`algorithm = "first"`},
		Health: []string{`type = "udp"`, `payload = "check"`, `require_answer = true`, `interval = "100ms"`,
			`fast_interval = "50ms"`, `timeout = "3s"`, "rise = 1", "fall = 1"},
	}.startUDP(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	b.WaitVerdict(t, "b2", "healthy", started)
	c := harness.DialUDP(t, b.Address(t, "main"))
	if got := ask(t, c, "?"); got != "moody" {
		t.Fatalf("answer %q", got)
	}
	moody.silent <- true
	b.WaitVerdict(t, "b1", "unhealthy", started)
	if got := ask(t, c, "!"); got != "!" {
		t.Errorf("answer %q, expected the other backend's", got)
	}
	if got := askOnce(t, b, "new"); got != "new" {
		t.Errorf("answer %q, expected the other backend's", got)
	}
	started = time.Now()
	<-moody.silent
	b.WaitVerdict(t, "b1", "healthy", started)
	if got := askOnce(t, b, "newer"); got != "moody" {
		t.Errorf("answer %q, expected that of the one that is back", got)
	}
}

// TestUDPBackendAnswersFromElsewhere has a backend that first answers from another port: a datagram from elsewhere is
// not an answer.
func TestUDPBackendAnswersFromElsewhere(t *testing.T) {
	t.Parallel()
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	defer other.Close()
	backend := harness.ServeUDP(t, func(c *net.UDPConn, from netip.AddrPort, _ []byte) {
		for range 3 {
			_, _ = other.WriteTo([]byte("forged"), net.UDPAddrFromAddrPort(from)) // refused, by and by
		}
		_, _ = c.WriteToUDPAddrPort([]byte("real"), from)
	})
	b := world{Backends: []string{backend.Address()}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	for range 10 {
		if got := ask(t, c, "?"); got != "real" {
			t.Fatalf("answer %q", got)
		}
	}
	if l := udpFigures(t, b); l.DatagramsOut != 10 || len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
}

// TestUDPCheckByDNS stops and starts the only name server of a pool with a check of type dns.
func TestUDPCheckByDNS(t *testing.T) {
	t.Parallel()
	server := harness.StartDNS(t)
	server.SetZone(t, "www A 192.0.2.1")
	question := "www." + harness.DNSZone + " A"
	started := time.Now()
	b := world{Backends: []string{server.Address}, Breaker: []string{"failures = 0"}, Health: []string{
		`type = "dns"`, `query = "www.lb.test A"`, `interval = "100ms"`, `fast_interval = "50ms"`, `timeout = "3s"`,
		"rise = 1", "fall = 1",
	}}.startUDP(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	if answer, err := resolve(question, b.Address(t, "main")); err != nil || !strings.Contains(answer, "192.0.2.1") {
		t.Errorf("%v\n%s", err, answer)
	}
	server.Stop(t)
	b.WaitVerdict(t, "b1", "unhealthy", started)
	c := harness.DialUDP(t, b.Address(t, "main"))
	check(t, harness.SendAll(c, "nobody to ask"))
	awaitDrops(t, b, "no_backend", 1)
	started = time.Now()
	server.Restart(t)
	b.WaitVerdict(t, "b1", "healthy", started)
	if answer, err := resolve(question, b.Address(t, "main")); err != nil || !strings.Contains(answer, "192.0.2.1") {
		t.Errorf("%v\n%s", err, answer)
	}
}

// TestUDPSendProxy reads the header before every datagram, as a backend that trusts it does.
func TestUDPSendProxy(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:%d", "[::1]:%d", ":%d"} {
		t.Run(listen, func(t *testing.T) {
			headers := make(chan string, 100)
			backend := harness.ServeUDP(t, func(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
				source, destination, payload, err := parseProxyV2(datagram)
				headers <- fmt.Sprintf("%v to %v: %d bytes, %v", source, destination, len(payload), err)
				_, _ = c.WriteToUDPAddrPort(payload, from)
			})
			port := harness.FreePort(t)
			b := world{
				Listen: fmt.Sprintf(listen, port), Backends: []string{backend.Address()},
				Pool: []string{`send_proxy = "v2"`},
			}.startUDP(t)
			asked := []string{fmt.Sprintf(listen, port)}
			if strings.HasPrefix(listen, ":") {
				asked = []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.8:%d", port),
					fmt.Sprintf("[::1]:%d", port)}
			}
			for _, address := range asked {
				c := harness.DialUDP(t, address)
				for _, size := range []int{3, 0, 1400, 60_000} {
					message := strings.Repeat("x", size)
					if got := ask(t, c, message); got != message {
						t.Errorf("%d bytes came back as %d", size, len(got))
					}
					want := fmt.Sprintf("%v to %v: %d bytes, <nil>", c.LocalAddr(), address, size)
					if got := harness.Receive(t, "a header", headers); got != want {
						t.Errorf("the header says %s, expected %s", got, want)
					}
				}
				// with the header it is longer than a datagram can be
				before := udpFigures(t, b).drops()["too_long"]
				check(t, harness.SendAll(c, strings.Repeat("x", harness.MaxDatagram)))
				awaitDrops(t, b, "too_long", before+1)
			}
		})
	}
}

// parseProxyV2 reads the header of a proxied datagram (proxy-protocol.txt, 2.2), and returns what follows it.
func parseProxyV2(b []byte) (source, destination netip.AddrPort, payload []byte, err error) {
	const fixed = 16 // bytes before the addresses
	if len(b) < fixed || string(b[:12]) != "\r\n\r\n\x00\r\nQUIT\n" || b[12] != 0x21 {
		return source, destination, nil, fmt.Errorf("no header of version 2 and command PROXY: % x",
			b[:min(len(b), fixed)])
	}
	size := 0 // of an address
	switch b[13] {
	case 0x12: // UDP over IPv4
		size = 4
	case 0x22: // UDP over IPv6
		size = 16
	default:
		return source, destination, nil, fmt.Errorf("family and protocol %#x", b[13])
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length < 2*size+4 || len(b) < fixed+length {
		return source, destination, nil, fmt.Errorf("length %d of %d bytes", length, len(b))
	}
	at := b[fixed:]
	from, _ := netip.AddrFromSlice(at[:size])
	to, _ := netip.AddrFromSlice(at[size : 2*size])
	ports := at[2*size:]
	return netip.AddrPortFrom(from, binary.BigEndian.Uint16(ports)),
		netip.AddrPortFrom(to, binary.BigEndian.Uint16(ports[2:])), b[fixed+length:], nil
}
