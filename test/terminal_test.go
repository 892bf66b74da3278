package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/test/harness"
)

// longNames is a configuration with three pools that have long names, a mistake in each kind of verdict, and a long
// address.
func longNames(t *testing.T, working ...string) string {
	t.Helper()
	return fmt.Sprintf(`
[global]
state_file = %q
[listener.postgres-read-write-europe-west]
address = %q
pool    = "postgres-primary-europe-west"
limits  = { client_sessions = 100 }
[listener.session-cache-of-the-shop]
address = %q
pool    = "redis-session-cache-shared"
[listener.name-service-for-everybody]
address  = %q
protocol = "udp"
profile  = "dns"
pool     = "resolvers-of-the-second-datacentre"
cache    = { max_entries = 10_000 }
[pool.postgres-primary-europe-west]
backends = [
  { address = %q, name = "database-server-01.europe-west" },
  { address = %q, name = "database-server-02.europe-west", weight = 10 },
  { address = "[2001:db8:1111:2222:3333:4444:5555:6666]:55432", name = "database-server-03.europe-west" },
]
health = { type = "tcp", timeout = "1s", fall = 1 }
[pool.redis-session-cache-shared]
backends = [{ address = %q, name = "redis-cache-001" }, { address = %q, name = "redis-cache-002", max_sessions = 500 }]
health   = { type = "redis", role = "primary", fall = 1 }
[pool.resolvers-of-the-second-datacentre]
algorithm = "client_hash"
backends  = [{ address = %q, name = "resolver-1" }, { address = "[::1]:5353", name = "resolver-2" }]
`, filepath.Join(t.TempDir(), "state.json"), harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t),
		working[0], working[1], working[0], harness.FreeAddress(t), harness.FreeAddress(t))
}

// squeezed returns a text with one space for each run of spaces and line breaks.
func squeezed(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestTablesInTerminal runs the commands that print tables in a real terminal of 80 columns: no line is longer, and
// no name, address, verdict or reason is cut.
func TestTablesInTerminal(t *testing.T) {
	t.Parallel()
	first, second := harness.Serve(t, harness.Echo), harness.Serve(t, harness.Echo)
	config := longNames(t, first.Address(), second.Address())
	started := time.Now()
	b := harness.StartBalancer(t, config)
	for _, name := range []string{"redis-cache-001", "redis-cache-002", "database-server-03.europe-west"} {
		b.WaitVerdict(t, name, "unhealthy", started)
	}
	check(t, harness.PingPong(b.Dial(t, "postgres-read-write-europe-west"), 1, 100))
	backend := "/v1/pools/postgres-primary-europe-west/backends/database-server-02.europe-west"
	b.Ask(t, http.MethodPatch, backend, map[string]any{"weight": 3, "mode": "drain"}, nil)
	comment := "a scan from a network that has no business here, seen on Monday and again on Tuesday"
	b.Ask(t, http.MethodPost, "/v1/access", map[string]any{"prefix": "2001:db8:1111:2222:3333:4444:5555:0/112",
		"action": "deny", "for_seconds": 600, "comment": comment}, nil)

	dir := t.TempDir()
	proposed := strings.NewReplacer("weight = 10", "weight = 12", "session-cache-of-the-shop", "web").Replace(config)
	check(t, os.WriteFile(filepath.Join(dir, "new.toml"), []byte(b.Complete(proposed)), 0o600))
	commands := []string{
		"status", "backends", "backends --pool postgres-primary-europe-west", "sessions", "clients", "dns", "access",
		"access check 2001:db8:1111:2222:3333:4444:5555:1", "explain --pool postgres-primary-europe-west 192.0.2.7",
		"explain --pool redis-session-cache-shared 192.0.2.7", "plan --config new.toml", "algorithms",
		"simulate --config new.toml --pool postgres-primary-europe-west --sessions 1000",
		"simulate --config new.toml --pool postgres-primary-europe-west --sessions 1000 --algorithm all",
		"log-level", "check new.toml", "example", "help backends set", "help", "reload", "top --once --interval 100ms",
		"events", // until the terminal ends
	}
	script := ""
	for _, c := range commands {
		script += fmt.Sprintf("echo '$ %s'; \"$0\" %s\n", c, c)
	}
	terminal := harness.StartTerminal(t, 80, 24, harness.Command{
		Path: "/bin/sh", Args: []string{"-c", script, harness.Binary(t, false)}, Dir: dir,
		Env: []string{"LIMELOAD_ADMIN=unix:" + b.AdminSocket(), "GORACE=atexit_sleep_ms=50", "NO_COLOR="},
	})
	shown := map[string]string{}
	weight := 20
	harness.Eventually(t, "every command has printed something", func() error {
		lines, command := terminal.Lines(t), ""
		clear(shown)
		for _, line := range lines {
			line = strings.TrimRight(line, " ")
			if name, is := strings.CutPrefix(line, "$ "); is {
				command = name
				continue
			}
			shown[command] += line + "\n"
		}
		if shown["events"] == "" && command == "events" {
			weight++ // a subscriber that is not there yet sees the next one
			b.Ask(t, http.MethodPatch, backend, map[string]any{"weight": weight}, nil)
		}
		if len(shown) < len(commands) {
			return fmt.Errorf("%d of %d: %q", len(shown), len(commands), lines)
		}
		return nil
	})
	for _, c := range commands {
		t.Logf("$ %s\n%s", c, shown[c])
		for line := range strings.Lines(shown[c]) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%s: a line is %d wide: %s", c, n, line)
			}
		}
	}
	whole(t, b, shown, comment)
	wide, _, _ := b.Command(t, "backends", "--color", "always")
	for _, coloured := range []string{"\x1b[32mhealthy\x1b[0m", "\x1b[31munhealthy\x1b[0m", "\x1b[33mdrain\x1b[0m"} {
		if !strings.Contains(wide, coloured) {
			t.Errorf("--color always shows no %q:\n%s", coloured, wide)
		}
	}
}

