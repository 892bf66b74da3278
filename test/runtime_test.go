package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestMaintenanceStaysWithTheName puts a backend into maintenance and then changes its address, tier and zone by
// reloads: the new server gets no client before the operator allows it. plan, reload and a restart say which run-time
// settings stay.
func TestMaintenanceStaysWithTheName(t *testing.T) {
	t.Parallel()
	old, serving, rebuilt := harness.Serve(t, harness.Name("old")), harness.Serve(t, harness.Name("serving")),
		harness.Serve(t, harness.Name("rebuilt"))
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{old.Address(), serving.Address()},
		Pool:   []string{`algorithm = "round_robin"`},
		Global: []string{fmt.Sprintf("state_file = %q", filepath.Join(t.TempDir(), "state.json"))},
	}
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t), Killed: true})
	command := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := b.Command(t, args...)
		if code != 0 {
			t.Fatalf("%v ends with %d: %s", args, code, stderr)
		}
		return stdout
	}
	command("backends", "set", "all", "b1", "--mode", "maintenance", "--weight", "7")
	for _, change := range []func(){
		func() { w.Backends[0] = rebuilt.Address() },
		func() { w.Keys = []string{"tier = 1"} },
		func() { w.Keys = []string{`zone = "z"`} },
	} {
		change()
		b.Configure(t, w.config(t))
		plan := command("plan")
		if !strings.Contains(plan, "backend b1: replaced") ||
			!strings.Contains(plan, "stays in force over the file:\n") || strings.Contains(plan, "dropped") {
			t.Errorf("the plan is\n%s", plan)
		}
		command("reload")
		for range 4 {
			if got := readAll(t, b.Dial(t, "main")); got != "serving" {
				t.Fatalf("a client was sent to %q", got)
			}
		}
	}
	w.Keys = []string{"weight = 3"}
	b.Configure(t, w.config(t))
	for _, said := range []string{command("plan"), command("reload")} {
		if _, dropped, _ := strings.Cut(said,
			"set at run time, and dropped:\n"); !strings.Contains(strings.Join(strings.Fields(dropped), " "),
			"all b1 weight 7 3 its source says something else now") {
			t.Errorf("the dropped settings are missing:\n%s", said)
		}
	}
	line := b.WaitLine(t, "the dropped weight", func(l harness.Line) bool {
		return strings.Contains(l.Text, "run-time change dropped")
	})
	if !strings.Contains(line.Text, `weight of backend \"b1\" stays as it is configured`) {
		t.Errorf("the log says %s", line.Text)
	}
	b.Kill(t)
	w.Backends[0] = old.Address()
	b = harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t)})
	for range 4 {
		if got := readAll(t, b.Dial(t, "main")); got != "serving" {
			t.Fatalf("after a restart a client was sent to %q", got)
		}
	}
	command("backends", "set", "all", "b1", "--mode", "ready")
	if got := readAll(t, b.Dial(t, "main")) + readAll(t, b.Dial(t, "main")); !strings.Contains(got, "old") {
		t.Errorf("ready again, clients are sent to %q", got)
	}
}

