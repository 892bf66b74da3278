package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// How a client that visits a listener fares.
const (
	isServed = "served" // it got the backend's greeting
	isReset  = "reset"
	isClosed = "closed" // its connection was ended in order, and nothing came before
	isSilent = "silent" // it heard nothing
)

const greeting = "hello"

// greet starts a backend that greets its clients and then echoes, so that a client need not send anything to find out
// whether it is served.
func greet(t testing.TB) string {
	t.Helper()
	return harness.Serve(t, harness.SpeakFirst(greeting)).Address()
}

// hearing is how long a client listens that expects to hear nothing.
const hearing = 300 * time.Millisecond

// visit connects from an address of this machine, sends a header if there is one, and says how that went. The
// connection is nil if it is over.
func visit(t testing.TB, from, at, header string) (c *net.TCPConn, fares string) {
	t.Helper()
	d := net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", at)
	if errors.Is(err, syscall.ECONNRESET) { // which connect may see already
		return nil, isReset
	}
	check(t, err)
	c = conn.(*net.TCPConn)
	t.Cleanup(func() { conn.Close() })
	if header != "" {
		if _, err := io.WriteString(c, header); errors.Is(err, syscall.ECONNRESET) { // a read would not say so again
			c.Close()
			return nil, isReset
		}
	}
	if fares = hears(t, c, harness.Patience); fares != isServed {
		c.Close()
		return nil, fares
	}
	return c, isServed
}

// hears reads the backend's greeting, within patience.
func hears(t testing.TB, c *net.TCPConn, patience time.Duration) (fares string) {
	t.Helper()
	check(t, c.SetReadDeadline(time.Now().Add(patience)))
	heard := make([]byte, len(greeting))
	n, err := io.ReadFull(c, heard)
	switch {
	case err == nil && string(heard) == greeting:
		return isServed
	case err == io.EOF:
		return isClosed
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return isReset
	case isTimeout(err) && n == 0:
		return isSilent
	}
	return fmt.Sprintf("%q, %v", heard[:n], err)
}

// visits has a client come n times, one after the other. Those that are served leave.
func visits(t testing.TB, n int, from, at, header string) (fares map[string]int) {
	t.Helper()
	fares = make(map[string]int)
	for range n {
		c, how := visit(t, from, at, header)
		if c != nil {
			check(t, c.Close())
		}
		fares[how]++
	}
	return fares
}

// expectVisits fails the test unless a client that comes so often is served so often, and else fares in that way.
func expectVisits(t testing.TB, from, at, header string, come, admitted int, otherwise string) {
	t.Helper()
	want := map[string]int{isServed: admitted, otherwise: come - admitted}
	if admitted == 0 {
		delete(want, isServed)
	}
	if admitted == come {
		delete(want, otherwise)
	}
	if got := visits(t, come, from, at, header); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s comes %d times, and is %v; want %v", from, come, got, want)
	}
}

// expectInTurn is expectVisits with a wait after each visit, until the listener main has only so many sessions again:
// for clients that come one after the other, and have a limit of sessions at once.
func expectInTurn(
	t testing.TB, b *harness.Balancer, from string, come, admitted int, otherwise string, sessions float64,
) {
	t.Helper()
	for i := range come {
		expectVisits(t, from, b.Address(t, "main"), "", 1, min(1, max(0, admitted-i)), otherwise)
		awaitMetric(t, b, `limeload_listener_sessions{listener="main"}`, sessions)
	}
}

// refusedAs is the metric of clients of the listener main that were refused for a reason.
func refusedAs(reason string) string {
	return fmt.Sprintf("%s{listener=%q,reason=%q}", refusedMetric, "main", reason)
}

// limitLines returns the line of a listener's table with these limits.
func limitLines(lines ...string) string { return "limits = { " + strings.Join(lines, ", ") + " }" }

// TestOverLimit has clients that are over each limit, with each way to refuse them.
func TestOverLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []struct {
		reason   string
		limit    string
		listener []string
		all      bool // clients are refused for what others have
	}{
		{reason: "client_sessions", limit: "client_sessions = 1"},
		{reason: "client_rate", limit: `client_rate = "1/h"`},
		{reason: "rate", limit: `rate = "1/h"`, all: true},
		{reason: "max_sessions", limit: "client_sessions = 0", listener: []string{"max_sessions = 1"}, all: true},
	} {
		for _, way := range []struct{ over, want string }{
			{"", isReset}, {"reset", isReset}, {"close", isClosed}, {"drop", isSilent},
		} {
			t.Run(limit.reason+" "+way.over, func(t *testing.T) {
				t.Parallel()
				w := world{Backends: []string{greet(t)}, Listener: append([]string{
					limitLines(limit.limit, fmt.Sprintf("over_limit = %q", way.over)),
				}, limit.listener...)}
				// a client that hears nothing is kept for a while
				b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t), Killed: way.want == isSilent})
				at := b.Address(t, "main")
				first, how := visit(t, "127.0.0.1", at, "")
				if how != isServed {
					t.Fatalf("the first client is %s", how)
				}
				if way.want == isSilent {
					expectSilence(t, "127.0.0.1", at)
				} else {
					expectVisits(t, "127.0.0.1", at, "", 3, 0, way.want)
				}
				awaitMetric(t, b, refusedAs(limit.reason), map[bool]float64{true: 1, false: 3}[way.want == isSilent])
				switch {
				case !limit.all:
					expectVisits(t, "127.0.0.2", at, "", 1, 1, "")
				case way.want != isSilent:
					expectVisits(t, "127.0.0.2", at, "", 1, 0, way.want)
				}
				check(t, harness.PingPong(first, 1, 10)) // who is in stays in
				for _, l := range b.Sessions() {
					if l.Reason == limit.reason {
						t.Errorf("a refused client has an access line: %s", l.Text)
					}
				}
			})
		}
	}
}

