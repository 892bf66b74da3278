package test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/miekg/dns"
)

// startUDP starts a balancer whose listener "main" is of UDP. Its flows do not end by themselves, unless the world
// configures it; the end of the test ends them.
func (w world) startUDP(t testing.TB) *harness.Balancer {
	t.Helper()
	lines := []string{`protocol = "udp"`}
	if !slices.ContainsFunc(w.Listener, func(line string) bool { return strings.HasPrefix(line, "flow_timeout") }) {
		lines = append(lines, `flow_timeout = "1h"`)
	}
	w.Listener = append(lines, w.Listener...)
	b := w.start(t)
	t.Cleanup(func() { endFlows(t, b) })
	return b
}

// endFlows ends the flows that a running balancer has.
func endFlows(t testing.TB, b *harness.Balancer) {
	select {
	case <-b.Done():
		return
	default:
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		// not by Ask, since the test's context has ended when this runs as a cleanup
		if status, answer, err := b.TryAPI(context.Background(), "DELETE", "/v1/sessions?client="+all,
			nil); err != nil || status/100 != 2 {
			t.Errorf("end of the flows: %d %s %v", status, answer, err)
		}
	}
}

// A udpListener has the fields of a listener in the control API that the tests use.
type udpListener struct {
	Name         string
	Protocol     string
	Sessions     int
	Accepted     uint64
	BytesIn      uint64            `json:"bytes_in"`
	BytesOut     uint64            `json:"bytes_out"`
	DatagramsIn  uint64            `json:"datagrams_in"`
	DatagramsOut uint64            `json:"datagrams_out"`
	Dropped      map[string]uint64 // zero values may be missing
}

// drops returns the numbers of dropped datagrams by reason, without zeros.
func (l udpListener) drops() map[string]uint64 {
	drops := map[string]uint64{}
	for reason, n := range l.Dropped {
		if n > 0 {
			drops[reason] = n
		}
	}
	return drops
}

// udpFigures asks for the figures of listener "main".
func udpFigures(t testing.TB, b *harness.Balancer) udpListener {
	t.Helper()
	var answer struct{ Listeners []udpListener }
	b.Ask(t, "GET", "/v1/listeners", nil, &answer)
	for _, l := range answer.Listeners {
		if l.Name == "main" {
			return l
		}
	}
	t.Fatalf("no listener main in %+v", answer)
	return udpListener{}
}

// awaitDrops waits until that many datagrams are counted as dropped for this reason.
func awaitDrops(t testing.TB, b *harness.Balancer, reason string, n uint64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d datagrams are dropped for %s", n, reason), func() error {
		if drops := udpFigures(t, b).drops(); drops[reason] != n {
			return fmt.Errorf("dropped are %v", drops)
		}
		return nil
	})
}

// awaitFlows waits until there are so many flows.
func awaitFlows(t testing.TB, b *harness.Balancer, n int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("there are %d flows", n), func() error {
		if is := udpFigures(t, b).Sessions; is != n {
			return fmt.Errorf("there are %d", is)
		}
		return nil
	})
}

// ask sends a datagram to the balancer and returns the answer, which must come.
func ask(t testing.TB, c net.Conn, message string) string {
	t.Helper()
	answer, err := harness.AskUDP(c, []byte(message))
	check(t, err)
	return string(answer)
}

// askOnce asks from a new socket.
func askOnce(t testing.TB, b *harness.Balancer, message string) string {
	t.Helper()
	return ask(t, harness.DialUDP(t, b.Address(t, "main")), message)
}

// udpNamed starts UDP backends that answer with their names, b1, b2 and so on.
func udpNamed(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for i := range n {
		addresses = append(addresses, harness.ServeUDP(t, harness.NameDatagrams(backendName(i))).Address())
	}
	return addresses
}

// dnsZone is a zone with n names of addresses and as many of texts, and the questions for them.
func dnsZone(n int) (records string, questions []string) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "h%d A 192.0.2.%d\nh%d AAAA 2001:db8::%x\nt%d TXT %q\n", i, i%250, i, i, i,
			strings.Repeat("text ", i%40))
		questions = append(questions,
			fmt.Sprintf("h%d.%s A", i, harness.DNSZone), fmt.Sprintf("h%d.%s AAAA", i, harness.DNSZone),
			fmt.Sprintf("t%d.%s TXT", i, harness.DNSZone), fmt.Sprintf("no%d.%s A", i, harness.DNSZone))
	}
	return b.String(), questions
}

