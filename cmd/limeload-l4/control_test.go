package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// wholeApp returns the program with every command.
func wholeApp(stdout, stderr io.Writer) *cli.App {
	app := newApp(stdout, stderr)
	for _, c := range commandsWithArguments() {
		if app.Command(c.Name) == nil {
			app.Commands = append(app.Commands, c)
		}
	}
	return app
}

// command runs the program, and returns what it wrote and its exit code.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = program(t.Context(), append([]string{"limeload-l4"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func program(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := execute(ctx, wholeApp(stdout, stderr), args)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return exitCode(err)
}

// TestProgram is not a test: shells that a test starts run this program through it, see shim.
func TestProgram(t *testing.T) {
	if os.Getenv("LIMELOAD_TEST_PROGRAM") == "" {
		return
	}
	args := os.Args[slices.Index(os.Args, "--")+1:]
	os.Exit(program(t.Context(), append([]string{"limeload-l4"}, args...), os.Stdout, os.Stderr))
}

// A fakeDaemon answers as a daemon with the state of the fixture below. Its handlers may be replaced before it is
// called.
type fakeDaemon struct {
	mux     *http.ServeMux
	address string

	// mu guards the fields below
	mu       sync.Mutex
	asked    []string // "METHOD URI", "METHOD URI body"
	tokens   []string // of the requests, as sent
	backends []admin.Backend
}

// startFake starts a fakeDaemon at a Unix socket, where commands find it.
func startFake(t *testing.T) *fakeDaemon {
	t.Helper()
	f := newFake(t)
	socket := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, listener)
	f.address = "unix:" + socket
	t.Setenv(adminVariable, f.address)
	return f
}

func newFake(t *testing.T) *fakeDaemon {
	t.Helper()
	f := &fakeDaemon{mux: http.NewServeMux(), backends: fixtureBackends()}
	status := fixtureStatus() // one daemon has one time of its start
	f.handle("GET /v1/status", func(*http.Request) any { return status })
	f.handle("GET /v1/listeners", func(*http.Request) any { return map[string]any{"listeners": fixtureListeners()} })
	f.handle("GET /v1/pools", func(*http.Request) any { return map[string]any{"pools": fixturePools()} })
	f.handle("GET /v1/backends", func(*http.Request) any { return map[string]any{"backends": f.backends} })
	f.handle("GET /v1/pools/{pool}/backends", f.listPool)
	f.handle("POST /v1/pools/{pool}/backends", func(*http.Request) any { return added() })
	f.handle("PATCH /v1/pools/{pool}/backends/{name}", func(*http.Request) any {
		b := added()
		b.Mode = "maintenance"
		return b
	})
	f.handle("DELETE /v1/pools/{pool}/backends/{name}", func(*http.Request) any { return nil })
	f.handle("POST /v1/pools/{pool}/backends/{name}/drain", f.drain)
	f.handle("GET /v1/sessions", func(*http.Request) any { return fixtureSessions() })
	f.handle("DELETE /v1/sessions", func(*http.Request) any { return map[string]int{"ended": 12} })
	f.handle("POST /v1/listeners/{listener}/dns/purge", purge)
	f.handle("GET /v1/access", func(*http.Request) any { return map[string]any{"rules": fixtureRules()} })
	f.handle("POST /v1/access", addRule)
	f.handle("DELETE /v1/access", removeRule)
	f.handle("GET /v1/access/check", func(*http.Request) any { return fixtureAccess() })
	f.handle("GET /v1/clients", func(*http.Request) any { return fixtureClients() })
	f.handle("GET /v1/fleet", func(*http.Request) any { return fixtureFleet() })
	f.handle("GET /v1/fleet/verify", func(*http.Request) any {
		return admin.FleetComparison{Same: true, Connected: true, Nodes: []string{"lb1", "lb2"},
			Pools: []admin.FleetPool{{Name: "redis", Algorithm: "maglev", Eligible: 3, Nodes: 2, Same: true}}}
	})
	f.handle("GET /v1/explain", func(*http.Request) any { return fixtureExplanation() })
	f.handle("POST /v1/reload", func(*http.Request) any {
		return admin.Reloaded{Took: 0.0042, Plan: fixturePlan("/etc/limeload/lb.toml")}
	})
	f.handle("POST /v1/upgrade", func(*http.Request) any {
		return admin.Upgraded{OldPID: 100, NewPID: 200, OldVersion: "1.2", NewVersion: "1.3", Sessions: 500, Flows: 1,
			Left: map[string]int{"tls": 3, "busy": 1, "refused": 0}, Until: 30, Took: 0.41}
	})
	f.handle("POST /v1/plan", func(r *http.Request) any {
		return fixturePlan(r.URL.Query().Get("name"))
	})
	f.mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		f.note(r, nil)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range fixtureEvents() {
			text, err := json.Marshal(e)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Kind, text)
		}
	})
	return f
}

