package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// letsIn reports whether a balancer's listener serves a client of an address, by a byte that comes back.
func letsIn(t *testing.T, b *harness.Balancer, from string) bool {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: harness.Patience}
	c, err := d.Dial("tcp", b.Address(t, "main"))
	if err != nil {
		return false // reset already
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	}
	return false
}

// TestAccessRules adds and removes access rules by the command line. They are in force at once, end at their time, and
// outlive a reload and a restart.
func TestAccessRules(t *testing.T) {
	t.Parallel()
	echo := harness.Serve(t, harness.Echo)
	w := world{Backends: []string{echo.Address()}, Listen: harness.FreeAddress(t),
		Global: []string{fmt.Sprintf("state_file = %q", filepath.Join(t.TempDir(), "state.json"))}}
	b := w.start(t)
	command := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, code := b.Command(t, args...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("%q: exit code %d, %s%s, want %q", args, code, stdout, stderr, want)
		}
	}
	is := func(from string, want bool) {
		t.Helper()
		if got := letsIn(t, b, from); got != want {
			t.Errorf("%s is let in: %t, want %t", from, got, want)
		}
	}
	command("127.0.9.0/24 is denied at every listener, for 1h0m", "access", "deny", "127.0.9.0/24", "--for", "1h",
		"--comment", "a test")
	command("127.0.9.7/32 is allowed at listener main", "access", "allow", "127.0.9.7", "--listener", "main")
	command("127.0.8.1/32 is denied", "access", "deny", "127.0.8.1", "--for", "2s")
	is("127.0.9.1", false)
	is("127.0.9.7", true)
	is("127.0.7.1", true)
	command("127.0.9.0/24", "access", "check", "127.0.9.1")
	command("127.0.9.1 would be refused: denied.", "explain", "--listener", "main", "127.0.9.1")
	harness.Eventually(t, "the rule has ended", func() error {
		if !letsIn(t, b, "127.0.8.1") {
			return errors.New("127.0.8.1 is refused")
		}
		return nil
	})
	b.Reload(t, w.config(t))
	is("127.0.9.1", false)

	b.Signal(t, syscall.SIGTERM)
	endsWithZero(t, b)
	b = w.start(t)
	is("127.0.9.1", false)
	is("127.0.9.7", true)
	command("a test", "access", "list")
	command("127.0.9.0/24 has no rule any more at every listener", "access", "remove", "127.0.9.0/24")
	is("127.0.9.1", true)
	if _, stderr, code := b.Command(t, "access", "remove", "127.0.9.0/24"); code != 1 ||
		!strings.Contains(stderr, "there is no such access rule") {
		t.Errorf("a rule that is gone: exit code %d, %s", code, stderr)
	}
	command("does not track clients", "clients")
}
