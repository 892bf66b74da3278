package test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// namedBackends starts n backends that greet with their names, b1, b2 and so on, and then echo.
func namedBackends(t *testing.T, n int) []*harness.Backend {
	t.Helper()
	var backends []*harness.Backend
	for i := range n {
		backends = append(backends, harness.Serve(t, harness.SpeakFirst(backendName(i))))
	}
	return backends
}

func addressesOf(backends []*harness.Backend) []string {
	var addresses []string
	for _, b := range backends {
		addresses = append(addresses, b.Address())
	}
	return addresses
}

// A caller connects to a balancer whose backends greet with their names, and counts them.
type caller struct {
	address string

	mu    sync.Mutex
	got   map[string]int // sessions by backend; mu guards it
	conns []net.Conn     // those that stay; mu guards it
}

func newCaller(t *testing.T, b *harness.Balancer) *caller {
	c := &caller{address: b.Address(t, "main"), got: map[string]int{}}
	t.Cleanup(c.leave)
	return c
}

// call connects from a client's address, "" for any, and returns the name of the backend that greets. The session ends
// at once unless it is to stay.
func (c *caller) call(t *testing.T, from string, stay bool) string {
	t.Helper()
	dialer := net.Dialer{Timeout: harness.Patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.Dial("tcp", c.address)
	check(t, err)
	check(t, conn.SetDeadline(time.Now().Add(2*harness.Patience)))
	name := make([]byte, 2)
	_, err = io.ReadFull(conn, name)
	if !stay {
		conn.Close()
	}
	check(t, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[string(name)]++
	if stay {
		c.conns = append(c.conns, conn)
	}
	return string(name)
}

// calls makes n calls, one after the other, and returns how many each backend got of them.
func (c *caller) calls(t *testing.T, n int, stay bool) map[string]int {
	t.Helper()
	c.got = map[string]int{}
	for range n {
		c.call(t, "", stay)
	}
	return c.got
}

func (c *caller) leave() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// within reports whether each backend has its share by weight of n sessions, give or take five standard deviations of a
// fair draw, times leeway.
func within(got map[string]int, n int, leeway float64, weights ...float64) error {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	for i, w := range weights {
		share := w / sum
		want, bound := share*float64(n), leeway*5*math.Sqrt(float64(n)*share*(1-share))
		if is := float64(got[backendName(i)]); math.Abs(is-want) > bound {
			return fmt.Errorf("%s got %.0f of %d sessions, expected %.0f +- %.0f: %v",
				backendName(i), is, n, want, bound, got)
		}
	}
	return nil
}

// TestShares opens sessions through the binary to three backends of weights 1, 2 and 3, for each algorithm whose shares
// follow the weights. The shares of least_time also depend on times, which cannot be controlled on loopback.
func TestShares(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		algorithm string
		sessions  int
		stay      bool
		leeway    float64
	}{
		{"round_robin", 60, false, 0},
		{"least_conn", 60, true, 0},
		{"random", 600, false, 1},
		{"p2c", 120, true, 0.5},
	} {
		t.Run(tc.algorithm, func(t *testing.T) {
			b := world{
				Backends: addressesOf(namedBackends(t, 3)), Keys: []string{"weight = 1", "weight = 2", "weight = 3"},
				Pool: []string{fmt.Sprintf("algorithm = %q", tc.algorithm)},
			}.start(t)
			c := newCaller(t, b)
			if err := within(c.calls(t, tc.sessions, tc.stay), tc.sessions, tc.leeway, 1, 2, 3); err != nil {
				t.Error(err)
			}
			c.leave()
			oneOf(t, b.WaitSessions(t, tc.sessions), "client_closed")
		})
	}
}

// TestHashedClients connects twice from many client addresses: each gets the same backend both times, and the shares
// follow the weights.
func TestHashedClients(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"client_hash", "ring_hash", "maglev"} {
		t.Run(algorithm, func(t *testing.T) {
			b := world{
				Backends: addressesOf(namedBackends(t, 3)), Keys: []string{"weight = 1", "weight = 2", "weight = 3"},
				Pool: []string{fmt.Sprintf("algorithm = %q", algorithm)},
			}.start(t)
			c := newCaller(t, b)
			const clients = 300
			first := map[string]string{}
			for i := range clients {
				from := fmt.Sprintf("127.7.%d.%d", i/200, i%200+1)
				first[from] = c.call(t, from, false)
			}
			leeway := 1.0
			if algorithm == "ring_hash" {
				leeway = 2 // its own points are a draw, too
			}
			if err := within(c.got, clients, leeway, 1, 2, 3); err != nil {
				t.Error(err)
			}
			for from, name := range first {
				if again := c.call(t, from, false); again != name {
					t.Errorf("client %s came to %s and then to %s", from, name, again)
				}
			}
		})
	}
}

