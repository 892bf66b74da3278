package dns_test

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// framed is messages as a stream has them.
func framed(messages ...[]byte) (stream []byte) {
	for _, m := range messages {
		stream = binary.BigEndian.AppendUint16(stream, uint16(len(m)))
		stream = append(stream, m...)
	}
	return stream
}

// readFrame reads a message.
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, m)
	return m, err
}

func write(t testing.TB, c net.Conn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

// nextFrame reads a message, which has to come.
func nextFrame(t testing.TB, c net.Conn) *dns.Msg {
	t.Helper()
	m, err := readFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	return dnsUnpack(t, m)
}

// wantEnd checks that nothing comes any more but the end.
func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
		t.Fatalf("want the end, got %d bytes and %v", n, err)
	}
}

// A streamBackend is a DNS server of TCP.
type streamBackend struct {
	address     string
	connections atomic.Int64
	questions   atomic.Int64
}

// A heldFrame is a question that came to a streamBackend.
type heldFrame struct {
	c     net.Conn
	query []byte
	nth   int   // of its connection, from 1
	total int64 // of its backend, the same
}

func (h heldFrame) answer(t testing.TB) {
	answer, err := dnsAnswer(h.query, 60)
	if err != nil {
		t.Errorf("the backend got %x: %v", h.query, err)
		return
	}
	wire, err := answer.Pack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = h.c.Write(framed(wire))
}

// startStream serves each question with handle, which reports whether the connection goes on.
func startStream(t testing.TB, handle func(heldFrame) bool) *streamBackend {
	b := new(streamBackend)
	b.address = backend(t, func(c *net.TCPConn) {
		b.connections.Add(1)
		for nth := 1; ; nth++ {
			query, err := readFrame(c)
			if err != nil {
				return
			}
			if !handle(heldFrame{c, query, nth, b.questions.Add(1)}) {
				return
			}
		}
	})
	return b
}

// startAnswering is a backend that answers at once.
func startAnswering(t testing.TB) *streamBackend {
	return startStream(t, func(h heldFrame) bool { h.answer(t); return true })
}

// startHolding is a backend that does not answer by itself.
func startHolding(t testing.TB) (*streamBackend, chan heldFrame) {
	held := make(chan heldFrame, 10_000)
	return startStream(t, func(h heldFrame) bool { held <- h; return true }), held
}

// TestDNSTalk holds that questions by TCP are answered by a backend first and then from the cache, whole, byte by byte
// and many in one segment.
func TestDNSTalk(t *testing.T) {
	b := startAnswering(t)
	s := start(t, l4.Options{Loops: 2}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	for _, by := range framed(dnsQuery(t, 7, nameOf(0), dns.TypeA)) {
		write(t, c, []byte{by})
	}
	wantAddress(t, nextFrame(t, c), 7, nameOf(0))
	for range 2 {
		var stream []byte
		const many = 1000 // ten times what may wait
		for i := range many {
			stream = append(stream, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA))...)
		}
		go func() { _, _ = c.Write(stream) }()
		got := make(map[uint16]bool)
		for range many {
			m := nextFrame(t, c)
			wantAddress(t, m, m.Id, nameOf(int(m.Id)))
			got[m.Id] = true
		}
		if len(got) != many {
			t.Fatalf("%d different answers", len(got))
		}
	}
	got := dnsInfo(s)
	if got.Asked != 1000 || got.Answered != 1000 || got.InFlight != 0 || got.Mismatched != 0 || got.Cache.Hit != 1001 {
		t.Errorf("%+v", got)
	}
	if n := b.questions.Load(); n != 1000 {
		t.Errorf("the backend was asked %d times", n)
	}
	if s.Sessions() != 1 {
		t.Errorf("%d sessions", s.Sessions())
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, c)
	eventually(t, "the session is over", func() bool { return s.Sessions() == 0 })
	if li := info(s); li.Ended[tally.ClientClosed] != 1 || li.BytesIn == 0 || li.BytesOut == 0 {
		t.Errorf("%+v", li)
	}
	if b := firstPool(s).Backends()[0]; b.Leases != 0 || b.Outcomes[pool.Served] != 1000 {
		t.Errorf("%+v", b)
	}
}
