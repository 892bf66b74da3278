package dns_test

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// wantOutcomes checks which outcomes a backend has had, and that no backend has a lease.
func wantOutcomes(t *testing.T, s *l4.Server, id string, want map[pool.Outcome]uint64) {
	t.Helper()
	for _, b := range firstPool(s).Backends() {
		if b.Leases != 0 {
			t.Errorf("%s: %d leases", b.ID, b.Leases)
		}
		if b.ID != id {
			continue
		}
		for o := range pool.Neutral + 1 {
			if b.Outcomes[o] != want[o] {
				t.Errorf("%v: %d, want %d", o, b.Outcomes[o], want[o])
			}
		}
	}
}

// TestDNSStreamCloses holds that a question gets its answer although its backend closes the connection: idle, which is
// normal, or with the question outstanding after it has answered another one, also in the midst of the answer.
func TestDNSStreamCloses(t *testing.T) {
	for name, part := range map[string]int{"idle": 0, "outstanding": 1, "in a message": 20} {
		t.Run(name, func(t *testing.T) {
			b := startStream(t, func(h heldFrame) bool {
				if h.nth == 1 {
					h.answer(t)
					return part > 0
				}
				if part > 1 {
					m, _ := dnsAnswer(h.query, 60)
					_, _ = h.c.Write(framed(dnsPack(t, m))[:part])
				}
				return false
			})
			s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
			c := dial(t, address(s))
			const questions = 5
			for i := range questions {
				write(t, c, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA)))
				wantAddress(t, nextFrame(t, c), uint16(i), nameOf(i))
			}
			again := uint64(0)
			if part > 0 {
				again = questions - 1
			}
			info := dnsInfo(s)
			if info.Answered != questions || info.Failed != 0 || info.Mismatched != 0 ||
				part > 0 && info.Asked != questions+again {
				t.Errorf("%+v", info)
			}
			if part > 0 {
				wantOutcomes(t, s, b.address, map[pool.Outcome]uint64{pool.Served: questions, pool.Neutral: again})
			}
		})
	}
}

// TestDNSStreamCut holds that a question goes to another backend when one closes connections without an answer. That
// says nothing about the backend: it may not like the question.
func TestDNSStreamCut(t *testing.T) {
	bad := startStream(t, func(heldFrame) bool { return false })
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, bad.address)))
	c := dial(t, address(s))
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	wantCode(t, nextFrame(t, c), 1, dns.RcodeServerFailure)
	wantOutcomes(t, s, bad.address, map[pool.Outcome]uint64{pool.Neutral: 1})

	good := startAnswering(t)
	s = start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, bad.address, good.address)))
	c = dial(t, address(s))
	for i := range 4 {
		write(t, c, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA)))
		wantAddress(t, nextFrame(t, c), uint16(i), nameOf(i))
	}
	if info := dnsInfo(s); info.Failed != 0 || info.Answered != 4 || info.Asked == 4 {
		t.Errorf("%+v", info)
	}
}

// TestDNSStreamConnect holds that another backend is asked when one refuses or does not answer a connect.
func TestDNSStreamConnect(t *testing.T) {
	for name, bad := range map[string]string{"refused": refusing(t), "swallowed": swallowing(t)} {
		t.Run(name, func(t *testing.T) {
			good := startAnswering(t)
			p := newPool(t, bad, good.address)
			s := start(t, l4.Options{Loops: 1}, talkSpec(p))
			c := dial(t, address(s))
			var stream []byte
			const questions = 6
			for i := range questions {
				stream = append(stream, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA))...)
			}
			write(t, c, stream)
			for range questions {
				m := nextFrame(t, c)
				wantAddress(t, m, m.Id, nameOf(int(m.Id)))
			}
			outcome := pool.ConnectRefused
			if name == "swallowed" {
				outcome = pool.ConnectTimeout
			}
			info := dnsInfo(s)
			if info.Failed != 0 || info.Sockets != 1 || info.Asked == questions && name == "swallowed" {
				t.Errorf("%+v", info)
			}
			// A connection fails once, however many questions wait for it.
			got := firstPool(s).Backends()[0].Outcomes
			wantOutcomes(t, s, bad, map[pool.Outcome]uint64{outcome: got[outcome], pool.Neutral: got[pool.Neutral]})
			if name == "swallowed" && (got[outcome] != 1 || got[pool.Neutral] == 0) || got[outcome] == 0 {
				t.Errorf("told are %v", got)
			}
		})
	}
}

