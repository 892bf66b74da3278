package test

import (
	"crypto/x509"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// scanAllowed are the things that testssl.sh may complain about, and why.
var scanAllowed = map[string]string{
	"engine_problem":     "the openssl of this machine cannot test GOST ciphers",
	"OCSP_stapling":      "there is no answer in a file beside the certificate; TestTLSStaple has one",
	"TLS_session_ticket": "crypto/tls always says 7 days; the keys are replaced daily, and no ticket is good for longer",
}

// TestTLSScan has testssl.sh look for vulnerabilities and weak settings of a listener with the default settings, with a
// certificate of each type. Nothing that it finds may be rated as wrong.
func TestTLSScan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	public := func(c *x509.Certificate) { // what certificates of public authorities have
		c.DNSNames, c.NotAfter = []string{"www.example.com"}, time.Now().Add(89*24*time.Hour)
		c.Subject.CommonName, c.OCSPServer = "www.example.com", []string{"http://ocsp.example.com"}
	}
	ca.issue(t, "www", ecdsaKey(t), public)
	ca.issue(t, "www-rsa", rsaKey(t), public)
	backend := harness.Serve(t, harness.Echo)
	at := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(ca.pairs("www", "www-rsa"))}}.start(t).
		Address(t, "main")
	host, port := hostPort(t, at)
	file := filepath.Join(dir, "found.json")
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "testssl"), Dir: dir, Args: []string{
		"--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable",
		"--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", host,
		"--add-ca", filepath.Join(dir, "ca.crt"), "--jsonfile", file, "www.example.com:" + port,
	}})
	select { // half a minute on a machine that does nothing else
	case <-p.Done():
	case <-time.After(5 * harness.Patience): // it starts thousands of programs
		t.Fatal("testssl.sh does not end")
	}
	var found []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(readFile(t, file), &found); err != nil {
		t.Fatalf("%v\n%s\n%s", err, p.Stdout(), p.Stderr())
	}
	rated := 0
	for _, f := range found {
		if f.Severity == "OK" {
			rated++
		}
		id, _, _ := strings.Cut(f.ID, " ") // without the certificate's number
		switch _, allowed := scanAllowed[id]; f.Severity {
		case "OK", "INFO", "DEBUG":
		default:
			if !allowed {
				t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
	if rated < 30 {
		t.Errorf("testssl.sh has looked at %d things only\n%s", rated, p.Stdout())
	}
}
