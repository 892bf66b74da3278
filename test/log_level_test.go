package test

import (
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestLogLevelCommand changes the level of a running balancer's log: the log says who did that, a level for a time ends
// by itself, and a reload puts the level of the file in force.
func TestLogLevelCommand(t *testing.T) {
	t.Parallel()
	b := world{Backends: []string{harness.Serve(t, harness.Echo).Address()}}.start(t)
	says := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, code := b.Command(t, append([]string{"log-level"}, args...)...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("log-level %q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	changed := func(to, reason string) {
		t.Helper()
		b.WaitLine(t, "the log level is "+to, func(l harness.Line) bool {
			return l.Message == "log level changed" && l.To == to && strings.Contains(l.Reason, reason)
		})
	}
	stdout, _, _ := b.Command(t, "log-level")
	file := strings.TrimSpace(stdout) // the level of the file
	says("the log level is error", "error", "--for", "1s")
	changed("error", "by uid")
	changed(file, "its time has passed")
	says("the log level is trace", "trace")
	if _, stderr, code := b.Command(t, "reload"); code != 0 {
		t.Error(stderr)
	}
	changed(file, "reload")
	says(file)
	if _, stderr, code := b.Command(t, "log-level", "verbose"); code != 2 ||
		!strings.Contains(stderr, "needs one of trace, debug, info, warn, error") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if stdout, stderr, code := b.Command(t, "backends", "set", "al", "b9", "--weight", "2"); code != 1 || stdout != "" ||
		!strings.Contains(stderr, `did you mean "all"?`) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
