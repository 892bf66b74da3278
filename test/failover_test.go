package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A redisUser is one client's session and its error: nil if the client ended it, after its last answer.
type redisUser struct {
	client string // its address; "" for one that was reset before connect returned
	err    error
}

// A redisLoad has the clients of a failover: some connect repeatedly, some stay connected.
type redisLoad struct {
	address string
	cancel  context.CancelFunc
	running sync.WaitGroup

	// mu guards the fields below
	mu       sync.Mutex
	sessions []redisUser
	refused  []error // connects that did not succeed
}

// connectPause is the pause between two sessions of one client. Without it the test would use up the machine's 28,000
// ports, two for each session; if a port is reused while the other side still has the last connection, the kernel
// resets the new one.
const connectPause = 4 * time.Millisecond

// startRedisLoad starts clients of both kinds.
func startRedisLoad(t *testing.T, address string, passing, staying int) *redisLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &redisLoad{address: address, cancel: cancel}
	t.Cleanup(func() { l.stop() })
	for range passing {
		l.running.Go(func() {
			for ctx.Err() == nil {
				l.session(func(c net.Conn) error { return harness.Ping(c) })
				select {
				case <-ctx.Done():
				case <-time.After(connectPause):
				}
			}
		})
	}
	for range staying {
		l.running.Go(func() {
			l.session(func(c net.Conn) error { return pingUntil(ctx, c) })
		})
	}
	return l
}

// pingUntil sends PING every few milliseconds until ctx ends.
func pingUntil(ctx context.Context, c net.Conn) error {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for {
		if err := harness.Ping(c); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
	}
}

func (l *redisLoad) session(use func(net.Conn) error) {
	c, err := net.DialTimeout("tcp", l.address, harness.Patience)
	if err != nil {
		l.mu.Lock()
		if errors.Is(err, syscall.ECONNRESET) { // the backend was killed when the session began
			l.sessions = append(l.sessions, redisUser{err: err})
		} else {
			l.refused = append(l.refused, err)
		}
		l.mu.Unlock()
		return
	}
	defer c.Close()
	err = use(c)
	l.mu.Lock()
	l.sessions = append(l.sessions, redisUser{client: c.LocalAddr().String(), err: err})
	l.mu.Unlock()
}

// stop ends the clients and returns their sessions and the errors of failed connects.
func (l *redisLoad) stop() (sessions []redisUser, refused []error) {
	l.cancel()
	l.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions, l.refused
}

// TestFailover kills one of three Redis servers under load and restarts it.
func TestFailover(t *testing.T) {
	const (
		interval = time.Second
		rise     = 2
		fall     = 3
		staying  = 12
	)
	ports := []int{harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)}
	var servers []*harness.Redis
	var addresses []string
	for _, port := range ports {
		server := harness.StartRedisOn(t, port)
		servers, addresses = append(servers, server), append(addresses, server.Address)
	}
	started := time.Now()
	b := world{
		Backends: addresses,
		Pool:     []string{`algorithm = "round_robin"`, `retries = 2`},
		Health: []string{
			fmt.Sprintf(`interval = "%v"`, interval), `fast_interval = "200ms"`, `timeout = "500ms"`,
			fmt.Sprintf(`rise = %d`, rise), fmt.Sprintf(`fall = %d`, fall),
		},
		Breaker: []string{`failures = 0`}, // breakers would act before the checks and leave nothing to retry
	}.start(t)
	for i := range servers {
		b.WaitVerdict(t, backendName(i), "healthy", started)
	}

	load := startRedisLoad(t, b.Address(t, "main"), 4, staying)
	for i := range servers {
		awaitSessionOn(t, b, backendName(i), started)
	}

	killed := time.Now()
	servers[0].Kill(t)
	unhealthy := b.WaitVerdict(t, "b1", "unhealthy", killed)
	took := unhealthy.Seen.Sub(killed)
	t.Logf("unhealthy %v after the kill (%s)", took, unhealthy.Reason)
	if took > fall*interval {
		t.Errorf("unhealthy only after %v, more than %d intervals of %v", took, fall, interval)
	}
	awaitSessionOn(t, b, "b2", unhealthy.Seen)
	awaitSessionOn(t, b, "b3", unhealthy.Seen)

	servers[0] = harness.StartRedisOn(t, ports[0])
	restarted := time.Now()
	healthy := b.WaitVerdict(t, "b1", "healthy", unhealthy.Seen)
	took = healthy.Seen.Sub(restarted)
	t.Logf("healthy %v after the return", took)
	if took > (rise+1)*interval { // the last check before the return may have been just before it
		t.Errorf("healthy only after %v, expected %d checks at intervals of %v", took, rise, interval)
	}
	awaitSessionOn(t, b, "b1", healthy.Seen)

	sessions, refused := load.stop()
	for _, err := range refused {
		t.Errorf("a client's connect failed: %v", err)
	}
	judgeFailover(t, b, sessions, killed, unhealthy.Seen, healthy.Seen)
}