func (f *fakeDaemon) serve(t *testing.T, listener net.Listener) {
	server := httptest.NewUnstartedServer(f)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	f.address = listener.Addr().String()
}

// ServeHTTP uses a mux, so that a test can override a handler by a more specific pattern.
func (f *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.mux.ServeHTTP(w, r) }

// handle answers with JSON. A *admin.Problem is an error, and nil an empty answer.
func (f *fakeDaemon) handle(pattern string, answer func(*http.Request) any) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a test notices if something is missing
		f.note(r, body)
		f.mu.Lock()
		v := answer(r)
		f.mu.Unlock()
		switch v := v.(type) {
		case nil:
			w.WriteHeader(http.StatusNoContent)
			return
		case *admin.Problem:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(v.Status)
		default:
			w.Header().Set("Content-Type", "application/json")
		}
		_ = json.NewEncoder(w).Encode(v) // the client may have left
	})
}

// refusing starts a fake daemon that answers everything with one problem.
func refusing(t *testing.T, p *admin.Problem) {
	t.Helper()
	f := startFake(t)
	f.mux = http.NewServeMux()
	f.handle("/", func(*http.Request) any { return p })
}

func (f *fakeDaemon) note(r *http.Request, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)))
	f.tokens = append(f.tokens, r.Header.Get("Authorization"))
}

// requests returns the requests so far.
func (f *fakeDaemon) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// shown returns the Authorization headers so far.
func (f *fakeDaemon) shown() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens)
}

// listPool lists a pool's backends. A draining one has a session less at each call, and finally does not drain any
// more.
func (f *fakeDaemon) listPool(r *http.Request) any {
	name := r.PathValue("pool")
	if name != "redis" {
		return &admin.Problem{Type: "/problems/unknown-pool", Status: http.StatusNotFound,
			Detail: fmt.Sprintf("pool %q: there is no such pool", name)}
	}
	for i := range f.backends {
		b := &f.backends[i]
		if b.Drain == nil {
			continue
		}
		b.Sessions, b.Drain.Left = b.Sessions-1, b.Drain.Left-1
		switch {
		case b.Sessions > 0:
		case b.Drain.Remove:
			f.backends = slices.Delete(f.backends, i, i+1)
			return map[string]any{"backends": f.backends}
		default:
			b.Drain = nil
		}
	}
	return map[string]any{"backends": f.backends}
}

func (f *fakeDaemon) drain(r *http.Request) any {
	var d admin.Drain
	switch {
	case r.PathValue("name") != "b2":
		return &admin.Problem{Type: "/problems/unknown-backend", Status: http.StatusNotFound,
			Detail: "pool redis: there is no such backend"}
	case strings.Contains(f.asked[len(f.asked)-1], `"remove":true`):
		d.Remove = true
	}
	b := &f.backends[1]
	b.Mode, b.Sessions = "drain", 2
	deadline := time.Now().Add(24*time.Hour + 30*time.Minute)
	b.Drain = &admin.DrainProgress{Sessions: 2, Left: 2, Deadline: &deadline, Remove: d.Remove}
	return *b
}

