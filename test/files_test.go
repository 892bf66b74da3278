package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPlanShowsNoSecrets sends plans with files that the running configuration does not name, as somebody might who
// wants to explore the machine: all answers are the same, and no login is tried.
func TestPlanShowsNoSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.WriteFile(at("secret"), []byte("top secret\n"), 0o600))
	check(t, os.Mkdir(at("folder"), 0o700))
	logins := make(chan *net.TCPConn, 16)
	thief := harness.Serve(t, handOver(logins))
	w := world{Backends: []string{thief.Address()}}
	b := w.start(t)
	w.Listen = b.Address(t, "main")
	answers := map[string]string{}
	for _, file := range []string{at("secret"), at("missing"), at("folder"), "/dev/zero"} {
		for _, health := range [][]string{
			{`type = "redis"`, fmt.Sprintf("password_file = %q", file)},
			{`type = "https"`, fmt.Sprintf("ca = %q", file)},
			{`type = "https"`, fmt.Sprintf("cert = %q", file), fmt.Sprintf("key = %q", file)},
		} {
			w.Health = health
			status, answer := b.API(t, "POST", "/v1/plan", []byte(b.Complete(w.config(t))), "Content-Type",
				"application/toml")
			kind := strings.Fields(health[1])[0]
			said := strings.ReplaceAll(string(answer), file, "FILE")
			if before, known := answers[kind]; known && before != said || status != http.StatusOK {
				t.Errorf("%s = %s: %d %s, and another file %s", kind, file, status, said, before)
			}
			answers[kind] = said
			if !strings.Contains(said, "is not read for a plan") || strings.Contains(said, "top secret") {
				t.Errorf("%s = %s: %s", kind, file, said)
			}
		}
	}
	if n := len(logins); n > 0 {
		t.Errorf("%d logins were tried", n)
	}
}

// TestFilesOfConfiguration replaces a file that a configuration names by everything else that a path can lead to: check
// and reload report at once what is wrong and where, and TERM still ends the balancer.
func TestFilesOfConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.Mkdir(at("folder"), 0o700))
	check(t, syscall.Mkfifo(at("pipe"), 0o600))
	check(t, os.WriteFile(at("sparse"), nil, 0o600))
	check(t, os.Truncate(at("sparse"), 1<<30))
	check(t, os.WriteFile(at("text"), []byte("no certificate\n"), 0o600))
	backend := harness.Serve(t, harness.Echo)
	w := world{Backends: []string{backend.Address()}}
	b := w.start(t)
	w.Listen = b.Address(t, "main")
	for _, tt := range []struct{ file, want string }{
		{at("pipe"), "not a regular file"}, {"/dev/zero", "not a regular file"}, {at("folder"), "not a regular file"},
		{at("sparse"), "the file is too large"}, {at("missing"), "no such file or directory"},
	} {
		for _, health := range [][]string{
			{`type = "redis"`, fmt.Sprintf("password_file = %q", tt.file)},
			{`type = "https"`, fmt.Sprintf("ca = %q", tt.file)},
			{`type = "https"`, fmt.Sprintf("cert = %q", tt.file), fmt.Sprintf("key = %q", at("text"))},
			{`type = "https"`, fmt.Sprintf("cert = %q", at("text")), fmt.Sprintf("key = %q", tt.file)},
		} {
			w.Health = health
			b.Configure(t, w.config(t))
			for _, command := range [][]string{{"check", "--config", b.File()}, {"plan"}, {"reload"}} {
				_, stderr, code := b.Command(t, command...)
				if code != 1 || !strings.Contains(stderr, fmt.Sprintf("%q: %s", tt.file, tt.want)) {
					t.Errorf("%s with %s ends with %d: %s", command[0], health, code, stderr)
				}
			}
		}
	}

	// The configuration itself: a command line may name a pipe, but the balancer must not wait for one.
	check(t, os.Remove(b.File()))
	check(t, syscall.Mkfifo(b.File(), 0o600))
	if _, stderr, code := b.Command(t, "reload"); code != 1 || !strings.Contains(stderr, "not a regular file") {
		t.Errorf("reload of a pipe ends with %d: %s", code, stderr)
	}
	w.Health = nil
	stdout := harness.MustRun(t, harness.Command{Path: "/bin/bash", Args: []string{
		"-c", `"$0" check --config <(printf '%s' "$1")`, harness.Binary(t, false), w.config(t),
	}})
	if !strings.Contains(stdout, "good") {
		t.Errorf("check of a pipe says %s", stdout)
	}
}