// TestDrainOutlivesAReload drains a backend with a deadline and changes its address by a reload: the drain waits for
// the sessions at the old address, ends them at the deadline, and then removes the backend.
func TestDrainOutlivesAReload(t *testing.T) {
	t.Parallel()
	one, two, other := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{one.Address(), two.Address()},
		Pool: []string{`algorithm = "first"`}}
	b := w.start(t)
	c := b.Dial(t, "main")
	check(t, harness.PingPong(c, 1, 10))
	b.Ask(t, "POST", "/v1/pools/all/backends/b1/drain", map[string]any{"deadline_seconds": 4, "remove": true}, nil)
	w.Backends[0] = other.Address()
	b.Reload(t, w.config(t))
	var backend struct {
		Mode, Address string
		Drain         *struct {
			Left int `json:"sessions_left"`
		}
	}
	b.Ask(t, "GET", "/v1/pools/all/backends/b1", nil, &backend)
	if backend.Address != other.Address() || backend.Mode != "drain" || backend.Drain == nil ||
		backend.Drain.Left != 1 {
		t.Errorf("after the reload it is %+v", backend)
	}
	check(t, harness.PingPong(c, 1, 10))
	if line := b.WaitSession(t, c.LocalAddr()); line.Reason != "ended_by_operator" {
		t.Errorf("the session ended with %q", line.Reason)
	}
	harness.Eventually(t, "the backend is removed", func() error {
		if status, _ := b.API(t, "GET", "/v1/pools/all/backends/b1", nil); status != http.StatusNotFound {
			return fmt.Errorf("the API says %d of it", status)
		}
		return nil
	})
	if other.Accepted() != 0 {
		t.Errorf("%d sessions were sent to the new address", other.Accepted())
	}
}

// TestDrainEndsWithItsMode changes the mode of a draining backend in the file: the drain is over, and ends no session.
func TestDrainEndsWithItsMode(t *testing.T) {
	t.Parallel()
	w := world{Listen: harness.FreeAddress(t), Backends: []string{harness.Serve(t, harness.Echo).Address()},
		Keys: []string{`mode = "drain"`}}
	b := w.start(t)
	b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", map[string]any{"mode": "ready"}, nil)
	c := b.Dial(t, "main")
	check(t, harness.PingPong(c, 1, 10))
	b.Ask(t, "POST", "/v1/pools/all/backends/b1/drain", map[string]any{"deadline_seconds": 2, "remove": true}, nil)
	w.Keys = nil // then the file says ready, a change of the setting
	b.Reload(t, w.config(t))
	harness.Eventually(t, "the drain is over", func() error {
		var backend struct {
			Mode  string
			Drain *struct{}
		}
		b.Ask(t, "GET", "/v1/pools/all/backends/b1", nil, &backend)
		if backend.Mode != "ready" || backend.Drain != nil {
			return fmt.Errorf("it is %+v", backend)
		}
		return nil
	})
	check(t, harness.PingPong(c, 1, 10))
}

// TestAddressesOfAPoolAreUnique adds backends at addresses that are taken: the API refuses them, and a reload of the
// file as it was removes nobody. A backend that is new in the file replaces one that was added by hand.
func TestAddressesOfAPoolAreUnique(t *testing.T) {
	t.Parallel()
	names := named(t, "b1", "b2")
	w := world{Listen: harness.FreeAddress(t), Backends: names[:1]}
	b := w.start(t)
	for _, address := range []string{names[0], strings.Replace(names[0], "127.0.0.1", "[::ffff:127.0.0.1]", 1)} {
		status, answer := b.API(t, "POST", "/v1/pools/all/backends", fmt.Appendf(nil, `{"name":"twin","address":%q}`,
			address))
		if status != http.StatusConflict || !strings.Contains(string(answer), "/problems/duplicate-address") ||
			!strings.Contains(string(answer), `b1`) {
			t.Errorf("at an address that is taken: %d %s", status, answer)
		}
	}
	_, stderr, code := b.Command(t, "backends", "add", "all", names[0], "--name", "twin")
	if code != 1 || !strings.Contains(stderr, `is that of backend "b1"`) {
		t.Errorf("the command ends with %d and says %s", code, stderr)
	}
	b.Reload(t, w.config(t))
	if got := readAll(t, b.Dial(t, "main")); got != "b1" {
		t.Errorf("after a reload a client is sent to %q", got)
	}
	b.Ask(t, "POST", "/v1/pools/all/backends", map[string]any{"name": "hand", "address": names[1]}, nil)
	w.Backends = names
	b.Configure(t, w.config(t))
	stdout, stderr, code := b.Command(t, "reload")
	if code != 0 || !strings.Contains(stdout, "backend hand: removed") ||
		!strings.Contains(stdout, "backend b2: added") ||
		!strings.Contains(stdout, "there is another backend at that address now") {
		t.Errorf("the reload ends with %d and says\n%s%s", code, stdout, stderr)
	}
	b.Reload(t, w.config(t))
	got := map[string]bool{}
	for range 4 {
		got[readAll(t, b.Dial(t, "main"))] = true
	}
	if len(got) != 2 {
		t.Errorf("after another reload clients are sent to %v", got)
	}
}