// purge removes three answers, for the listener that has a cache.
func purge(r *http.Request) any {
	p := &admin.Problem{Type: "/problems/unknown-listener", Status: http.StatusNotFound,
		Detail: fmt.Sprintf("listener %q: there is no such listener", r.PathValue("listener"))}
	switch r.PathValue("listener") {
	case "dns":
		return map[string]int{"purged": 3}
	case "main", "internal":
		p.Type, p.Status, p.Detail = "/problems/no-dns-cache", http.StatusConflict,
			"listener \"internal\": it has no DNS cache"
	}
	return p
}

// before is a time that is printed as "3d4h ago" however slow the test is.
func before() time.Time { return time.Now().Add(-76*time.Hour - 30*time.Minute) }

func fixtureStatus() admin.Status {
	last := before()
	return admin.Status{
		Version: "1.0.0", PID: 4711, Config: "/etc/limeload/lb.toml", State: "serving", Started: before(),
		Sessions: 131, MaxSessions: 4096,
		LogLevel: "info", Loops: []admin.Loop{{Index: 0, Sessions: 66}, {Index: 1, Sessions: 65}},
		Listeners: fixtureListeners(), Pools: fixturePools(),
		Reloads:      admin.Reloads{Done: 12, Failed: 1, Last: &last, Took: 0.0042},
		Differences:  []admin.Difference{{Pool: "redis", Backend: "b2", What: "weight", File: "1", Running: "3"}},
		NeedsRestart: []string{"global.workers"}, Warnings: []string{"pool.dns: no health check"},
		StateFile: "/var/lib/limeload/state.json",
	}
}

func fixtureListeners() []admin.Listener {
	return []admin.Listener{
		{Name: "main", Protocol: "tcp", Address: "127.0.0.1:6379", Pool: "redis", Sessions: 131, Accepted: 40211,
			Retries: 3, BytesIn: 1234567, BytesOut: 98765432101},
		{Name: "dns", Protocol: "udp", Address: "127.0.0.1:53", Pool: "dns", BytesIn: 52_000_000, BytesOut: 104_000_000,
			DNS: &admin.DNS{
				InFlight: 3, Sockets: 2, Asked: 62010, Answered: 61987, TimedOut: 20, Failed: 1, Mismatched: 4,
				Cache: &admin.DNSCache{
					Hit: 938_000, Miss: 60_500, Coalesced: 1500, Stale: 12, Prefetched: 1490, Passed: 20,
					Stored: 61_000, Evicted: 41_000, Expired: 12_500, Entries: 7500, Bytes: 3_100_000, Waiting: 3,
				},
			}},
		{Name: "internal", Protocol: "udp", Address: "127.0.0.1:5353", Pool: "dns",
			DNS: &admin.DNS{Asked: 17, Answered: 17}},
	}
}

func fixturePools() []admin.Pool {
	return []admin.Pool{
		{Name: "redis", Algorithm: "least_conn", Listeners: []string{"main"}, Check: "redis", Backends: 3, Healthy: 2,
			Eligible: 2, Sessions: 131, Waiting: 0, QueueMax: 100},
		{Name: "spare", Algorithm: "maglev", Discovery: "dns", Backends: 1, TriesAll: true, Rivalries: 2},
		{Name: "dns", Algorithm: "round_robin", Listeners: []string{"dns", "internal"}, Backends: 2, Healthy: 2,
			Eligible: 2},
	}
}

func fixtureBackends() []admin.Backend {
	return []admin.Backend{
		{Pool: "redis", Name: "b1", Address: "10.0.0.11:6379", Weight: 1, Mode: "ready", Verdict: "healthy",
			Since: before(), Breaker: "closed", Eligible: true,
			Sessions: 66, MaxSessions: 100, BytesIn: 617283, BytesOut: 49382716050},
		{Pool: "redis", Name: "b2", Address: "10.0.0.12:6379", Weight: 3, Mode: "ready", Verdict: "healthy",
			Since: before(), Breaker: "closed", Eligible: true,
			Sessions: 65, BytesIn: 617284, BytesOut: 49382716051},
		{Pool: "redis", Name: "b3", Address: "10.0.0.13:6379", Weight: 1, Mode: "ready", Verdict: "unhealthy",
			Since: before(), Breaker: "closed",
			Reason: "connect: connection refused"},
	}
}