// whole checks that what must not be cut is shown whole.
func whole(t *testing.T, b *harness.Balancer, shown map[string]string, comment string) {
	t.Helper()
	must := map[string][]string{
		"clients": {"127.0.0.1/32"},
		"access":  {"2001:db8:1111:2222:3333:4444:5555:0/112 deny", comment},
		"explain --pool redis-session-cache-shared 192.0.2.7": {"redis-cache-002 unhealthy connect refused"},
		"events": {"postgres-primary-europe-west/database-server-02.europe-west"},
	}
	_, answer := b.API(t, http.MethodGet, "/v1/backends", nil)
	var list struct {
		Backends []struct{ Pool, Name, Address, Mode, Verdict, Reason string }
	}
	check(t, json.Unmarshal(answer, &list))
	if len(list.Backends) != 7 {
		t.Fatalf("%d backends: %s", len(list.Backends), answer)
	}
	for _, one := range list.Backends {
		if strings.HasPrefix(one.Address, "[2001") {
			one.Reason = "" // the network says now this, now that about an address that is nowhere
		}
		must["backends"] = append(must["backends"], one.Pool, one.Name, one.Address, one.Verdict, one.Reason)
		must["status"] = append(must["status"], one.Pool)
		if strings.HasPrefix(one.Pool, "postgres") {
			must["backends --pool "+one.Pool] = append(must["backends --pool "+one.Pool], one.Name, one.Address,
				strings.TrimPrefix(one.Mode, "ready"), one.Verdict, one.Reason) // ready may be left out
		}
	}
	for _, name := range []string{"postgres-read-write-europe-west", "session-cache-of-the-shop",
		"name-service-for-everybody"} {
		must["status"] = append(must["status"], name, b.Address(t, name))
	}
	for command, texts := range must {
		for _, text := range texts {
			if !strings.Contains(squeezed(shown[command]), squeezed(text)) {
				t.Errorf("%s does not show %q", command, text)
			}
		}
	}
}
