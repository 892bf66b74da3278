package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A refusing is a way to be refused: a world, how many clients hold sessions or wait before, and the reason.
type refusing struct {
	reason string
	keys   string   // of the backend
	pool   []string // further lines of the pool's table
	limit  string   // a line of the listener's table: what it is refused for; such clients have no access line
	before int
	ends   bool // the balancer ends while the client waits
}

// waitingClients is how many clients wait for a backend.
const waitingClients = `limeload_pool_queue_sessions{pool="all"}`

// refusings returns a refusal for each cause.
func refusings() []refusing {
	const one = "max_sessions = 1"
	return []refusing{
		{reason: "no_backend", keys: `mode = "maintenance"`},
		{reason: "connect_failed"},
		{reason: "backends_full", keys: one, before: 1},
		{reason: "queue_full", keys: one, pool: []string{`queue = { max = 1, timeout = "1m" }`}, before: 2},
		{reason: "queue_timeout", keys: one, pool: []string{`queue = { max = 1, timeout = "100ms" }`}, before: 1},
		{reason: "max_sessions", limit: "max_sessions = 1", before: 1},
		{reason: "client_sessions", limit: limitLines("client_sessions = 1"), before: 1},
		{reason: "client_rate", limit: limitLines(`client_rate = "1/h"`), before: 1},
		{reason: "rate", limit: limitLines(`rate = "1/h"`), before: 1},
		{reason: "drained", keys: one, pool: []string{`queue = { max = 1, timeout = "1m" }`}, before: 1, ends: true},
	}
}

// start starts a balancer where the next client is refused. listener are further lines of its table.
func (r refusing) start(t *testing.T, profile string, listener ...string) (b *harness.Balancer, host, port string) {
	t.Helper()
	address, closeBackend := harness.FreeAddress(t), func() {}
	if r.reason != "connect_failed" {
		backend := harness.Serve(t, harness.Silent)
		address, closeBackend = backend.Address(), backend.Close
	}
	w := world{
		Backends: []string{address}, Keys: []string{r.keys}, Pool: r.pool,
		Listener: append([]string{fmt.Sprintf("profile = %q", profile)}, listener...),
		Global:   []string{`drain_timeout = "100ms"`},
	}
	if r.limit != "" {
		w.Listener = append(w.Listener, r.limit)
	}
	b = w.start(t)
	t.Cleanup(closeBackend) // before the balancer is checked for leaks: a silent backend keeps its sessions
	for i := range r.before {
		c := b.Dial(t, "main")
		if profile == "postgres" { // a client that says nothing never gets that far
			_, err := c.Write([]byte("\x00\x00\x00\x10\x00\x03\x00\x00user\x00me\x00"))
			check(t, err)
		}
		if i == 0 {
			awaitMetric(t, b, `limeload_backend_sessions{backend="b1",pool="all"}`, 1)
		} else {
			awaitMetric(t, b, waitingClients, 1)
		}
	}
	host, port, err := net.SplitHostPort(b.Address(t, "main"))
	check(t, err)
	return b, host, port
}

// run runs a client that is refused, and returns what it prints.
func (r refusing) run(t *testing.T, b *harness.Balancer, c harness.Command) string {
	t.Helper()
	p := harness.Start(t, c)
	if r.ends {
		// Not before: a client that is not in the queue yet is cut without a word, if the drain ends before it speaks.
		awaitMetric(t, b, waitingClients, 1)
		b.Signal(t, syscall.SIGTERM)
	}
	p.Wait(t)
	if r.ends {
		b.Wait(t)
	}
	return strings.Trim(p.Stdout()+"\n"+p.Stderr(), "\n") + "\n"
}

// TestRefusalTexts runs real clients that are refused for each cause, and compares what they print with
// testdata/refusals.
func TestRefusalTexts(t *testing.T) {
	t.Parallel()
	port := regexp.MustCompile(`port [0-9]+`)
	for _, client := range []struct {
		name, profile string
		args          func(host, port string) []string
	}{
		{"psql", "postgres", func(host, port string) []string {
			return []string{"-X", "-h", host, "-p", port, "-U", "somebody", "-d", "db", "-c", "select 1"}
		}},
		{"pgbench", "postgres", func(host, port string) []string {
			return []string{"-h", host, "-p", port, "-U", "somebody", "-n", "-S", "-t", "1", "db"}
		}},
		{"redis-cli", "redis", func(host, port string) []string {
			return []string{"-h", host, "-p", port, "get", "a"}
		}},
		{"dig", "dns", func(host, port string) []string {
			return []string{"@" + host, "-p", port, "+tcp", "+tries=1", "a.example", "A"}
		}},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			var got strings.Builder
			for _, r := range refusings() {
				b, host, onPort := r.start(t, client.profile)
				printed := r.run(t, b, harness.Command{
					Path: harness.Tool(t, client.name), Args: client.args(host, onPort),
				})
				if client.name == "dig" {
					printed = digErrors(printed)
				}
				fmt.Fprintf(&got, "# %s\n%s", r.reason, port.ReplaceAllString(printed, "port PORT"))
				if r.limit != "" {
					awaitMetric(t, b, refusedAs(r.reason), 1)
					continue
				}
				b.WaitLine(t, "the refusal", func(l harness.Line) bool {
					return l.Reason == r.reason && l.BytesOut > 0
				})
			}
			golden(t, filepath.Join("testdata", "refusals", client.name+".txt"), got.String())
		})
	}
}

// digErrors returns what dig prints of the answer's code, and the extended error.
func digErrors(printed string) string {
	found := regexp.MustCompile(`status: [A-Z]+|; EDE: .*|;; communications error.*`).FindAllString(printed, -1)
	return strings.Join(found, "\n") + "\n"
}

// golden compares a text with a file, or writes the file with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		check(t, os.MkdirAll(filepath.Dir(file), 0o755))
		check(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	check(t, err)
	if got != string(want) {
		t.Errorf("%s: got\n%sexpected\n%s", file, got, want)
	}
}

// TestRefusalByUDP holds that a DNS listener of UDP says why it has no answer, with and without a cache.
func TestRefusalByUDP(t *testing.T) {
	t.Parallel()
	for _, lines := range [][]string{nil, {"cache = {}"}} {
		b := world{
			Backends: []string{"127.0.0.1:9"}, Keys: []string{`mode = "maintenance"`},
			Listener: append([]string{`protocol = "udp"`, `profile = "dns"`}, lines...),
		}.start(t)
		host, port, err := net.SplitHostPort(b.Address(t, "main"))
		check(t, err)
		out := harness.MustRun(t, harness.Command{
			Path: harness.Tool(t, "dig"), Args: []string{"@" + host, "-p", port, "+tries=1", "a.example", "A"},
		})
		want := "status: SERVFAIL\n; EDE: 22 (No Reachable Authority): (no backend of pool \"all\" has answered)\n"
		if got := digErrors(out); got != want {
			t.Errorf("with %q: %q, expected %q", lines, got, want)
		}
	}
}