// expectSilence fails the test unless a client is connected and hears nothing, also after it has sent something.
func expectSilence(t *testing.T, from, at string) {
	t.Helper()
	d := net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", at)
	check(t, err)
	defer conn.Close()
	c := conn.(*net.TCPConn)
	for range 2 {
		if how := hears(t, c, hearing); how != isSilent {
			t.Fatalf("a client that is to hear nothing is %s", how)
		}
		check(t, harness.SendAll(c, "is anybody there?"))
	}
	if how := hears(t, c, hearing); how != isSilent {
		t.Fatalf("a client that is to hear nothing, and has sent something, is %s", how)
	}
}

// TestOverLimitDelay has more clients than max_sessions of the listener, or of the process: with "delay" they wait in
// the kernel's queue, none is refused, and each is served when another one leaves.
func TestOverLimitDelay(t *testing.T) {
	t.Parallel()
	const most, waiting = 2, 12
	for name, w := range map[string]world{
		"of the listener": {Listener: []string{fmt.Sprintf("max_sessions = %d", most)}},
		"of the process":  {Global: []string{fmt.Sprintf("max_sessions = %d", most)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.Backends = []string{greet(t)}
			w.Listener = append(w.Listener, limitLines(`over_limit = "delay"`))
			b := w.start(t)
			var in []*net.TCPConn
			for range most {
				c, how := visit(t, "127.0.0.1", b.Address(t, "main"), "")
				if how != isServed {
					t.Fatalf("a client is %s", how)
				}
				in = append(in, c)
			}
			come := make(chan *net.TCPConn, waiting)
			for i := range waiting {
				c := harness.Dial(t, b.Address(t, "main"))
				if i == 0 {
					if how := hears(t, c, hearing); how != isSilent {
						t.Errorf("a client that has to wait is %s", how)
					}
				}
				check(t, c.SetReadDeadline(time.Now().Add(harness.Patience)))
				go func() { // ends when c has been served, or is closed
					if _, err := io.ReadFull(c, make([]byte, len(greeting))); err == nil {
						come <- c
					}
				}()
			}
			b.WaitLine(t, "clients wait", func(l harness.Line) bool {
				return l.Reason == "max_sessions" && strings.Contains(l.Message, "wait in the kernel's queue")
			})
			for range waiting {
				if now := metrics(t, b)[`limeload_listener_sessions{listener="main"}`]; now > most {
					t.Errorf("there are %v sessions", now)
				}
				check(t, in[0].Close())
				in = append(in[1:], harness.Receive(t, "the next one in the queue", come))
			}
			measured(t, b, map[string]float64{refusedAs("max_sessions"): 0})
			for _, c := range in {
				check(t, c.Close())
			}
		})
	}
}

// TestRateDelay has clients come faster than the listener's rate: with "delay" each is served when it is its turn, and
// none is refused.
func TestRateDelay(t *testing.T) {
	t.Parallel()
	const clients, perSecond = 20, 20
	b := world{Backends: []string{greet(t)}, Listener: []string{
		limitLines(fmt.Sprintf(`rate = "%d/s burst 1"`, perSecond), `over_limit = "delay"`),
	}}.start(t)
	began := time.Now()
	come := make(chan error, clients)
	for range clients {
		c := harness.Dial(t, b.Address(t, "main"))
		go func() {
			_, err := io.ReadFull(c, make([]byte, len(greeting)))
			come <- err
		}()
	}
	for range clients {
		check(t, harness.Receive(t, "the next one in the queue", come))
	}
	took := time.Since(began)
	t.Logf("%d clients at %d/s took %v", clients, perSecond, took)
	if least := (clients - 2) * time.Second / perSecond; took < least {
		t.Errorf("%d clients at %d/s took %v, less than %v", clients, perSecond, took, least)
	}
	measured(t, b, map[string]float64{refusedAs("rate"): 0})
}