// TestUDPNameServer puts a real name server behind the balancer: many concurrent clients get the server's own answers,
// and none is lost.
func TestUDPNameServer(t *testing.T) {
	t.Parallel()
	const clients = 30
	server := harness.StartDNS(t)
	records, questions := dnsZone(40)
	server.SetZone(t, records)
	b := world{Backends: []string{server.Address}}.startUDP(t)
	direct := make(map[string]string)
	for _, q := range questions {
		answer, err := resolve(q, server.Address)
		check(t, err)
		direct[q] = answer
	}
	address := b.Address(t, "main")
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			for k := range 20 {
				q := questions[(7*i+11*k)%len(questions)]
				if answer, err := resolve(q, address); err != nil || answer != direct[q] {
					t.Errorf("client %d, %s: %v, answer\n%s\nexpected\n%s", i, q, err, answer, direct[q])
					return
				}
			}
		})
	}
	running.Wait()

	p := harness.RunDNSPerf(t, address, questions, "-c", "20", "-Q", "1000", "-l", "2")
	if p.Lost != 0 || p.Completed != p.Sent || p.Sent < 1000 || p.Codes["NOERROR"] < 2*p.Codes["NXDOMAIN"] {
		t.Errorf("dnsperf: %s", p.Text)
	}
	l := udpFigures(t, b)
	if want := uint64(20*clients + p.Sent); l.Protocol != "udp" || l.DatagramsIn != want || l.DatagramsOut != want ||
		len(l.drops()) != 0 {
		t.Errorf("after %d questions: %+v", want, l)
	}
}

// resolve asks one question, as "name type", from a new socket, and returns the answer without its id.
func resolve(question, address string) (string, error) {
	name, kind, _ := strings.Cut(question, " ")
	m := new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
	client := dns.Client{Timeout: harness.Patience}
	answer, _, err := client.Exchange(m, address)
	if err != nil {
		return "", err
	}
	if answer.Id != m.Id {
		return "", fmt.Errorf("answer to question %d is to %d", m.Id, answer.Id)
	}
	answer.Id = 0
	return answer.String(), nil
}

// TestUDPSizes sends datagrams of all sizes, from empty to the largest, over both IP versions on either side.
func TestUDPSizes(t *testing.T) {
	t.Parallel()
	withOffload(t, exchangeSizes)
}

func exchangeSizes(t *testing.T, key string) {
	for _, listen := range []string{"127.0.0.1:%d", "[::1]:%d"} {
		for _, at := range []string{"127.0.0.1:%d", "[::1]:%d"} {
			t.Run(listen+" to "+at, func(t *testing.T) {
				backend := harness.ServeUDPOn(t, fmt.Sprintf(at, harness.FreePort(t)), harness.EchoDatagrams)
				b := world{Global: []string{key}, Listen: fmt.Sprintf(listen, harness.FreePort(t)),
					Backends: []string{backend.Address()}}.startUDP(t)
				c := harness.DialUDP(t, b.Address(t, "main"))
				var total uint64
				sizes := []int{0, 1, 512, 1472, 1473, 4096, 16_000, harness.MaxDatagram, 0, 1}
				for i, size := range sizes {
					message := strings.Repeat(string(rune('a'+i)), size)
					if answer := ask(t, c, message); answer != message {
						t.Errorf("%d bytes came back as %d, beginning with %.20q", size, len(answer), answer)
					}
					total += uint64(size)
				}
				l := udpFigures(t, b)
				if n := uint64(len(sizes)); l.DatagramsIn != n || l.DatagramsOut != n || l.BytesIn != total ||
					l.BytesOut != total || len(l.drops()) != 0 {
					t.Errorf("after %d datagrams of %d bytes: %+v", n, total, l)
				}
			})
		}
	}
}

// TestUDPTrains sends datagrams as QUIC does, many in one call (UDP_SEGMENT), both ways: each datagram arrives
// unchanged, even if its train was split on the way.
func TestUDPTrains(t *testing.T) {
	t.Parallel()
	withOffload(t, exchangeTrains)
}

