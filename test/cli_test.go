package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandLine runs the scripts of testdata/script. Besides testscript's own commands they have those of
// scriptCommands, and the addresses BUSY, where somebody listens, and FREE, where nobody does.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	binary := harness.Binary(t, false)
	folder := filepath.Join(t.TempDir(), "bin")
	check(t, os.Mkdir(folder, 0o755))
	check(t, os.Symlink(binary, filepath.Join(folder, "limeload-l4")))
	busy, free := harness.Serve(t, harness.Echo).Address(), harness.FreeAddress(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", folder+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("BUSY", busy)
			env.Setenv("FREE", free)
			return nil
		},
		Cmds: scriptCommands(),
	})
}

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"exits":   scriptExits,
		"lines":   scriptLines,
		"config":  scriptConfig,
		"unbound": scriptUnbound,
	}
}

// scriptExits runs a program, "exits CODE program args...", which must end with that exit code. Unlike exec it
// distinguishes 1 from 2.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var failed *exec.ExitError
	switch {
	case err == nil && code == 0:
	case errors.As(err, &failed) && failed.ExitCode() == code:
	case err == nil:
		ts.Fatalf("exit code 0, expected %d", code)
	default:
		ts.Fatalf("%v, expected exit code %d", err, code)
	}
}

// scriptLines checks the number of lines of the last output, "lines stdout|stderr N".
func scriptLines(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); got != n {
		ts.Fatalf("%d lines, expected %d", got, n)
	}
}

// scriptConfig puts the variables' values into a file.
func scriptConfig(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(path, []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

// scriptUnbound checks that nobody listens at an address.
func scriptUnbound(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.Dial("tcp", args[0])
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		ts.Fatalf("connect to %s: %v, expected it to be refused", args[0], err)
	}
}

// startAlone runs a balancer that must fail to start, and returns its output.
func startAlone(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lb.toml")
	check(t, os.WriteFile(file, []byte(config), 0o600))
	stdout, stderr, code := harness.Run(t, harness.Command{Path: harness.Binary(t, false),
		Args: []string{"--config", file}})
	if code != 1 || stdout != "" {
		t.Errorf("exit code %d and standard output %q, expected 1 and none", code, stdout)
	}
	return stderr
}

// TestStartedTwice starts a second balancer on a port of the first, which must fail: sharing a port among its own loops
// (SO_REUSEPORT) must not let a balancer share it with another process.
func TestStartedTwice(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	config := world{Backends: []string{backend.Address()}}.config(t)
	b := harness.StartBalancer(t, config)
	stderr := startAlone(t, config)
	if strings.Contains(stderr, "\n") || !strings.Contains(stderr, "listener.main.address") ||
		!strings.Contains(stderr, "address already in use") {
		t.Errorf("standard error is not one line that names the key and the cause:\n%s", stderr)
	}
	for range 20 { // the first one is whole, and gets every client
		check(t, tryService(b.Address(t, "main")))
	}
}

// TestCheckAgreesWithStart starts configurations that check accepts with warnings.
func TestCheckAgreesWithStart(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]world{
		"interval below the default fast_interval": {Health: []string{`interval = "200ms"`}},
		"timeout above interval": {Health: []string{`interval = "200ms"`, `fast_interval = "100ms"`,
			`timeout = "5s"`}},
		"interval of the least": {Health: []string{`interval = "10ms"`, `fast_interval = "10ms"`,
			`timeout = "1ms"`}},
		"stale before the next check": {Health: []string{`interval = "5s"`, `stale_after = "1s"`}},
		"all weights zero":            {Pool: []string{`algorithm = "round_robin"`}},
		"no retries":                  {Pool: []string{`retries = 0`}},
	} {
		t.Run(name, func(t *testing.T) {
			backend := harness.Serve(t, harness.Echo)
			w.Backends = []string{backend.Address()}
			config := w.config(t)
			if name == "all weights zero" {
				config = strings.Replace(config, `name = "b1"`, `name = "b1", weight = 0`, 1)
			}
			file := filepath.Join(t.TempDir(), "lb.toml")
			check(t, os.WriteFile(file, []byte(config), 0o600))
			_, _, code := harness.Run(t, harness.Command{Path: harness.Binary(t, false),
				Args: []string{"check", "--config", file}})
			if code == 0 {
				harness.StartBalancer(t, config)
			} else {
				startAlone(t, config)
			}
		})
	}
}

// demoCommands runs the commands that a demo prints, except those that need a terminal.
func demoCommands(t *testing.T, welcome string) {
	t.Helper()
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^  (\S*limeload-l4\S*) (.+ -c \S+)$`).FindAllStringSubmatch(welcome, -1) {
		args := strings.Fields(m[2])
		if args[0] == "top" {
			args = append(args, "--once", "--interval", "100ms")
		}
		stdout, stderr, code := harness.Run(t, harness.Command{Path: harness.Binary(t, false), Args: args,
			Env: []string{"GORACE=atexit_sleep_ms=50"}})
		if n++; code != 0 || stdout == "" {
			t.Errorf("%s: exit code %d, %s", m[0], code, stderr)
		}
	}
	if n < 3 {
		t.Errorf("the demo shows %d commands:\n%s", n, welcome)
	}
}

// TestDemo runs the steps that the demo suggests.
func TestDemo(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			demo := harness.Start(t, harness.Command{Path: harness.Binary(t, false), Args: []string{"demo"},
				Env: []string{"GORACE=atexit_sleep_ms=50"}})
			url := regexp.MustCompile(`http://[^ /]+`).FindString(demo.WaitStdout(t, "http://"))
			client := http.Client{Timeout: harness.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
			answers := map[string]int{}
			get := func(path string) (string, error) {
				answer, err := client.Get(url + path)
				if err != nil {
					return "", err
				}
				defer answer.Body.Close()
				body, err := io.ReadAll(answer.Body)
				if err == nil && answer.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %s", answer.Status)
				}
				return string(body), err
			}
			harness.Eventually(t, "three backends answer in turn", func() error {
				body, err := get("/")
				if err != nil {
					return err
				}
				answers[body]++
				if len(answers) < 3 {
					return fmt.Errorf("answers so far: %v", answers)
				}
				return nil
			})
			// one backend fails, and no request does
			if _, err := get("/fail"); err != nil {
				t.Errorf("GET /fail: %v", err)
			}
			for range 30 {
				if _, err := get("/"); err != nil {
					t.Errorf("GET / while a backend is away: %v", err)
				}
			}
			demo.WaitStdout(t, "unhealthy")
			demoCommands(t, demo.Stdout())
			demo.Signal(t, signal)
			if code := demo.Wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if demo.Stderr() != "" {
				t.Errorf("standard error: %s", demo.Stderr())
			}
			if said := demo.Stdout(); !regexp.MustCompile(`its client has sent\n\d+ requests?: 0 failed`).MatchString(said) {
				t.Errorf("a request of its client failed:\n%s", said)
			}
		})
	}
}
