package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An agent is a server beside a backend that answers the backend's checks.
type agent struct {
	address string
	asked   atomic.Int64
	sick    atomic.Bool
}

func startAgent(t *testing.T) *agent {
	a := new(agent)
	a.address = serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		a.asked.Add(1)
		if a.sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}, nil)
	return a
}

// TestCheckAddress checks a backend at an agent of its own, moves it to another agent by a reload that keeps the
// verdict, and adds one through the API and by command.
func TestCheckAddress(t *testing.T) {
	t.Parallel()
	echo, first, second := harness.Serve(t, harness.Echo), startAgent(t), startAgent(t)
	// Nobody listens on health.port: the backend's check overrides it.
	config := fmt.Sprintf(`
[listener.main]
address = %q
pool = "all"
[pool.all]
backends = [{ name = "a", address = %q, check = "AGENT" }]
[pool.all.health]
type = "http"
port = 1
interval = "50ms"
fast_interval = "50ms"
rise = 1
fall = 1
`, harness.FreeAddress(t), echo.Address())
	started := time.Now()
	b := harness.StartBalancer(t, strings.Replace(config, "AGENT", first.address, 1))
	b.WaitVerdict(t, "a", "healthy", started)
	check(t, tryService(b.Address(t, "main")))

	moved := strings.Replace(config, "AGENT", second.address, 1)
	b.Configure(t, moved)
	if plan, _, code := b.Command(t, "plan"); code != 0 || !strings.Contains(plan, second.address) {
		t.Errorf("plan, exit code %d: %s", code, plan)
	}
	b.Reload(t, moved)
	harness.Eventually(t, "it is checked at the second agent", func() error {
		if n := second.asked.Load(); n < 2 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	for _, l := range b.Lines() {
		if l.Message == harness.MessageVerdict && l.To != "healthy" || l.Message == "backend removed" {
			t.Errorf("to be checked elsewhere made it another backend, or cost its verdict: %s", l.Text)
		}
	}
	before := first.asked.Load()
	second.sick.Store(true)
	b.WaitVerdict(t, "a", "unhealthy", started)
	if after := first.asked.Load(); after != before {
		t.Errorf("the first agent was asked %d times since", after-before)
	}

	body := fmt.Sprintf(`{"name": "b", "address": "127.0.0.2:1", "check": %q}`, first.address)
	if status, answer := b.API(t, "POST", "/v1/pools/all/backends", []byte(body)); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	b.WaitVerdict(t, "b", "healthy", started)
	if _, stderr, code := b.Command(t, "backends", "add", "all", "127.0.0.3:1", "--name", "c", "--check",
		first.address); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	b.WaitVerdict(t, "c", "healthy", started)
	for wrong, field := range map[string]string{
		`{"name": "d", "address": "127.0.0.4:1", "check": "agent.internal:1"}`: `"check"`,
		`{"name": "d", "address": "127.0.0.4:1", "check": "127.0.0.1"}`:        `"check"`,
	} {
		if status, answer := b.API(t, "POST", "/v1/pools/all/backends", []byte(wrong)); status/100 != 4 ||
			!strings.Contains(string(answer), field) {
			t.Errorf("%s: %d %s", wrong, status, answer)
		}
	}
	_, answer := b.API(t, "GET", "/v1/pools/all/backends", nil)
	var list struct {
		Backends []struct {
			Name   string
			Reason string
			Check  struct{ Address string }
		}
	}
	check(t, json.Unmarshal(answer, &list))
	want := map[string]string{"a": second.address, "b": first.address, "c": first.address}
	for _, backend := range list.Backends {
		if backend.Check.Address != want[backend.Name] {
			t.Errorf("%s is checked at %q, want %q", backend.Name, backend.Check.Address, want[backend.Name])
		}
		delete(want, backend.Name)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
	if table, _, _ := b.Command(t, "backends"); !strings.Contains(table, second.address) ||
		!strings.Contains(table, "check") {
		t.Errorf("the list does not say where they are checked:\n%s", table)
	}
}
