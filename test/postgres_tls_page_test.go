package test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPostgresTLSPage runs the configuration of docs/postgres.md in front of a server that everybody must come to with
// TLS. A login is bound to the certificate, since the listener has that of the server.
func TestPostgresTLSPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/postgres.md")
	check(t, err)
	_, part, _ := strings.Cut(string(page), "\n## TLS\n")
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(part)
	if found == nil {
		t.Fatal("the page shows no configuration")
	}
	x := newPostgresTLS(t)
	x.server.SecureWith(t, x.file(backPair+".crt"), x.file(backPair+".key"), []string{
		"local all all trust", "hostssl all limeload 127.0.0.1/32 trust", "hostssl all scram 127.0.0.1/32 scram-sha-256",
	})
	check(t, os.WriteFile(x.file("password"), []byte("secret\n"), 0o600))
	config := found[1]
	for _, place := range [][2]string{
		{`":5432"`, fmt.Sprintf("%q", harness.FreeAddress(t))},
		{`"10.0.0.21:5432"`, fmt.Sprintf("%q", x.server.Address())},
		{`"10.0.0.22:5432"`, fmt.Sprintf("%q", harness.FreeAddress(t))},
		{"/etc/limeload/tls/db.crt", x.file(backPair + ".crt")}, {"/etc/limeload/tls/db.key", x.file(backPair + ".key")},
		{"/etc/limeload/tls/ca.crt", x.file("back.crt")}, {"/etc/limeload/postgres.password", x.file("password")},
	} {
		if !strings.Contains(config, place[0]) {
			t.Fatalf("the page's configuration has no %s", place[0])
		}
		config = strings.ReplaceAll(config, place[0], place[1])
	}
	b := harness.StartBalancer(t, config)
	stdout, stderr, code := b.Command(t, "check", "--config", b.File())
	if code != 0 || strings.Contains(stdout, "warning") {
		t.Errorf("check: exit code %d, %s%s", code, stdout, stderr)
	}
	_, port, _ := strings.Cut(b.Address(t, "db"), ":")
	for connection, want := range map[string]string{
		"sslmode=verify-full user=scram channel_binding=require": "TLSv1.3, TLSv1.3",
		"sslmode=prefer user=scram":                              "TLSv1.3, TLSv1.3",
		"sslmode=disable":                                        strings.ReplaceAll(mustTLS, "LISTENER", "db"),
	} {
		if got := x.outcome(t, port, connection); got != want {
			t.Errorf("%s: %q, want %q", connection, got, want)
		}
	}

	// A check has its own keys for TLS.
	without := regexp.MustCompile(`(?s)tls +=\s+true.*`).ReplaceAllString(config, "")
	b.Configure(t, without)
	stdout, stderr, code = b.Command(t, "check", "--config", b.File())
	if code == 0 || !strings.Contains(stderr, "no pg_hba.conf entry") || !strings.Contains(stderr, "no encryption") {
		t.Errorf("check that logs in without TLS: exit code %d, %s%s", code, stdout, stderr)
	}
}
