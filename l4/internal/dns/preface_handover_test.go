package dns_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestDNSTalkHandsOver holds that the first question that is not plain, and all that the client sends after it, reach a
// backend by a connection of their own, once earlier questions are answered. So does the FIN.
func TestDNSTalkHandsOver(t *testing.T) {
	b, held := startHolding(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	transfer := dnsQuery(t, 2, "example.com.", dns.TypeAXFR)
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA), transfer, dnsQuery(t, 3, nameOf(1), dns.TypeA)))
	one := <-held
	if got := b.connections.Load(); got != 1 {
		t.Fatalf("%d connections", got)
	}
	one.answer(t)
	wantAddress(t, nextFrame(t, c), 1, nameOf(1))
	two := <-held
	if two.c == one.c || string(two.query) != string(transfer) {
		t.Fatalf("want the transfer by a connection of its own, got %x", two.query)
	}
	two.answer(t)
	two.answer(t)
	wantCode(t, nextFrame(t, c), 2, dns.RcodeSuccess)
	wantCode(t, nextFrame(t, c), 2, dns.RcodeSuccess)
	three := <-held
	if three.c != two.c || idOfMessage(three.query) != 3 {
		t.Fatalf("%x", three.query)
	}
	if !anySession(s, func(s *session.Session, phase string) bool { return phase == "relaying" && s.Preface() == nil }) {
		t.Error("the session is not relaying")
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, c)
	eventually(t, "the session is over", func() bool { return s.Sessions() == 0 })
	if info := dnsInfo(s); info.Asked != 1 || info.Cache.Passed != 1 {
		t.Errorf("%+v", info)
	}
	if li := info(s); li.Ended[tally.ClientClosed] != 1 || li.Duration.Count != 1 {
		t.Errorf("%+v", li)
	}
	if b := firstPool(s).Backends()[0]; b.Leases != 0 || b.Outcomes[pool.Served] != 2 || b.BytesIn == 0 {
		t.Errorf("%+v", b)
	}
}

// TestDNSTalkHandsOverEnded holds that a question that is not plain reaches a backend also when the client's FIN came
// with it.
func TestDNSTalkHandsOverEnded(t *testing.T) {
	b := startAnswering(t)
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t, b.address)))
	c := dial(t, address(s))
	release := hold(t, s, 0)
	write(t, c, framed(dnsQuery(t, 2, "example.com.", dns.TypeAXFR)))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	release()
	wantCode(t, nextFrame(t, c), 2, dns.RcodeSuccess)
	wantEnd(t, c)
}

// TestDNSTalkHandsOverQueued holds that a session that is handed over waits in the pool's queue, also when its client
// has closed its half.
func TestDNSTalkHandsOverQueued(t *testing.T) {
	b := startAnswering(t)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: time.Second,
		QueueMax: 1, QueueTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Add(pool.Spec{ID: b.address, Addr: pool.At(netip.MustParseAddrPort(b.address)), Weight: 1, MaxSessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, l4.Options{Loops: 1}, talkSpec(p))
	transfer := framed(dnsQuery(t, 1, "example.com.", dns.TypeAXFR))
	first, second := dial(t, address(s)), dial(t, address(s))
	write(t, first, transfer)
	wantCode(t, nextFrame(t, first), 1, dns.RcodeSuccess)
	write(t, second, transfer)
	if err := second.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is queued", func() bool {
		return anySession(s, func(s *session.Session, phase string) bool { return phase == "queued" && l4test.HalfClosed(s) })
	})
	first.Close()
	wantCode(t, nextFrame(t, second), 1, dns.RcodeSuccess)
	wantEnd(t, second)
}

// TestDNSTalkNobody holds that a question that is not plain is refused when there is no backend, and a plain one
// answered.
func TestDNSTalkNobody(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, talkSpec(newPool(t)))
	c := dial(t, address(s))
	write(t, c, framed(dnsQuery(t, 1, nameOf(1), dns.TypeA)))
	wantCode(t, nextFrame(t, c), 1, dns.RcodeServerFailure)
	write(t, c, framed(dnsQuery(t, 2, "example.com.", dns.TypeAXFR)))
	if _, err := readFrame(c); err == nil {
		t.Error("it was answered")
	}
	eventually(t, "it is counted", func() bool { return info(s).Ended[tally.NoBackend] == 1 })
}