// TestBoundedHash opens all sessions from one client: hash_balance spreads them, although they would all go to one
// backend.
func TestBoundedHash(t *testing.T) {
	t.Parallel()
	b := world{
		Backends: addressesOf(namedBackends(t, 3)),
		Pool:     []string{`algorithm = "ring_hash"`, `hash_balance = 1.25`},
	}.start(t)
	got := newCaller(t, b).calls(t, 60, true)
	for name, n := range got {
		if n > 25 { // 1.25 times the mean of 20
			t.Errorf("%s has %d of 60 sessions, expected at most 25: %v", name, n, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("sessions went to %v, expected all three", got)
	}
}

// TestLeastTime has one slow backend of three: it gets clearly less than a third.
func TestLeastTime(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 2)
	slow := harness.Serve(t, harness.SpeakLate(200*time.Millisecond, "b3"))
	b := world{
		Backends: append(addressesOf(backends), slow.Address()), Pool: []string{`algorithm = "least_time"`},
	}.start(t)
	c := newCaller(t, b)
	const clients, each = 8, 25
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for range each {
				c.call(t, "", false)
			}
		})
	}
	running.Wait()
	if n := c.got["b3"]; n == 0 || n > clients*each/6 {
		t.Errorf("the slow backend got %d of %d sessions, expected some, and less than a sixth: %v",
			n, clients*each, c.got)
	}
}

// TestFirst fills the first backend to its max_sessions before the next one is used.
func TestFirst(t *testing.T) {
	t.Parallel()
	b := world{
		Backends: addressesOf(namedBackends(t, 3)), Keys: []string{"max_sessions = 2", "max_sessions = 3"},
		Pool: []string{`algorithm = "first"`},
	}.start(t)
	c := newCaller(t, b)
	for i, want := range []string{"b1", "b1", "b2", "b2", "b2", "b3", "b3"} {
		if got := c.call(t, "", true); got != want {
			t.Errorf("session %d went to %s, expected %s", i+1, got, want)
		}
	}
	gone := c.conns[0]
	check(t, gone.Close())
	b.WaitSession(t, gone.LocalAddr())
	if got := c.call(t, "", true); got != "b1" {
		t.Errorf("with room on b1 again, a session went to %s", got)
	}
}

// TestBackendLimits has three backends, one of them with room for one session: the others take the rest, and when all
// are full, clients are refused, wait, or wait in vain, each with its own reason.
func TestBackendLimits(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 3)
	t.Run("one of three", func(t *testing.T) {
		b := world{
			Backends: addressesOf(backends), Keys: []string{"max_sessions = 1"},
			Pool: []string{`algorithm = "round_robin"`},
		}.start(t)
		got := newCaller(t, b).calls(t, 21, true)
		if got["b1"] != 1 || got["b2"]+got["b3"] != 20 || got["b2"] < 7 || got["b3"] < 7 {
			t.Errorf("sessions went to %v, expected one to b1 and the rest to b2 and b3", got)
		}
	})
	limited := world{
		Backends: addressesOf(backends), Keys: []string{"max_sessions = 1", "max_sessions = 1", "max_sessions = 1"},
	}
	t.Run("no queue", func(t *testing.T) {
		b := limited.start(t)
		newCaller(t, b).calls(t, 3, true)
		if err := refusal(t, b.Address(t, "main")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the fourth client saw %v, expected a reset", err)
		}
		b.WaitLine(t, "a refusal as backends_full", func(l harness.Line) bool { return l.Reason == "backends_full" })
	})
	t.Run("queue", func(t *testing.T) {
		w := limited
		w.Pool = []string{`queue = { max = 1, timeout = "1s" }`}
		b := w.start(t)
		c := newCaller(t, b)
		c.calls(t, 3, true)

		// Of two more, one waits and gives up after the timeout, and the other finds the queue full.
		var more sync.WaitGroup
		for range 2 {
			more.Go(func() { _ = refusal(t, b.Address(t, "main")) })
		}
		more.Wait()
		ended := func(reason string) harness.Line {
			t.Helper()
			return b.WaitLine(t, "a session that ended as "+reason, func(l harness.Line) bool {
				return l.Reason == reason
			})
		}
		if line := ended("queue_full"); line.Duration > 0.5 {
			t.Errorf("not refused at once although the queue was full: %s", line.Text)
		}
		if line := ended("queue_timeout"); line.QueueTime < 0.9 || line.Has("backend") {
			t.Errorf("did not wait for the queue's timeout: %s", line.Text)
		}

		// The next one that waits is served when a session ends.
		waiting := b.Dial(t, "main")
		left := c.conns[1]
		check(t, left.Close())
		name := make([]byte, 2)
		_, err := io.ReadFull(waiting, name)
		check(t, err)
		check(t, waiting.Close())
		if line := b.WaitSession(t, waiting.LocalAddr()); line.Reason != "client_closed" ||
			line.Backend != string(name) {
			t.Errorf("served by %s, and ended with %s", name, line.Text)
		}
	})
}