func added() admin.Backend {
	return admin.Backend{Pool: "redis", Name: "b4", Address: "10.0.0.14:6379", Weight: 2, Mode: "ready",
		Verdict: "unknown", Breaker: "closed"}
}

func fixtureSessions() admin.SessionList {
	return admin.SessionList{Total: 131, Sessions: []admin.Session{
		{ID: "8c3f5e0000000001", Listener: "main", Client: "192.0.2.7:51234", Pool: "redis", Backend: "b1",
			Address: "10.0.0.11:6379", Phase: "relaying",
			Age: 9000, Idle: 192, BytesIn: 912, BytesOut: 20480},
		{ID: "8c3f5e0000000002", Listener: "main", Client: "[2001:db8::1]:40000", Pool: "redis", Phase: "queued",
			Age: 1.52, Idle: 1.52, Retries: 1},
	}}
}

func fixtureExplanation() admin.Explanation {
	return admin.Explanation{
		Listener: "main", Pool: "redis", Client: "192.0.2.7", Algorithm: "least_conn", Deterministic: true,
		DecidedBy: "algorithm", Backend: "b2", Address: "10.0.0.12:6379",
		Candidates: []admin.Candidate{{Backend: "b2", Weight: 3, Share: 1, Sessions: 65},
			{Backend: "b1", Weight: 1, Share: 0.5, Sessions: 66}},
		Others: []admin.NotPicked{{Backend: "b3", Why: "unhealthy", Reason: "connect: connection refused"}},
		Text:   "192.0.2.7 at main is sent to b2 of pool redis: of the 2 eligible backends of tier 0 it has the fewest sessions for its weight.",
	}
}

func fixturePlan(name string) admin.Plan {
	moved := 0.125
	return admin.Plan{
		Config: name,
		Listeners: []admin.ListenerChange{
			{Name: "main", What: "kept", Address: "127.0.0.1:6379", Sessions: 131},
			{Name: "old", What: "removed", Address: "127.0.0.1:6380", Sessions: 4},
			{Name: "web", What: "added", Address: ":443"},
			{Name: "dns", What: "changed", Address: ":53",
				Changes: []admin.Change{{Key: "idle_timeout", From: `"0s"`, To: `"5m"`}}, Sessions: 1},
		},
		Pools: []admin.PoolChange{
			{Name: "spare", What: "kept"},
			{Name: "redis", What: "changed", KeysMoved: &moved,
				Changes: []admin.Change{{Key: "retries", From: "2", To: "3"}},
				Backends: []admin.BackendPlan{
					{Name: "b3", Address: "10.0.0.13:6379", What: "removed", Sessions: 3},
					{Name: "b1", Address: "10.0.0.11:6379", What: "changed",
						Changes: []admin.Change{{Key: "weight", From: "1", To: "2"}}, Sessions: 66},
				}},
		},
		Settings: []admin.Change{{Key: "log.level", From: `"info"`, To: `"debug"`}}, Drained: 7,
		Differences:  []admin.Difference{{Pool: "redis", Backend: "b2", What: "weight", File: "1", Running: "3"}},
		NeedsRestart: []string{"global.workers"},
	}
}

func fixtureEvents() []admin.Event {
	at := time.Date(2026, 3, 1, 12, 30, 0, 250_000_000, time.UTC)
	return []admin.Event{
		{At: at, Kind: "verdict_changed", Pool: "redis", Backend: "b3", Address: "10.0.0.13:6379", From: "healthy",
			To: "unhealthy", Reason: "connect: connection refused"},
		{At: at.Add(time.Second), Kind: "reloaded", Text: "taken up in 4.2ms"},
		{At: at.Add(2 * time.Second), Kind: "weight_changed", Pool: "redis", Backend: "b2", Address: "10.0.0.12:6379",
			From: "1", To: "3", Lost: 2},
	}
}
