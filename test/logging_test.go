package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestAccessSamples chooses by log.access which sessions have a line, and changes it by reloads.
func TestAccessSamples(t *testing.T) {
	t.Parallel()
	echo := harness.Serve(t, harness.Echo)
	base := world{Backends: []string{echo.Address()}, Global: []string{"workers = 1"}}.config(t)
	with := func(lines string) string { return base + "[log]\n" + lines + "\n" }
	b := harness.StartBalancer(t, with(`access = "errors"`))
	ended := 0.0
	visit := func(n int) {
		t.Helper()
		for range n {
			check(t, tryService(b.Address(t, "main")))
		}
		ended += float64(n)
		awaitMetric(t, b, `limeload_listener_ended_total{listener="main",reason="client_closed"}`, ended)
	}
	reset := func() {
		t.Helper()
		c := b.Dial(t, "main")
		check(t, harness.PingPong(c, 1, 5))
		check(t, c.SetLinger(0))
		check(t, c.Close())
	}
	lines := func() (texts []string) {
		for _, l := range b.Sessions() {
			texts = append(texts, l.Reason)
		}
		return texts
	}
	visit(6)
	reset()
	b.WaitLine(t, "a session that did not end in order has a line", func(l harness.Line) bool {
		return l.Event == "session_ended" && l.Reason == "client_reset"
	})
	if got := fmt.Sprint(lines()); got != "[client_reset]" {
		t.Errorf("with errors: %s", got)
	}

	b.Configure(t, with(`access = "1/3"`))
	if plan, _, _ := b.Command(t, "plan"); !strings.Contains(plan, "log.access") || !strings.Contains(plan, "1/3") {
		t.Errorf("the plan does not show it:\n%s", plan)
	}
	b.Reload(t, with(`access = "1/3"`))
	visit(6)
	b.WaitSessions(t, 3)
	if got := fmt.Sprint(lines()); got != "[client_reset client_closed client_closed]" {
		t.Errorf("with 1/3: %s", got)
	}

	b.Reload(t, with("access = false\nlevel = \"debug\""))
	visit(1)
	began := b.WaitLine(t, "a session has a line at its beginning", func(l harness.Line) bool {
		return l.Event == "session_began"
	})
	if began.Level != "debug" || began.Session == "" || began.Listener != "main" || began.Pool != "all" ||
		began.Backend != "b1" || began.Client == "" || began.BackendAddress != echo.Address() {
		t.Errorf("the line is %s", began.Text)
	}
	if got := len(lines()); got != 3 {
		t.Errorf("with false: %d lines more", got-3)
	}

	b.Configure(t, with(`access = "sometimes"`))
	if _, said, code := b.Command(t, "reload"); code != 1 ||
		!strings.Contains(said, `log.access: found the string "sometimes"; needs "all", "errors", "1/N"`) {
		t.Errorf("a mistake: code %d, %s", code, said)
	}
	b.Reload(t, with(`access = true`))
	visit(1)
	b.WaitSessions(t, 4)
}
