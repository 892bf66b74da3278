package test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestDemoInTerminal looks at the demo's table on a terminal, and ends it with Ctrl-C.
func TestDemoInTerminal(t *testing.T) {
	t.Parallel()
	terminal := harness.StartTerminal(t, 80, 40, harness.Command{Path: harness.Binary(t, false), Args: []string{"demo"},
		Env: []string{"GORACE=atexit_sleep_ms=50"}})
	screen := terminal.WaitScreen(t, "\nbackend ", "\nclient: ", " requests, 0 errors", "healthy")
	fits(t, screen, 80)
	if n := strings.Count(screen, "\nclient: "); n != 1 {
		t.Errorf("the table is drawn %d times:\n%s", n, screen)
	}
	terminal.Keys(t, "C-c")
	screen = terminal.WaitScreen(t, "The demo has ended.", "0 failed", "b1 answered")
	t.Logf("at the end:\n%s", screen)
	if code := terminal.WaitEnd(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// demoFolder returns the folder that a demo has made.
func demoFolder(t *testing.T, said string) string {
	t.Helper()
	m := regexp.MustCompile(`made in (\S+),`).FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("the demo names no folder:\n%s", said)
	}
	return m[1]
}

// demoGone checks that a demo with a folder has left nothing behind.
func demoGone(t *testing.T, folder string) {
	t.Helper()
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, expected it to be removed", folder, err)
	}
	harness.Eventually(t, "no server of the demo runs", func() error {
		processes, err := os.ReadDir("/proc")
		check(t, err)
		for _, p := range processes {
			line, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline") // it may have ended
			if strings.Contains(string(line), folder) {
				return fmt.Errorf("process %s: %q", p.Name(), line)
			}
		}
		return nil
	})
}

// masked returns the lines of a text with N for each number, so that two runs can be compared.
func masked(text string) string {
	text = regexp.MustCompile(`\d+(\.\d+)?(ns|µs|ms|s|m)?`).ReplaceAllString(text, "N")
	text = regexp.MustCompile(`(?m)^N logins? failed.\n`).ReplaceAllString(text, "") // if one was under way
	return strings.TrimSpace(text)
}

// TestDemoPostgres has the demo kill a primary: the clients go on with the standby, and the end is as the README shows
// it.
func TestDemoPostgres(t *testing.T) {
	t.Parallel()
	demo := harness.Start(t, harness.Command{Path: harness.Binary(t, false),
		Args: []string{"demo", "postgres", "--phase", "300ms"}, Env: []string{"GORACE=atexit_sleep_ms=50"}})
	demo.WaitStdout(t, "clients commit again")
	if code := demo.Wait(t); code != 0 || demo.Stderr() != "" {
		t.Errorf("exit code %d, %s", code, demo.Stderr())
	}
	said := demo.Stdout()
	demoGone(t, demoFolder(t, said))
	_, end, found := strings.Cut(said, "The demo has ended.")
	if !found {
		t.Fatalf("there is no summary:\n%s", said)
	}
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	shown := regexp.MustCompile("(?s)```text\n(The demo has ended\\..*?)```").FindStringSubmatch(string(readme))
	if shown == nil {
		t.Fatal("the README does not show the end of the demo")
	}
	if got, want := masked("The demo has ended."+end), masked(shown[1]); got != want {
		t.Errorf("the README shows another end:\n%s", diff.Diff("README.md", []byte(want), "demo", []byte(got)))
	}
}

// TestDemoPostgresInterrupted: whenever it is interrupted, the demo ends at once and leaves nothing behind.
func TestDemoPostgresInterrupted(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"are made in", "In another terminal"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			demo := harness.Start(t, harness.Command{Path: harness.Binary(t, false), Args: []string{"demo", "postgres"},
				Env: []string{"GORACE=atexit_sleep_ms=50"}})
			demo.WaitStdout(t, when)
			folder := demoFolder(t, demo.Stdout())
			demo.Signal(t, os.Interrupt)
			if code := demo.Wait(t); code != 0 || demo.Stderr() != "" {
				t.Errorf("exit code %d, %s", code, demo.Stderr())
			}
			demoGone(t, folder)
		})
	}
}
