package dns_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
)

// TestPair holds that the two listeners of a name service have one cache: a question by UDP waits for the same one by
// TCP, on whatever loop, its answer is in the cache for both, and a purge removes it.
func TestPair(t *testing.T) {
	var asked atomic.Int64
	release := make(chan struct{})
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: listening, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		<-release
		query, _ := q.Pack()
		m, err := l4test.DNSAnswer(query, 300)
		if err == nil {
			_ = w.WriteMsg(m)
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	defer func() {
		_ = server.Shutdown()
		<-done
	}()

	p := l4test.NewPool(t, listening.Addr().String())
	tcp, udp := l4test.DNSOverTCPSpec(p), l4test.DNSSpec(p)
	udp.Name, udp.DNS = tcp.Name, tcp.DNS
	s := l4test.Start(t, l4.Options{Loops: 2}, tcp, udp)
	address := s.Listeners()[0].Address.String()
	ask := func(network string, id uint16) <-chan *dns.Msg {
		got := make(chan *dns.Msg, 1)
		go func() {
			q := new(dns.Msg).SetQuestion(l4test.NameOf(1), dns.TypeA)
			q.Id = id
			c := &dns.Client{Net: network, Timeout: 10 * time.Second}
			m, _, _ := c.Exchange(q, address)
			got <- m
		}()
		return got
	}
	byTCP := ask("tcp", 1)
	l4test.Eventually(t, "the backend is asked", func() bool { return asked.Load() == 1 })
	const clients = 8 // some of them on each loop
	var byUDP []<-chan *dns.Msg
	for i := range clients {
		byUDP = append(byUDP, ask("udp", uint16(10+i)))
	}
	l4test.Eventually(t, "all wait", func() bool { return s.Listeners()[1].DNS.Cache.Coalesced == clients })
	close(release)
	for i, got := range append(byUDP, byTCP) {
		if m := <-got; m == nil || len(m.Answer) != 1 {
			t.Fatalf("client %d: %v", i, m)
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := <-ask(network, 99); m == nil || len(m.Answer) != 1 {
			t.Errorf("from the cache by %s: %v", network, m)
		}
	}
	all := s.Listeners()
	if n := asked.Load(); n != 1 || all[0].DNS.Asked != 1 || all[1].DNS.Asked != 0 || all[0].DNS.Cache.Hit != 2 ||
		all[0].Sessions != 0 && all[1].Sessions != 0 {
		t.Errorf("asked %d times; %+v; %+v", n, all[0].DNS, all[1].DNS)
	}
	if n, err := s.PurgeDNS(tcp.Name, l4.DNSPurge{Name: ".", Below: true}); n != 1 || err != nil {
		t.Errorf("purged %d: %v", n, err)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{tcp, udp}}); err != nil {
		t.Fatal(err)
	}
	if m := <-ask("tcp", 3); m == nil || len(m.Answer) != 1 {
		t.Errorf("after a change of nothing: %v", m)
	}
	udp.Flows.Responses = 3 // the cache stays
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{tcp, udp}}); err != nil {
		t.Fatal(err)
	}
	if hits := s.Listeners()[1].DNS.Cache.Hit; hits != 2 {
		t.Errorf("%d hits after a change of other settings, want those of before", hits)
	}
	if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{tcp}}); err != nil { // another cache
		t.Fatal(err)
	}
	if m := <-ask("tcp", 4); m == nil || len(m.Answer) != 1 || s.Listeners()[0].DNS.Cache.Hit != 0 {
		t.Errorf("alone: %v", m)
	}
}
