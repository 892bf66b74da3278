package test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"golang.org/x/crypto/ocsp"
)

// marker is what openssl's client sends, and gets back from a backend that echoes.
const marker = "there and back again"

// sClient starts openssl's client, and has it send the marker once it is connected.
func sClient(t *testing.T, at string, args ...string) *harness.Process {
	t.Helper()
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "openssl"),
		Args: append([]string{"s_client", "-connect", at}, args...), Stdin: true})
	p.Say(t, marker)
	return p
}

// openSSL connects with openssl's client, and returns what it prints until the backend's answer or its end.
func openSSL(t *testing.T, at string, args ...string) string {
	t.Helper()
	p := sClient(t, at, args...)
	answeredBy(t, p, marker)
	p.CloseStdin(t)
	p.Wait(t)
	return strings.ReplaceAll(p.Stdout()+"\n"+p.Stderr(), "CN=", "CN = ") // as openssl 3.0 has it
}

// answeredBy waits until a client prints this line, which its backend echoes, or ends. It reports which.
func answeredBy(t *testing.T, p *harness.Process, text string) (answered bool) {
	t.Helper()
	harness.Eventually(t, "the backend's answer or the client's end", func() error {
		select {
		case <-p.Done():
			answered = strings.Contains(p.Stdout(), text)
			return nil
		default:
		}
		if answered = strings.Contains(p.Stdout(), text); !answered {
			return errors.New(p.Stdout())
		}
		return nil
	})
	return answered
}

// A trial is a call of openssl's client: what it must print, and what it must not.
type trial struct {
	args     string
	want     []string
	unwanted string
}

func (tt trial) run(t *testing.T, at string) {
	t.Helper()
	got := openSSL(t, at, strings.Fields(tt.args)...)
	for _, want := range tt.want {
		if !strings.Contains(got, want) {
			t.Errorf("s_client %s: want %q in\n%s", tt.args, want, got)
		}
	}
	if tt.unwanted != "" && strings.Contains(got, tt.unwanted) {
		t.Errorf("s_client %s: unwanted %q in\n%s", tt.args, tt.unwanted, got)
	}
}

// pairs writes a list of certificates of these names for a listener's table tls.
func (a *authority) pairs(names ...string) string {
	list := make([]string, len(names))
	for i, name := range names {
		path := filepath.Join(a.dir, name)
		list[i] = fmt.Sprintf("{ cert = %q, key = %q }", path+".crt", path+".key")
	}
	return "certificates = [" + strings.Join(list, ", ") + "]"
}

// tlsTable writes a table tls in one line.
func tlsTable(lines ...string) string { return "tls = { " + strings.Join(lines, ", ") + " }" }

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	return key
}

// TestTLSVersions has openssl's client speak each version with listeners that allow one, the other, or both.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	backend := harness.Serve(t, harness.Echo)
	const old = " -cipher DEFAULT@SECLEVEL=0"
	for _, tc := range []struct {
		keys   []string
		trials []trial
	}{
		{nil, []trial{
			{args: "-tls1_2", want: []string{marker, "New, TLSv1.2", "ECDHE-ECDSA-AES"}},
			{args: "-tls1_3", want: []string{marker, "New, TLSv1.3"}},
			{args: "", want: []string{marker, "New, TLSv1.3"}},
			{args: "-tls1_1" + old, want: []string{"protocol version"}, unwanted: marker},
			{args: "-tls1" + old, want: []string{"protocol version"}, unwanted: marker},
		}},
		{[]string{`min_version = "1.3"`}, []trial{
			{args: "", want: []string{marker, "New, TLSv1.3"}},
			{args: "-tls1_2", want: []string{"tlsv1 alert protocol version"}, unwanted: marker},
		}},
		{[]string{`max_version = "1.2"`}, []trial{
			{args: "", want: []string{marker, "New, TLSv1.2"}},
			{args: "-tls1_3", want: []string{"tlsv1 alert protocol version"}, unwanted: marker},
		}},
	} {
		b := world{Backends: []string{backend.Address()},
			Listener: []string{tlsTable(append(tc.keys, ca.pairs("www"))...)}}.start(t)
		refused := 0.0
		for _, tt := range tc.trials {
			tt.run(t, b.Address(t, "main"))
			if tt.unwanted != "" {
				refused++
			}
		}
		awaitMetric(t, b, failedHandshakes("client", "version"), refused)
	}
}

// handshakesOf is the metric of handshakes at the listener main that have succeeded.
func handshakesOf(side, version string, resumed bool) string {
	return fmt.Sprintf("limeload_listener_tls_handshakes_total{listener=\"main\",resumed=\"%t\",side=%q,version=%q}",
		resumed, side, version)
}

// failedHandshakes is the metric of handshakes at the listener main that have failed.
func failedHandshakes(side, reason string) string {
	return fmt.Sprintf("limeload_listener_tls_handshakes_failed_total{listener=\"main\",reason=%q,side=%q}", reason, side)
}