// TestQueueAndReloads has sessions in the queue while reloads and changes leave no backend eligible for a moment: they
// are served afterwards. When their pool is removed, they are refused at once.
func TestQueueAndReloads(t *testing.T) {
	t.Parallel()
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{harness.Serve(t, harness.Echo).Address()},
		Keys: []string{"max_sessions = 1"},
		Pool: []string{`queue = { max = 9, timeout = "5m" }`},
	}
	b := w.start(t)
	holder := b.Dial(t, "main")
	check(t, harness.PingPong(holder, 1, 10))
	waiting := func(n int) {
		t.Helper()
		harness.Eventually(t, "sessions wait", func() error {
			var pool struct{ Waiting int }
			b.Ask(t, "GET", "/v1/pools/all", nil, &pool)
			if pool.Waiting != n {
				return fmt.Errorf("%d wait, want %d", pool.Waiting, n)
			}
			return nil
		})
	}
	first := b.Dial(t, "main")
	waiting(1)
	second := b.Dial(t, "main")
	waiting(2)
	for _, change := range []map[string]any{{"weight": 0}, {"weight": 1}, {"mode": "maintenance"}, {"mode": "ready"}} {
		b.Ask(t, "PATCH", "/v1/pools/all/backends/b1", change, nil)
		waiting(2)
	}
	for _, keys := range []string{`max_sessions = 1, weight = 0`, `max_sessions = 1`} {
		w.Keys = []string{keys}
		b.Reload(t, w.config(t))
		waiting(2)
	}
	holder.Close()
	check(t, harness.PingPong(first, 1, 10))
	waiting(1)
	b.Reload(t, strings.ReplaceAll(strings.ReplaceAll(w.config(t), "pool.all", "pool.other"), `pool = "all"`,
		`pool = "other"`))
	if line := b.WaitSession(t, second.LocalAddr()); line.Reason != "no_backend" {
		t.Errorf("with its pool gone a session that waits ends with %q", line.Reason)
	}
	check(t, harness.PingPong(first, 1, 10))
}

// TestPlanShowsAnEndingDiscovery ends a pool's discovery: plan lists the run-time settings of its backends as dropped.
func TestPlanShowsAnEndingDiscovery(t *testing.T) {
	t.Parallel()
	names := named(t, "b1", "found")
	file := filepath.Join(t.TempDir(), "backends.toml")
	check(t, os.WriteFile(file, fmt.Appendf(nil, "backends = [{ address = %q, name = \"found\" }]\n", names[1]), 0o600))
	w := world{Listen: harness.FreeAddress(t), Backends: names[:1],
		Discover: []string{`type = "file"`, fmt.Sprintf("file = %q", file)}}
	b := w.start(t)
	harness.Eventually(t, "the backend is found", func() error {
		if status, answer := b.API(t, "PATCH", "/v1/pools/all/backends/found",
			[]byte(`{"mode": "maintenance"}`)); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, answer)
		}
		return nil
	})
	w.Discover = nil
	b.Configure(t, w.config(t))
	for _, command := range []string{"plan", "reload"} {
		stdout, stderr, code := b.Command(t, command)
		if code != 0 || !strings.Contains(stdout, "set at run time, and dropped:") ||
			!strings.Contains(stdout, "its source does not name it any more") {
			t.Errorf("%s ends with %d and prints\n%s%s", command, code, stdout, stderr)
		}
	}
	b.WaitLine(t, "what is dropped", func(l harness.Line) bool {
		return strings.Contains(l.Text, "run-time change dropped") && strings.Contains(l.Text, "found")
	})
}