// TestDNSStreamSilent holds that another backend is asked when one does not answer in time, and that its connection,
// which may be dead, gets no more questions.
func TestDNSStreamSilent(t *testing.T) {
	silent, _ := startHolding(t)
	spec := talkSpec(newPool(t, silent.address))
	setDNSTimeout(spec.DNS, 500*time.Millisecond)
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dial(t, address(s))
	for i := range 2 {
		write(t, c, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA)))
		wantCode(t, nextFrame(t, c), uint16(i), dns.RcodeServerFailure)
	}
	eventually(t, "each was asked by a connection of its own", func() bool { return silent.connections.Load() == 2 })
	if info := dnsInfo(s); info.TimedOut != 2 || info.Sockets != 0 {
		t.Errorf("%+v", info)
	}
	wantOutcomes(t, s, silent.address, map[pool.Outcome]uint64{pool.NoAnswer: 2})
}

// TestDNSStreamGarbage holds that a message that is no answer is counted and does not reach the client, and that bytes
// that are no message end the connection.
func TestDNSStreamGarbage(t *testing.T) {
	for name, tc := range map[string]struct {
		garbage     func(query []byte) []byte
		connections int64
	}{
		"another question": {func(query []byte) []byte {
			m, _ := dnsAnswer(dnsQuery(t, idOfMessage(query), "other.example.com.", dns.TypeA), 60)
			return framed(dnsPack(t, m))
		}, 1},
		"another id": {func(query []byte) []byte {
			m, _ := dnsAnswer(query, 60)
			m.Id++
			return framed(dnsPack(t, m))
		}, 1},
		"the longest":   {func([]byte) []byte { return framed(make([]byte, wire.MaxDNSMessage)) }, 1},
		"nothing":       {func([]byte) []byte { return framed(nil) }, 2},
		"half a header": {func([]byte) []byte { return framed(make([]byte, 6)) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := startStream(t, func(h heldFrame) bool {
				if h.total == 2 {
					_, _ = h.c.Write(tc.garbage(h.query))
					if tc.connections > 1 {
						return true // this question is asked again by another connection
					}
				}
				h.answer(t)
				return true
			})
			s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
			c := dial(t, address(s))
			for i := range 3 {
				write(t, c, framed(dnsQuery(t, uint16(i), nameOf(i), dns.TypeA)))
				wantAddress(t, nextFrame(t, c), uint16(i), nameOf(i))
			}
			if n := b.connections.Load(); n != tc.connections {
				t.Errorf("%d connections, want %d", n, tc.connections)
			}
			if info := dnsInfo(s); info.Mismatched != 1 || info.Answered != 3 {
				t.Errorf("%+v", info)
			}
		})
	}
}