// TestTLSCertificates has openssl's client ask for names, types of keys and protocols.
func TestTLSCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "first", ecdsaKey(t), "first.example.net")
	ca.pair(t, "exact", ecdsaKey(t), "www.example.com")
	ca.pair(t, "exact-rsa", rsaKey(t), "www.example.com")
	ca.pair(t, "wild", ecdsaKey(t), "*.example.com")
	backend := harness.Serve(t, harness.Echo)
	all := ca.pairs("first", "exact", "exact-rsa", "wild")
	const verified = " -verify_return_error -CAfile CA"
	t.Run("lenient", func(t *testing.T) {
		t.Parallel()
		at := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(all, `alpn = ["dot", "h2"]`)}}.
			start(t).Address(t, "main")
		for _, tt := range []trial{
			{args: "-servername www.example.com -verify_hostname www.example.com" + verified,
				want: []string{marker, "subject=CN = exact\n", "Verification: OK"}},
			{args: "-servername WWW.Example.COM", want: []string{marker, "subject=CN = exact\n"}},
			{args: "-servername db.example.com -verify_hostname db.example.com" + verified,
				want: []string{marker, "subject=CN = wild\n", "Verification: OK"}},
			{args: "-servername a.b.example.com", want: []string{marker, "subject=CN = first\n"}},
			{args: "-servername example.com", want: []string{marker, "subject=CN = first\n"}},
			{args: "-noservername", want: []string{marker, "subject=CN = first\n"}},

			{args: "-servername www.example.com -sigalgs rsa_pss_rsae_sha256",
				want: []string{marker, "subject=CN = exact-rsa\n", "TLSv1.3"}},
			{args: "-servername www.example.com -tls1_2 -cipher aRSA", want: []string{marker, "subject=CN = exact-rsa\n",
				"ECDHE-RSA-AES"}},
			{args: "-servername www.example.com -tls1_2 -cipher aECDSA", want: []string{marker, "subject=CN = exact\n",
				"ECDHE-ECDSA-AES"}},

			{args: "-alpn h2,dot", want: []string{marker, "ALPN protocol: dot"}},
			{args: "-alpn x,h2 -tls1_2", want: []string{marker, "ALPN protocol: h2"}},
			{args: "", want: []string{marker, "No ALPN negotiated"}},
			{args: "-alpn x,y", want: []string{"no application protocol", "SSL alert number 120"}, unwanted: marker},
			{args: "-alpn x -tls1_2", want: []string{"no application protocol"}, unwanted: marker},
		} {
			tt.args = strings.ReplaceAll(tt.args, "-CAfile CA", "-CAfile "+filepath.Join(ca.dir, "ca.crt"))
			tt.run(t, at)
		}
	})
	t.Run("strict", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(all, "strict_sni = true")}}.start(t)
		at := b.Address(t, "main")
		const alert = "unrecognized name"
		for _, tt := range []trial{
			{args: "-servername www.example.com", want: []string{marker, "subject=CN = exact\n"}},
			{args: "-servername db.example.com -tls1_2", want: []string{marker, "subject=CN = wild\n"}},
			{args: "-servername a.b.example.com", want: []string{alert, "SSL alert number 112"}, unwanted: marker},
			{args: "-servername other.test -tls1_2", want: []string{alert, "SSL alert number 112"}, unwanted: marker},
			{args: "-noservername", want: []string{alert, "SSL alert number 112"}, unwanted: marker},
		} {
			tt.run(t, at)
		}
		awaitMetric(t, b, failedHandshakes("client", "name"), 3)
		if n := refusals(t, b, "unknown_name"); n != 3 {
			t.Errorf("%d refusals with unknown_name", n)
		}
	})
}

// TestTLSStaple has openssl's client ask for an OCSP answer that is in the file beside the certificate, and comes and
// goes with it.
func TestTLSStaple(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	leaf := ca.issue(t, "www", ecdsaKey(t), forHosts("www.example.com"))
	chain := append(readFile(t, filepath.Join(ca.dir, "www.crt")), readFile(t, filepath.Join(ca.dir, "ca.crt"))...)
	check(t, os.WriteFile(filepath.Join(ca.dir, "www.crt"), chain, 0o600)) // whose key the answer is verified with
	file := filepath.Join(ca.dir, "www.crt.ocsp")
	answer, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{
		Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: time.Now().Add(-time.Minute),
		NextUpdate: time.Now().Add(time.Hour),
	}, ca.key)
	check(t, err)
	check(t, os.WriteFile(file, answer, 0o600))
	backend := harness.Serve(t, harness.Echo)
	at := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(ca.pairs("www"))}}.start(t).
		Address(t, "main")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		trial{args: "-status " + version, want: []string{marker, "OCSP Response Status: successful", "Cert Status: good"}}.
			run(t, at)
	}
	check(t, os.Remove(file))
	harness.Eventually(t, "the answer is no longer sent", func() error {
		if got := openSSL(t, at, "-status"); !strings.Contains(got, "OCSP response: no response sent") {
			return errors.New(got)
		}
		return nil
	})
}

// TestTLSKeyUpdate has openssl's client change its keys, and ask for new keys of the balancer's, in the middle of a
// session.
func TestTLSKeyUpdate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	backend := harness.Serve(t, harness.Echo)
	at := world{Backends: []string{backend.Address()}, Listener: []string{tlsTable(ca.pairs("www"))}}.start(t).
		Address(t, "main")
	p := sClient(t, at, "-tls1_3")
	answeredBy(t, p, marker)
	for i, key := range []string{"k", "K", "K", "k", "K"} { // K asks for the other side's new keys, too
		p.Say(t, key)
		harness.Eventually(t, "the key is pressed", func() error { // what is read with it is ignored
			if n := strings.Count(p.Stderr(), "KEYUPDATE"); n != i+1 {
				return fmt.Errorf("%d key updates", n)
			}
			return nil
		})
		text := fmt.Sprintf("after the key update %d", i)
		p.Say(t, text)
		if !answeredBy(t, p, text) {
			t.Fatalf("no answer after %q:\n%s\n%s", key, p.Stdout(), p.Stderr())
		}
	}
	p.CloseStdin(t)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
