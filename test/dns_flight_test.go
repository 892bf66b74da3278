package test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// underWay is how many datagrams are sent to one reader at a time: fewer than fit in the smallest buffer.
const underWay = 200

// A heldDNS is a DNS server that holds all questions until release, and then answers them in random order.
type heldDNS struct {
	conn   *net.UDPConn
	asked  []heldQuestion
	taken  chan struct{} // gets one for each question
	given  chan struct{} // limits unread answers: a send for each answer, a receive for each read
	serves sync.WaitGroup
}

type heldQuestion struct {
	from  netip.AddrPort
	query []byte
}

// holdDNS starts a server that waits for that many questions.
func holdDNS(t *testing.T, questions int) *heldDNS {
	t.Helper()
	return holdDNSOn(t, harness.FreeAddress(t), questions)
}

func holdDNSOn(t *testing.T, address string, questions int) *heldDNS {
	t.Helper()
	c, err := net.ListenUDP("udp", udpAddr(t, address))
	check(t, err)
	h := &heldDNS{conn: c, taken: make(chan struct{}, questions), given: make(chan struct{}, underWay)}
	check(t, c.SetReadBuffer(1<<20))
	h.serves.Go(func() {
		buffer := make([]byte, 1<<16)
		for len(h.asked) < questions {
			n, from, err := c.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return // closed
			}
			h.asked = append(h.asked, heldQuestion{from, append([]byte(nil), buffer[:n]...)})
			h.taken <- struct{}{}
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *heldDNS) stop() {
	h.conn.Close()
	h.serves.Wait()
}

func udpAddr(t *testing.T, address string) *net.UDPAddr {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", address)
	check(t, err)
	return a
}

// release answers all questions, each with the number in its name as an address.
func (h *heldDNS) release() error {
	h.serves.Wait() // it has them all
	rand.Shuffle(len(h.asked), func(i, k int) { h.asked[i], h.asked[k] = h.asked[k], h.asked[i] })
	patience := time.After(harness.Patience)
	for _, q := range h.asked {
		const header = 12
		label := q.query[header+1:][:q.query[header]] // "n" and the number
		number, err := strconv.Atoi(string(label[1:]))
		if err != nil {
			return fmt.Errorf("question %q: %w", q.query, err)
		}
		answer := q.query
		answer[2] |= 0x80 // QR
		answer[7] = 1     // a record: the name of the question, A, IN, a minute, four bytes
		answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		answer = binary.BigEndian.AppendUint32(answer, uint32(number))
		select {
		case h.given <- struct{}{}:
		case <-patience:
			return fmt.Errorf("%d answers do not come", underWay)
		}
		if _, err := h.conn.WriteToUDPAddrPort(answer, q.from); err != nil {
			return err
		}
	}
	return nil
}

// A flightOfDNS has the times and resources that a wave of questions took.
type flightOfDNS struct {
	sending, answering time.Duration
	memory             int64 // of the balancer while all questions were at the backend
	sockets            int   // then, more than before
}

// askAtOnce sends that many questions of two hundred clients, which all wait for a backend, and measures the balancer
// meanwhile. Each client must get the answers to all its questions.
func askAtOnce(t *testing.T, b *harness.Balancer, h *heldDNS, questions int) flightOfDNS {
	t.Helper()
	const clients = 200
	address := b.Address(t, "main")
	conns := make([]*net.UDPConn, clients)
	for i := range conns {
		conns[i] = harness.DialUDP(t, address)
	}
	queries := make([][]byte, questions) // made before the clock starts
	for number := range queries {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.com.", number), dns.TypeA)
		q.Id = uint16(number / clients)
		var err error
		queries[number], err = q.Pack()
		check(t, err)
	}
	before, began := len(b.Descriptors(t).Sockets), time.Now()
	patience := time.After(harness.Patience)
	for number := range questions + underWay {
		if number >= underWay {
			select {
			case <-h.taken:
			case <-patience:
				t.Fatalf("%d questions sent, and the backend has %d", min(number, questions), number-underWay)
			}
		}
		if number < questions {
			_, err := conns[number%clients].Write(queries[number])
			check(t, err)
		}
	}
	f := flightOfDNS{sending: time.Since(began), memory: b.AnonMemory(t),
		sockets: len(b.Descriptors(t).Sockets) - before}
	measured(t, b, map[string]float64{`limeload_dns_in_flight{listener="main"}`: float64(questions)})

	var reading sync.WaitGroup
	for i, c := range conns {
		reading.Go(func() {
			if err := h.readAnswers(c, i, clients, questions); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	began = time.Now()
	if err := h.release(); err != nil {
		t.Error(err)
	}
	reading.Wait()
	f.answering = time.Since(began)
	return f
}

// readAnswers reads a client's answers: those to every question whose number is that of the client modulo clients.
func (h *heldDNS) readAnswers(c *net.UDPConn, client, clients, questions int) error {
	missing := map[int]bool{}
	for number := client; number < questions; number += clients {
		missing[number] = true
	}
	buffer := make([]byte, 1<<16)
	for len(missing) > 0 {
		if err := c.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
			return err
		}
		n, err := c.Read(buffer)
		if err != nil {
			return fmt.Errorf("%d answers are missing: %w", len(missing), err)
		}
		<-h.given
		var m dns.Msg
		if err := m.Unpack(buffer[:n]); err != nil {
			return err
		}
		number := int(m.Id)*clients + client
		if m.Rcode != dns.RcodeSuccess || len(m.Question) != 1 || len(m.Answer) != 1 ||
			m.Question[0].Name != fmt.Sprintf("n%d.example.com.", number) ||
			binary.BigEndian.Uint32(m.Answer[0].(*dns.A).A.To4()) != uint32(number) || !missing[number] {
			return fmt.Errorf("to question %d came\n%v", number, &m)
		}
		delete(missing, number)
	}
	return nil
}

// flightSockets is how many sockets two loops may use to ask a backend: docs/dns.md.
const flightSockets = 2 * 2 * 8

func flightWorld(h *heldDNS) world {
	return world{
		Global: []string{"workers = 2"}, Backends: []string{h.conn.LocalAddr().String()},
		Listener: []string{`protocol = "udp"`, `profile = "dns"`}, Measured: true,
	}
}

// TestDNSInFlight has 2,000 questions that wait for a backend at once, and answers in another order. It takes far less
// than the two seconds that a backend has.
func TestDNSInFlight(t *testing.T) {
	t.Parallel()
	const questions = 2000
	h := holdDNS(t, questions)
	b := flightWorld(h).start(t)
	if f := askAtOnce(t, b, h, questions); f.sockets > flightSockets {
		t.Errorf("%d sockets for %d questions, expected at most %d", f.sockets, questions, flightSockets)
	}
}
