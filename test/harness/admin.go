package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// hasAdmin finds the table that says where the admin socket is.
var hasAdmin = regexp.MustCompile(`(?m)^\[admin\]`)

// shortDir returns a folder whose name is short enough for a socket in it; it is removed at the end of the test.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// File returns the path of the balancer's configuration.
func (b *Balancer) File() string { return b.file }

// AdminSocket returns the path of its admin socket, unless the configuration says otherwise.
func (b *Balancer) AdminSocket() string { return b.admin }

// Configure writes another configuration, which the balancer does not apply by itself. It adds a table admin if there
// is none.
func (b *Balancer) Configure(t testing.TB, config string) {
	t.Helper()
	next := b.file + ".next"
	if err := os.WriteFile(next, []byte(b.Complete(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, b.file); err != nil { // a reader never sees half of it
		t.Fatal(err)
	}
}

// Complete returns a configuration with the table admin, as Configure writes it.
func (b *Balancer) Complete(config string) string {
	if hasAdmin.MatchString(config) {
		return config
	}
	return config + fmt.Sprintf("\n[admin]\naddress = %q\n", "unix:"+b.admin)
}

// API asks the balancer's control API and returns the status and the body of the answer.
func (b *Balancer) API(t testing.TB, method, path string, body []byte, header ...string) (status int, answer []byte) {
	t.Helper()
	status, answer, err := b.TryAPI(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return status, answer
}

// TryAPI is API for any goroutine; header is names and values in turn.
func (b *Balancer) TryAPI(
	ctx context.Context, method, path string, body []byte, header ...string,
) (status int, answer []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", b.admin)
		}}
	request, err := http.NewRequestWithContext(ctx, method, "http://limeload"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// Ask is API for a request that must succeed; the answer is decoded into into, unless that is nil.
func (b *Balancer) Ask(t testing.TB, method, path string, body, into any) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	status, answer := b.API(t, method, path, text)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(answer, into); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
}

// Command runs a command of the program against this balancer, as an operator does, and returns its output and exit
// code.
func (b *Balancer) Command(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return Run(t, Command{
		Path: Binary(t, false), Args: args,
		Env: []string{"LIMELOAD_ADMIN=unix:" + b.admin, "GORACE=atexit_sleep_ms=50"},
	})
}

// Reload makes the balancer reload its configuration, which must succeed.
func (b *Balancer) Reload(t testing.TB, config string) {
	t.Helper()
	b.Configure(t, config)
	if status, answer := b.API(t, "POST", "/v1/reload", nil); status != http.StatusOK {
		t.Fatalf("reload: %d %s\n%s", status, strings.TrimSpace(string(answer)), config)
	}
}
