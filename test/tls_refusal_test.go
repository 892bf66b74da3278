package test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// alertText is what openssl's client prints of an alert, without the place in its source.
var alertText = regexp.MustCompile(`error:[0-9A-F]+:SSL routines:[a-z0-9_]*:([^:]*):.*:(SSL alert number [0-9]+)`)

// TestTLSRefusalTexts runs openssl's client where it is refused, at a listener that ends TLS and at one that passes it
// through, and compares what it prints with testdata/refusals.
func TestTLSRefusalTexts(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	const spoken = `refuse_with = "protocol"`
	ends, passes := tlsTable(ca.pairs("www")), `routes = [{ sni = ["*.example.com"], pool = "all" }]`
	var got strings.Builder
	refused := func(reason, what string, b *harness.Balancer, at string) {
		t.Helper()
		printed := openSSL(t, at, "-servername", "www.example.com")
		alert := alertText.FindStringSubmatch(printed)
		if alert == nil {
			t.Errorf("%s, %s:\n%s", reason, what, printed)
			return
		}
		fmt.Fprintf(&got, "# %s, %s\n%s, %s\n", reason, what, alert[1], alert[2])
		if reason != "max_sessions" {
			b.WaitLine(t, "the refusal", func(l harness.Line) bool { return l.Reason == reason && l.BytesOut > 0 })
		}
	}
	for _, r := range refusings() {
		if r.before > 0 {
			continue // these clients wait for others, which would have to speak TLS
		}
		if r.reason != "connect_failed" { // which comes after the handshake where TLS ends
			b, host, port := r.start(t, "", spoken, ends)
			refused(r.reason, "TLS ends here", b, host+":"+port)
		}
		b, host, port := r.start(t, "", spoken, passes)
		refused(r.reason, "TLS passes through", b, host+":"+port)
	}
	for i, what := range []string{"TLS ends here", "TLS passes through"} {
		b := world{Backends: []string{harness.Serve(t, harness.Echo).Address()},
			Listener: []string{spoken, "max_sessions = 1", []string{ends, passes}[i]}}.start(t)
		first := b.Dial(t, "main") // without a hello it is a session all the same
		awaitMetric(t, b, `limeload_listener_sessions{listener="main"}`, 1)
		refused("max_sessions", what, b, b.Address(t, "main"))
		check(t, first.Close())
	}
	other := func(reason string, lines ...string) {
		t.Helper()
		w := world{Backends: []string{"127.0.0.1:9"}, Listener: lines}
		b := harness.StartBalancer(t, strings.Replace(w.config(t), `pool = "all"`, `pool = ""`, 1))
		refused(reason, "whatever refuse_with says", b, b.Address(t, "main"))
	}
	other("no_route", `routes = [{ sni = ["other.example.com"], pool = "all" }]`)
	ca.pair(t, "other", ecdsaKey(t), "other.example.com")
	other("unknown_name", `routes = [{ sni = ["*"], pool = "all" }]`, tlsTable("strict_sni = true", ca.pairs("other")))
	page := string(readFile(t, "../docs/tls.md"))
	for line := range strings.Lines(got.String()) {
		if line = strings.TrimSpace(line); line[0] != '#' && !strings.Contains(page, "`"+line+"`") {
			t.Errorf("docs/tls.md does not show %q", line)
		}
	}
	golden(t, filepath.Join("testdata", "refusals", "openssl.txt"), got.String())
}
