package test

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// activated returns a command that opens a socket as a .socket unit with this FileDescriptorName= does, and starts a
// balancer with it once a client connects.
func activated(t *testing.T, address, name string) []string {
	t.Helper()
	return []string{harness.Tool(t, "systemd-socket-activate"), "--listen=" + address, "--fdname=" + name,
		"--setenv=NOTIFY_SOCKET", "--setenv=GORACE"}
}

// TestSocketActivation connects before there is a balancer, which then serves that client through the socket it is
// given: it could not have bound the address itself.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
	n := startNotified(t, notifiedOptions{Config: w.config(t), Before: activated(t, w.Listen, "main")})
	n.WaitStderr(t, "Listening on")
	c := harness.Dial(t, w.Listen)
	check(t, harness.PingPong(c, 3, 1000))
	n.ready(t)
	for range 8 { // each loop has its share of it
		served(t, w.Listen)
	}
}

func TestSocketActivationRefuses(t *testing.T) {
	t.Parallel()
	elsewhere := harness.FreeAddress(t)
	for name, test := range map[string]struct {
		address, socket string
		expected        []string
	}{
		"an unknown name": {harness.FreeAddress(t), "postgres", []string{"FileDescriptorName=postgres", `"main"`}},
		"another address": {elsewhere, "main", []string{"FileDescriptorName=main", elsewhere, "ListenStream="}},
		"no name at all":  {harness.FreeAddress(t), "", []string{"FileDescriptorName=", `"main"`}},
		"a unix socket": {filepath.Join(t.TempDir(), "s"), "main",
			[]string{"FileDescriptorName=main", "ListenStream= needs a port"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world{Listen: harness.FreeAddress(t), Backends: []string{"127.0.0.1:1"}}
			n := startNotified(t, notifiedOptions{Config: w.config(t), Before: activated(t, test.address, test.socket)})
			n.WaitStderr(t, "Listening on")
			network := "tcp"
			if strings.HasPrefix(test.address, "/") {
				network = "unix"
			}
			c, err := net.Dial(network, test.address)
			check(t, err)
			defer c.Close()
			if code := n.Wait(t); code != 1 {
				t.Errorf("exit code %d, expected 1", code)
			}
			for _, text := range test.expected {
				if !strings.Contains(n.Stderr(), text) {
					t.Errorf("the error lacks %s:\n%s", text, n.Stderr())
				}
			}
		})
	}
}

// asJournal returns a command prefix that makes standard error look like the journal.
func asJournal() []string {
	return []string{"/bin/sh", "-c", `JOURNAL_STREAM=$(stat -Lc %d:%i /proc/$$/fd/2) exec "$0" "$@"`}
}

func TestJournalPriorities(t *testing.T) {
	t.Parallel()
	for format, pattern := range map[string]string{
		"json":    `^<6>\{"level":"info",.*\}$`,
		"console": `^<6>INF [a-z ]+`,
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			backend := harness.Serve(t, harness.Echo)
			w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
			n := startNotified(t, notifiedOptions{Config: fmt.Sprintf("[log]\nformat = %q\n\n%s", format, w.config(t)),
				Before: asJournal()})
			n.WaitStderr(t, "ready")
			served(t, w.Listen)
			n.WaitStderr(t, "session ended")
			n.Signal(t, syscall.SIGTERM)
			endsNotified(t, n)
			for line := range strings.Lines(n.Stderr()) {
				if line = strings.TrimSuffix(line, "\n"); !regexp.MustCompile(pattern).MatchString(line) {
					t.Errorf("line %q does not match %s", line, pattern)
				}
			}
		})
	}
}

// TestJournalOfAFailedStart holds that each mistake in a configuration has the priority of an error in the journal.
func TestJournalOfAFailedStart(t *testing.T) {
	t.Parallel()
	n := startNotified(t, notifiedOptions{Config: "[listener.main]\nadress = 1\n", Before: asJournal()})
	if code := n.Wait(t); code != 1 {
		t.Errorf("exit code %d, expected 1", code)
	}
	lines := strings.Split(n.Stderr(), "\n")
	if len(lines) < 2 {
		t.Errorf("%d lines, expected one for each mistake", len(lines))
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "<3>") {
			t.Errorf("line %q is not filed as an error", line)
		}
	}
}