// TestFilesBesideTheConfiguration starts the balancer in another folder than that of its configuration, which names
// files by relative paths.
func TestFilesBesideTheConfiguration(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	server := harness.StartRedis(t)
	server.Do(t, "acl", "setuser", "checker", "on", ">first", "+ping", "+role", "+info")
	check(t, os.WriteFile(filepath.Join(dir, "password"), []byte("first\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "backends.toml"),
		[]byte("backends = "+harness.BackendList(server.Address)+"\n"), 0o600))
	w := world{
		Global:   []string{`state_file = "state.json"`},
		Discover: []string{`type = "file"`, `file = "backends.toml"`},
		Health:   []string{`type = "redis"`, `user = "checker"`, `password_file = "password"`, `interval = "200ms"`},
	}
	file := filepath.Join(dir, "lb.toml")
	check(t, os.WriteFile(file,
		[]byte(w.config(t)+"[admin]\naddress = \"unix:admin.sock\"\ntoken_file = \"password\"\n"), 0o600))
	p := harness.Start(t, harness.Command{Path: harness.Binary(t, false), Args: []string{"--config", file},
		Dir: elsewhere})
	p.WaitStderr(t, `"verdict changed"`)
	stdout, stderr, code := harness.Run(t, harness.Command{
		Path: harness.Binary(t, false), Args: []string{"backends", "set", "all", "b1", "--weight", "7", "--config",
			file}, Dir: elsewhere,
	})
	if code != 0 {
		t.Fatalf("set ends with %d: %s%s", code, stdout, stderr)
	}
	if state, err := os.ReadFile(filepath.Join(dir, "state.json")); err != nil ||
		!strings.Contains(string(state), `"weight": 7`) {
		t.Errorf("the state file is %q, %v", state, err)
	}
	check(t, os.Remove(filepath.Join(dir, "password")))
	_, stderr, code = harness.Run(t, harness.Command{Path: harness.Binary(t, false),
		Args: []string{"check", "--config", file}, Dir: elsewhere})
	if want := fmt.Sprintf("%q: no such file or directory", filepath.Join(dir, "password")); code != 1 ||
		strings.Count(stderr, want) != 2 {
		t.Errorf("check ends with %d: %s, want %s twice", code, stderr, want)
	}
}

// TestPlanSendsNoPasswords sends plans that combine the password file of the running configuration, which has changed
// since, with an address that the running configuration does not have: the balancer does not connect there.
func TestPlanSendsNoPasswords(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	password := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(password, []byte("first\n"), 0o600))
	logins := make(chan *net.TCPConn, 16)
	thief := harness.Serve(t, handOver(logins))
	w := world{Backends: []string{server.Address},
		Health: []string{`type = "redis"`, fmt.Sprintf("password_file = %q", password)}}
	b := w.start(t)
	w.Listen = b.Address(t, "main")
	check(t, os.WriteFile(password, []byte("second\n"), 0o600))
	another := w
	another.Backends = []string{server.Address, thief.Address()}
	instead := w
	instead.Backends = another.Backends[1:]
	configs := []string{another.config(t), instead.config(t), strings.ReplaceAll(instead.config(t), "all", "new")}
	another.Health = append([]string{w.Health[0], `user = "another"`}, w.Health[1:]...)
	for _, config := range append(configs, another.config(t)) {
		status, answer := b.API(t, "POST", "/v1/plan", []byte(b.Complete(config)), "Content-Type", "application/toml")
		if status != http.StatusOK && status != http.StatusUnprocessableEntity ||
			strings.Contains(string(answer), "second") {
			t.Errorf("plan of\n%s\nis %d %s", config, status, answer)
		}
	}
	if n := len(logins); n > 0 {
		t.Errorf("%d logins were tried at another address", n)
	}
}
