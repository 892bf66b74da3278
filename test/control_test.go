package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// named starts backends that greet with their names.
func named(t testing.TB, names ...string) (addresses []string) {
	t.Helper()
	for _, name := range names {
		addresses = append(addresses, harness.Serve(t, harness.Name(name)).Address())
	}
	return addresses
}

// dialFrom connects from an address of this machine.
func dialFrom(t testing.TB, from, address string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: harness.Patience}
	c, err := d.Dial("tcp", address)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// An explanation has the fields of the API's explanation that the tests use.
type explanation struct {
	Deterministic bool
	Backend       string
	Refusal       string
	Others        []struct{ Backend, Why string }
}

// TestExplain asks which backend a client would get, and then connects, for every algorithm that does not draw at
// random.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"round_robin", "first", "client_hash", "ring_hash", "maglev"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			b := world{
				Backends: named(t, "b1", "b2", "b3", "b4", "b5"), Keys: []string{"weight = 3", "", "weight = 2",
					`mode = "drain"`, "tier = 1"},
				Pool: []string{fmt.Sprintf("algorithm = %q", algorithm)},
			}.start(t)
			for i := range 60 {
				from := fmt.Sprintf("127.0.%d.%d", 1+i/20, 1+i)
				if i%10 == 9 { // something else each time
					b.Ask(t, "PATCH", fmt.Sprintf("/v1/pools/all/backends/b%d", 1+i/10%3),
						map[string]int{"weight": i / 10}, nil)
				}
				var e explanation
				b.Ask(t, "GET", "/v1/explain?listener=main&client="+from, nil, &e)
				if !e.Deterministic || e.Backend == "" {
					t.Fatalf("%+v", e)
				}
				if got := readAll(t, dialFrom(t, from, b.Address(t, "main"))); got != e.Backend {
					t.Fatalf("client %d, %s, was to go to %s and went to %s", i, from, e.Backend, got)
				}
				if len(e.Others) == 0 ||
					!slices.ContainsFunc(e.Others,
						func(o struct{ Backend, Why string }) bool { return o.Backend == "b4" && o.Why == "drain" }) {
					t.Errorf("b4 is not said to be drained: %+v", e.Others)
				}
			}
		})
	}
}

// TestExplainRefusal asks about a pool without an eligible backend.
func TestExplainRefusal(t *testing.T) {
	t.Parallel()
	b := world{Backends: named(t, "b1"), Keys: []string{`mode = "maintenance"`}}.start(t)
	var e explanation
	b.Ask(t, "GET", "/v1/explain?pool=all&client=10.0.0.7", nil, &e)
	if e.Refusal != "no_backend" || e.Backend != "" || len(e.Others) != 1 || e.Others[0].Why != "maintenance" {
		t.Errorf("%+v", e)
	}
	stdout, _, code := b.Command(t, "explain", "--pool", "all", "10.0.0.7")
	if code != 0 || !strings.Contains(stdout, "maintenance") {
		t.Errorf("the command says, with exit code %d,\n%s", code, stdout)
	}
}

// TestBackendsByAPI adds, removes and changes backends through the API: after the answer, the change applies to the
// next client.
func TestBackendsByAPI(t *testing.T) {
	t.Parallel()
	addresses := named(t, "b1", "b2", "b3")
	b := world{Backends: addresses[:1], Pool: []string{`algorithm = "round_robin"`}}.start(t)
	shares := func(n int) map[string]int {
		counts := map[string]int{}
		for range n {
			counts[readAll(t, b.Dial(t, "main"))]++
		}
		return counts
	}
	is := func(what string, got map[string]int, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	is("at first", shares(4), "map[b1:4]")
	for i, address := range addresses[1:] {
		b.Ask(t, "POST", "/v1/pools/all/backends", map[string]any{"name": fmt.Sprintf("b%d", i+2), "address": address},
			nil)
	}
	is("with two more", shares(6), "map[b1:2 b2:2 b3:2]")
	b.Ask(t, "PATCH", "/v1/pools/all/backends/b3", map[string]any{"weight": 2}, nil)
	is("one with twice the weight", shares(8), "map[b1:2 b2:2 b3:4]")
	b.Ask(t, "DELETE", "/v1/pools/all/backends/b2", nil, nil)
	is("one removed", shares(6), "map[b1:2 b3:4]")
	b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]any{"mode": "drain"}, nil)
	is("one drained", shares(3), "map[b3:3]")

	status, answer := b.API(t, "POST", "/v1/pools/all/backends", []byte(`{"name":"b3","address":"127.0.0.1:1"}`))
	if status != http.StatusConflict {
		t.Errorf("a name that is there: %d %s", status, answer)
	}
	status, answer = b.API(t, "PATCH", "/v1/pools/all/backends/b3", []byte(`{"weight":257}`))
	if status != http.StatusUnprocessableEntity || !strings.Contains(string(answer), `"field":"weight"`) {
		t.Errorf("a weight too large: %d %s", status, answer)
	}
	is("after two mistakes", shares(3), "map[b3:3]")
}

