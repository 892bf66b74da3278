package dns_test

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// onlyAsker is the asker of the server's only loop. onLoop.
func onlyAsker(l *loop) *dnsAsker { return l.dns.askers[0] }

// eachSocket calls f for each socket that questions are given to, on the server's only loop.
func (s *l4.Server) eachSocket(f func(k *dnsAsker, s *dnsSocket)) {
	s.onLoop(0, func(l *loop) {
		k := onlyAsker(l)
		for _, r := range k.routes {
			for _, socket := range r.sockets {
				f(k, socket)
			}
		}
	})
}

// TestDNSSocketsAreRenewed holds that a socket is left for another after a number of questions, and with time, that what it still waits for
// comes, and that then it is closed.
func TestDNSSocketsAreRenewed(t *testing.T) {
	for name, wearOut := range map[string]func(*dnsAsker, *dnsSocket){
		"questions": func(_ *dnsAsker, s *dnsSocket) { s.asked = renewAfter },
		"time":      func(k *dnsAsker, s *dnsSocket) { s.born -= renewEvery; k.sweepAt = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			held, hold := holding(10)
			b := startUDP(t, hold)
			s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
			c := dialUDP(t, address(s))
			ask := func(name string) askedOnce {
				if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
					t.Fatal(err)
				}
				return <-held
			}
			first := ask("first.example.com.")
			s.eachSocket(wearOut)
			second := ask("second.example.com.")
			if first.from == second.from {
				t.Errorf("both were asked from %s", first.from)
			}
			if n := dnsInfo(s).Sockets; n != 2 {
				t.Errorf("%d sockets", n)
			}
			b.answer(t, first)
			wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "first.example.com.")
			eventually(t, "the old one is closed", func() bool { return dnsInfo(s).Sockets == 1 })
			b.answer(t, second)
			wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "second.example.com.")
			s.eachSocket(func(k *dnsAsker, s *dnsSocket) { s.born -= renewEvery; k.sweepAt = 1 })
			eventually(t, "nobody needs one", func() bool { return dnsInfo(s).Sockets == 0 })
			s.onLoop(0, func(l *loop) {
				if k := onlyAsker(l); len(k.routes) != 0 || k.sweepAt != 0 {
					t.Errorf("%d routes, looked at again at %v", len(k.routes), k.sweepAt)
				}
			})
		})
	}
}

