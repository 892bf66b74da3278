package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestTop uses `top` as an operator does, in a real terminal with a running daemon: it looks at a pool, puts a backend
// into maintenance, sees the daemon crash and come back, makes the terminal smaller, and ends it. The terminal is then
// as it was before.
func TestTop(t *testing.T) {
	t.Parallel()
	first, second := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	dir, err := os.MkdirTemp("", "lb") // short enough for a socket
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	config := longNames(t, first.Address(), second.Address()) + fmt.Sprintf("[admin]\naddress = %q\n", socket)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: config, Killed: true})

	script := `stty -g >before; "$0" top --interval 200ms; echo $? >code; stty -g >after
NO_COLOR=1 "$0" top --interval 200ms`
	terminal := harness.StartTerminal(t, 100, 30, harness.Command{
		Path: "/bin/sh", Args: []string{"-c", script, harness.Binary(t, false)}, Dir: dir,
		Env: []string{"LIMELOAD_ADMIN=" + socket, "GORACE=atexit_sleep_ms=50", "NO_COLOR="},
	})
	screen := terminal.WaitScreen(t, "3 pools", "> postgres-primary-europe-west", fmt.Sprint("pid ", b.PID()),
		"postgres-read-write-europe-west", "new 0/s")
	fits(t, screen, 100)
	terminal.Keys(t, "Enter", "j")
	screen = terminal.WaitScreen(t, "3 backends of pool postgres-primary-europe-west",
		"> database-server-02.europe-west", "[2001:db8:1111:2222:3333:4444:5555:6666]:55432", "m mode")
	fits(t, screen, 100)

	// a change needs a confirmation
	terminal.Keys(t, "m", "m")
	terminal.WaitScreen(t, "instead of ready? y or n")
	terminal.Keys(t, "y")
	screen = terminal.WaitScreen(t, "mode maintenance", "of pool postgres-primary-europe-west: weight 10")
	t.Logf("after the change:\n%s", screen)
	stdout := harness.MustRun(t, harness.Command{Path: harness.Binary(t, false),
		Args: []string{"backends", "--output", "json", "--admin", socket}})
	if !strings.Contains(stdout, `"mode": "maintenance"`) {
		t.Errorf("the daemon was not told: %s", stdout)
	}
	if coloured := terminal.Colours(t); !regexp.MustCompile(`\x1b\[3[1-3]m`).MatchString(coloured) {
		t.Errorf("there are no colours: %q", coloured)
	}

	// the daemon crashes and comes back, with what was changed
	b.Kill(t)
	screen = terminal.WaitScreen(t, "not reachable since", "trying again", "> database-server-02.europe-west")
	t.Logf("without the daemon:\n%s", screen)
	b = harness.StartBalancerWith(t, harness.BalancerOptions{Config: config, Killed: true})
	defer b.Kill(t)
	screen = terminal.WaitScreen(t, fmt.Sprint("pid ", b.PID()), "> database-server-02.europe-west", "maintenance")
	if strings.Contains(screen, "not reachable") {
		t.Errorf("it does not notice that the daemon is back:\n%s", screen)
	}

	// any size will do
	terminal.Resize(t, 50, 14)
	harness.Eventually(t, "the screen has another size", func() error {
		screen = terminal.Screen(t)
		if strings.Count(screen, "\n") > 14 || !strings.Contains(screen, "> database-server-02.europe-west") {
			return errors.New(screen)
		}
		return nil
	})
	fits(t, screen, 50)
	terminal.Resize(t, 19, 6)
	terminal.WaitScreen(t, "The terminal is")
	terminal.Resize(t, 80, 24)
	terminal.WaitScreen(t, "3 backends of pool")

	terminal.Keys(t, "C-c")
	terminal.WaitScreen(t, "3 pools") // the next one has begun
	if code, err := os.ReadFile(filepath.Join(dir, "code")); err != nil || string(code) != "0\n" {
		t.Errorf("top ended with %s, %v", code, err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "before"))
	check(t, err)
	after, err := os.ReadFile(filepath.Join(dir, "after"))
	check(t, err)
	if string(before) != string(after) || len(before) == 0 {
		t.Errorf("the terminal was %s and is %s", before, after)
	}
	if coloured := terminal.Colours(t); regexp.MustCompile(`\x1b\[[34][0-7]m`).MatchString(coloured) {
		t.Errorf("there are colours in spite of NO_COLOR: %q", coloured)
	}
	terminal.Keys(t, "q")
	if code := terminal.WaitEnd(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// fits checks that no line of a screen is wider than it.
func fits(t *testing.T, screen string, width int) {
	t.Helper()
	for line := range strings.Lines(screen) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, " \n")); n > width {
			t.Errorf("a line is %d wide on a screen of %d: %s", n, width, line)
		}
	}
}
