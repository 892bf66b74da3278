package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestRetryOfUntouched has a backend reset or close every connection, beside one that works: no client sees it, and
// each such session is counted. One that sends a byte first has its sessions: none is tried elsewhere.
func TestRetryOfUntouched(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		clients int
		handle  harness.Handler
		cut     bool // whether clients see the end
	}{
		{"resets", 2000, harness.ResetAtOnce, false},
		{"closes", 300, harness.CloseAtOnce, false},
		{"sends a byte and closes", 300,
			func(_ context.Context, c *net.TCPConn) { _, _ = c.Write([]byte("x")) }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bad, good := harness.Serve(t, tc.handle), harness.Serve(t, harness.SpeakFirst("good"))
			b := world{
				Backends: []string{bad.Address(), good.Address()},
				Pool:     []string{`algorithm = "round_robin"`}, Breaker: []string{`failures = 0`},
			}.start(t)
			cut := 0
			for range tc.clients {
				if greeted(t, b) != nil {
					cut++
				}
			}
			retried := 0
			for _, l := range b.WaitSessions(t, tc.clients) {
				retried += l.Retries
			}
			t.Logf("%d of %d clients were cut, %d sessions tried elsewhere", cut, tc.clients, retried)
			if tc.cut && (retried > 0 || cut != tc.clients/2) || !tc.cut && (cut > 0 || retried < tc.clients/2) {
				t.Errorf("%d of %d clients were cut, %d sessions tried elsewhere", cut, tc.clients, retried)
			}
			all := metrics(t, b)
			counted, failures := 0., 0.
			for _, outcome := range []string{"cut_early", "connect_refused", "connect_unreachable"} {
				counted += all[fmt.Sprintf(`limeload_listener_retries_total{listener="main",outcome=%q}`, outcome)]
				failures += all[fmt.Sprintf(`limeload_backend_outcomes_total{backend="b1",outcome=%q,pool="all"}`, outcome)]
			}
			if int(counted) != retried || !tc.cut && int(failures) != retried {
				t.Errorf("counted are %v retries and %v failures of the backend", counted, failures)
			}
		})
	}
}

// greeted connects to the balancer, and returns the error of reading the backend's greeting of four bytes.
func greeted(t *testing.T, b *harness.Balancer) error {
	t.Helper()
	c := harness.Dial(t, b.Address(t, "main"))
	defer c.Close()
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

// TestRetryOpensBreaker has a backend reset every connection, beside one that works, with the breaker as it is by
// default: it opens after five sessions, and from then on the backend gets its trials alone. No client of 2,000 sees
// anything.
func TestRetryOpensBreaker(t *testing.T) {
	t.Parallel()
	const clients = 2000
	bad, good := harness.Serve(t, harness.ResetAtOnce), harness.Serve(t, harness.SpeakFirst("good"))
	began := time.Now()
	b := world{
		Backends: []string{bad.Address(), good.Address()}, Pool: []string{`algorithm = "round_robin"`},
	}.start(t)
	for range clients {
		if err := greeted(t, b); err != nil {
			t.Fatalf("a client got %v", err)
		}
	}
	awaitBreaker(t, b, "b1", "open", began)
	retried := 0
	for _, l := range b.WaitSessions(t, clients) {
		retried += l.Retries
	}
	openings := int(metrics(t, b)[`limeload_backend_breaker_openings_total{backend="b1",pool="all"}`])
	t.Logf("the backend got %d connections; %d openings of its breaker", bad.Accepted(), openings)
	if openings == 0 || retried != 4+openings {
		t.Errorf("%d sessions were tried elsewhere with %d openings", retried, openings)
	}
}

// TestNoRetryAfterRequest has a backend read one byte of each request and reset the connection, beside one that works.
// No request reaches two backends, and no session is tried elsewhere: the client learns that its request may have been
// carried out.
func TestNoRetryAfterRequest(t *testing.T) {
	t.Parallel()
	const clients = 500
	var mu sync.Mutex
	got := map[string]int{} // connections by the request
	read := func(c *net.TCPConn, least int) bool {
		request := make([]byte, 4)
		if _, err := io.ReadFull(c, request[:least]); err != nil {
			return false
		}
		_, err := io.ReadFull(c, request[least:])
		mu.Lock()
		got[string(request)]++
		mu.Unlock()
		return err == nil
	}
	bad := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		if read(c, 1) {
			harness.Reset(c)
		}
	})
	good := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		if read(c, 4) {
			_, _ = io.WriteString(c, "done")
		}
	})
	b := world{
		Backends: []string{bad.Address(), good.Address()}, Pool: []string{`algorithm = "round_robin"`},
	}.start(t)
	var failed, done []string
	for i := range clients {
		c, request := b.Dial(t, "main"), fmt.Sprintf("%04d", i)
		_, err := io.WriteString(c, request)
		check(t, err)
		answer := make([]byte, 4)
		switch _, err = io.ReadFull(c, answer); {
		case err == nil && string(answer) == "done":
			done = append(done, request)
		case errors.Is(err, syscall.ECONNRESET):
			failed = append(failed, request)
		default:
			t.Errorf("a client got %q, %v", answer, err)
		}
		check(t, c.Close())
	}
	for _, l := range b.WaitSessions(t, clients) {
		if l.Retries > 0 {
			t.Errorf("tried elsewhere: %s", l.Text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, request := range append(failed, done...) {
		if got[request] != 1 {
			t.Errorf("request %s reached %d backends", request, got[request])
		}
	}
	t.Logf("%d requests were answered, %d clients were reset", len(done), len(failed))
	if len(done) != clients/2 || len(failed) != clients/2 || len(got) != clients {
		t.Errorf("%d requests were answered, %d clients were reset, the backends saw %d requests: %s", len(done),
			len(failed), len(got), strings.Join(failed[:min(len(failed), 5)], " "))
	}
}
