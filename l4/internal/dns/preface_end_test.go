package dns_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// TestDNSTalkMalformed holds that bytes that cannot be a message end the connection, after the answers to earlier
// questions.
func TestDNSTalkMalformed(t *testing.T) {
	b := startAnswering(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	warm := dial(t, address(s))
	query := framed(dnsQuery(t, 1, nameOf(1), dns.TypeA))
	write(t, warm, query)
	wantAddress(t, nextFrame(t, warm), 1, nameOf(1))
	for i, garbage := range [][]byte{{0, 0}, framed(make([]byte, 11)), {0, 1, 0}} {
		c := dial(t, address(s))
		write(t, c, append(append([]byte(nil), query...), garbage...))
		wantAddress(t, nextFrame(t, c), 1, nameOf(1))
		wantEnd(t, c)
		eventually(t, "it is counted", func() bool { return info(s).Ended[tally.Malformed] == uint64(i+1) })
	}
	// The longest message there may be is for a backend.
	long := make([]byte, wire.MaxDNSMessage)
	copy(long, dnsQuery(t, 9, nameOf(2), dns.TypeA))
	write(t, warm, framed(long))
	if m, err := readFrame(warm); err != nil || idOfMessage(m) != 9 {
		t.Errorf("%x, %v", m, err)
	}
}

// TestDNSTalkIdle holds that the session of a client that asks nothing, or half a question, ends, and that of a client
// that waits does not.
func TestDNSTalkIdle(t *testing.T) {
	b, held := startHolding(t)
	spec := talkSpec(newPool(t, b.address))
	spec.IdleTimeout = 300 * time.Millisecond
	s := start(t, l4.Options{Loops: 1}, spec)
	patient := dial(t, address(s))
	write(t, patient, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	one := <-held
	silent, slow := dial(t, address(s)), dial(t, address(s))
	trickle := make(chan struct{})
	go func() {
		defer close(trickle)
		for _, err := slow.Write([]byte{1}); err == nil; _, err = slow.Write([]byte{1}) {
			time.Sleep(50 * time.Millisecond) // the client's pace
		}
	}()
	wantEnd(t, silent)
	<-trickle
	eventually(t, "one is left", func() bool { return s.Sessions() == 1 })
	one.answer(t)
	wantAddress(t, nextFrame(t, patient), 1, nameOf(1))
	wantEnd(t, patient)
	eventually(t, "they are counted", func() bool { return info(s).Ended[tally.Idle] == 3 })
}

// TestDNSTalkHalfClose holds that a client that has closed its half gets all answers, and then the end.
func TestDNSTalkHalfClose(t *testing.T) {
	b, held := startHolding(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	write(t, c, framed(
		dnsQuery(t, 1, nameOf(1), dns.TypeA), dnsQuery(t, 2, nameOf(2), dns.TypeA), dnsQuery(t, 3, nameOf(3), dns.TypeA),
	))
	write(t, c, []byte{0}) // of a question that never comes
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	questions := map[uint16]heldFrame{}
	for range 3 {
		h := <-held
		m := dnsUnpack(t, h.query)
		for id := uint16(1); id <= 3; id++ {
			if m.Question[0].Name == nameOf(int(id)) {
				questions[id] = h
			}
		}
	}
	for _, id := range []uint16{3, 1, 2} { // not in the order they were asked in
		questions[id].answer(t)
		wantAddress(t, nextFrame(t, c), id, nameOf(int(id)))
	}
	wantEnd(t, c)
}

// TestDNSTalkReset holds that a client may leave while it waits: its session ends, and its answer is kept, but sent to
// nobody, not even to the session that has its place by then.
func TestDNSTalkReset(t *testing.T) {
	b, held := startHolding(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	gone := dial(t, address(s))
	write(t, gone, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	one := <-held
	if err := gone.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	gone.Close()
	eventually(t, "it is gone", func() bool { return s.Sessions() == 0 })
	if li := info(s); li.Ended[tally.ClientReset] != 1 {
		t.Errorf("%+v", li.Ended)
	}
	next := dial(t, address(s))
	eventually(t, "another one has its place", func() bool { return s.Sessions() == 1 })
	one.answer(t)
	eventually(t, "the answer came", func() bool { return dnsInfo(s).InFlight == 0 })
	write(t, next, framed(dnsQuery(t, 2, nameOf(1), dns.TypeA)))
	wantAddress(t, nextFrame(t, next), 2, nameOf(1))
	if info := dnsInfo(s); info.Cache.Hit != 1 || info.Cache.Waiting != 0 {
		t.Errorf("%+v", info)
	}
}

// TestDNSTalkDoesNotRead holds that nothing is read from a client that takes no answers, that it costs a bounded amount
// of memory, and that its session ends.
func TestDNSTalkDoesNotRead(t *testing.T) {
	b := startStream(t, func(h heldFrame) bool {
		m := new(dns.Msg)
		if err := m.Unpack(h.query); err != nil {
			t.Error(err)
			return false
		}
		m.SetReply(m)
		for range 15 {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
				Txt: []string{string(make([]byte, 250))},
			})
		}
		wire, err := m.Pack()
		if err != nil {
			t.Error(err)
			return false
		}
		_, _ = h.c.Write(framed(wire))
		return true
	})
	spec := talkSpec(newPool(t, b.address))
	spec.IdleTimeout = time.Second
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dial(t, address(s))
	query := framed(dnsQuery(t, 1, nameOf(1), dns.TypeTXT))
	var stream []byte
	for range 1000 {
		stream = append(stream, query...)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Write(stream); err != nil {
				ended <- err
				return
			}
		}
	}()
	most := 0
	eventually(t, "it is gone", func() bool {
		eachSession(s, 0, func(one *session.Session) {
			in, out := room.Queues(one)
			most = max(most, l4test.HeldBytes(in)+l4test.HeldBytes(out))
		})
		return s.Sessions() == 0 && info(s).Accepted == 1
	})
	if most == 0 || most > 1<<20 { // a hundred answers of 4 KB, and what was read
		t.Errorf("it cost %d bytes", most)
	}
	if err := <-ended; err == nil {
		t.Error("it goes on")
	}
	if li := info(s); li.Ended[tally.Idle] != 1 {
		t.Errorf("%+v", li.Ended)
	}
}

// TestDNSTalkCoalesces holds that 1,000 connections that ask one cold name cost one question.
func TestDNSTalkCoalesces(t *testing.T) {
	const clients = 1000
	b, held := startHolding(t)
	s := start(t, l4.Options{Loops: 2}, talkSpec(newPool(t, b.address)))
	var all []net.Conn
	for i := range clients {
		c := dial(t, address(s))
		write(t, c, framed(dnsQuery(t, uint16(i), nameOf(1), dns.TypeA)))
		all = append(all, c)
	}
	eventually(t, "all wait", func() bool { return dnsInfo(s).Cache.Waiting == clients })
	(<-held).answer(t)
	for i, c := range all {
		wantAddress(t, nextFrame(t, c), uint16(i), nameOf(1))
	}
	if n := b.questions.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
	if s.Sessions() != clients {
		t.Errorf("%d sessions", s.Sessions())
	}
}

// TestDNSTalkReload holds that a connection outlives a change of the settings, which begins an empty cache; that it is
// answered while its listener has no settings any more, or is gone; and that nothing is left.
func TestDNSTalkReload(t *testing.T) {
	b := startAnswering(t)
	before := descriptors(t)
	p := newPool(t, b.address)
	s := start(t, l4.Options{Loops: 2}, talkSpec(p))
	spec := talkSpec(p)
	c := dial(t, address(s))
	id := uint16(0)
	ask := func(c net.Conn) {
		t.Helper()
		id++
		write(t, c, framed(dnsQuery(t, id, nameOf(1), dns.TypeA)))
		wantAddress(t, nextFrame(t, c), id, nameOf(1))
	}
	apply := func(specs ...l4.ListenerSpec) {
		t.Helper()
		if err := s.Apply(l4.Plan{Listeners: specs}); err != nil {
			t.Fatal(err)
		}
	}
	wantQuestions := func(n int64) {
		t.Helper()
		if got := b.questions.Load(); got != n {
			t.Fatalf("the backend was asked %d times, want %d", got, n)
		}
	}
	ask(c)
	spec.IdleTimeout = time.Hour
	apply(spec)
	ask(c)
	wantQuestions(1)
	spec.DNS.Cache.MaxEntries++
	apply(spec)
	ask(c)
	ask(c)
	wantQuestions(2)
	spec.DNS = nil
	apply(spec)
	ask(c)
	wantQuestions(2)
	other := dial(t, address(s))
	ask(other)
	wantQuestions(3)
	ask(other)
	wantQuestions(4)
	other.Close()
	apply()
	ask(c)
	c.Close()
	eventually(t, "all is gone", func() bool {
		left := 0
		onEach(s, func(l *room.Loop) { left += len(room.Forwarders(l)) + room.Talkers(l) })
		return left == 0 && s.Sessions() == 0
	})
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) == before })
}

