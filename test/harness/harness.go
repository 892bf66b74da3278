// Package harness starts the processes that tests need around a running balancer, and observes the balancer from
// outside. It has processes with their output, log lines and data from /proc, real Redis, PostgreSQL, etcd, Patroni,
// DNS and iperf3 servers, backends that behave well or badly, and reproducible byte streams.
//
// It uses only the balancer's command line, log and API, and imports nothing of ours, so that every package's tests may
// use it. It does not judge results: the tests do.
//
// Functions that take a testing.TB are called from the test's own goroutine, fail the test themselves, and clean up by
// t.Cleanup. Nothing waits for a fixed time: it waits for an event or a condition, and gives up after Patience.
package harness

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Patience is how long a test waits for anything before it fails. It says nothing about speed: a loaded machine with
// two cores must never reach it.
const Patience = 2 * time.Minute

// pollEvery is how often Eventually tries again: often enough not to lengthen a test, seldom enough not to load the
// machine.
const pollEvery = 10 * time.Millisecond

// Environment variables with the paths of the binaries under test. Main sets the missing ones.
const (
	binaryVariable     = "LIMELOAD_BIN"      // a plain build; measurements of memory and CPU time always use it
	raceBinaryVariable = "LIMELOAD_BIN_RACE" // built with -race, for tests that run with -race themselves
	roleVariable       = "LIMELOAD_TEST_ROLE"
)

// A Role is a function that the test binary runs when it is started again as a child, see StartChild. It reads commands
// from in, answers on out, and returns when in ends.
type Role func(args []string, in io.Reader, out io.Writer) error

// Main is called by the TestMain of end-to-end tests: it builds the balancer once for the whole run, runs the tests and
// returns the exit code. A binary named by LIMELOAD_BIN (with -race also LIMELOAD_BIN_RACE) is used instead of a build.
// In a child started by StartChild it runs that role and no test.
func Main(m *testing.M, roles map[string]Role) int {
	if name := os.Getenv(roleVariable); name != "" {
		role, known := roles[name]
		if !known {
			fmt.Fprintf(os.Stderr, "no role %q\n", name)
			return 2
		}
		if err := role(os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}

	flag.Parse()
	dir, err := os.MkdirTemp("", "limeload-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = provideBinaries(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// provideBinaries builds the binaries that the environment does not name into dir.
func provideBinaries(dir string) error {
	if err := provideBinary(binaryVariable, filepath.Join(dir, "limeload-l4")); err != nil {
		return err
	}
	if !raceEnabled {
		return nil
	}
	return provideBinary(raceBinaryVariable, filepath.Join(dir, "limeload-l4-race"), "-race")
}

func provideBinary(variable, path string, flags ...string) error {
	if named := os.Getenv(variable); named != "" {
		if _, err := os.Stat(named); err != nil {
			return fmt.Errorf("binary named by %s: %w", variable, err)
		}
		return nil
	}
	args := append(append([]string{"build"}, flags...), "-o", path, "github.com/limeload/limeload-l4/cmd/limeload-l4")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return os.Setenv(variable, path)
}

// Binary returns the path of the balancer to test: built with -race when the test was, unless measured, since the race
// detector multiplies memory and CPU time.
func Binary(t testing.TB, measured bool) string {
	t.Helper()
	variable := binaryVariable
	if raceEnabled && !measured {
		variable = raceBinaryVariable
	}
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set: the package's TestMain must call harness.Main", variable)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Eventually waits until holds returns nil. After Patience it fails the test with the last error.
func Eventually(t testing.TB, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v: %v", what, Patience, err)
		}
		time.Sleep(pollEvery) // the only sleep: /proc and the kernel's queues send no events
	}
}

// Receive returns the next value of c.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v, open := <-c:
		if !open {
			t.Fatalf("%s: channel closed", what)
		}
		return v
	case <-time.After(Patience):
		t.Fatalf("%s: nothing came within %v", what, Patience)
	}
	panic("unreachable: Fatalf does not return")
}

// Tool returns the path of an installed program. If it is missing, the test fails with instructions.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := findTool(name)
	if err != nil {
		t.Fatalf("%v: `make tools` installs what the tests need", err)
	}
	return path
}

// findTool searches PATH, the sbin folders that a user's PATH lacks, and Debian's folders of PostgreSQL's programs, the
// newest version first.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	} else if !errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("look for %s: %w", name, err)
	}
	candidates := []string{filepath.Join("/usr/sbin", name), filepath.Join("/sbin", name)}
	versions, err := filepath.Glob(filepath.Join("/usr/lib/postgresql/*/bin", name))
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", name, err)
	}
	for i := len(versions) - 1; i >= 0; i-- {
		candidates = append(candidates, versions[i])
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
