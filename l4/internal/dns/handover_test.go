package dns_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
)

// TestHandOver holds that a question which waits for its answer is answered by the process that has asked it, although
// another one has the listener by then, and that flows of messages that are no plain questions move.
func TestHandOver(t *testing.T) {
	release := make(chan struct{})
	answering := l4test.Answering(t, 300)
	b := l4test.StartUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		m := l4test.DNSUnpack(t, d)
		switch {
		case m.Opcode == dns.OpcodeNotify:
			l4test.SendDNS(t, b, from, new(dns.Msg).SetReply(m))
			return
		case m.Question[0].Name == l4test.NameOf(1):
			d := slices.Clone(d)
			go func() {
				<-release
				answering(b, from, d)
			}()
			return
		}
		answering(b, from, d)
	})
	notify := func(id uint16) []byte {
		m := new(dns.Msg).SetNotify("example.com.")
		m.Id = id
		return l4test.DNSPack(t, m)
	}
	spec := func() l4.ListenerSpec { return l4test.DNSSpec(l4test.NewPool(t, b.Address())) }
	from := l4test.Start(t, l4.Options{Loops: 2}, spec())
	at := l4test.Address(from)
	waits, notifies := l4test.DialUDP(t, at), l4test.DialUDP(t, at)
	if _, err := waits.Write(l4test.DNSQuery(t, 1, l4test.NameOf(1), dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if m := l4test.Exchange(t, notifies, notify(2)); m.Id != 2 {
		t.Errorf("%v", m)
	}
	l4test.Eventually(t, "the question is asked", func() bool { return l4test.DNSInfo(from).InFlight == 1 })
	l4test.AwaitFlows(t, from, 1)
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, spec())
	u.Pause(1)
	if left, err := u.H.Left(t.Context()); left["questions"] != 1 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	u.H.Finish()
	ended := make(chan error)
	go func() { ended <- from.Shutdown(context.Background()) }()
	if m := l4test.Exchange(t, notifies, notify(3)); m.Id != 3 {
		t.Errorf("%v", m)
	}
	l4test.AwaitFlows(t, u.To, 1)
	other := l4test.DialUDP(t, at)
	l4test.WantAddress(t, l4test.Exchange(t, other, l4test.DNSQuery(t, 4, l4test.NameOf(2), dns.TypeA)), 4,
		l4test.NameOf(2))
	close(release)
	l4test.WantAddress(t, l4test.DNSUnpack(t, l4test.AwaitUDP(t, waits)), 1, l4test.NameOf(1))
	if err := <-ended; err != nil {
		t.Error(err)
	}
	u.To.AddCounters(l4test.Wired(t, u.H.Counters()))
	i := l4test.Info(u.To)
	if i.DNS.Asked != 2 || i.DNS.Answered != 2 || i.DatagramsIn != 4 || i.DatagramsOut != 4 || i.Accepted != 1 {
		t.Errorf("%+v, %+v", i, i.DNS)
	}
}
