package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// wantClosed fails the test if a breaker has changed.
func wantClosed(t *testing.T, b *harness.Balancer) {
	t.Helper()
	for _, l := range b.Lines() {
		if l.Message == harness.MessageBreaker {
			t.Errorf("a breaker has changed: %s", l.Text)
		}
	}
}

// sendAndWait sends bytes on a new connection and waits until the backend closes it without an answer.
func sendAndWait(t *testing.T, b *harness.Balancer, bytes []byte) {
	t.Helper()
	c := b.Dial(t, "main")
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	check(t, harness.SendAll(c, string(bytes)))
	if answer, err := io.ReadAll(c); len(answer) > 0 {
		t.Fatalf("%q was answered with %q, %v", bytes, answer, err)
	}
	check(t, c.Close())
}

// TestBreakerIsNotTheClientsOfPostgres sends a Postgres what it answers by closing the connection: requests to cancel a
// query, and a scanner's HTTP. It stays in use, although another backend could replace it.
func TestBreakerIsNotTheClientsOfPostgres(t *testing.T) {
	t.Parallel()
	server, other := harness.StartPostgres(t), harness.Serve(t, harness.SpeakFirst("b2"))
	b := world{
		Backends: []string{server.Address(), other.Address()}, Pool: []string{`algorithm = "first"`},
		Breaker: []string{"failures = 5", `open_for = "1h"`, `max_open_for = "1h"`},
	}.start(t)
	cancel := binary.BigEndian.AppendUint32(nil, 16)
	for _, word := range []uint32{80877102, 4711, 4711} { // CancelRequest of the protocol; a process and its key
		cancel = binary.BigEndian.AppendUint32(cancel, word)
	}
	for range 5 {
		sendAndWait(t, b, cancel)
	}
	for range 5 {
		sendAndWait(t, b, []byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n"))
	}
	for _, l := range b.WaitSessions(t, 10) {
		if l.Backend != "b1" {
			t.Errorf("a session went to %s: %s", l.Backend, l.Text)
		}
	}
	conn := postgresClient(t, fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", server.User, b.Address(t, "main"),
		server.Database))
	defer closePostgres(t, conn)
	var one int
	check(t, conn.QueryRow(t.Context(), "select 1").Scan(&one))
	wantClosed(t, b)
}

// TestBreakerOfAOneWayService has a receiver of logs that never sends anything and closes connections without traffic
// after a while. It keeps its clients.
func TestBreakerOfAOneWayService(t *testing.T) {
	t.Parallel()
	sink := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		buf := make([]byte, 1000)
		for {
			_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
	other := harness.Serve(t, harness.SpeakFirst("b2"))
	b := world{
		Backends: []string{sink.Address(), other.Address()}, Pool: []string{`algorithm = "first"`},
		Breaker: []string{"failures = 5", `open_for = "1h"`, `max_open_for = "1h"`},
	}.start(t)
	var clients sync.WaitGroup
	for i := range 20 {
		c := b.Dial(t, "main")
		clients.Go(func() {
			if i%2 == 0 {
				_, _ = c.Write([]byte("<14>a line\n"))
			}
			_ = c.SetReadDeadline(time.Now().Add(harness.Patience))
			_, _ = io.ReadAll(c)
			_ = c.Close()
		})
	}
	clients.Wait()
	for _, l := range b.WaitSessions(t, 20) {
		if l.Backend != "b1" {
			t.Errorf("a session went to %s: %s", l.Backend, l.Text)
		}
	}
	wantClosed(t, b)
}

// TestBreakerTrialOfASilentClient makes the trial of a half-open backend with a silent client and a silent service: the
// client gets its session, and so do later ones.
func TestBreakerTrialOfASilentClient(t *testing.T) {
	t.Parallel()
	first, well := startMoody(t), harness.Serve(t, harness.SpeakFirst("b2"))
	started := time.Now()
	b := world{
		Backends: []string{first.address, well.Address()}, Pool: []string{`algorithm = "first"`},
		Breaker: []string{"failures = 2", `open_for = "500ms"`},
	}.start(t)
	for range 2 {
		check(t, tryGreeting(b.Address(t, "main")))
	}
	awaitBreaker(t, b, "b1", "open", started)
	silent := harness.ServeOn(t, first.address, harness.Silent)
	t.Cleanup(silent.Close)
	awaitBreaker(t, b, "b1", "half-open", started)
	trial := b.Dial(t, "main")
	awaitBreaker(t, b, "b1", "closed", started)
	later := b.Dial(t, "main")
	harness.Eventually(t, "both are there", func() error {
		if n := silent.Open(); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	check(t, trial.Close())
	check(t, later.Close())
}

// TestBreakerIsNotTheQuestions has one client ask two resolvers repeatedly for names that they cannot resolve, and
// another for names that they can. Both stay in use.
func TestBreakerIsNotTheQuestions(t *testing.T) {
	t.Parallel()
	resolve := func(c *net.UDPConn, from netip.AddrPort, datagram []byte) {
		m := new(dns.Msg)
		if m.Unpack(datagram) != nil || strings.HasPrefix(strings.ToLower(m.Question[0].Name), "nobody") {
			return
		}
		answer, err := new(dns.Msg).SetRcode(m, dns.RcodeNameError).Pack()
		if err == nil {
			_, _ = c.WriteToUDPAddrPort(answer, from)
		}
	}
	first, second := harness.ServeUDP(t, resolve), harness.ServeUDP(t, resolve)
	b := world{
		Backends: []string{first.Address(), second.Address()},
		Listener: []string{`profile = "dns"`}, Breaker: []string{"failures = 5", `open_for = "1h"`,
			`max_open_for = "1h"`},
	}.startUDP(t)
	attacker, client := harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, b.Address(t, "main"))
	ask := func(c *net.UDPConn, id int, name string) {
		t.Helper()
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("%s%d.example.com.", name, id), dns.TypeA)
		m.Id = uint16(id)
		query, err := m.Pack()
		check(t, err)
		check(t, harness.SendAll(c, string(query)))
	}
	const rounds, names = 4, 8
	for i := range rounds * names {
		ask(attacker, i, "nobody")
	}
	answer := make([]byte, 1000)
	for i := range rounds * names { // each has been asked at both, and has had its time there
		check(t, attacker.SetReadDeadline(time.Now().Add(harness.Patience)))
		n, err := attacker.Read(answer)
		check(t, err)
		m := new(dns.Msg)
		check(t, m.Unpack(answer[:n]))
		if m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("answer %d to what nobody can answer is %v", i, m)
		}
	}
	for i := range 10 {
		ask(client, i, "somebody")
		check(t, client.SetReadDeadline(time.Now().Add(harness.Patience)))
		n, err := client.Read(answer)
		check(t, err)
		m := new(dns.Msg)
		check(t, m.Unpack(answer[:n]))
		if m.Rcode != dns.RcodeNameError {
			t.Errorf("%v", m)
		}
	}
	if a, b := first.Received(), second.Received(); a < rounds*names || b < rounds*names {
		t.Errorf("the resolvers got %d and %d questions", a, b)
	}
	wantClosed(t, b)
}
