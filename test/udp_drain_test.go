package test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestUDPDrainWithDeadline drains a backend of UDP: a flow that has had an answer stays until the deadline, new clients
// go elsewhere, and then it ends and the backend is removed.
func TestUDPDrainWithDeadline(t *testing.T) {
	t.Parallel()
	one, two := harness.ServeUDP(t, harness.NameDatagrams("one")), harness.ServeUDP(t, harness.NameDatagrams("two"))
	b := world{Backends: []string{one.Address(), two.Address()}, Pool: []string{`algorithm = "first"`}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	if got := ask(t, c, "?"); got != "one" {
		t.Fatal(got)
	}
	var backend struct {
		Drain *struct {
			Left int `json:"sessions_left"`
		}
	}
	b.Ask(t, "POST", "/v1/pools/all/backends/b1/drain", map[string]any{"deadline_seconds": 5, "remove": true}, &backend)
	if backend.Drain == nil || backend.Drain.Left != 1 {
		t.Errorf("%+v", backend)
	}
	for range 20 {
		if got := ask(t, c, "?"); got != "one" { // fails if the five seconds have passed already
			t.Fatal(got)
		}
	}
	if got := askOnce(t, b, "?"); got != "two" {
		t.Error(got)
	}
	if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "ended_by_operator" {
		t.Errorf("%s", line.Text)
	}
	if got := ask(t, c, "?"); got != "two" {
		t.Error(got)
	}
	harness.Eventually(t, "the backend is removed", func() error {
		if status, _ := b.API(t, "GET", "/v1/pools/all/backends/b1", nil); status != http.StatusNotFound {
			return fmt.Errorf("the API says %d of it", status)
		}
		return nil
	})
}

// TestUDPLastBackendRemoved removes the only backend of a pool while a client keeps sending: after drain_timeout it
// gets nothing more.
func TestUDPLastBackendRemoved(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{Backends: []string{backend.Address()}, Global: []string{`drain_timeout = "1s"`}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	ask(t, c, "?")
	b.Ask(t, "DELETE", "/v1/pools/all/backends/b1", nil, nil)
	harness.Eventually(t, "its datagrams are dropped", func() error {
		check(t, harness.SendAll(c, "!"))
		if d := udpFigures(t, b).drops(); d["no_backend"] == 0 {
			return fmt.Errorf("dropped are %v", d)
		}
		return nil
	})
	if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "backend_removed" {
		t.Errorf("%s", line.Text)
	}
}
