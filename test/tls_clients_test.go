package test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A tlsFiles has the files of a fleet that terminates TLS for db.test, in front of an echo server.
type tlsFiles struct {
	dir              string
	ca, clients, odd *authority // of the server's certificates, of clients', and one that nobody trusts
	echo             string
}

func newTLSFiles(t testing.TB) *tlsFiles {
	t.Helper()
	f := &tlsFiles{dir: t.TempDir(), echo: harness.Serve(t, harness.Echo).Address()}
	f.ca, f.clients = newAuthority(t, f.dir, "ca"), newAuthority(t, f.dir, "clients")
	f.odd = newAuthority(t, f.dir, "odd")
	slow, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	f.ca.pair(t, "db-rsa", slow, "db.test")
	f.ca.pair(t, "db", ecdsaKey(t), "db.test")
	f.clients.pair(t, "good", ecdsaKey(t))
	f.clients.pair(t, "bad", ecdsaKey(t))
	f.odd.pair(t, "foreign", ecdsaKey(t))
	f.clients.list(t, "clients.crl", "bad")
	check(t, os.WriteFile(filepath.Join(f.dir, "tickets"), []byte(strings.Repeat("A", 43)+"=\n"), 0o600))
	return f
}

// config has a listener that asks for no certificate, and one that requires one; more are keys of both.
func (f *tlsFiles) config(t testing.TB, more string) string {
	t.Helper()
	listener := func(name, keys string) string {
		return fmt.Sprintf("[listener.%s]\naddress = %q\npool = 'echo'\n[listener.%s.tls]\ncertificates = "+
			"[{ cert = '%s/db-rsa.crt', key = '%[4]s/db-rsa.key' }, { cert = '%[4]s/db.crt', key = '%[4]s/db.key' }]\n%s\n%s\n",
			name, harness.FreeAddress(t), name, f.dir, keys, more)
	}
	return listener("open", `alpn = ["echo"]`) +
		listener("closed", fmt.Sprintf("client_auth = 'required'\nclient_ca = '%s/clients.crt'\nclient_crl = '%[1]s/clients.crl'", f.dir)) +
		fmt.Sprintf("[pool.echo]\nbackends = [%q]\n", f.echo)
}

// client returns the configuration of a client that shows the certificate NAME; "" is none.
func (f *tlsFiles) client(t testing.TB, version uint16, name string) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.cert)
	c := &tls.Config{RootCAs: roots, ServerName: "db.test", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(f.dir, name+".crt"), filepath.Join(f.dir, name+".key"))
		check(t, err)
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c
}

// echoTLS sends a word through a listener and back.
func echoTLS(address string, config *tls.Config) (tls.ConnectionState, error) {
	dialer := &net.Dialer{Timeout: harness.Patience}
	c, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return tls.ConnectionState{}, err
	}
	answer := make([]byte, 4)
	if _, err = c.Write([]byte("word")); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && string(answer) != "word" {
		err = fmt.Errorf("the echo is %q", answer)
	}
	return c.ConnectionState(), err
}

// TestTLSClients holds which clients a listener serves, and that their sessions resume: on another balancer, after a
// restart, and never where other rules for clients hold.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	f := newTLSFiles(t)
	keys := fmt.Sprintf("ticket_key_file = '%s/tickets'", f.dir)
	one, two := harness.StartBalancer(t, f.config(t, keys)), harness.StartBalancer(t, f.config(t, keys))
	alone := harness.StartBalancer(t, f.config(t, ""))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		name := tls.VersionName(version)
		for certificate, want := range map[string]string{"good": "", "": "", "bad": "bad certificate", "foreign": "unknown certificate authority"} {
			if certificate == "" {
				want = map[uint16]string{tls.VersionTLS12: "handshake failure", tls.VersionTLS13: "certificate required"}[version]
			}
			_, err := echoTLS(one.Address(t, "closed"), f.client(t, version, certificate))
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, certificate %q: %v, want %q", name, certificate, err, want)
			}
		}
		for listener, certificate := range map[string]string{"open": "", "closed": "good"} {
			client := f.client(t, version, certificate)
			for i, b := range []*harness.Balancer{one, one, two, one, alone} {
				state, err := echoTLS(b.Address(t, listener), client)
				if want := i > 0 && b != alone; err != nil || state.DidResume != want {
					t.Errorf("%s, %s, connection %d: resumed %v, error %v", name, listener, i, state.DidResume, err)
				}
			}
		}
		client := f.client(t, version, "good")
		_, err := echoTLS(one.Address(t, "open"), client)
		check(t, err)
		if state, err := echoTLS(one.Address(t, "closed"), client); err != nil || state.DidResume {
			t.Errorf("%s: a session without a client certificate is resumed: %v, error %v", name, state.DidResume, err)
		}
		client = f.client(t, version, "")
		client.NextProtos = []string{"x", "echo"}
		if state, err := echoTLS(one.Address(t, "open"), client); err != nil || state.NegotiatedProtocol != "echo" {
			t.Errorf("%s: protocol %q, error %v", name, state.NegotiatedProtocol, err)
		}
	}
}

// TestTLSRevocation holds that a new list is in force for sessions that resume, too.
func TestTLSRevocation(t *testing.T) {
	t.Parallel()
	f := newTLSFiles(t)
	b := harness.StartBalancer(t, f.config(t, ""))
	client := f.client(t, tls.VersionTLS13, "good")
	for _, resumed := range []bool{false, true} {
		if state, err := echoTLS(b.Address(t, "closed"), client); err != nil || state.DidResume != resumed {
			t.Errorf("resumed %v, error %v", state.DidResume, err)
		}
	}
	f.clients.list(t, "clients.crl", "bad", "good")
	harness.Eventually(t, "the client is refused", func() error {
		if _, err := echoTLS(b.Address(t, "closed"), client); err == nil {
			return errors.New("it is served")
		}
		return nil
	})
}

// TestTLSReplacement replaces certificates under handshakes, of which none may fail.
func TestTLSReplacement(t *testing.T) {
	t.Parallel()
	f := newTLSFiles(t)
	b := harness.StartBalancer(t, f.config(t, ""))
	var done, count atomic.Int64
	var clients sync.WaitGroup
	at := b.Address(t, "open")
	for range 4 {
		clients.Go(func() {
			for done.Load() == 0 {
				client := f.client(t, tls.VersionTLS13, "")
				client.ClientSessionCache = nil
				if _, err := echoTLS(at, client); err != nil {
					t.Errorf("a handshake failed: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	for n := 0; n < 100 || count.Load() < 100 && !t.Failed(); n++ {
		f.ca.pair(t, "db", ecdsaKey(t), "db.test")
		time.Sleep(30 * time.Millisecond) // no wait for something: this is the pace of the changes
	}
	done.Store(1)
	clients.Wait()
}
