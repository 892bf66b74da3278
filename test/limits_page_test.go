package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// limitsPage returns docs/limits.md, and its configurations.
func limitsPage(t *testing.T) (page string, configs []string) {
	t.Helper()
	page = string(readFile(t, "../docs/limits.md"))
	for _, block := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		configs = append(configs, block[1])
	}
	if len(configs) != 5 {
		t.Fatalf("the page has %d configurations", len(configs))
	}
	return page, configs
}

// onThisMachine replaces parts of a configuration, each of which it must have.
func onThisMachine(t *testing.T, config string, replace ...string) string {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(config, replace[i]) {
			t.Fatalf("the configuration has no %s:\n%s", replace[i], config)
		}
		config = strings.ReplaceAll(config, replace[i], replace[i+1])
	}
	return config
}

// TestLimitsPage runs the configurations of docs/limits.md with real clients, and what the page shows of them.
func TestLimitsPage(t *testing.T) {
	t.Parallel()
	page, configs := limitsPage(t)
	shown := func(what string) {
		t.Helper()
		if !strings.Contains(page, what) {
			t.Errorf("docs/limits.md does not show %q", what)
		}
	}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "redis.allow"), []byte("127.0.0.0/8 # this machine\n"), 0o600))
	redis, server := harness.StartRedis(t), harness.StartPostgres(t)
	names := harness.StartDNS(t)
	names.SetZone(t, "www 300 A 192.0.2.80")

	at := harness.FreeAddress(t)
	b := harness.StartBalancer(t, onThisMachine(t, configs[0], `":6379"`, fmt.Sprintf("%q", at),
		"10.0.0.0/8", "127.0.0.0/16", "10.66.0.0/16", "127.0.66.0/24", "10.0.0.11:6379", greet(t),
		"10.0.0.12:6379", greet(t), "50/s burst 200", "1/m burst 3"))
	expectVisits(t, "127.0.0.1", at, "", 6, 6, "")
	expectAdmitted(t, at, map[string]int{"127.0.66.1": 0, "127.1.0.1": 0})
	line := b.WaitLine(t, "the dry run's refusal", func(l harness.Line) bool {
		return l.Reason == "client_rate" && strings.HasPrefix(l.Message, "dry run: ")
	})
	for _, field := range regexp.MustCompile(`"([a-z_]+)":`).FindAllStringSubmatch(line.Text, -1) {
		if field[1] != "time" {
			shown(field[0])
		}
	}
	shown(fmt.Sprintf("%q", line.Message))
	stdout, _, _ := b.Command(t, "clients", "--listener", "redis")
	for _, column := range strings.Fields(strings.SplitN(stdout, "\n", 2)[0]) {
		if head := regexp.MustCompile(`(?m)^listener .*$`).FindString(page); !strings.Contains(head, column) {
			t.Errorf("docs/limits.md does not show the column %s of %s", column, stdout)
		}
	}

	at = harness.FreeAddress(t)
	harness.StartBalancer(t, onThisMachine(t, configs[1], `":8080"`, fmt.Sprintf("%q", at),
		"198.51.100.0/28", "127.0.0.0/8", "10.0.0.41:8080", greet(t)))
	expectVisits(t, "127.0.0.1", at, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n", 2, 2, "")
	expectVisits(t, "127.0.0.1", at, "PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\r\n", 2, 0, isReset)

	// the recipes, with the limits of the page and then with a client that has what it may have
	at = harness.FreeAddress(t)
	host, port, _ := net.SplitHostPort(at)
	text := onThisMachine(t, configs[2], `":5432"`, fmt.Sprintf("%q", at), "10.0.0.21:5432", server.Address(),
		"10.0.0.22:5432", harness.FreeAddress(t), "10.0.0.0/8", "127.0.0.0/8")
	psql := []string{"-XAt", fmt.Sprintf("host=%s port=%s user=limeload dbname=postgres", host, port), "-c", "select 42"}
	b = harness.StartBalancer(t, text)
	check(t, program(t, "42", "psql", psql...))
	b.Reload(t, onThisMachine(t, text, "client_sessions = 100", "client_sessions = 1"))
	first := harness.Dial(t, at)
	awaitMetric(t, b, `limeload_listener_sessions{listener="postgres"}`, 1)
	stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "psql"), Args: psql})
	_, said, _ := strings.Cut(strings.TrimSpace(stdout+stderr), "failed: ")
	shown(said)
	check(t, first.Close())

	at = harness.FreeAddress(t)
	host, port, _ = net.SplitHostPort(at)
	text = onThisMachine(t, configs[3], `":6379"`, fmt.Sprintf("%q", at), "10.0.0.11:6379", redis.Address,
		"10.0.0.12:6379", harness.FreeAddress(t), "/etc/limeload/redis.allow", filepath.Join(dir, "redis.allow"))
	b = harness.StartBalancer(t, text)
	check(t, program(t, "PONG", "redis-cli", "-h", host, "-p", port, "ping"))
	b.Reload(t, onThisMachine(t, text, "client_sessions  = 500", "client_sessions = 1"))
	first = harness.Dial(t, at)
	check(t, harness.Ping(first))
	stdout, stderr, _ = harness.Run(t, harness.Command{Path: harness.Tool(t, "redis-cli"), Args: []string{
		"-h", host, "-p", port, "get", "a"}})
	shown(strings.TrimSpace(stdout + stderr))
	check(t, first.Close())

	at = harness.FreeAddress(t)
	host, port, _ = net.SplitHostPort(at)
	harness.StartBalancerWith(t, harness.BalancerOptions{Killed: true, Config: onThisMachine(t, configs[4], `":53"`,
		fmt.Sprintf("%q", at), "10.0.0.0/8", "127.0.0.0/8", "192.0.2.10:53", names.Address, "192.0.2.11:53",
		harness.FreeAddress(t))})
	for _, how := range []string{"+notcp", "+tcp"} {
		check(t, program(t, "192.0.2.80", "dig", "@"+host, "-p", port, how, "www."+harness.DNSZone, "A"))
	}
}

// TestLimitsPageTexts holds that docs/limits.md shows what clients over a limit are told.
func TestLimitsPageTexts(t *testing.T) {
	t.Parallel()
	page, _ := limitsPage(t)
	n := 0
	for reason := range strings.SplitSeq(string(readFile(t, "testdata/refusals/psql.txt")), "# ") {
		name, printed, _ := strings.Cut(reason, "\n")
		switch name {
		case "client_sessions", "client_rate", "rate", "max_sessions":
			_, text, _ := strings.Cut(strings.TrimSpace(printed), "FATAL:  ")
			row := fmt.Sprintf("| `%s` | `%s` |", name, strings.ReplaceAll(text, `"main"`, `"postgres"`))
			if n++; !strings.Contains(page, row) {
				t.Errorf("docs/limits.md does not show %s", row)
			}
		}
	}
	if n != 4 {
		t.Errorf("%d texts", n)
	}
}
