package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// onAddress starts a backend on a loopback address and port that greets with name.
func onAddress(t *testing.T, ip, port, name string) {
	t.Helper()
	harness.ServeOn(t, net.JoinHostPort(ip, port), harness.SpeakFirst(name))
}

// portOf returns the port of an address.
func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	check(t, err)
	return port
}

// TestDiscoverByDNS has a pool that follows the addresses of a name in a real server: it starts with them, applies
// changes when the TTL has run out, keeps its backends while the server is gone, and then follows again.
func TestDiscoverByDNS(t *testing.T) {
	t.Parallel()
	first := harness.Serve(t, harness.SpeakFirst("b1"))
	port := portOf(t, first.Address())
	onAddress(t, "127.0.0.2", port, "b2")
	onAddress(t, "127.0.0.3", port, "b3")
	server := harness.StartDNS(t)
	server.SetZone(t, "db 1 IN A 127.0.0.1\ndb 1 IN A 127.0.0.2\n")
	b := world{
		Pool: []string{`algorithm = "round_robin"`},
		Discover: []string{
			`type = "dns"`, fmt.Sprintf("name = %q", "db."+harness.DNSZone), "allow_loopback = true", "port = " + port,
			fmt.Sprintf("resolver = %q", server.Address), `refresh = "1h"`, // the TTL is what it goes by
		},
	}.start(t)
	c := newCaller(t, b)
	if got := c.calls(t, 20, false); got["b1"] != 10 || got["b2"] != 10 {
		t.Errorf("at first sessions went to %v", got)
	}

	server.SetZone(t, "db 1 IN A 127.0.0.2\ndb 1 IN A 127.0.0.3\n")
	b.WaitLine(t, "the removed address", func(l harness.Line) bool {
		return l.Message == harness.MessageRemoved && l.Backend == "127.0.0.1:"+port
	})
	if got := c.calls(t, 20, false); got["b2"] != 10 || got["b3"] != 10 {
		t.Errorf("after the change sessions went to %v", got)
	}

	server.Kill(t)
	failed := b.WaitLine(t, "the failure", func(l harness.Line) bool { return l.Message == harness.MessageNoAnswer })
	if !strings.Contains(failed.Err, "db."+harness.DNSZone) {
		t.Errorf("the failure does not name what was asked for: %s", failed.Text)
	}
	if got := c.calls(t, 20, false); got["b2"] != 10 || got["b3"] != 10 {
		t.Errorf("without the server sessions went to %v", got)
	}

	server.Restart(t)
	server.SetZone(t, "db 1 IN A 127.0.0.1\n")
	b.WaitLine(t, "the address again", func(l harness.Line) bool {
		return l.Message == harness.MessageAdded && l.Backend == "127.0.0.1:"+port && l.Seen.After(failed.Seen)
	})
	if got := c.calls(t, 10, false); got["b1"] != 10 {
		t.Errorf("with the server back sessions went to %v", got)
	}
}

// TestDiscoverBySRV takes weights and priorities from the DNS: the larger priority is a tier that serves when the
// checks of the first tier fail.
func TestDiscoverBySRV(t *testing.T) {
	t.Parallel()
	first := harness.Serve(t, harness.SpeakFirst("b1"))
	second, standIn := harness.Serve(t, harness.SpeakFirst("b2")), harness.Serve(t, harness.SpeakFirst("b3"))
	server := harness.StartDNS(t)
	server.SetZone(t, strings.Join([]string{
		"_db._tcp 60 IN SRV 10 1 " + portOf(t, first.Address()) + " one",
		"_db._tcp 60 IN SRV 10 3 " + portOf(t, second.Address()) + " one",
		"_db._tcp 60 IN SRV 20 0 " + portOf(t, standIn.Address()) + " one",
		"one 60 IN A 127.0.0.1",
	}, "\n")+"\n")
	b := world{
		Pool: []string{`algorithm = "round_robin"`},
		Discover: []string{
			`type = "srv"`, fmt.Sprintf("name = %q", "_db._tcp."+harness.DNSZone), "allow_loopback = true",
			fmt.Sprintf("resolver = %q", server.Address),
		},
		Health: []string{`interval = "200ms"`, `fast_interval = "100ms"`, `rise = 1`, `fall = 1`},
	}.start(t)
	c := newCaller(t, b)
	if got := c.calls(t, 40, false); got["b1"] != 10 || got["b2"] != 30 {
		t.Errorf("by weights 1 and 3 sessions went to %v", got)
	}
	gone := time.Now()
	first.Close()
	second.Close()
	b.WaitVerdict(t, first.Address(), "unhealthy", gone)
	b.WaitVerdict(t, second.Address(), "unhealthy", gone)
	if got := c.calls(t, 10, false); got["b3"] != 10 {
		t.Errorf("without the first priority sessions went to %v", got)
	}
}

