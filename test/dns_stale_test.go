package test

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// staleSeconds is the TTL of an expired answer (RFC 8767, 4).
const staleSeconds = 30

// A steadyClient asks for one name again and again, at a steady pace.
type steadyClient struct {
	// set once, then read-only
	conn net.Conn
	name string
	edns bool

	// mu guards the fields below
	mu      sync.Mutex
	answers []steadyAnswer
	err     error // why it has stopped
}

// A steadyAnswer is an answer to a client, with its time.
type steadyAnswer struct {
	asked   time.Time
	took    time.Duration
	address string // of the only record; "" without one
	ttl     uint32
	rcode   int
	reason  int // of an extended error; -1 without one
}

func (a steadyAnswer) isStale() bool { return a.rcode == dns.RcodeSuccess && a.ttl == staleSeconds }

// startSteady starts two clients for each of these names, one with EDNS, which ask until the test ends or stop is
// called.
func startSteady(t *testing.T, b *harness.Balancer, pace time.Duration, names ...string) (clients []*steadyClient,
	stop func()) {
	t.Helper()
	done := make(chan struct{})
	var running sync.WaitGroup
	stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	for _, name := range names {
		for _, edns := range []bool{false, true} {
			c := &steadyClient{conn: harness.DialUDP(t, b.Address(t, "main")), name: name, edns: edns}
			clients = append(clients, c)
			running.Go(func() { c.run(pace, done) })
		}
	}
	t.Cleanup(stop)
	return clients, stop
}

func (c *steadyClient) run(pace time.Duration, done <-chan struct{}) {
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticks.C:
		}
		answer, err := c.ask()
		c.mu.Lock()
		if err == nil {
			c.answers = append(c.answers, answer)
		}
		c.err = err
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *steadyClient) ask() (steadyAnswer, error) {
	q := new(dns.Msg).SetQuestion(c.name, dns.TypeA)
	if c.edns {
		q.SetEdns0(1232, false)
	}
	a := steadyAnswer{asked: time.Now(), reason: -1}
	if err := c.conn.SetDeadline(a.asked.Add(harness.Patience)); err != nil {
		return a, err
	}
	m, err := exchangeDNS(c.conn, q)
	if err != nil {
		return a, err
	}
	if m.Id != q.Id || (m.IsEdns0() != nil) != c.edns {
		return a, fmt.Errorf("to %v came %v", q, m)
	}
	a.took, a.rcode = time.Since(a.asked), m.Rcode
	if len(m.Answer) == 1 {
		a.ttl, a.address = m.Answer[0].Header().Ttl, m.Answer[0].(*dns.A).A.String()
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, option := range opt.Option {
			if e, ok := option.(*dns.EDNS0_EDE); ok {
				a.reason = int(e.InfoCode)
			}
		}
	}
	return a, nil
}

// seen returns the answers so far.
func (c *steadyClient) seen(t *testing.T) []steadyAnswer {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	check(t, c.err)
	return slices.Clone(c.answers)
}

// awaitEach waits until each client's last answer is as expected.
func awaitEach(t *testing.T, clients []*steadyClient, what string, holds func(steadyAnswer) bool) {
	t.Helper()
	for _, c := range clients {
		harness.Eventually(t, what, func() error {
			answers := c.seen(t)
			if len(answers) == 0 || !holds(answers[len(answers)-1]) {
				return fmt.Errorf("%s (EDNS: %t): %+v", c.name, c.edns, answers[max(0, len(answers)-1):])
			}
			return nil
		})
	}
}

// staleWorld starts a name server and a balancer that keeps its answers for a second, and expired ones for an hour.
func staleWorld(t *testing.T) (server *harness.DNS, b *harness.Balancer, names []string) {
	t.Helper()
	server = harness.StartDNS(t)
	server.TTL = 1
	server.SetZone(t, staleZone("192.0.2.1"))
	b = world{Backends: []string{server.Address},
		Listener: []string{`cache = { max_entries = 1000, stale_ttl = "1h" }`}}.startUDP(t)
	for _, name := range []string{"a.", "b.", "c.", "d."} {
		names = append(names, name+harness.DNSZone)
	}
	return server, b, names
}

func staleZone(address string) string {
	return fmt.Sprintf("a A %[1]s\nb A %[1]s\nc A %[1]s\nd A %[1]s", address)
}

// checkStale checks a client's answers while the backend was gone: none is missing, and after the first expired one all
// are expired. It returns how long the client waited for the first, at most for a later one, and how many there were.
func (c *steadyClient) checkStale(t *testing.T, back time.Time) (first, later time.Duration, stale int) {
	t.Helper()
	for _, a := range c.seen(t) {
		if a.rcode != dns.RcodeSuccess || a.address == "" {
			t.Errorf("%s: %+v", c.name, a)
		}
		switch {
		case a.asked.Add(a.took).After(back):
		case a.isStale():
			if reason := int(dns.ExtendedErrorCodeStaleAnswer); c.edns && a.reason != reason ||
				!c.edns && a.reason != -1 {
				t.Errorf("%s (EDNS: %t): %+v", c.name, c.edns, a)
			}
			if stale++; stale == 1 {
				first = a.took
			} else {
				later = max(later, a.took)
			}
		case stale > 0:
			t.Errorf("%s: after an expired answer came %+v", c.name, a)
		}
	}
	if stale == 0 {
		t.Errorf("%s: no expired answer", c.name)
	}
	return first, later, stale
}

// TestDNSStale makes the backend silent, and then stops it: each client gets expired answers.
func TestDNSStale(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		gone func(d *harness.DNS, t testing.TB)
	}{{"frozen", (*harness.DNS).Freeze}, {"killed", (*harness.DNS).Kill}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server, b, names := staleWorld(t)
			clients, stop := startSteady(t, b, 20*time.Millisecond, names...)
			awaitEach(t, clients, "an answer", func(a steadyAnswer) bool { return a.address == "192.0.2.1" })
			tc.gone(server, t)
			for range 20 { // the first that comes at once, and further ones
				seen := time.Now()
				awaitEach(t, clients, "an expired answer", func(a steadyAnswer) bool {
					return a.isStale() && a.asked.After(seen)
				})
			}
			stop()
			for _, c := range clients {
				first, later, stale := c.checkStale(t, time.Now())
				t.Logf("%s (EDNS: %t): %d expired answers, the first in %v, others in %v or less",
					c.name, c.edns, stale, first, later)
			}
		})
	}
}