// TestDelayOfOneClient holds that a client over its own limit is reset with "delay": the kernel's queue has no room for
// the clients behind it.
func TestDelayOfOneClient(t *testing.T) {
	t.Parallel()
	b := world{Backends: []string{greet(t)}, Listener: []string{
		limitLines(`client_rate = "1/h burst 2"`, `over_limit = "delay"`),
	}}.start(t)
	expectVisits(t, "127.0.0.1", b.Address(t, "main"), "", 4, 2, isReset)
	expectVisits(t, "127.0.0.2", b.Address(t, "main"), "", 3, 2, isReset)
	awaitMetric(t, b, refusedAs("client_rate"), 3)
}

// TestLimitsDryRun holds that dry_run refuses nobody, counts who would be refused, and logs them.
func TestLimitsDryRun(t *testing.T) {
	t.Parallel()
	b := world{Backends: []string{greet(t)}, Listener: []string{
		limitLines("client_sessions = 2", `client_rate = "1/h burst 4"`, `rate = "1/h burst 5"`, "dry_run = true"),
	}}.start(t)
	for range 3 {
		if _, how := visit(t, "127.0.0.1", b.Address(t, "main"), ""); how != isServed {
			t.Errorf("a client over client_sessions is %s", how)
		}
	}
	expectInTurn(t, b, "127.0.0.2", 6, 6, "", 3)
	would := func(reason string) string {
		return fmt.Sprintf("limeload_listener_would_refuse_total{listener=%q,reason=%q}", "main", reason)
	}
	measured(t, b, map[string]float64{
		would("client_sessions"): 1, would("client_rate"): 2, would("rate"): 4,
		refusedAs("client_sessions"): 0, refusedAs("client_rate"): 0, refusedAs("rate"): 0,
	})
	for _, reason := range []string{"client_sessions", "client_rate", "rate"} {
		line := b.WaitLine(t, "the dry run's refusal", func(l harness.Line) bool {
			return l.Reason == reason && strings.HasPrefix(l.Message, "dry run: ")
		})
		if !line.Has("client") || !line.Has("refused") || !line.Has("refused_since_start") {
			t.Error(line.Text)
		}
	}
}

// TestFlowLimitsDryRun holds that dry_run drops no datagram, and counts those that would be dropped.
func TestFlowLimitsDryRun(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{Backends: []string{backend.Address()}, Listener: []string{
		"client_flows = 2", limitLines(`client_rate = "1/h burst 3"`, "dry_run = true"),
	}}.startUDP(t)
	for range 5 {
		ask(t, harness.DialUDPFrom(t, "127.0.0.5", b.Address(t, "main")), "a flow")
	}
	if drops := udpFigures(t, b).drops(); len(drops) > 0 {
		t.Errorf("dropped are %v", drops)
	}
	m := metrics(t, b)
	would := func(reason string) float64 {
		return m[fmt.Sprintf("limeload_listener_would_refuse_total{listener=%q,reason=%q}", "main", reason)]
	}
	if sessions, often := would("client_sessions"), would("client_rate"); sessions != 3 || often != 0 {
		t.Errorf("%v would be refused for client_sessions, %v for client_rate", sessions, often)
	}
}

// TestQuestionsOverLimit has dig ask a listener of both protocols more often than it may: with "protocol" it is told so,
// over UDP as over TCP, and otherwise it hears nothing over UDP.
func TestQuestionsOverLimit(t *testing.T) {
	t.Parallel()
	for over, wantUDP := range map[string]string{"protocol": "EDE: 0 (Other): (too many questions)", "": "timed out"} {
		b := harness.StartBalancerWith(t, harness.BalancerOptions{Killed: true, Config: world{
			Backends: []string{harness.FreeAddress(t)}, Listener: []string{
				`protocol = "tcp+udp"`, `profile = "dns"`, "cache = {}",
				limitLines(`client_rate = "1/h burst 1"`, fmt.Sprintf("over_limit = %q", over)),
			}}.config(t)})
		host, port, _ := strings.Cut(b.Address(t, "main"), ":")
		dig := func(how string) string {
			stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "dig"), Args: []string{
				"@" + host, "-p", port, "+tries=1", "+timeout=2", how, "www.example.com", "A"}})
			return stdout + stderr
		}
		if got := dig("+notcp"); !strings.Contains(got, "status: SERVFAIL") { // there is no backend
			t.Errorf("the first question: %s", got)
		}
		if got := dig("+notcp"); !strings.Contains(got, wantUDP) || strings.Contains(got, "REFUSED") != (over != "") {
			t.Errorf("over_limit %q: want %q in\n%s", over, wantUDP, got)
		}
		first := dig("+tcp") // over TCP the protocols have tables of their own
		second := dig("+tcp")
		if !strings.Contains(first, "status: SERVFAIL") || !strings.Contains(second, "status: REFUSED") ||
			!strings.Contains(second, "more often than it may") {
			t.Errorf("over_limit %q, over TCP:\n%s\n%s", over, first, second)
		}
	}
}
