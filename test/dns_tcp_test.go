package test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestDNSTCP asks a real server through a listener of UDP and one of TCP, each with a cache: an answer that is
// truncated by UDP is whole by TCP, of many questions on one connection each is answered, also when they come byte by
// byte or the server has gone meanwhile, and a zone is transferred.
func TestDNSTCP(t *testing.T) {
	t.Parallel()
	const names = 200
	server := harness.StartDNS(t)
	var zone strings.Builder
	for i := range names { // answers so long that no record with a TTL of 0 has room beside them by UDP
		fmt.Fprintf(&zone, "n%d 300 TXT n%[1]d\n", i)
	}
	for i := range 40 {
		fmt.Fprintf(&zone, "long 300 TXT %d%s\n", i, strings.Repeat("x", 200))
	}
	server.SetZone(t, zone.String())
	byTCP := harness.FreeAddress(t)
	b := world{Backends: []string{server.Address}, Listener: []string{
		`protocol = "udp"`, `cache = {}`,
		`[listener.tcp]`, fmt.Sprintf("address = %q", byTCP), `pool = "all"`, `profile = "dns"`, `cache = {}`,
	}}.start(t)

	long := new(dns.Msg).SetQuestion("long."+harness.DNSZone, dns.TypeTXT)
	m, _, err := (&dns.Client{Timeout: harness.Patience}).Exchange(long, b.Address(t, "main"))
	check(t, err)
	if !m.Truncated {
		t.Errorf("want an answer that is truncated, got\n%v", m)
	}
	client := &dns.Client{Net: "tcp", Timeout: harness.Patience}
	m, _, err = client.Exchange(long, byTCP)
	check(t, err)
	if m.Truncated || len(m.Answer) != 40 {
		t.Errorf("want 40 records, got %d, truncated %v", len(m.Answer), m.Truncated)
	}

	c, err := net.Dial("tcp", byTCP)
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	conn := &dns.Conn{Conn: c}
	wrote := make(chan error, 1)
	go func() {
		for i := range names {
			q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.%s", i, harness.DNSZone), dns.TypeTXT)
			q.Id = uint16(i)
			out := io.Writer(c)
			if i%20 == 0 {
				out = byByte{c}
			}
			wire, err := q.Pack()
			if err == nil {
				_, err = out.Write(append([]byte{byte(len(wire) >> 8), byte(len(wire))}, wire...))
			}
			if err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	got := make(map[uint16]bool)
	for range names {
		m, err := conn.ReadMsg()
		check(t, err)
		text := fmt.Sprintf("n%d", m.Id)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.TXT).Txt[0] != text || m.Question[0].Name != text+"."+
			harness.DNSZone {
			t.Fatalf("%d: %v", m.Id, m)
		}
		got[m.Id] = true
	}
	check(t, <-wrote)
	if len(got) != names {
		t.Errorf("%d questions were answered, want %d", len(got), names)
	}

	records := 0
	transfer := &dns.Transfer{Conn: conn} // on the same connection
	zoneOf := new(dns.Msg)
	zoneOf.SetAxfr(harness.DNSZone)
	envelopes, err := transfer.In(zoneOf, byTCP)
	check(t, err)
	for e := range envelopes {
		check(t, e.Error)
		records += len(e.RR)
	}
	if want := names + 40 + 4; records != want { // the zone's own, its SOA twice
		t.Errorf("%d records were transferred, want %d", records, want)
	}

	server.Stop(t)
	if m, _, err = client.Exchange(new(dns.Msg).SetQuestion("gone."+harness.DNSZone, dns.TypeTXT), byTCP); err != nil ||
		m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
}

// byByte writes each byte separately.
type byByte struct{ net.Conn }

func (b byByte) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if _, err := b.Conn.Write(p[n : n+1]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