// TestTiers takes both backends of the first tier away and back again.
func TestTiers(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 3)
	started := time.Now()
	b := world{
		Backends: addressesOf(backends), Keys: []string{"", "max_sessions = 100", "tier = 1"},
		Pool:   []string{`algorithm = "round_robin"`},
		Health: []string{`interval = "200ms"`, `fast_interval = "100ms"`, `rise = 1`, `fall = 1`},
	}.start(t)
	c := newCaller(t, b)
	for i := range backends {
		b.WaitVerdict(t, backendName(i), "healthy", started)
	}
	if got := c.calls(t, 20, false); got["b3"] != 0 || got["b1"] != 10 {
		t.Errorf("with the first tier there, sessions went to %v", got)
	}
	gone := time.Now()
	backends[0].Close()
	backends[1].Close()
	b.WaitVerdict(t, "b1", "unhealthy", gone)
	b.WaitVerdict(t, "b2", "unhealthy", gone)
	if got := c.calls(t, 20, false); got["b3"] != 20 {
		t.Errorf("without the first tier, sessions went to %v", got)
	}
	back := time.Now()
	harness.ServeOn(t, backends[0].Address(), harness.SpeakFirst("b1"))
	b.WaitVerdict(t, "b1", "healthy", back)
	if got := c.calls(t, 20, false); got["b1"] != 20 {
		t.Errorf("with b1 back, sessions went to %v", got)
	}
}

// TestSticky holds that clients return to the backend they had, although round_robin would choose the next.
func TestSticky(t *testing.T) {
	t.Parallel()
	b := world{
		Backends: addressesOf(namedBackends(t, 3)),
		Pool:     []string{`algorithm = "round_robin"`, `sticky = { ttl = "1h" }`},
	}.start(t)
	c := newCaller(t, b)
	first := map[string]string{}
	for range 3 {
		for i := range 30 {
			from := fmt.Sprintf("127.8.0.%d", i+1)
			got := c.call(t, from, false)
			if first[from] == "" {
				first[from] = got
			}
			if got != first[from] {
				t.Errorf("client %s came to %s and then to %s", from, first[from], got)
			}
		}
	}
	if err := within(c.got, 90, 1, 1, 1, 1); err != nil {
		t.Error(err)
	}
}

// TestOnUnhealthyClose fails the check of one backend while its sessions work: with "close" they are closed.
func TestOnUnhealthyClose(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"keep", "close"} {
		t.Run(policy, func(t *testing.T) {
			probed := harness.Serve(t, harness.CloseAtOnce)
			_, port, err := net.SplitHostPort(probed.Address())
			check(t, err)
			started := time.Now()
			b := world{
				Backends: addressesOf(namedBackends(t, 1)),
				Pool:     []string{fmt.Sprintf("on_unhealthy = %q", policy)},
				Health: []string{"port = " + port, `interval = "200ms"`, `fast_interval = "100ms"`, `rise = 1`,
					`fall = 1`},
			}.start(t)
			b.WaitVerdict(t, "b1", "healthy", started)
			c := newCaller(t, b)
			c.calls(t, 5, true)
			probed.Close()
			b.WaitVerdict(t, "b1", "unhealthy", started)
			if policy == "keep" {
				for _, conn := range c.conns {
					check(t, harness.PingPong(conn, 1, 1))
				}
				return
			}
			for _, line := range b.WaitSessions(t, 5) {
				if line.Reason != "backend_unhealthy" || line.Backend != "b1" {
					t.Errorf("a session ended with %s", line.Text)
				}
			}
			if _, err := c.conns[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client saw %v, expected a reset", err)
			}
		})
	}
}

func newBackendsFile(t *testing.T, entries ...string) backendsFile {
	t.Helper()
	f := backendsFile{filepath.Join(t.TempDir(), "backends.toml")}
	f.write(t, entries...)
	return f
}
