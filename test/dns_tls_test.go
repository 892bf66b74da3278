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

// TestDNSOverTLS has kdig ask by TLS, with the configuration of docs/dns.md: questions are answered by the backend, and
// then from the cache, also when the backend is gone.
func TestDNSOverTLS(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/dns.md")
	check(t, err)
	_, part, _ := strings.Cut(string(page), "## Over TLS")
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(part)
	if config == nil {
		t.Fatal("the page shows no configuration")
	}
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "dns", ecdsaKey(t), "dns.example.com")
	server := harness.StartDNS(t)
	server.TTL = 300 // answers with records whose TTL is 0 are not kept
	server.SetZone(t, "www 300 A 192.0.2.80")
	text := config[1]
	for from, to := range map[string]string{
		`":853"`: fmt.Sprintf("%q", harness.FreeAddress(t)), "10.0.0.53:53": server.Address, "/etc/limeload/tls": ca.dir,
	} {
		if !strings.Contains(text, from) {
			t.Fatalf("the configuration has no %s", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	b := harness.StartBalancer(t, text)
	host, port, err := net.SplitHostPort(b.Address(t, "dot"))
	check(t, err)
	kdig := func(name string, more ...string) string {
		args := append([]string{"+tls", "@" + host, "-p", port, "+retry=0", name, "A"}, more...)
		stdout, stderr, _ := harness.Run(t, harness.Command{Path: harness.Tool(t, "kdig"), Args: args})
		return stdout + stderr
	}
	trusting := []string{"+tls-ca=" + filepath.Join(ca.dir, "ca.crt"), "+tls-hostname=dns.example.com"}
	for range 3 {
		if got := kdig("www."+harness.DNSZone, trusting...); !strings.Contains(got, "192.0.2.80") ||
			!strings.Contains(got, "TLS session (TLS1.3)") {
			t.Errorf("got\n%s", got)
		}
	}
	server.Kill(t)
	if got := kdig("www."+harness.DNSZone, "+tls"); !strings.Contains(got, "192.0.2.80") {
		t.Errorf("from the cache:\n%s", got)
	}
	if got := kdig("other."+harness.DNSZone, "+tls"); !strings.Contains(got, "SERVFAIL") {
		t.Errorf("without a backend:\n%s", got)
	}
	measured(t, b, map[string]float64{
		`limeload_dns_questions_total{listener="dot",result="hit"}`:             3,
		strings.Replace(handshakesOf("client", "1.3", false), "main", "dot", 1): 5,
	})
	if got := kdig("www."+harness.DNSZone, "+tls", "+tls-ca="+filepath.Join(ca.dir, "ca.crt"),
		"+tls-hostname=other.example.com"); strings.Contains(got, "192.0.2.80") {
		t.Errorf("for another name:\n%s", got)
	}
}
