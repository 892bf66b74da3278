// Package harness starts what tests need around a running balancer and looks at it from outside: processes with their
// output and log lines, what /proc says of them, real Redis, PostgreSQL, DNS and iperf3 servers, backends that behave
// well or badly, and reproducible byte streams.
//
// It knows the balancer only by its command line and its log, and imports nothing of ours, so that every package's
// tests may use it. It does not decide what is right: that is the tests' part.
//
// Whatever takes a testing.TB is called from the test's own goroutine, fails the test itself, and undoes what it did by
// t.Cleanup. Nothing waits by the clock: everything awaited is an event or a condition, given up after Patience.
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

// Patience is how long anything awaited may take before the test fails. It is no measure of speed: a loaded machine
// with two cores must never reach it.
const Patience = 60 * time.Second

// pollEvery is how often Eventually looks again: often enough not to lengthen a test, seldom enough not to load the
// machine.
const pollEvery = 10 * time.Millisecond

// The environment variables that name the binaries under test. Main sets those that are not set.
const (
	binaryVariable     = "LIMELOAD_BIN"      // a plain build; measurements of memory and CPU time always use it
	raceBinaryVariable = "LIMELOAD_BIN_RACE" // built with -race, for tests that run with -race themselves
	roleVariable       = "LIMELOAD_TEST_ROLE"
)

// A Role is what the test binary does when it is started again as a child, see StartChild. It reads commands from in,
// answers on out, and returns when in ends.
type Role func(args []string, in io.Reader, out io.Writer) error

// Main is what a TestMain of end-to-end tests calls: it builds the balancer once for the whole run, runs the tests and
// returns the exit code. A binary named by LIMELOAD_BIN (with -race also LIMELOAD_BIN_RACE) is used instead of a build.
// In a child started by StartChild it runs the asked role and no test.
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

// provideBinaries builds into dir what the environment does not name.
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

// Binary is the path of the balancer to test: built with -race when the test was, unless measured, since the race
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

// Eventually waits until holds returns nil. What it last returned is shown when that does not happen within Patience.
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
		time.Sleep(pollEvery) // the one place that waits by the clock: /proc and the kernel's queues send no events
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

// Tool is the path of an installed program; lacking it fails the test with what to do.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := findTool(name)
	if err != nil {
		t.Fatalf("%v: `make tools` installs what the tests need", err)
	}
	return path
}

// findTool looks in PATH, in the sbin folders that a user's PATH lacks, and where Debian keeps PostgreSQL's programs,
// the newest version first.
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
