package test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// countingDNS is a DNS server that gives every name one address for a minute, and counts the questions.
func countingDNS(t *testing.T) (address string, questions *atomic.Int64, stop func()) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	questions = new(atomic.Int64)
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		questions.Add(1)
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET,
			Ttl: 60}, A: net.IPv4(10, 0, 0, 7)}}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = server.Shutdown()
			<-done
		}
	}
	t.Cleanup(stop)
	return c.LocalAddr().String(), questions, stop
}

// resolveAt asks for a name and checks that the answer is to that question.
func resolveAt(t *testing.T, address, name string) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	client := &dns.Client{Timeout: harness.Patience}
	m, _, err := client.Exchange(q, address)
	check(t, err)
	if m.Id != q.Id || len(m.Question) != 1 || m.Question[0].Name != name || len(m.Answer) != 1 ||
		m.Answer[0].(*dns.A).A.String() != "10.0.0.7" {
		t.Fatalf("%s: %v", name, m)
	}
}

// TestDNSCache repeats questions: they are answered without the backend, even when it is gone, and in each client's own
// spelling.
func TestDNSCache(t *testing.T) {
	t.Parallel()
	server, questions, stop := countingDNS(t)
	b := world{Backends: []string{server},
		Listener: []string{`protocol = "udp"`, `cache = { max_entries = 1000 }`}}.start(t)
	for i := range 30 {
		resolveAt(t, b.Address(t, "main"), []string{"www.example.com.", "WWW.example.com.", "wWw.eXample.COM."}[i%3])
	}
	if n := questions.Load(); n != 1 {
		t.Errorf("the backend was asked %d times, want once", n)
	}
	resolveAt(t, b.Address(t, "main"), "other.example.com.")
	stop()
	resolveAt(t, b.Address(t, "main"), "other.example.com.")
	resolveAt(t, b.Address(t, "main"), "www.example.com.")
	if n := questions.Load(); n != 2 {
		t.Errorf("the backend was asked %d times, want twice", n)
	}
}

// TestDNSProfile holds that the questions of many clients share sockets, and that answers are not kept.
func TestDNSProfile(t *testing.T) {
	t.Parallel()
	server, questions, _ := countingDNS(t)
	b := world{Backends: []string{server}, Listener: []string{`protocol = "udp"`, `profile = "dns"`}}.start(t)
	for i := range 30 {
		resolveAt(t, b.Address(t, "main"), fmt.Sprintf("n%d.example.com.", i%3))
	}
	if n := questions.Load(); n != 30 {
		t.Errorf("the backend was asked %d times, want 30", n)
	}
}