func backendName(i int) string { return fmt.Sprintf("b%d", i+1) }

// awaitSessionOn waits for the end of a session with the backend after since.
func awaitSessionOn(t *testing.T, b *harness.Balancer, backend string, since time.Time) {
	t.Helper()
	b.WaitLine(t, "end of a session on "+backend, func(l harness.Line) bool {
		return l.IsAccess() && l.Backend == backend && l.Seen.After(since)
	})
}

// judgeFailover compares the clients' results with the access lines: each failed session was on the killed backend when
// it was killed, and no client was left without a backend.
func judgeFailover(t *testing.T, b *harness.Balancer, sessions []redisUser, killed, unhealthy, healthy time.Time) {
	t.Helper()
	// a client's address may be reused in a run, so each has a list of lines
	lines := map[string][]harness.Line{}
	var retried, ownCut int
	for _, line := range b.WaitSessions(t, len(sessions)) {
		lines[line.Client] = append(lines[line.Client], line)
		if line.Retries > 0 {
			retried++
		}
		switch {
		case line.Reason == "client_closed":
		case line.Backend == "b1" && strings.HasPrefix(line.Reason, "backend_"):
			ownCut++
			if line.Seen.Before(killed) || line.Seen.After(unhealthy) {
				t.Errorf("session cut although its backend was not just killed: %s", line.Text)
			}
		default:
			t.Errorf("session ended with %q: %s", line.Reason, line.Text)
		}
		if line.Backend == "b1" && line.Reason == "client_closed" && line.Seen.After(unhealthy.Add(time.Second)) &&
			line.Seen.Before(healthy) {
			t.Errorf("session served by a backend that was killed: %s", line.Text)
		}
	}
	var cut int
	for _, s := range sessions {
		if s.err == nil {
			continue
		}
		cut++
		own := s.client == ""
		for _, line := range lines[s.client] {
			own = own || line.Backend == "b1"
		}
		if !own {
			t.Errorf("the session of client %s ended with %v, and was not on the killed backend", s.client, s.err)
		}
	}
	t.Logf("%d sessions, %d cut with their backend, %d moved to another one by a retry", len(sessions), cut, retried)
	if cut > ownCut {
		t.Errorf("%d sessions ended with an error, and %d were on the killed backend", cut, ownCut)
	}
	if cut == 0 {
		t.Error("no session was cut: the backend was not killed under load")
	}
	if retried == 0 {
		t.Error("no session was moved by a retry: the backend was not chosen between its kill and its verdict")
	}
}

// TestSwallowedSYN has one of two backends swallow SYNs: a client waits for connect_timeout, not longer, and the other
// backend answers.
func TestSwallowedSYN(t *testing.T) {
	t.Parallel()
	const connectTimeout = 2 * time.Second
	swallower := harness.Swallow(t, harness.Echo)
	good := harness.Serve(t, harness.Echo)
	b := world{
		Backends: []string{swallower.Address(), good.Address()},
		Pool: []string{`algorithm = "round_robin"`, fmt.Sprintf(`connect_timeout = "%v"`, connectTimeout),
			`retries = 1`},
	}.start(t)
	const clients = 8
	took := make(chan time.Duration, clients)
	for range clients {
		c := b.Dial(t, "main")
		start := time.Now()
		go func() {
			if err := harness.PingPong(c, 1, 10); err != nil {
				t.Error(err)
			}
			took <- time.Since(start)
			c.Close()
		}()
	}
	for range clients {
		if d := harness.Receive(t, "a client's answer", took); d > 2*connectTimeout {
			t.Errorf("answer after %v, expected %v and little more", d, connectTimeout)
		}
	}
	var moved int
	for _, line := range b.WaitSessions(t, clients) {
		if line.Backend != "b2" || line.Reason != "client_closed" {
			t.Errorf("not served by the good backend: %s", line.Text)
		}
		if line.Retries == 1 {
			moved++
			// connect_time is that of the connect that succeeded
			if line.FirstByteTime < connectTimeout.Seconds() {
				t.Errorf("answered after less than the other backend's connect_timeout: %s", line.Text)
			}
		}
	}
	if moved != clients/2 {
		t.Errorf("%d of %d clients were moved, expected every second one", moved, clients)
	}
}