// TestDNSStreamRests holds that a connection is closed when nobody needs it, and not before.
func TestDNSStreamRests(t *testing.T) {
	b, held := startHolding(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	one := <-held
	sweep := func(used time.Duration) {
		eachSocket(s, func(f *room.Forwarder, d *room.Socket) { room.SetUsed(f, d, used) })
	}
	sweep(-time.Hour)
	if n := dnsInfo(s).Sockets; n != 1 {
		t.Fatalf("%d sockets", n)
	}
	one.answer(t)
	wantAddress(t, nextFrame(t, c), 1, nameOf(1))
	sweep(time.Since(loops(s)[0].Started))
	if n := dnsInfo(s).Sockets; n != 1 {
		t.Fatalf("%d sockets", n)
	}
	sweep(-time.Hour)
	if n := dnsInfo(s).Sockets; n != 0 {
		t.Fatalf("%d sockets", n)
	}
	if _, err := one.c.Read(make([]byte, 1)); err == nil {
		t.Error("the backend sees no end")
	}
}

// TestDNSStreamRevoked holds that questions at a backend whose leases are revoked are asked elsewhere, and the
// connection closed.
func TestDNSStreamRevoked(t *testing.T) {
	silent, held := startHolding(t)
	good := startAnswering(t)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Second, CloseOnRemove: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{silent.address, good.address} {
		if err := p.Add(pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, l4.Options{Loops: 1}, talkSpec(p))
	c := dial(t, address(s))
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	<-held
	if err := p.Remove(silent.address); err != nil {
		t.Fatal(err)
	}
	wantAddress(t, nextFrame(t, c), 1, nameOf(1))
	if info := dnsInfo(s); info.Sockets != 1 || info.Asked != 2 {
		t.Errorf("%+v", info)
	}
}

// TestDNSStreamLarge holds that the largest possible answer, which no datagram could carry, comes whole.
func TestDNSStreamLarge(t *testing.T) {
	b := startStream(t, func(h heldFrame) bool {
		m := dnsUnpack(t, h.query)
		m.SetReply(m)
		text := &dns.TXT{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}}
		m.Answer = []dns.RR{text}
		for left := wire.MaxDNSMessage - m.Len(); left > 0; left = wire.MaxDNSMessage - m.Len() {
			text.Txt = append(text.Txt, strings.Repeat("x", min(left-1, 255)))
		}
		_, _ = h.c.Write(framed(dnsPack(t, m)))
		return true
	})
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	for i := range 3 {
		write(t, c, framed(dnsQuery(t, uint16(i), nameOf(1), dns.TypeTXT)))
		m, err := readFrame(c)
		if err != nil || len(m) != wire.MaxDNSMessage {
			t.Fatalf("%d bytes, %v", len(m), err)
		}
		wantCode(t, dnsUnpack(t, m), uint16(i), dns.RcodeSuccess)
	}
}

// TestDNSStreamBlocked holds that no question is lost or spoiled when a backend does not read for a while.
func TestDNSStreamBlocked(t *testing.T) {
	const clients, each = 40, room.MaxPipelined
	reads := make(chan bool)
	opened := make(chan bool, 100)
	slow := backend(t, func(c *net.TCPConn) {
		_ = c.SetReadBuffer(64 << 10)
		opened <- true
		<-reads
		for {
			query, err := readFrame(c)
			if err != nil {
				return
			}
			heldFrame{c: c, query: query}.answer(t)
		}
	})
	spec := talkSpec(newPool(t, slow))
	room.SetSockets(spec.DNS, 1)
	s := start(t, l4.Options{Loops: 1}, spec)
	var all []net.Conn
	for i := range clients {
		c := dial(t, address(s))
		all = append(all, c)
		var stream []byte
		for id := range each {
			stream = append(stream, framed(dnsQuery(t, uint16(id), longName(i*each+id), dns.TypeA))...)
		}
		write(t, c, stream)
		if i == 0 {
			<-opened
			eachSocket(s, func(_ *room.Forwarder, d *room.Socket) { sock.SetBuffers(room.Descriptor(d), 0, 64<<10) })
		}
	}
	eventually(t, "all are asked", func() bool { return dnsInfo(s).InFlight == clients*each })
	blocked := false
	eachSocket(s, func(_ *room.Forwarder, d *room.Socket) {
		blocked = blocked || room.Blocked(d) && !room.Connecting(d)
	})
	if !blocked {
		t.Error("the backend's connection has room for all")
	}
	close(reads)
	for i, c := range all {
		for range each {
			m := nextFrame(t, c)
			wantAddress(t, m, m.Id, longName(i*each+int(m.Id)))
		}
	}
	if info := dnsInfo(s); info.Asked != clients*each || info.Mismatched != 0 {
		t.Errorf("%+v", info)
	}
}

// longName makes a question of some 240 bytes.
func longName(i int) string {
	return strings.Repeat(strings.Repeat("x", 50)+".", 4) + nameOf(i)
}

// TestDNSTalkAllocatesNothing holds that a question that is answered from the cache allocates nothing.
func TestDNSTalkAllocatesNothing(t *testing.T) {
	b := startAnswering(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	query := framed(dnsQuery(t, 1, nameOf(1), dns.TypeA))
	write(t, c, query)
	want, err := readFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	ask := func() {
		write(t, c, query)
		for n := 0; n < 2+len(want); {
			more, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
	}
	ask()
	const rounds = 1000
	if n := allocations(rounds, ask); n >= rounds/10 {
		t.Errorf("%d allocations for %d questions", n, rounds)
	}
	if !bytes.Equal(buf[2:2+6], want[:6]) {
		t.Errorf("%x", buf[:20])
	}
	if hits := dnsInfo(s).Cache.Hit; hits != rounds+1 {
		t.Errorf("%d answered from the cache", hits)
	}
	eachSession(s, 0, func(one *session.Session) {
		in, out := room.Queues(one)
		if l4test.HeldBytes(in)+l4test.HeldBytes(out) > 0 {
			t.Error("it holds a buffer at rest")
		}
	})
}
