package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// addressAt returns the address that a name has for a client of a DNS server.
func addressAt(t *testing.T, server, name string) string {
	t.Helper()
	client := &dns.Client{Timeout: harness.Patience}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server)
	check(t, err)
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("%s: %v", name, m)
	}
	return m.Answer[0].(*dns.A).A.String()
}

// TestDNSPurge changes a name server's answers for names that clients have asked for: they get the old answers until
// these are purged, by name, by suffix and completely, through the API and the command. Metrics and the table of
// listeners count it.
func TestDNSPurge(t *testing.T) {
	t.Parallel()
	const before, after = "192.0.2.1", "192.0.2.2"
	names := []string{"www.lb.test.", "a.lb.test.", "b.a.lb.test.", "c.b.a.lb.test.", "aa.lb.test."}
	server := harness.StartDNS(t)
	server.TTL = 3600
	serve := func(address string) {
		t.Helper()
		var records strings.Builder
		for _, name := range names {
			fmt.Fprintf(&records, "%s A %s\n", name, address)
		}
		server.SetZone(t, records.String())
	}
	serve(before)
	config := world{Backends: []string{server.Address},
		Listener: []string{`protocol = "udp"`, `cache = { max_entries = 1000 }`}}.config(t)
	b := harness.StartBalancer(t, config)
	asked := 0
	get := func(want string, names ...string) {
		t.Helper()
		for _, name := range names {
			asked++
			if got := addressAt(t, b.Address(t, "main"), name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
	get(before, names...)
	serve(after)
	get(before, names...)

	stdout, stderr, code := b.Command(t, "dns", "purge", "main", "WWW.lb.test")
	if code != 0 || strings.TrimSpace(stdout) != "listener main forgot 1 answer: WWW.lb.test" {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	get(after, "www.lb.test.")
	get(before, names[1:]...)
	purge := func(body map[string]any, want int) {
		t.Helper()
		var answer struct{ Purged int }
		b.Ask(t, "POST", "/v1/listeners/main/dns/purge", body, &answer)
		if answer.Purged != want {
			t.Errorf("%v: %d answers were forgotten, want %d", body, answer.Purged, want)
		}
	}
	purge(map[string]any{"name": "a.lb.test.", "below": true}, 3)
	get(after, names[:4]...)
	get(before, "aa.lb.test.")
	purge(map[string]any{"all": true}, 5)
	get(after, names...)
	purge(map[string]any{"name": "nowhere.lb.test"}, 0)

	const misses = 5 + 1 + 3 + 5
	hits := asked - misses
	measured(t, b, map[string]float64{
		`limeload_dns_questions_total{listener="main",result="miss"}`:        misses,
		`limeload_dns_questions_total{listener="main",result="hit"}`:         float64(hits),
		`limeload_dns_questions_total{listener="main",result="stale"}`:       0,
		`limeload_dns_tries_total{listener="main"}`:                          misses,
		`limeload_dns_tries_ended_total{listener="main",result="answered"}`:  misses,
		`limeload_dns_tries_ended_total{listener="main",result="timed_out"}`: 0,
		`limeload_dns_failed_total{listener="main"}`:                         0,
		`limeload_dns_cache_stored_total{listener="main"}`:                   misses,
		`limeload_dns_cache_entries{listener="main"}`:                        5,
		`limeload_dns_cache_evicted_total{listener="main"}`:                  0,
		`limeload_dns_cache_waiting{listener="main"}`:                        0,
		`limeload_dns_in_flight{listener="main"}`:                            0,
		`limeload_log_lines_dropped_total`:                                   0,
	})
	stdout, stderr, code = b.Command(t, "dns")
	row := fmt.Sprintf("main %.1f%% %d %d 0 0 0 0 0 5 ", 100*float64(hits)/float64(asked), hits, misses)
	if code != 0 || !strings.Contains(strings.Join(strings.Fields(stdout), " "), row) {
		t.Errorf("exit code %d, want %q\n%s%s", code, row, stdout, stderr)
	}

	b.Reload(t, strings.Replace(config, "1000", "2000", 1)) // another cache
	measured(t, b, map[string]float64{
		`limeload_dns_cache_entries{listener="main"}`:                0,
		`limeload_dns_questions_total{listener="main",result="hit"}`: 0,
		`limeload_dns_tries_total{listener="main"}`:                  0,
	})
	get(after, "www.lb.test.")
	measured(t, b, map[string]float64{`limeload_dns_questions_total{listener="main",result="miss"}`: 1})
}

// TestDNSPurgeRefused requests invalid purges: nothing is purged, and the answer says why.
func TestDNSPurgeRefused(t *testing.T) {
	t.Parallel()
	server, questions, _ := countingDNS(t)
	config := world{Backends: []string{server},
		Listener: []string{`protocol = "udp"`, `cache = { max_entries = 1000 }`}}.config(t)
	config += fmt.Sprintf("[listener.plain]\naddress = %q\nprotocol = \"udp\"\nprofile = \"dns\"\npool = \"all\"\n",
		harness.FreeAddress(t))
	b := harness.StartBalancer(t, config)
	resolveAt(t, b.Address(t, "main"), "www.example.com.")
	for _, c := range []struct {
		listener, body string
		status         int
		kind           string
	}{
		{"nobody", `{"all":true}`, http.StatusNotFound, "/problems/unknown-listener"},
		{"plain", `{"all":true}`, http.StatusConflict, "/problems/no-dns-cache"},
		{"main", `{"name":"www..example.com"}`, http.StatusUnprocessableEntity, "/problems/invalid-value"},
		{"main", `{"name":"` + strings.Repeat("x", 64) + `.example.com","below":true}`, http.StatusUnprocessableEntity,
			"/problems/invalid-value"},
		{"main", `{"name":"\\999"}`, http.StatusUnprocessableEntity, "/problems/invalid-value"},
		{"main", `{}`, http.StatusBadRequest, "/problems/bad-request"},
		{"main", `{"name":"www.example.com","all":true}`, http.StatusBadRequest, "/problems/bad-request"},
	} {
		status, answer := b.API(t, "POST", "/v1/listeners/"+c.listener+"/dns/purge", []byte(c.body))
		if status != c.status || !strings.Contains(string(answer), c.kind) {
			t.Errorf("%s %s: %d %s, want %d %s", c.listener, c.body, status, answer, c.status, c.kind)
		}
	}
	stdout, stderr, code := b.Command(t, "dns", "purge", "plain", "--all")
	if want := "it has no DNS cache; a [listener.*.cache] table gives it one"; code != 1 || stdout != "" ||
		!strings.Contains(stderr, want) {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
	resolveAt(t, b.Address(t, "main"), "www.example.com.")
	resolveAt(t, b.Address(t, "plain"), "www.example.com.")
	if n := questions.Load(); n != 2 {
		t.Errorf("the backend was asked %d times, want twice", n)
	}
	got := metrics(t, b)
	if n, has := got[`limeload_dns_tries_total{listener="plain"}`]; !has || n != 1 {
		t.Errorf("a listener without a cache has tried %v times (there: %t)", n, has)
	}
	if _, has := got[`limeload_dns_cache_entries{listener="plain"}`]; has {
		t.Error("a listener without a cache has numbers of one")
	}
}