func exchangeTrains(t *testing.T, key string) {
	type arrival struct {
		from net.Addr
		text string
	}
	arrivals := make(chan arrival, 100)
	var backendConn atomic.Pointer[net.UDPConn]
	backend := harness.ServeUDP(t, func(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
		backendConn.Store(c)
		arrivals <- arrival{net.UDPAddrFromAddrPort(from), string(datagram)}
	})
	b := world{Global: []string{key}, Backends: []string{backend.Address()}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	for _, tc := range []struct{ size, bytes int }{
		{100, 250}, {1, 20}, {1000, 16_000}, {1200, 16_300}, {1472, 40_000}, {8000, 64_000}, {1200, 1200}, {1200, 1201},
	} {
		train := make([]byte, tc.bytes)
		for i := range train {
			train[i] = byte('a' + i/tc.size)
		}
		want := make([]string, 0, 100)
		for part := range slices.Chunk(train, tc.size) {
			want = append(want, string(part))
		}
		sendTrain(t, c, train, tc.size, nil)
		var from net.Addr
		for i, part := range want {
			got := harness.Receive(t, "a datagram at the backend", arrivals)
			if from = got.from; got.text != part {
				t.Fatalf("train of %+v: datagram %d has %d bytes, %.3q, expected %d, %.3q",
					tc, i, len(got.text), got.text, len(part), part)
			}
		}
		sendTrain(t, backendConn.Load(), train, tc.size, from)
		for i, part := range want {
			got := make([]byte, 1<<16)
			n, err := c.Read(got)
			check(t, err)
			if string(got[:n]) != part {
				t.Fatalf("train of %+v: answer %d has %d bytes, %.3q, expected %d, %.3q",
					tc, i, n, got[:n], len(part), part)
			}
		}
	}
	if l := udpFigures(t, b); l.DatagramsIn != l.DatagramsOut || len(l.drops()) != 0 {
		t.Errorf("%+v", l)
	}
}

// withOffload runs f with and without the kernel's offload for trains of datagrams (UDP_GRO, UDP_SEGMENT). key is a
// line for the global table.
func withOffload(t *testing.T, f func(t *testing.T, key string)) {
	for _, key := range []string{"udp_offload = true", "udp_offload = false"} {
		t.Run(key, func(t *testing.T) { f(t, key) })
	}
}

// TestUDPOffload sends a train to a backend that takes trains from the kernel: it gets one, or single datagrams if the
// balancer's offload is off.
func TestUDPOffload(t *testing.T) {
	t.Parallel()
	withOffload(t, func(t *testing.T, key string) {
		const size, datagrams = 1000, 20
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check(t, err)
		defer c.Close()
		check(t, c.SetDeadline(time.Now().Add(2*harness.Patience)))
		setUDPOption(t, c, udpGRO, 1)
		b := world{Global: []string{key}, Backends: []string{c.LocalAddr().String()}}.startUDP(t)
		sendTrain(t, harness.DialUDP(t, b.Address(t, "main")), make([]byte, size*datagrams), size, nil)
		var reads []int
		buffer := make([]byte, 1<<16)
		for got := 0; got < size*datagrams; {
			n, err := c.Read(buffer)
			check(t, err)
			got, reads = got+n, append(reads, n)
		}
		if on := key == "udp_offload = true"; (slices.Max(reads) > size) != on {
			t.Errorf("the backend has read %v bytes", reads)
		}
	})
}

// Options of UDP sockets (linux/udp.h).
const (
	udpSegment = 103
	udpGRO     = 104
)

func setUDPOption(t *testing.T, c *net.UDPConn, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_UDP, option, value) }))
	check(t, err)
}

// sendTrain sends datagrams of one size in one call, to an address unless the socket is connected.
func sendTrain(t *testing.T, c *net.UDPConn, train []byte, size int, to net.Addr) {
	t.Helper()
	setUDPOption(t, c, udpSegment, size)
	var err error
	if to == nil {
		_, err = c.Write(train)
	} else {
		_, err = c.WriteTo(train, to)
	}
	check(t, err)
}

// TestUDPWildcard asks a wildcard listener at several addresses: the answer comes from the address that was asked,
// since a connected socket would not accept another.
func TestUDPWildcard(t *testing.T) {
	t.Parallel()
	four, six := []string{"127.0.0.1", "127.0.0.2", "127.5.6.7"}, []string{"::1"}
	for _, tc := range []struct {
		listen string
		asked  []string
	}{
		{":%d", append(four, six...)},
		{"0.0.0.0:%d", four},
		{"[::]:%d", six},
	} {
		t.Run(tc.listen, func(t *testing.T) {
			port := harness.FreePort(t)
			backend := harness.ServeUDP(t, harness.EchoDatagrams)
			b := world{Listen: fmt.Sprintf(tc.listen, port), Backends: []string{backend.Address()}}.startUDP(t)
			for _, address := range tc.asked {
				for _, from := range tc.asked {
					if strings.Contains(address, ":") != strings.Contains(from, ":") {
						continue
					}
					c := harness.DialUDPFrom(t, from, net.JoinHostPort(address, strconv.Itoa(port)))
					if answer := ask(t, c, address); answer != address {
						t.Errorf("%s, asked from %s, answered %q", address, from, answer)
					}
				}
			}
			// one socket, two of its addresses: two flows, neither with the other's answers
			if len(tc.asked) < 3 {
				return
			}
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP("127.0.0.1")})
			check(t, err)
			defer c.Close()
			check(t, c.SetDeadline(time.Now().Add(2*harness.Patience)))
			for _, address := range []string{"127.0.0.2", "127.5.6.7", "127.0.0.2"} {
				_, err := c.WriteTo([]byte(address), &net.UDPAddr{IP: net.ParseIP(address), Port: port})
				check(t, err)
				answer := make([]byte, 100)
				n, from, err := c.ReadFromUDP(answer)
				check(t, err)
				if string(answer[:n]) != address || from.IP.String() != address {
					t.Errorf("%s was asked and %s answered %q", address, from.IP, answer[:n])
				}
			}
			if tc.listen != "[::]:%d" && udpFigures(t, b).Sessions == 0 {
				t.Error("there are no flows")
			}
		})
	}
}
