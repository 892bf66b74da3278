package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// TestDrainWait follows a drain. Each line says how many sessions are left, and the last one what became of the
// backend.
func TestDrainWait(t *testing.T) {
	for _, test := range []struct {
		args    string
		prepare func(f *fakeDaemon)
		code    int
		want    string // of both outputs
	}{
		{"--deadline 24h", nil, exitDone, "drains: 2 of 2 sessions left, ended in 1d0h\n" +
			"drains: 1 of 2 sessions left, ended in 1d0h\n" + "is drained\n"},
		{"--remove", nil, exitDone, "drains: 2 of 2 sessions left, ended in 1d0h, then removed\n" +
			"drains: 1 of 2 sessions left, ended in 1d0h, then removed\n" + "is drained and removed\n"},
		{"", func(f *fakeDaemon) {
			f.handle("GET /v1/pools/redis/backends", func(*http.Request) any {
				b := fixtureBackends()[1] // somebody has set it to ready
				return map[string]any{"backends": []admin.Backend{b}}
			})
		}, exitFailed, "drains: 2 of 2 sessions left, ended in 1d0h\n" + "drains no longer: its mode is ready\n"},
		{"", func(f *fakeDaemon) {
			f.handle("GET /v1/pools/redis/backends",
				func(*http.Request) any { return map[string]any{"backends": []admin.Backend{}} })
		}, exitDone, "drains: 2 of 2 sessions left, ended in 1d0h\n" + "was removed meanwhile\n"},
		{"--remove", func(f *fakeDaemon) {
			b := fixtureBackends()[1] // it has no sessions for a while before it is removed
			b.Mode, b.Sessions, b.Drain = "drain", 0, &admin.DrainProgress{Remove: true}
			f.handle("POST /v1/pools/redis/backends/b2/drain", func(*http.Request) any { return b })
			left := []admin.Backend{b}
			f.handle("GET /v1/pools/redis/backends", func(*http.Request) any {
				defer func() { left = nil }()
				return map[string]any{"backends": left}
			})
		}, exitDone, "drains: 0 of 0 sessions left, then removed\n" + "is drained and removed\n"},
		{"--remove", func(f *fakeDaemon) {
			f.handle("GET /v1/pools/redis/backends", func(*http.Request) any {
				// it has no sessions, and another drain without a removal has replaced this one
				b := fixtureBackends()[1]
				b.Mode, b.Sessions = "drain", 0
				return map[string]any{"backends": []admin.Backend{b}}
			})
		}, exitFailed, "drains: 2 of 2 sessions left, ended in 1d0h, then removed\n" +
			"drains no longer: its mode is drain\n"},
		{"", func(f *fakeDaemon) {
			f.mux.HandleFunc("GET /v1/pools/redis/backends",
				func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, exitUnreachable, "drains: 2 of 2 sessions left, ended in 1d0h\n" + "the daemon cannot be reached"},
	} {
		f := startFake(t)
		if test.prepare != nil {
			test.prepare(f)
		}
		code, stdout, stderr := command(t, strings.Fields("backends drain redis b2 --wait "+test.args)...)
		got := strings.ReplaceAll(stdout+stderr, "backend b2 of pool redis ", "")
		if code != test.code || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: exit code %d\n%swant\n%s", test.args, code, got, test.want)
		}
	}
	startFake(t)
	code, stdout, _ := command(t, strings.Fields("backends drain redis b2 --wait --output json")...)
	var b admin.Backend
	if err := json.Unmarshal([]byte(stdout), &b); code != exitDone || err != nil || b.Name != "b2" || b.Sessions != 0 ||
		b.Mode != "drain" {
		t.Errorf("exit code %d, %v\n%s", code, err, stdout)
	}
	if code, _, stderr := command(t, strings.Fields("backends drain redis b9 --wait")...); code != exitFailed ||
		!strings.Contains(stderr, "no such backend") {
		t.Errorf("no such backend: exit code %d, %s", code, stderr)
	}
}

// TestDrainInFleet: a drain that the fleet shares says that only this node's sessions are counted.
func TestDrainInFleet(t *testing.T) {
	f := startFake(t)
	b := fixtureBackends()[1]
	b.Mode, b.Sessions, b.Sharing = "drain", 2, &admin.Sharing{Shared: true}
	f.handle("POST /v1/pools/redis/backends/b2/drain", func(*http.Request) any { return b })
	f.handle("GET /v1/pools/redis/backends", func(*http.Request) any {
		drained := b
		drained.Sessions, drained.Sharing = 0, nil
		return map[string]any{"backends": []admin.Backend{drained}}
	})
	const backend = "backend b2 of pool redis "
	for flags, want := range map[string]string{
		"":        backend + "drains: 2 sessions left on this node; the fleet has it\n",
		" --wait": backend + "drains: 2 sessions left on this node\n" + backend + "is drained on this node\n",
	} {
		code, stdout, _ := command(t, strings.Fields("backends drain redis b2"+flags)...)
		if code != exitDone || stdout != want {
			t.Errorf("exit code %d\n%swant\n%s", code, stdout, want)
		}
	}
}

// TestDrainWithoutDeadline: the drain is done when the backend has no sessions, even if no progress is reported.
func TestDrainWithoutDeadline(t *testing.T) {
	f := startFake(t)
	left := int64(2)
	b := fixtureBackends()[1]
	b.Mode = "drain"
	f.handle("POST /v1/pools/redis/backends/b2/drain", func(*http.Request) any { b.Sessions = left; return b })
	f.handle("GET /v1/pools/redis/backends", func(*http.Request) any {
		left--
		b.Sessions = left
		return map[string]any{"backends": []admin.Backend{b}}
	})
	code, stdout, _ := command(t, strings.Fields("backends drain redis b2 --wait")...)
	want := "backend b2 of pool redis drains: 2 sessions left\n" +
		"backend b2 of pool redis drains: 1 session left\nbackend b2 of pool redis is drained\n"
	if code != exitDone || stdout != want {
		t.Errorf("exit code %d\n%swant\n%s", code, stdout, want)
	}
}

// TestBadConfiguration: plan and reload print the mistakes as check does, with exit code 1.
func TestBadConfiguration(t *testing.T) {
	bad := write(t, "[listener.web]\nadress = 1\n[pool.web]\nretries = 99\n")
	code, _, want := command(t, "check", "--config", bad)
	if code != exitFailed || strings.Count(want, "\n") < 3 {
		t.Fatalf("check: exit code %d\n%s", code, want)
	}
	f := startFake(t)
	if code, stdout, stderr := command(t, "plan", "--config", bad); code != exitFailed || stdout != "" ||
		stderr != want {
		t.Errorf("plan: exit code %d\n%s%s", code, stdout, stderr)
	}
	if asked := f.requests(); len(asked) > 0 {
		t.Errorf("the daemon was asked %q about a file that is wrong", asked)
	}
	_, err := conf.Load(bad)
	refusing(t, &admin.Problem{Type: "/problems/invalid-configuration", Status: http.StatusUnprocessableEntity,
		Detail: err.Error()})
	for _, args := range [][]string{{"reload"}, {"plan"}} {
		if code, stdout, stderr := command(t, args...); code != exitFailed || stdout != "" || stderr != want {
			t.Errorf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	_, _, want = command(t, "check", "--config", "/nowhere/lb.toml")
	if code, _, stderr := command(t, "plan", "--config", "/nowhere/lb.toml"); code != exitFailed ||
		!strings.HasPrefix(want, strings.TrimSpace(stderr)) {
		t.Errorf("plan without a file: exit code %d, %s, check says %s", code, stderr, want)
	}
}

// TestPlanOfNothing: a plan without changes says so, and is no failure.
func TestPlanOfNothing(t *testing.T) {
	f := startFake(t)
	f.mux = http.NewServeMux()
	f.handle("POST /v1/plan", func(*http.Request) any { return admin.Plan{Config: "lb.toml", Same: true} })
	code, stdout, _ := command(t, "plan")
	want := "lb.toml: nothing would change\nkept: 0 listeners, 0 pools\nsessions: 0 drain, 0 end\n"
	if code != exitDone || stdout != want {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
}

// TestPlanOfBackends: a plan shows the changes of backends in a pool that is kept.
func TestPlanOfBackends(t *testing.T) {
	f := startFake(t)
	f.mux = http.NewServeMux()
	f.handle("POST /v1/plan", func(*http.Request) any {
		return admin.Plan{Config: "lb.toml",
			Pools: []admin.PoolChange{{Name: "redis", What: "kept",
				Backends: []admin.BackendPlan{{Name: "b4", What: "added", Address: "10.0.0.14:6379"}}}}}
	})
	if _, stdout, _ := command(t, "plan"); !strings.Contains(stdout,
		"pool redis: kept\n  backend b4: added, 10.0.0.14:6379\nkept: 0 listeners, 0 pools\n") {
		t.Error(stdout)
	}
}

// TestExplainNeedsOne: the command asks for a listener only if the daemon has several.
func TestExplainNeedsOne(t *testing.T) {
	f := startFake(t)
	if code, _, stderr := command(t, "explain", "192.0.2.1"); code != exitUsage ||
		!strings.Contains(stderr, "there are 3 listeners: needs --listener or --pool") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	f.mux = http.NewServeMux()
	f.handle("GET /v1/listeners",
		func(*http.Request) any { return map[string]any{"listeners": fixtureListeners()[:1]} })
	f.handle("GET /v1/explain", func(*http.Request) any { return fixtureExplanation() })
	command(t, "explain", "192.0.2.1")
	if asked := f.requests(); asked[len(asked)-1] != "GET /v1/explain?client=192.0.2.1&listener=main" {
		t.Errorf("asked %q", asked)
	}
}

// TestDNSWithoutCaches: the output shows what there is, and says what is missing.
func TestDNSWithoutCaches(t *testing.T) {
	f := startFake(t)
	f.mux = http.NewServeMux()
	listeners := fixtureListeners()
	f.handle("GET /v1/listeners", func(*http.Request) any { return map[string]any{"listeners": listeners} })
	listeners[1].DNS.Cache = &admin.DNSCache{Passed: 1}
	if code, stdout, _ := command(t, "dns"); code != exitDone ||
		!strings.Contains(stdout, "\ndns                 -    0 ") {
		t.Errorf("nothing asked yet: exit code %d\n%s", code, stdout)
	}
	listeners[1].DNS = nil
	if code, stdout, _ := command(t, "dns"); code != exitDone || strings.Contains(stdout, "cache of") ||
		strings.Count(stdout, "\n") != 2 {
		t.Errorf("no cache: exit code %d\n%s", code, stdout)
	}
	listeners[2].DNS = nil
	if code, stdout, _ := command(t, "dns"); code != exitDone || !strings.Contains(stdout, "[listener.*.cache]") ||
		strings.Count(stdout, "\n") != 1 {
		t.Errorf("no DNS: exit code %d\n%s", code, stdout)
	}
	if code, stdout, _ := command(t, "dns", "--output", "json"); code != exitDone ||
		stdout != "{\n  \"listeners\": []\n}\n" {
		t.Errorf("no DNS, as JSON: exit code %d\n%s", code, stdout)
	}
}

// TestDNSPurgeRefused: without a cache the command fails, and says what to do.
func TestDNSPurgeRefused(t *testing.T) {
	startFake(t)
	for listener, want := range map[string]string{
		"nobody":   "there is no such listener; `limeload-l4 dns` lists those with DNS settings",
		"internal": "it has no DNS cache",
	} {
		if code, stdout, stderr := command(t, "dns", "purge", listener, "--all"); code != exitFailed || stdout != "" ||
			!strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, %s%s", listener, code, stdout, stderr)
		}
	}
}

// TestEventsEnd ends a stream by the daemon, the connection, the timeout and the reader.
func TestEventsEnd(t *testing.T) {
	f := startFake(t)
	if code, _, stderr := command(t, "events"); code != exitUnreachable ||
		!strings.Contains(stderr, "the daemon is shutting down") {
		t.Errorf("ended: exit code %d, %s", code, stderr)
	}
	release := make(chan struct{})
	one := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "event: drained\ndata: {\"kind\":\"drained\",\"reason\":\"\\u001b[2J\"}\n\n")
		_ = http.NewResponseController(w).Flush() // the client may have left
	}
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, _ *http.Request) {
		one(w)
		panic(http.ErrAbortHandler)
	})
	if code, stdout, _ := command(t, "events"); code != exitUnreachable ||
		!strings.Contains(stdout, `drained: \x1b[2J`) {
		t.Errorf("cut: exit code %d, %s", code, stdout)
	}
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		one(w)
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	if code, stdout, stderr := command(t, "events", "--follow=false", "--timeout", "1s"); code != exitDone ||
		!strings.Contains(stdout, "drained") {
		t.Errorf("timeout: exit code %d, %s%s", code, stdout, stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan int, 1)
	go func() { ended <- program(ctx, []string{"limeload-l4", "events"}, write, io.Discard) }()
	if _, err := read.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	cancel()
	if code := <-ended; code != exitFailed {
		t.Errorf("interrupted: exit code %d", code)
	}
	read.Close()
}

// TestDraining checks the descriptions of a drain's progress.
func TestDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deadline := time.Now().Add(42 * time.Second)
		got := draining(&admin.DrainProgress{Sessions: 12, Left: 5, Deadline: &deadline, Remove: true}, "")
		if want := "drains: 5 of 12 sessions left, ended in 42s, then removed"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