// TestDiscoveryThatFailsAtFirst starts without an answer: clients are refused until there is one.
func TestDiscoveryThatFailsAtFirst(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.SpeakFirst("b1"))
	server := harness.StartDNS(t)
	server.SetZone(t, "other 1 IN A 127.0.0.1\n")
	b := world{
		Pool: []string{`algorithm = "round_robin"`},
		Discover: []string{
			`type = "dns"`, fmt.Sprintf("name = %q", "db."+harness.DNSZone), "allow_loopback = true",
			"port = " + portOf(t, backend.Address()),
			fmt.Sprintf("resolver = %q", server.Address), `refresh = "1s"`,
		},
	}.start(t)
	_ = refusal(t, b.Address(t, "main"))
	b.WaitLine(t, "a refusal", func(l harness.Line) bool { return l.Reason == "no_backend" })
	server.SetZone(t, "db 1 IN A 127.0.0.1\n")
	b.WaitLine(t, "pool can serve", func(l harness.Line) bool { return l.Message == "pool can serve" })
	if got := newCaller(t, b).calls(t, 3, false); got["b1"] != 3 {
		t.Errorf("sessions went to %v", got)
	}
}

// TestDiscoveryThatNamesThisMachine has an SRV record for a server on loopback, as the control API may be: without
// allow_loopback no client reaches it, and the log says why.
func TestDiscoveryThatNamesThisMachine(t *testing.T) {
	t.Parallel()
	private := harness.Serve(t, harness.SpeakFirst("private"))
	server := harness.StartDNS(t)
	server.SetZone(t, "_db._tcp 60 IN SRV 0 1 "+portOf(t, private.Address())+" one\none 60 IN A 127.0.0.1\n")
	b := world{
		Pool: []string{`algorithm = "round_robin"`},
		Discover: []string{
			`type = "srv"`, fmt.Sprintf("name = %q", "_db._tcp."+harness.DNSZone), fmt.Sprintf("resolver = %q",
				server.Address),
		},
	}.start(t)
	failed := b.WaitLine(t, "the failure", func(l harness.Line) bool { return l.Message == harness.MessageNoAnswer })
	if !strings.Contains(failed.Err, "address of this machine: "+private.Address()+
		"; allow_loopback = true allows them") {
		t.Errorf("the log says %s", failed.Text)
	}
	_ = refusal(t, b.Address(t, "main"))
	if n := private.Accepted(); n != 0 {
		t.Errorf("%d connections came to a server of this machine", n)
	}
}

// TestDiscoveryForbidsThisMachine removes allow_loopback: backends found with it are removed at once, although there
// are no others.
func TestDiscoveryForbidsThisMachine(t *testing.T) {
	t.Parallel()
	private := harness.Serve(t, harness.SpeakFirst("b1"))
	server := harness.StartDNS(t)
	server.SetZone(t, "db 60 IN A 127.0.0.1\n")
	w := world{
		Pool: []string{`algorithm = "round_robin"`},
		Discover: []string{
			`type = "dns"`, fmt.Sprintf("name = %q", "db."+harness.DNSZone), "port = " + portOf(t, private.Address()),
			fmt.Sprintf("resolver = %q", server.Address), "allow_loopback = true",
		},
	}
	config := w.config(t)
	b := harness.StartBalancer(t, config)
	if got := newCaller(t, b).calls(t, 3, false); got["b1"] != 3 {
		t.Errorf("sessions went to %v", got)
	}
	b.Reload(t, strings.Replace(config, "allow_loopback = true", "allow_loopback = false", 1))
	b.WaitLine(t, "the removed address", func(l harness.Line) bool {
		return l.Message == harness.MessageRemoved && l.Backend == private.Address()
	})
	_ = refusal(t, b.Address(t, "main"))
}

// TestDiscoveryThatIsEmptied has a valid answer without backends: the pool is emptied, whatever on_error says, and the
// log says so.
func TestDiscoveryThatIsEmptied(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.SpeakFirst("b1"))
	list := filepath.Join(t.TempDir(), "backends.json")
	check(t, os.WriteFile(list, fmt.Appendf(nil, "[{\"address\": %q}]", backend.Address()), 0o600))
	b := world{
		Pool:     []string{`algorithm = "round_robin"`},
		Discover: []string{`type = "file"`, fmt.Sprintf("file = %q", list), `on_error = "keep"`},
	}.start(t)
	if got := newCaller(t, b).calls(t, 3, false); got["b1"] != 3 {
		t.Errorf("sessions went to %v", got)
	}
	check(t, os.WriteFile(list, []byte("[]"), 0o600))
	line := b.WaitLine(t, "the empty answer", func(l harness.Line) bool {
		return l.Message == "discovery names no backend: the pool has none from it"
	})
	if line.Level != "warn" || !strings.Contains(line.Text, `"removed":1`) {
		t.Errorf("the log says %s", line.Text)
	}
	_ = refusal(t, b.Address(t, "main"))
}
