package dns_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestDNSSocketsAreRenewed holds that a socket is replaced after a number of questions, and after a time, that the
// answers it still waits for come, and that then it is closed.
func TestDNSSocketsAreRenewed(t *testing.T) {
	for name, wearOut := range map[string]func(*room.Forwarder, *room.Socket){
		"questions": room.WearOut,
		"time":      room.Age,
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
			eachSocket(s, wearOut)
			second := ask("second.example.com.")
			if first.from == second.from {
				t.Errorf("both were asked from %s", first.from)
			}
			if n := dnsInfo(s).Sockets; n != 2 {
				t.Errorf("%d sockets", n)
			}
			answer(t, b, first)
			wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "first.example.com.")
			eventually(t, "the old one is closed", func() bool { return dnsInfo(s).Sockets == 1 })
			answer(t, b, second)
			wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "second.example.com.")
			eachSocket(s, room.Age)
			eventually(t, "nobody needs one", func() bool { return dnsInfo(s).Sockets == 0 })
			onFirst(s, func(_ *room.Loop, f *room.Forwarder) {
				if n, at := room.Routes(f), room.SweepAt(f); n != 0 || at != 0 {
					t.Errorf("%d routes, looked at again at %v", n, at)
				}
			})
		})
	}
}

// TestDNSSocketsAreBounded holds that there is a bound for retired sockets, however slow the backend is.
func TestDNSSocketsAreBounded(t *testing.T) {
	held, hold := holding(10)
	b := startUDP(t, hold)
	spec := dnsSpec(newPool(t, b.Address()))
	room.SetSockets(spec.DNS, 2)
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	from := make(map[netip.AddrPort]bool)
	for i := range 5 {
		if _, err := c.Write(dnsQuery(t, 1, fmt.Sprintf("name-%d.example.com.", i), dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		from[(<-held).from] = true
		eachSocket(s, room.WearOut)
	}
	if n := dnsInfo(s).Sockets; len(from) != 3 || n != 3 {
		t.Errorf("asked from %d ports, %d sockets, want 3", len(from), n)
	}
}

// TestDNSPatience holds that a loop does not sleep longer than until a question's time is over.
func TestDNSPatience(t *testing.T) {
	held, hold := holding(10)
	spec := dnsSpec(newPool(t, startUDP(t, hold).Address()))
	const timeout = time.Second
	setDNSTimeout(spec.DNS, timeout)
	s := start(t, l4.Options{Loops: 1}, spec)
	if _, err := dialUDP(t, address(s)).Write(dnsQuery(t, 1, "www.example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	<-held
	onFirst(s, func(l *room.Loop, f *room.Forwarder) {
		at, due := l.Due()
		if len(room.Forwarders(l)) != 1 || room.Questions(f) > 0 && (!due || at > l.Now+timeout) {
			t.Errorf("it would sleep %v", at-l.Now)
		}
	})
}

// TestDNSSocketBlocked holds that questions wait in the line of a socket that takes no more, and are sent when it does,
// but for one whose time is over by then.
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
	answer(t, b, <-held)
	awaitUDP(t, c)
	// The kernel's loopback takes everything, so it is said of it.
	eachSocket(s, room.Block)
	ask("second.example.com.")
	ask("third.example.com.")
	eventually(t, "both stand in line", func() bool { return dnsInfo(s).InFlight == 2 })
	eachSocket(s, func(f *room.Forwarder, s *room.Socket) {
		if n := room.Line(s); n != 2 || b.Got.Load() != 1 {
			t.Errorf("%d in line, %d came to the backend", n, b.Got.Load())
		}
		before := room.Mismatched(f)
		forged, _ := room.FirstAsked(f)
		forged[2] |= answerBit
		room.Take(f, s, forged)
		if room.Mismatched(f) != before+1 || room.Questions(f) != 2 {
			t.Error("an answer is taken to what has not been asked")
		}
		room.FailFirst(f)
		room.DoubleLine(s)
		room.GiveRoom(f, s)
		if n := room.Line(s); n != 0 || room.Blocked(s) {
			t.Errorf("%d in line", n)
		}
	})
	wantCode(t, dnsUnpack(t, awaitUDP(t, c)), 1, dns.RcodeServerFailure)
	one := <-held
	if m := dnsUnpack(t, one.query); m.Question[0].Name != "third.example.com." {
		t.Errorf("the backend was asked for %s", m.Question[0].Name)
	}
	answer(t, b, one)
	wantAddress(t, dnsUnpack(t, awaitUDP(t, c)), 1, "third.example.com.")
	if n := b.Got.Load(); n != 2 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// TestDNSIDs holds that the ids of questions are not the clients', and differ.
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

// TestDNSPrefetch holds that a name in demand is asked for again before its answer expires, while clients get the old
// one.
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

// TestDNSSendFails holds that clients get SERVFAIL when a question cannot be sent at all.
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
		connectTo(t, b.UDPConn, from)
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
	answer(t, b, first)
	awaitUDP(t, c)
	if _, err := c.Write(dnsQuery(t, 1, "next.example.com.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	one := <-held
	release := l4test.Hold(t, s, 0)
	const wrong = flow.TurnReads*sock.DatagramSlots + 10
	for range wrong {
		answer(t, b, first)
	}
	answer(t, b, one)
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
		full := func(full int) {
			onFirst(s, func(_ *room.Loop, f *room.Forwarder) { room.AddQuestions(f, full) })
		}
		full(gate.MaxQuestions)
		query := dnsQuery(t, 1, "www.example.com.", dns.TypeA)
		if ls.DNS.Cache.MaxEntries > 0 { // whoever waits is told
			wantCode(t, exchange(t, c, query), 1, dns.RcodeServerFailure)
		} else {
			if _, err := c.Write(query); err != nil {
				t.Fatal(err)
			}
			awaitDropped(t, s, tally.DropQueueFull, 1)
		}
		full(-gate.MaxQuestions)
		wantAddress(t, exchange(t, c, query), 1, "www.example.com.")
		if n := b.Got.Load(); n != 1 {
			t.Errorf("the backend was asked %d times", n)
		}
	})
}

// TestDNSTooManyWait holds that no more clients wait for one question than may, and that the others are dropped and
// counted.
func TestDNSTooManyWait(t *testing.T) {
	const most, more = 16_384, 10
	s := start(t, l4.Options{Loops: 1}, dnsSpec(newPool(t, startUDP(t, nil).Address())))
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
