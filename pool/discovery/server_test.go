package discovery

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// A server answers questions as badly as its function says. It listens for UDP and TCP on one port and is closed with
// the test.
type server struct {
	address string
	serve   func(q *dns.Msg, network string) [][]byte // the messages to send, in order

	mu sync.Mutex
	// mu guards the fields below
	asked []string // "network type name"
}

// serve starts a server.
func serve(t testing.TB, answer func(q *dns.Msg, network string) [][]byte) *server {
	t.Helper()
	s := &server{address: harness.FreeAddress(t), serve: answer}
	udp, err := net.ListenPacket("udp", s.address)
	must(t, err)
	tcp, err := net.Listen("tcp", s.address)
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { s.serveUDP(udp) })
	serving.Go(func() { s.serveTCP(tcp) })
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		serving.Wait()
	})
	return s
}

func (s *server) serveUDP(c net.PacketConn) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return // closed
		}
		for _, m := range s.answer(buf[:n], "udp") {
			_, _ = c.WriteTo(m, from) // who asked may be gone
		}
	}
}

func (s *server) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		_ = c.SetDeadline(time.Now().Add(harness.Patience))
		var length uint16
		if binary.Read(c, binary.BigEndian, &length) == nil {
			q := make([]byte, length)
			if _, err := io.ReadFull(c, q); err == nil {
				for _, m := range s.answer(q, "tcp") {
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
				}
			}
		}
		c.Close()
	}
}

func (s *server) answer(raw []byte, network string) [][]byte {
	q := new(dns.Msg)
	if q.Unpack(raw) != nil || len(q.Question) != 1 {
		return nil
	}
	s.mu.Lock()
	s.asked = append(s.asked, network+" "+dns.TypeToString[q.Question[0].Qtype]+" "+q.Question[0].Name)
	s.mu.Unlock()
	return s.serve(q, network)
}

// questions returns what the server was asked since the last call.
func (s *server) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// resolvers returns resolvers that ask the server and then the others, once each, with a long timeout.
func (s *server) resolvers(others ...*server) resolvers {
	r := resolvers{
		servers: []string{s.address}, timeout: harness.Patience, attempts: 1,
		names: func(name string) []string { return []string{name} },
	}
	for _, o := range others {
		r.servers = append(r.servers, o.address)
	}
	return r
}

// hurried returns r with a short timeout. On a machine under load it may miss an answer.
func hurried(r resolvers) resolvers {
	r.timeout = 100 * time.Millisecond
	return r
}

// reply returns a good answer with these records, in the form of a zone file.
func reply(q *dns.Msg, records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.Compress, m.RecursionAvailable = true, true
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func packed(ms ...*dns.Msg) (raw [][]byte) {
	for _, m := range ms {
		b, err := m.Pack()
		if err != nil {
			panic(err)
		}
		raw = append(raw, b)
	}
	return raw
}

// with changes a message.
func with(m *dns.Msg, change func(m *dns.Msg)) *dns.Msg {
	change(m)
	return m
}

// onlyA answers questions of type A by f, and others with NODATA.
func onlyA(f func(q *dns.Msg, network string) [][]byte) func(q *dns.Msg, network string) [][]byte {
	return func(q *dns.Msg, network string) [][]byte {
		if q.Question[0].Qtype != dns.TypeA {
			return packed(reply(q))
		}
		return f(q, network)
	}
}

// addresses10 answers each question with one record of the address 10.0.0.1.
func addresses10(q *dns.Msg, _ string) [][]byte { return packed(reply(q, "db.test. 5 A 10.0.0.1")) }