// TestDNSSocketsAreBounded holds that no more are retired than are allowed, however slow the backend is.
func TestDNSSocketsAreBounded(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	spec := dnsSpec(newPool(t, b.Address()))
	spec.DNS.socketsForTest = 2
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	from := make(map[netip.AddrPort]bool)
	for i := range 5 {
		if _, err := c.Write(dnsQuery(t, 1, fmt.Sprintf("name-%d.example.com.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		from[(<-held).from] = true
		s.eachSocket(func(_ *dnsAsker, s *dnsSocket) { s.asked = renewAfter })
	}
	if n := dnsInfo(s).Sockets; len(from) != 3 || n != 3 {
		t.Errorf("asked from %d ports, %d sockets, want 3", len(from), n)
	}
}

// TestDNSPatience holds that a loop does not sleep longer than until a question's time is over.
func TestDNSPatience(t *testing.T) {
	held, hold := holding(10)
	spec := dnsSpec(newPool(t, startUDP(t, hold).address()))
	spec.DNS.timeoutForTest = time.Second
	s := start(t, l4.Options{Loops: 1}, spec)
	if _, err := dialUDP(t, address(s)).Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	<-held
	s.onLoop(0, func(l *loop) {
		if p := l.patience(); len(l.dns.askers) != 1 || onlyAsker(l).count > 0 && (p < 0 || p > spec.DNS.timeoutForTest) {
			t.Errorf("it would sleep %v", p)
		}
	})
}

// TestDNSSocketBlocked holds that questions wait in the line of a socket that takes no more, are sent when it does, and that one whose
// time is over meanwhile is not.
func TestDNSSocketBlocked(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	ask := func(name string) {
		if _, err := c.Write(dnsQuery(t, 1, name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	ask("first.example.com.")
	b.answer(t, <-held)
	awaitUDP(t, c)
	// The kernel's loopback takes everything, so it is said of it.
	s.eachSocket(func(_ *dnsAsker, s *dnsSocket) { s.blocked = true })
	ask("second.example.com.")
	ask("third.example.com.")
	eventually(t, "both stand in line", func() bool { return dnsInfo(s).InFlight == 2 })
	s.eachSocket(func(k *dnsAsker, s *dnsSocket) {
		if len(s.unsent) != 2 || b.Got.Load() != 1 {
			t.Errorf("%d in line, %d came to the backend", len(s.unsent), b.Got.Load())
		}
		q := k.asked.first
		before := k.tally.mismatched.Load()
		answer := q.appendTo(nil)
		answer[2] |= 0x80
		k.take(s, answer)
		if k.tally.mismatched.Load() != before+1 || k.count != 2 {
			t.Error("an answer is taken to what has not been asked")
		}
		k.recall(q, pool.Neutral)
		k.fail(q)
		s.unsent = append(s.unsent, s.unsent...) // as when an id is drawn again that was an earlier question's
		k.onSocket(s, sock.PollOut)
		if len(s.unsent) != 0 || s.blocked {
			t.Errorf("%d in line", len(s.unsent))
		}
	})
	wantCode(t, dnsUnpack(t, awaitUDP(t, c)), 1, dns.RcodeServerFailure)
	one := <-held
	if m := dnsUnpack(t, one.query); m.Question[0].Name != "third.example.com." {
		t.Errorf("the backend was asked for %s", m.Question[0].Name)
	}
	b.answer(t, one)
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "third.example.com.")
	if n := b.Got.Load(); n != 2 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// TestDNSIDs holds that the ids of questions are no client's, and differ.
func TestDNSIDs(t *testing.T) {
	const questions = 300
	held, hold := holding(questions)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	type place struct {
		from netip.AddrPort
		id   uint16
	}
	seen, same := make(map[place]bool), 0
	for i := range uint16(questions) {
		if _, err := c.Write(dnsQuery(t, i, fmt.Sprintf("name-%d.example.com.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		one := <-held
		id := idOfMessage(one.query)
		if id == i {
			same++
		}
		seen[place{one.from, id}] = true
	}
	// by chance one in 218 runs has one that is the client's, one in 95,000 two, and one in 62 million three
	if len(seen) != questions || same > 2 {
		t.Errorf("%d different ids, %d of them the client's", len(seen), same)
	}
}

// TestDNSPrefetch holds that a name in demand is asked for again behind its clients' backs.
func TestDNSPrefetch(t *testing.T) {
	b := startUDP(t, answering(t, 2))
	spec := dnsSpec(newPool(t, b.Address()))
	spec.DNS.Cache.Prefetch = true
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	eventually(t, "it is prefetched", func() bool {
		wantAddress(t, exchange(t, c, query), 1, "www.example.com.")
		return dnsInfo(s).Cache.Prefetched > 0
	})
	eventually(t, "it is answered", func() bool { return dnsInfo(s).InFlight == 0 })
	// More than one miss is a test that did not run for a while: the entry had expired by then.
	if info := dnsInfo(s); info.Asked != info.Cache.Miss+info.Cache.Prefetched || info.Answered != info.Asked {
		t.Errorf("%+v", info)
	}
}

// TestDNSSendFails holds that clients are told when a question cannot be sent at all.
func TestDNSSendFails(t *testing.T) {
	// An address that may not be sent to: a broadcast one, without SO_BROADCAST.
	p := newPool(t, "127.255.255.255:9")
	spec := dnsSpec(p)
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	wantCode(t, exchange(t, c, dnsQuery(t, 1, "www.example.com.", dns.TypeA)), 1, dns.RcodeServerFailure)
	b := p.Backends()[0]
	if b.Leases != 0 || b.Outcomes[pool.Served] != 0 {
		t.Errorf("%+v", b)
	}
	if info := dnsInfo(s); info.Failed != 1 || info.InFlight != 0 {
		t.Errorf("%+v", info)
	}
}

// TestDNSAnswersInTrains holds that answers which the kernel hands over together are told apart.
func TestDNSAnswersInTrains(t *testing.T) {
	const questions = 20
	withOffload(t, func(t *testing.T, o sock.Offload) {
		held, hold := holding(questions)
		b := startUDP(t, hold)
		s := startWith(t, o, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		var answers [][]byte
		var from netip.AddrPort
		for i := range uint16(questions) {
			if _, err := c.Write(dnsQuery(t, i, fmt.Sprintf("name-%02d.example.com.", i), dns.TypeA)); err != nil {
				t.Fatal(err)
			}
			one := <-held
			answer, err := dnsAnswer(one.query, 60)
			if err != nil {
				t.Fatal(err)
			}
			from = one.from
			answers = append(answers, dnsPack(t, answer))
		}
		raw, err := b.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = syscall.Connect(int(fd), &syscall.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())})
		})
		if err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		sendTrain(t, b.UDPConn, answers)
		for range questions {
			m := dnsUnpack(t, awaitUDP(t, c))
			wantAddress(t, m, m.Id, fmt.Sprintf("name-%02d.example.com.", m.Id))
		}
		if info := dnsInfo(s); info.Answered != questions || info.Mismatched != 0 {
			t.Errorf("%+v", info)
		}
	})
}

// TestDNSManyAtOnce holds that a turn takes some of what waits at a socket, and a later one the rest.
func TestDNSManyAtOnce(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	if _, err := c.Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	first := <-held
	b.answer(t, first)
	awaitUDP(t, c)
	if _, err := c.Write(dnsQuery(t, 1, "next.example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	one := <-held
	release := hold(t, s, 0)
	const wrong = flowTurnReads*sock.DatagramSlots + 10
	for range wrong {
		b.answer(t, first)
	}
	b.answer(t, one)
	release()
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "next.example.com.")
	if n := dnsInfo(s).Mismatched; n != wrong {
		t.Errorf("%d datagrams were looked at, want %d", n, wrong)
	}
}

// TestDNSTooMany holds that questions beyond the bound are refused at once, and how.
func TestDNSTooMany(t *testing.T) {
	eitherWay(t, func(t *testing.T, spec func(*pool.Pool) l4.ListenerSpec) {
		b := startUDP(t, answering(t, 60))
		ls := spec(newPool(t, b.Address()))
		s := start(t, l4.Options{Loops: 1}, ls)
		c := dialUDP(t, address(s))
		full := func(full int) { s.onLoop(0, func(l *loop) { onlyAsker(l).count += full }) }
		full(maxQuestions)
		query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
		if ls.DNS.Cache.MaxEntries > 0 { // whoever waits is told
			wantCode(t, exchange(t, c, query), 1, dns.RcodeServerFailure)
		} else {
			if _, err := c.Write(query); err != nil {
				t.Fatal(err)
			}
			awaitDropped(t, s, tally.DropQueueFull, 1)
		}
		full(-maxQuestions)
		wantAddress(t, exchange(t, c, query), 1, "www.example.com.")
		if n := b.Got.Load(); n != 1 {
			t.Errorf("the backend was asked %d times", n)
		}
	})
}

// TestDNSTooManyWait holds that no more clients wait for one question than may, and that the others are dropped and counted.
func TestDNSTooManyWait(t *testing.T) {
	const most, more = 16_384, 10
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, startUDP(t, nil).address())))
	c := dialUDP(t, address(s))
	query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
	for i := range uint64(most + more) {
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 { // no buffer is to overflow
			eventually(t, "questions are taken", func() bool { return info(s).DatagramsIn+200 >= i })
		}
	}
	awaitDropped(t, s, tally.DropQueueFull, more)
	if info := dnsInfo(s); info.Cache.Refused != more || info.Cache.Waiting != most || info.InFlight != 1 {
		t.Errorf("%+v", info)
	}
}
