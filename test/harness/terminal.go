package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A Terminal is a real terminal, of tmux, in which a program runs. The program is gone with the test.
type Terminal struct {
	tmux, socket string
	code         string // the file with the program's exit code
}

// terminalOptions are tmux's options: the last screen stays when the program has ended, and no line of tmux's own is on
// it.
const terminalOptions = `set -g remain-on-exit on
set -g remain-on-exit-format ""
set -g status off
set -g history-limit 20000
set -sg escape-time 0
set -g default-terminal "tmux-256color"
`

// StartTerminal runs a command in a terminal of this size.
func StartTerminal(t testing.TB, columns, rows int, c Command) *Terminal {
	t.Helper()
	dir := shortDir(t)
	v := &Terminal{tmux: Tool(t, "tmux"), socket: filepath.Join(dir, "tmux"), code: filepath.Join(dir, "code")}
	options := filepath.Join(dir, "tmux.conf")
	if err := os.WriteFile(options, []byte(terminalOptions), 0o600); err != nil {
		t.Fatal(err)
	}
	server := Start(t, Command{Path: v.tmux, Args: []string{"-S", v.socket, "-f", options, "-D"}, Env: []string{"TMUX="}})
	Eventually(t, "tmux listens", func() error {
		select {
		case <-server.Done():
			return fmt.Errorf("it has ended: %s", server.Stderr())
		default:
		}
		_, err := os.Stat(v.socket)
		return err
	})
	args := []string{"new-session", "-d", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows)}
	if c.Dir != "" {
		args = append(args, "-c", c.Dir)
	}
	// the session has the environment of the server, which is that of the test
	args = append(append(args, "env", "TERMINAL_CODE="+v.code), c.Env...)
	// tmux 3.3a loses the exit code of some programs; the shell must outlive Ctrl-C
	args = append(args, "/bin/sh", "-c", `trap : INT; "$0" "$@"; echo $? >"$TERMINAL_CODE"`, c.Path)
	v.ask(t, append(args, c.Args...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal shows\n%s", v.Screen(t))
		}
		v.ask(t, "kill-server")
		server.Wait(t)
	})
	return v
}

func (v *Terminal) ask(t testing.TB, args ...string) string {
	t.Helper()
	stdout, stderr, code := Run(t, Command{Path: v.tmux, Args: append([]string{"-S", v.socket}, args...),
		Env: []string{"TMUX="}})
	if code != 0 {
		t.Fatalf("tmux %q: exit code %d, %s", args, code, stderr)
	}
	return stdout
}

// Screen returns the lines on the screen.
func (v *Terminal) Screen(t testing.TB) string { t.Helper(); return v.ask(t, "capture-pane", "-p") }

// Colours returns the lines on the screen with the escape sequences of their colours.
func (v *Terminal) Colours(t testing.TB) string {
	t.Helper()
	return v.ask(t, "capture-pane", "-p", "-e")
}

// Lines returns all lines since the start, those that scrolled out of the screen, too. A line that the program wrote
// wider than the screen is one line.
func (v *Terminal) Lines(t testing.TB) []string {
	t.Helper()
	return strings.Split(strings.TrimRight(v.ask(t, "capture-pane", "-p", "-J", "-S", "-"), "\n"), "\n")
}

// Keys presses keys, by tmux's names: "q", "Enter", "C-c".
func (v *Terminal) Keys(t testing.TB, keys ...string) {
	t.Helper()
	v.ask(t, append([]string{"send-keys"}, keys...)...)
}

// Resize changes the size of the terminal.
func (v *Terminal) Resize(t testing.TB, columns, rows int) {
	t.Helper()
	v.ask(t, "resize-window", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows))
}

// WaitScreen waits until all of these texts are on the screen, and returns it.
func (v *Terminal) WaitScreen(t testing.TB, texts ...string) string {
	t.Helper()
	screen := ""
	Eventually(t, fmt.Sprintf("the screen shows %q", texts), func() error {
		screen = v.Screen(t)
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return fmt.Errorf("%q is missing in\n%s", text, screen)
			}
		}
		return nil
	})
	return screen
}

// WaitEnd waits until the program has ended, and returns its exit code.
func (v *Terminal) WaitEnd(t testing.TB) (code int) {
	t.Helper()
	Eventually(t, "the program in the terminal ends", func() error {
		text, err := os.ReadFile(v.code)
		if err != nil {
			return err
		}
		line, complete := strings.CutSuffix(string(text), "\n")
		if !complete {
			return fmt.Errorf("its exit code is not yet written: %q", text)
		}
		code, err = strconv.Atoi(line)
		return err
	})
	return code
}