// TestDNSTalkShutdown holds that Shutdown waits for clients to go, and at its end answers those that wait with
// SERVFAIL, and that this is an orderly end.
func TestDNSTalkShutdown(t *testing.T) {
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprintf("patient %v", patient), func(t *testing.T) {
			b, held := startHolding(t)
			s := start(t, l4.Options{Loops: 2}, talkSpec(newPool(t, b.address)))
			var all []*net.TCPConn
			for i := range 10 { // all wait for one question, on either loop
				c := dial(t, address(s))
				write(t, c, framed(dnsQuery(t, uint16(i), nameOf(1), dns.TypeA)))
				all = append(all, c)
			}
			eventually(t, "all wait", func() bool { return dnsInfo(s).Cache.Waiting == len(all) })
			one := <-held
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Shutdown(ctx) }()
			eventually(t, "it is shutting down", func() bool { return l4test.AwaitsTheLast(s) })
			code := dns.RcodeServerFailure
			if patient {
				one.answer(t)
				code = dns.RcodeSuccess
			} else {
				cancel()
			}
			for i, c := range all {
				wantCode(t, nextFrame(t, c), uint16(i), code)
				if patient {
					c.Close()
				} else {
					wantEnd(t, c)
				}
			}
			if err := <-ended; patient != (err == nil) {
				t.Error(err)
			}
			cancel()
			if leases := firstPool(s).Backends()[0].Leases; leases != 0 {
				t.Errorf("%d leases", leases)
			}
		})
	}
}

// TestDNSTalkListed holds how the list shows a session that asks questions, and that it may be ended.
func TestDNSTalkListed(t *testing.T) {
	b := startAnswering(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	wantAddress(t, nextFrame(t, c), 1, nameOf(1))
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil || len(list.Sessions) != 1 {
		t.Fatal(list, err)
	}
	if one := list.Sessions[0]; one.Phase != "asking" || one.Backend != "" || one.BytesIn == 0 || one.BytesOut == 0 {
		t.Errorf("%+v", one)
	}
	if n, err := s.PurgeDNS("test", l4.DNSPurge{Name: nameOf(1)}); n != 1 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{}); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := io.Copy(io.Discard, c); err == nil {
		t.Error("want a reset")
	}
}
