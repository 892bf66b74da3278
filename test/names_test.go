package test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// echoed sends something through the listener web and waits for it to come back.
func echoed(t *testing.T, b *harness.Balancer) {
	t.Helper()
	c := b.Dial(t, "web")
	defer c.Close()
	_, err := c.Write([]byte("x"))
	check(t, err)
	_, err = io.ReadFull(c, make([]byte, 1))
	check(t, err)
}

// TestNameWithoutAddress starts the program with a host name that no DNS server knows: it serves with the other
// backends, says what is missing wherever an operator looks, and reloads. `check` calls it a mistake.
func TestNameWithoutAddress(t *testing.T) {
	echo, listen := harness.Serve(t, harness.Echo), harness.FreeAddress(t)
	config := func(retries int) string {
		return fmt.Sprintf("[listener.web]\naddress = %q\npool = \"web\"\n[pool.web]\nretries = %d\n"+
			"backends = [{ address = \"nowhere.invalid:80\" }, { address = %q }]\n",
			listen, retries, echo.Address())
	}
	b := harness.StartBalancer(t, config(1))
	line := b.WaitLine(t, "the unresolved name", func(l harness.Line) bool {
		return l.Message == "name not resolved: tried again until it has an address"
	})
	const path = `pool.web.backends[0].address: found "nowhere.invalid:80"; cannot be resolved`
	if line.Level != "warn" || !strings.Contains(line.Configuration, path) {
		t.Errorf("the log has %+v", line)
	}
	echoed(t, b)
	for _, command := range []string{"status", "plan"} {
		if out, stderr, code := b.Command(t, command); code != 0 || !strings.Contains(out, path) {
			t.Errorf("%s ends with %d: %s%s", command, code, out, stderr)
		}
	}
	b.Reload(t, config(2))
	echoed(t, b)
	if _, stderr, code := b.Command(t, "check", "--config", b.File()); code != 1 || !strings.Contains(stderr, path) {
		t.Errorf("check ends with %d: %s", code, stderr)
	}
}
