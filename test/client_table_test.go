package test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestRefusalLines holds that refusals are logged at a bounded rate, and that the lines say how many there were.
func TestRefusalLines(t *testing.T) {
	t.Parallel()
	const refused = 500
	b := world{Backends: []string{greet(t)}, Listener: []string{limitLines(`client_rate = "1/h"`)}}.start(t)
	began := time.Now()
	expectVisits(t, "127.0.0.1", b.Address(t, "main"), "", refused+1, 1, isReset)
	b.Signal(t, syscall.SIGTERM)
	endsWithZero(t, b)
	most := 2 + int(time.Since(began)/(10*time.Second)) // and one at the end
	lines, sum := 0, int64(0)
	for _, l := range b.Lines() {
		if l.Reason != "client_rate" {
			continue
		}
		lines++
		sum += l.Refused
		if l.RefusedSinceStart != sum || l.Level != "warn" {
			t.Errorf("%d were refused before: %s", sum, l.Text)
		}
	}
	t.Logf("%d lines for %d refusals", lines, refused)
	if lines == 0 || lines > most || sum != refused {
		t.Errorf("%d lines, want %d at most, tell of %d refusals, want %d", lines, most, sum, refused)
	}
}

// TestLimitsReload holds that a reload which changes the limits keeps what is known of clients: one that has used up
// its rate has used it up, and sessions stay counted.
func TestLimitsReload(t *testing.T) {
	t.Parallel()
	w := world{Listen: harness.FreeAddress(t), Backends: []string{greet(t)}}
	limits := func(lines ...string) string {
		w.Listener = []string{limitLines(lines...)}
		return w.config(t)
	}
	b := harness.StartBalancer(t, limits("client_sessions = 3", `client_rate = "1/h burst 6"`))
	at := w.Listen
	var in []*net.TCPConn
	for range 2 {
		c, how := visit(t, "127.0.0.1", at, "")
		if how != isServed {
			t.Fatalf("a client is %s", how)
		}
		in = append(in, c)
	}
	expectInTurn(t, b, "127.0.0.2", 7, 6, isReset, 2)

	b.Reload(t, limits("client_sessions = 2", `client_rate = "1/h burst 7"`))
	expectInTurn(t, b, "127.0.0.1", 1, 0, isReset, 2) // for its sessions
	expectInTurn(t, b, "127.0.0.2", 3, 1, isReset, 2) // one more is what the new burst has more
	for _, c := range in {
		check(t, harness.PingPong(c, 1, 10))
	}
	b.Reload(t, limits("client_sessions = 3", `client_rate = "1/h burst 7"`, "tracked_clients = 100_000"))
	expectInTurn(t, b, "127.0.0.2", 3, 0, isReset, 2)
	expectInTurn(t, b, "127.0.0.1", 1, 1, "", 2)

	b.Reload(t, limits("tracked_clients = 10_000")) // the table is still there
	expectInTurn(t, b, "127.0.0.2", 10, 10, "", 2)
	b.Reload(t, limits("client_sessions = 2"))
	expectInTurn(t, b, "127.0.0.1", 1, 0, isReset, 2)
	check(t, in[0].Close())
	harness.Eventually(t, "there is room for another session of the client", func() error {
		if c, how := visit(t, "127.0.0.1", at, ""); c == nil {
			return errors.New(how)
		}
		return nil
	})
}

// A listedClient is a client as the API lists it.
type listedClient struct {
	Listener, Protocol, Client string
	Sessions                   int
	Rate                       float64 `json:"rate_per_second"`
	BytesIn                    uint64  `json:"bytes_in"`
	BytesOut                   uint64  `json:"bytes_out"`
	Refused                    uint64
}

// TestClients holds that `limeload-l4 clients` and the API list the client first that comes most often, has the most
// sessions, or moves the most bytes.
func TestClients(t *testing.T) {
	t.Parallel()
	const often, many, much = "127.0.0.11", "127.0.0.12", "127.0.0.13"
	b := world{Backends: []string{greet(t)}, Listener: []string{limitLines(`client_rate = "1/h burst 30"`)}}.start(t)
	at := b.Address(t, "main")
	for i := range 20 {
		expectVisits(t, fmt.Sprintf("127.0.1.%d", i+1), at, "", 1, 1, "")
	}
	expectVisits(t, often, at, "", 40, 30, isReset)
	for range 10 {
		visit(t, many, at, "")
	}
	c, _ := visit(t, much, at, "")
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	check(t, harness.PingPong(c, 32, 32<<10))
	check(t, c.Close())
	list := func(sort string) []listedClient {
		var answer struct{ Clients []listedClient }
		b.Ask(t, "GET", "/v1/clients?listener=main&limit=5&sort="+sort, nil, &answer)
		return answer.Clients
	}
	for sort, first := range map[string]string{"rate": often, "sessions": many, "bytes": much} {
		harness.Eventually(t, first+" is the first by "+sort, func() error {
			clients := list(sort)
			if len(clients) != 5 || !strings.HasPrefix(clients[0].Client, first) {
				return fmt.Errorf("%+v", clients)
			}
			return nil
		})
		stdout, stderr, code := b.Command(t, "clients", "--listener", "main", "--sort", sort)
		lines := strings.Split(stdout, "\n")
		if code != 0 || len(lines) < 3 || !strings.Contains(lines[1], first) {
			t.Errorf("by %s, exit code %d:\n%s%s", sort, code, stdout, stderr)
		}
	}
	if c := list("rate")[0]; c.Refused != 10 || c.Rate <= 0 {
		t.Errorf("%+v", c)
	}
	if c := list("sessions")[0]; c.Sessions != 10 {
		t.Errorf("%+v", c)
	}
	if c := list("bytes")[0]; c.BytesIn != 1<<20 || c.BytesOut != 1<<20+uint64(len(greeting)) {
		t.Errorf("%+v", c)
	}
	measured(t, b, map[string]float64{`limeload_listener_clients{listener="main"}`: 23})
}
