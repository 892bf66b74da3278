package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A backendsFile is a file of backends that a pool discovers.
type backendsFile struct{ path string }

// write replaces the file whole, as a careful program does.
func (f backendsFile) write(t *testing.T, entries ...string) {
	t.Helper()
	text := "backends = [\n"
	for _, e := range entries {
		text += "  { " + e + " },\n"
	}
	check(t, os.WriteFile(f.path+".new", []byte(text+"]\n"), 0o600))
	check(t, os.Rename(f.path+".new", f.path))
}

// TestBackendsAtRunTime changes a running balancer's backends through its file: an added one gets its share, a drained
// or removed one keeps its sessions and gets no new ones, and a broken file changes nothing.
func TestBackendsAtRunTime(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 3)
	entry := func(i int, more string) string {
		return fmt.Sprintf("address = %q, name = %q%s", backends[i].Address(), backendName(i), more)
	}
	file := newBackendsFile(t, entry(0, ""), entry(1, ""))
	b := world{
		Pool:     []string{`algorithm = "round_robin"`},
		Discover: []string{`type = "file"`, fmt.Sprintf("file = %q", file.path)},
	}.start(t)
	c := newCaller(t, b)
	changed := func(message, backend string) {
		t.Helper()
		b.WaitLine(t, message+" "+backend, func(l harness.Line) bool {
			return l.Message == message && l.Backend == backend
		})
	}
	if got := c.calls(t, 20, true); got["b1"] != 10 || got["b2"] != 10 {
		t.Errorf("at first sessions went to %v", got)
	}
	first := c.conns

	file.write(t, entry(0, ""), entry(1, ""), entry(2, ""))
	changed(harness.MessageAdded, "b3")
	if got := c.calls(t, 30, false); got["b1"] != 10 || got["b2"] != 10 || got["b3"] != 10 {
		t.Errorf("after b3 was added sessions went to %v", got)
	}

	file.write(t, entry(0, ""), entry(1, `, mode = "drain"`), entry(2, ", weight = 2"))
	changed(harness.MessageMode, "b2")
	changed(harness.MessageWeight, "b3")
	if got := c.calls(t, 30, false); got["b1"] != 10 || got["b3"] != 20 {
		t.Errorf("after b2 was drained and b3 got weight 2, sessions went to %v", got)
	}

	file.write(t, entry(1, `, mode = "drain"`), entry(2, ""))
	changed(harness.MessageRemoved, "b1")
	if got := c.calls(t, 30, false); got["b3"] != 30 {
		t.Errorf("after b1 was removed sessions went to %v", got)
	}

	check(t, os.WriteFile(file.path, []byte("backends = [\n  { address = \"10.0.0.1:80\", wieght = 3 },\n]\n"), 0o600))
	line := b.WaitLine(t, "the broken file is logged", func(l harness.Line) bool {
		return l.Message == harness.MessageNoAnswer
	})
	if want := file.path + `:2: backends[0].wieght: unknown key, did you mean "weight"?`; !strings.Contains(line.Err,
		want) {
		t.Errorf("the broken file is logged as %q, expected %q in it", line.Err, want)
	}
	if got := c.calls(t, 10, false); got["b3"] != 10 {
		t.Errorf("with a broken file sessions went to %v", got)
	}
	for _, conn := range first { // on b1, which is removed, and b2, which is drained
		check(t, harness.PingPong(conn, 1, 1))
	}
}

// TestOnRemoveClose removes a backend with on_remove = "close": its sessions end.
func TestOnRemoveClose(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 2)
	entry := func(i int) string {
		return fmt.Sprintf("address = %q, name = %q", backends[i].Address(), backendName(i))
	}
	file := newBackendsFile(t, entry(0), entry(1))
	b := world{
		Pool:     []string{`algorithm = "round_robin"`, `on_remove = "close"`},
		Discover: []string{`type = "file"`, fmt.Sprintf("file = %q", file.path)},
	}.start(t)
	c := newCaller(t, b)
	c.calls(t, 10, true)
	file.write(t, entry(1))
	for _, line := range b.WaitSessions(t, 5) {
		if line.Reason != "backend_removed" || line.Backend != "b1" {
			t.Errorf("a session ended with %s", line.Text)
		}
	}
	var alive int
	for _, conn := range c.conns {
		if harness.PingPong(conn, 1, 1) == nil {
			alive++
		}
	}
	if alive != 5 {
		t.Errorf("%d sessions are left, expected the 5 of the other backend", alive)
	}
}
