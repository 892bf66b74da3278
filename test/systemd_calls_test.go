package test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// syscallSet returns the system calls that an argument of SystemCallFilter= names.
func syscallSet(t *testing.T, name string) map[string]bool {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return map[string]bool{name: true}
	}
	stdout, stderr, code := harness.Run(t, harness.Command{Path: harness.Tool(t, "systemd-analyze"),
		Args: []string{"syscall-filter", "--no-pager", name}})
	if code != 0 {
		t.Fatalf("set %s: %s", name, stderr)
	}
	set := map[string]bool{}
	for line := range strings.Lines(stdout) {
		switch member := strings.TrimSpace(line); {
		case member == "", member == name, strings.HasPrefix(member, "#"):
		case strings.HasPrefix(member, "@"):
			maps.Copy(set, syscallSet(t, member))
		default:
			set[member] = true
		}
	}
	return set
}

// allowedCalls returns the system calls that a unit allows.
func allowedCalls(t *testing.T, unit string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{}
	for _, value := range settings(unit)["SystemCallFilter"] {
		value, taken := strings.CutPrefix(value, "~")
		for _, name := range strings.Fields(value) {
			for call := range syscallSet(t, name) {
				if taken {
					delete(allowed, call)
				} else {
					allowed[call] = true
				}
			}
		}
	}
	return allowed
}

// TestSystemdSystemCalls traces a balancer from its start to its end and holds that the unit allows every system call
// in it, also those of the programs that checks run. A refused call would fail with EPERM, which no other test would
// notice.
func TestSystemdSystemCalls(t *testing.T) {
	t.Parallel()
	allowed := allowedCalls(t, packaged(t, unitName))
	for call, expected := range map[string]bool{"epoll_pwait": true, "splice": true, "mount": false, "bpf": false,
		"sched_setaffinity": false, "sched_setattr": true, "setpriority": true} {
		if allowed[call] != expected {
			t.Fatalf("the unit allows %s: %v, expected %v", call, allowed[call], expected)
		}
	}

	backend := harness.Serve(t, harness.Echo)
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{backend.Address()},
		Health: []string{`type = "any_of"`, `interval = "1s"`,
			`checks = [{ type = "exec", command = ["/bin/true"] }, { type = "icmp" }, { type = "tcp" }]`},
	}
	trace := filepath.Join(t.TempDir(), "calls")
	n := startNotified(t, notifiedOptions{
		Config: w.config(t), Binary: harness.Binary(t, true),
		Before: []string{harness.Tool(t, "strace"), "-D", "-f", "-c", "-S", "name", "-U", "name", "-o", trace},
	})
	n.ready(t)
	c := harness.Dial(t, w.Listen)
	check(t, harness.PingPong(c, 8, 256<<10)) // enough to be spliced
	n.Signal(t, syscall.SIGHUP)
	n.wait(t, "RELOADING", "1")
	n.ready(t)
	check(t, c.Close())
	n.Signal(t, syscall.SIGTERM)
	if code := n.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var calls []string
	harness.Eventually(t, "the trace is complete", func() error {
		text, err := os.ReadFile(trace)
		calls = strings.Fields(string(text))
		if err == nil && !slices.Contains(calls, "total") {
			err = fmt.Errorf("%d bytes", len(text))
		}
		return err
	})
	calls = slices.DeleteFunc(calls, func(word string) bool {
		return !regexp.MustCompile(`^[a-z][a-z0-9_]+$`).MatchString(word)
	})
	for _, expected := range []string{"accept4", "execve", "getrandom"} {
		if !slices.Contains(calls, expected) {
			t.Errorf("the trace lacks %s: %q", expected, calls)
		}
	}
	for _, call := range calls {
		if call != "total" && call != "syscall" && !allowed[call] {
			t.Errorf("the unit does not allow %s", call)
		}
	}
}