// TestDrainWithDeadline drains a backend with a deadline: new clients get other backends, its sessions stay until the
// deadline, and then it is removed.
func TestDrainWithDeadline(t *testing.T) {
	t.Parallel()
	one, two := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	b := world{Backends: []string{one.Address(), two.Address()}, Pool: []string{`algorithm = "first"`}}.start(t)
	var old []*net.TCPConn
	for range 3 {
		c := b.Dial(t, "main")
		check(t, harness.PingPong(c, 1, 10))
		old = append(old, c)
	}
	var backend struct {
		Mode  string
		Drain *struct {
			Left int `json:"sessions_left"`
		}
	}
	b.Ask(t, "POST", "/v1/pools/all/backends/b1/drain", map[string]any{"deadline_seconds": 1, "remove": true}, &backend)
	if backend.Mode != "drain" || backend.Drain == nil || backend.Drain.Left != 3 {
		t.Errorf("%+v", backend)
	}
	for range 3 {
		check(t, harness.PingPong(b.Dial(t, "main"), 1, 10))
	}
	if one.Accepted() != 3 || two.Accepted() != 3 {
		t.Errorf("the backends got %d and %d sessions, want 3 and 3", one.Accepted(), two.Accepted())
	}
	for _, c := range old {
		check(t, harness.PingPong(c, 1, 10)) // fails if the second has passed already
	}
	for _, c := range old {
		if line := b.WaitSession(t, c.LocalAddr()); line.Reason != "ended_by_operator" {
			t.Errorf("the session ended with %q", line.Reason)
		}
	}
	harness.Eventually(t, "the backend is removed", func() error {
		if status, _ := b.API(t, "GET", "/v1/pools/all/backends/b1", nil); status != http.StatusNotFound {
			return fmt.Errorf("the API says %d of it", status)
		}
		return nil
	})
}

// TestSessionsCommand lists sessions and ends one of them.
func TestSessionsCommand(t *testing.T) {
	t.Parallel()
	b, _ := between(t, harness.Echo)
	one, two := b.Dial(t, "main"), b.Dial(t, "main")
	for _, c := range []net.Conn{one, two} {
		check(t, harness.PingPong(c, 1, 10))
	}
	stdout, stderr, code := b.Command(t, "sessions", "list", "--output", "json")
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr)
	}
	var list struct{ Sessions []struct{ ID, Client string } }
	decode(t, []byte(stdout), &list)
	if len(list.Sessions) != 2 {
		t.Fatalf("there are %d sessions", len(list.Sessions))
	}
	for _, s := range list.Sessions {
		if s.Client == one.LocalAddr().String() {
			if _, stderr, code := b.Command(t, "sessions", "end", s.ID); code != 0 {
				t.Fatalf("exit code %d\n%s", code, stderr)
			}
		}
	}
	if line := b.WaitSession(t, one.LocalAddr()); line.Reason != "ended_by_operator" {
		t.Errorf("it ended with %q", line.Reason)
	}
	check(t, harness.PingPong(two, 1, 10))
	if stdout, stderr, code := b.Command(t, "sessions", "end", "--all"); code != 0 ||
		strings.TrimSpace(stdout) != "1 session ended" {
		t.Errorf("to end all of them ends with %d: %s%s", code, stdout, stderr)
	}
	if line := b.WaitSession(t, two.LocalAddr()); line.Reason != "ended_by_operator" {
		t.Errorf("the other ended with %q", line.Reason)
	}
}

// TestNotReadyBeforeTheDrain holds that /ready fails during drain_delay while clients are still served.
func TestNotReadyBeforeTheDrain(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}, Global: []string{`drain_delay = "1s"`}}.start(t)
	for _, path := range []string{"/ready", "/live"} {
		if status, answer := b.API(t, "GET", path, nil); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	b.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, "/ready says no", func() error {
		if status, _ := b.API(t, "GET", "/ready", nil); status != http.StatusServiceUnavailable {
			return fmt.Errorf("it says %d", status)
		}
		return nil
	})
	c := b.Dial(t, "main") // fails if the delay is over already
	check(t, harness.PingPong(c, 1, 10))
	if status, answer := b.API(t, "GET", "/live", nil); status != http.StatusOK {
		t.Errorf("/live: %d %s", status, answer)
	}
	check(t, c.Close())
	if code := b.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestStateAfterAKill kills the balancer repeatedly while its backends are changed: after the restart, all confirmed
// changes are there and no others.
func TestStateAfterAKill(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{backend.Address()},
		Global: []string{fmt.Sprintf("state_file = %q", filepath.Join(t.TempDir(), "state.json"))},
	}
	random := rand.New(rand.NewPCG(5, 6))
	weight := 1 // set by the last answered call
	for range 8 {
		b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t), Killed: true})
		var found struct{ Weight int }
		b.Ask(t, "GET", "/v1/pools/all/backends/b1", nil, &found)
		if found.Weight != weight && found.Weight != weight+1 {
			t.Fatalf("the weight is %d; the last that was answered was %d", found.Weight, weight)
		}
		weight = found.Weight
		ctx, stop := context.WithCancel(t.Context())
		var done atomic.Int64
		done.Store(int64(weight))
		var changing sync.WaitGroup
		changing.Go(func() {
			for next := weight + 1; next < 256 && ctx.Err() == nil; next++ {
				status, _, err := b.TryAPI(ctx, "PATCH", "/v1/pools/all/backends/b1",
					fmt.Appendf(nil, `{"weight":%d}`, next))
				if err != nil || status != http.StatusOK {
					return
				}
				done.Store(int64(next))
			}
		})
		time.Sleep(time.Duration(5+random.IntN(60)) * time.Millisecond) // any moment will do
		b.Kill(t)
		stop()
		changing.Wait()
		weight = int(done.Load())
	}
	if weight < 5 {
		t.Errorf("only %d changes were made", weight)
	}
}
