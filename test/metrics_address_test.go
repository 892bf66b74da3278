package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// get reads a page at an address over TCP.
func get(t testing.TB, address, path string) (status int, body string) {
	t.Helper()
	status, body, err := tryGet(t.Context(), address, path)
	check(t, err)
	return status, body
}

// tryGet is get that may fail.
func tryGet(ctx context.Context, address, path string) (status int, body string, err error) {
	transport := &http.Transport{DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// TestMetricsAddress has the metrics at an address of their own, moves it by reloads, and tries addresses that cannot
// be used.
func TestMetricsAddress(t *testing.T) {
	t.Parallel()
	echo, first, second := harness.Serve(t, harness.Echo), harness.FreeAddress(t), harness.FreeAddress(t)
	base := world{Backends: []string{echo.Address()}}.config(t)
	at := func(address string) string { return base + fmt.Sprintf("[metrics]\naddress = %q\n", address) }
	b := harness.StartBalancer(t, at(first))
	b.ListenersMoved()
	check(t, tryService(b.Address(t, "main")))
	if status, text := get(t, first, "/metrics"); status != 200 || !strings.Contains(text, "\nlimeload_ready 1\n") {
		t.Errorf("/metrics: %d %.200s", status, text)
	}
	if status, text := get(t, first, "/ready"); status != 200 || text != "ready\n" {
		t.Errorf("/ready: %d %s", status, text)
	}
	if status, text := get(t, first, "/v1/status"); status != 404 || !strings.Contains(text, "admin.address has the API") {
		t.Errorf("/v1/status: %d %s", status, text)
	}

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	b.Configure(t, at(taken.Addr().String()))
	_, said, code := b.Command(t, "reload")
	if code != 1 || !strings.Contains(said, "lb.toml:") || !strings.Contains(said, ": metrics.address: found ") ||
		!strings.Contains(said, "end what listens there already (see `ss -ltnp`)") {
		t.Errorf("an address in use: code %d, %s", code, said)
	}
	if status, _ := get(t, first, "/live"); status != 200 {
		t.Errorf("after a reload that failed: %d", status)
	}

	b.Configure(t, at(second))
	if said, _, _ := b.Command(t, "plan"); !strings.Contains(said, "metrics.address") || !strings.Contains(said, second) {
		t.Errorf("the plan does not show it:\n%s", said)
	}
	b.Reload(t, at(second))
	if status, _ := get(t, second, "/metrics"); status != 200 {
		t.Errorf("at the new address: %d", status)
	}
	harness.Eventually(t, "the old address is left", func() error {
		c, err := net.Dial("tcp", first)
		if err == nil {
			c.Close()
			return fmt.Errorf("somebody listens at %s", first)
		}
		return nil
	})

	// The admin API takes the address that the metrics leave, and gives it back: no connect is refused.
	admin := func(address string) string { return base + fmt.Sprintf("[admin]\naddress = %q\n", address) }
	b.Reload(t, admin(second))
	if status, _ := get(t, second, "/v1/status"); status != 200 {
		t.Errorf("the API at the address that the metrics had: %d", status)
	}
	b.Configure(t, at(second))
	b.Signal(t, syscall.SIGHUP)
	harness.Eventually(t, "the metrics have their address back", func() error {
		// a client that has connected and asked nothing yet may lose its connection to the server that ends
		if status, text, err := tryGet(t.Context(), second, "/v1/status"); status != 404 {
			return fmt.Errorf("%d %s, %w", status, text, err)
		}
		return nil
	})

	b.Reload(t, base)
	harness.Eventually(t, "it is off", func() error {
		c, err := net.Dial("tcp", second)
		if err == nil {
			c.Close()
			return fmt.Errorf("somebody listens at %s", second)
		}
		return nil
	})
	socket := strings.TrimSuffix(b.AdminSocket(), ".sock") + "-metrics.sock"
	b.Reload(t, at("unix:"+socket))
	c, err := net.Dial("unix", socket)
	check(t, err)
	c.Close()
}
