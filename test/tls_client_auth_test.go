package test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestTLSClientCertificates has openssl's client show certificates of all kinds, with TLS 1.2 and 1.3.
func TestTLSClientCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, clients, others := newAuthority(t, dir, "ca"), newAuthority(t, dir, "clients"), newAuthority(t, dir, "others")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	clients.pair(t, "good", ecdsaKey(t))
	clients.pair(t, "later", ecdsaKey(t))
	clients.pair(t, "revoked", ecdsaKey(t))
	clients.issue(t, "expired", ecdsaKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	clients.issue(t, "server", ecdsaKey(t), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	others.pair(t, "wrong", ecdsaKey(t))
	clients.list(t, "clients.crl", "revoked")
	rules := fmt.Sprintf("client_ca = %q, client_crl = %q", filepath.Join(dir, "clients.crt"),
		filepath.Join(dir, "clients.crl"))
	backend := harness.Serve(t, harness.Echo)
	start := func(auth string) *harness.Balancer {
		return world{Backends: []string{backend.Address()}, Listener: []string{
			tlsTable(ca.pairs("www"), rules, fmt.Sprintf("client_auth = %q", auth)),
		}}.start(t)
	}
	required, optional := start("required"), start("optional")
	shown := func(name string) string {
		return fmt.Sprintf("-cert %s -key %s ", filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		missing := "SSL alert number 116" // certificate_required, which TLS 1.2 does not have
		if version == "-tls1_2" {
			missing = "SSL alert number 40"
		}
		for _, tt := range []trial{
			{args: shown("good"), want: []string{marker}},
			{args: shown("expired"), want: []string{"certificate expired"}, unwanted: marker},
			{args: shown("revoked"), want: []string{"bad certificate"}, unwanted: marker},
			{args: shown("wrong"), want: []string{"unknown ca"}, unwanted: marker},
			{args: shown("server"), want: []string{"bad certificate"}, unwanted: marker},
		} {
			tt.args += version
			tt.run(t, required.Address(t, "main"))
			tt.run(t, optional.Address(t, "main"))
		}
		trial{args: version, want: []string{missing}, unwanted: marker}.run(t, required.Address(t, "main"))
		trial{args: version, want: []string{marker}}.run(t, optional.Address(t, "main"))
	}
	awaitMetric(t, required, failedHandshakes("client", "certificate"), 8)
	awaitMetric(t, optional, failedHandshakes("client", "certificate"), 8)
	measured(t, required, map[string]float64{failedHandshakes("client", "no_certificate"): 2})

	// A list that has become longer counts for tickets, too.
	at := required.Address(t, "main")
	bothVersions(t, func(t *testing.T, v *visitor) {
		clients.list(t, "clients.crl", "revoked")
		v.args = append(v.args, strings.Fields(shown("later"))...)
		harness.Eventually(t, "the shorter list is in force", func() error {
			if got := openSSL(t, at, v.args...); !strings.Contains(got, marker) {
				return errors.New(got)
			}
			return nil
		})
		v.begin(t, at)
		if !v.resumes(t, at) {
			t.Error("not resumed")
		}
		clients.list(t, "clients.crl", "revoked", "later")
		harness.Eventually(t, "the longer list is in force", func() error {
			if got := openSSL(t, at, v.args...); strings.Contains(got, marker) {
				return errors.New(got)
			}
			return nil
		})
		got := openSSL(t, at, append([]string{"-sess_in", v.session}, v.args...)...)
		if strings.Contains(got, marker) || !strings.Contains(got, "bad certificate") {
			t.Errorf("a session of a revoked certificate:\n%s", got)
		}
	})
}
