package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// serveTLS returns a target that does a TLS handshake and reads to the end.
func serveTLS(t *testing.T, config *tls.Config) healthcheck.Target {
	t.Helper()
	return targetAt(harness.Serve(t, overTLS(config, readToEnd)).Address())
}

func TestTLSCertificates(t *testing.T) {
	ca, stranger := newTLSAuthority(t, "ca"), newTLSAuthority(t, "stranger")
	day := 24 * time.Hour
	from := func(d time.Duration) time.Time { return time.Now().Add(d) }
	issue := func(a *tlsAuthority, change func(*x509.Certificate)) tls.Certificate {
		template := loopbackTemplate()
		change(template)
		return a.issue(t, template)
	}
	own := loopbackTemplate()
	own.Subject = pkix.Name{CommonName: "own"}
	selfMade := (&tlsAuthority{cert: own}).issue(t, own)
	many := make([]string, 50)
	for i := range many {
		many[i] = fmt.Sprintf("host%d.example", i)
	}
	for name, tt := range map[string]struct {
		cert tls.Certificate
		// of the detail or, if it begins with "!", of the error
		verified, unverified string
	}{
		"valid": {ca.server(t), "certificate valid for 30 days", "certificate valid for 30 days"},
		"1 day": {
			issue(ca, func(c *x509.Certificate) { c.NotAfter = from(25 * time.Hour) }),
			"certificate valid for 1 day", "certificate valid for 1 day",
		},
		"expired": {
			issue(ca, func(c *x509.Certificate) { c.NotAfter = from(-3 * day) }),
			"!certificate expired on " + date(from(-3*day)), "certificate expired on " + date(from(-3*day)),
		},
		"not yet": {
			issue(ca, func(c *x509.Certificate) { c.NotBefore = from(3 * day) }),
			"!certificate not valid before " + date(from(3*day)), "certificate valid for 30 days",
		},
		"other name": {
			issue(ca, func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses = []string{"a.example", "b.example"},
					nil
			}),
			`!certificate is for another name: "a.example, b.example", wanted "127.0.0.1"`,
			"certificate valid for 30 days",
		},
		"no name": {
			issue(ca, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }),
			`!certificate is for another name: none, wanted "127.0.0.1"`, "certificate valid for 30 days",
		},
		"many names": {
			issue(ca, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = many, nil }),
			`!certificate is for another name: "host0.example, .*"..., wanted "127.0.0.1"`,
			"certificate valid for 30 days",
		},
		"unknown":     {stranger.server(t), "!certificate is by an unknown authority", "certificate valid for 30 days"},
		"self-signed": {selfMade, "!certificate is self-signed", "certificate valid for 30 days"},
		"for clients": {
			issue(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			"!certificate refused: x509: certificate specifies an incompatible key usage",
			"certificate valid for 30 days",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				to := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}, MaxVersion: version})
				for verify, want := range map[bool]string{true: tt.verified, false: tt.unverified} {
					got, err := TLS{Verify: verify, Roots: ca.roots()}.Check(deadlineIn(t, patience), to)
					if words, fails := strings.CutPrefix(want, "!"); fails {
						failsWith(t, err, words)
					} else if err != nil || got.Detail != want || got.Latency <= 0 {
						t.Errorf("verify %v: %+v, %v, want %q", verify, got, err, want)
					}
				}
			}
		})
	}
}

func TestTLSIntermediates(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	chain := func(change func(*x509.Certificate)) tls.Certificate {
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: "between"}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign,
		}
		change(template)
		pair := ca.issue(t, template)
		between := &tlsAuthority{cert: pair.Leaf, key: pair.PrivateKey.(*ecdsa.PrivateKey)}
		leaf := between.server(t)
		leaf.Certificate = append(leaf.Certificate, pair.Certificate...)
		return leaf
	}
	to := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{chain(func(*x509.Certificate) {})}})
	if _, err := (TLS{Verify: true, Roots: ca.roots()}).Check(deadlineIn(t, patience), to); err != nil {
		t.Errorf("a chain of three: %v", err)
	}
	past := time.Now().Add(-24 * time.Hour)
	served := chain(func(c *x509.Certificate) { c.NotAfter = past })
	to = serveTLS(t, &tls.Config{Certificates: []tls.Certificate{served}})
	_, err := TLS{Verify: true, Roots: ca.roots()}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "certificate of the authority expired on "+date(past))
	future := time.Now().Add(24 * time.Hour)
	served = chain(func(c *x509.Certificate) { c.NotBefore = future })
	to = serveTLS(t, &tls.Config{Certificates: []tls.Certificate{served}})
	_, err = TLS{Verify: true, Roots: ca.roots()}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "certificate of the authority not valid before "+date(future))
}

func TestTLSNames(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	var asked atomic.Value
	asked.Store("")
	to := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{ca.server(t)},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked.Store(hello.ServerName)
			return nil, nil
		},
	})
	for name, want := range map[string]string{"": "", "lime.example": "", "127.0.0.1": "",
		"b.example": `.* wanted "b.example"`} {
		_, err := TLS{Verify: true, Roots: ca.roots(), ServerName: name}.Check(deadlineIn(t, patience), to)
		if want == "" && err != nil {
			t.Errorf("name %q: %v", name, err)
		} else if want != "" {
			failsWith(t, err, want)
		}
		if name == "127.0.0.1" {
			name = "" // RFC 6066, 3: addresses are not sent
		}
		if asked.Load() != name {
			t.Errorf("the server was asked for %q, want %q", asked.Load(), name)
		}
	}
	unrecognized := serveTLS(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, nil // crypto/tls answers as if it knew no such name
	}})
	_, err := TLS{ServerName: "b.example"}.Check(deadlineIn(t, patience), unrecognized)
	failsWith(t, err, "tls alert: (unrecognized name|internal error)")
}

func TestTLSMinDays(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	good := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}})
	for days, want := range map[int]string{0: "", 30: "", 31: "certificate valid for 30 days only, wanted 31"} {
		_, err := TLS{MinDays: days}.Check(deadlineIn(t, patience), good)
		if want == "" && err != nil {
			t.Errorf("%d days: %v", days, err)
		} else if want != "" {
			failsWith(t, err, want)
		}
	}
	old := loopbackTemplate()
	old.NotAfter = time.Now().Add(-time.Hour)
	expired := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, old)}})
	_, err := TLS{MinDays: 1}.Check(deadlineIn(t, patience), expired)
	failsWith(t, err, "certificate expired on "+date(old.NotAfter))
}

func TestTLSClientCertificates(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	for version, want := range map[uint16]string{
		tls.VersionTLS12: "tls alert: handshake failure, it asked for a client certificate",
		tls.VersionTLS13: "tls alert: certificate required, it asked for a client certificate",
	} {
		config := &tls.Config{
			Certificates: []tls.Certificate{ca.server(t)}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs:  ca.roots(),
			MaxVersion: version,
		}
		to := serveTLS(t, config)
		_, err := TLS{}.Check(deadlineIn(t, patience), to)
		failsWith(t, err, want)
		if _, err := (TLS{Certificates: []tls.Certificate{ca.server(t)}}).Check(deadlineIn(t, patience),
			to); err != nil {
			t.Errorf("with a certificate: %v", err)
		}
		// The other checks get the same alert from a read.
		script := newScript(t, step(ExpectText("hello")))
		script.TLS = &tls.Config{RootCAs: ca.roots()}
		for name, check := range map[string]healthcheck.Checker{
			"script": script, "http": HTTP{TLS: script.TLS}, "grpc": GRPC{TLS: script.TLS},
		} {
			config := config.Clone()
			if name == "grpc" {
				config.NextProtos = []string{"h2"}
			}
			_, err = check.Check(deadlineIn(t, patience), serveTLS(t, config))
			failsWith(t, err, "(step 1: )?"+want+"(, received nothing)?")
		}
	}
}

// TestTLSClientCertificateRefused uses a client certificate that the target refuses: that is a matter of credentials. A
// target that asks for a certificate and then has an internal error is unhealthy.
func TestTLSClientCertificateRefused(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	old := loopbackTemplate()
	old.NotAfter = time.Now().Add(-time.Hour)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			Certificates: []tls.Certificate{ca.server(t)}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs:  ca.roots(),
			MaxVersion: version,
		}
		_, err := TLS{Certificates: []tls.Certificate{ca.issue(t, old)}}.Check(deadlineIn(t, patience),
			serveTLS(t, config))
		failsWith(t, err, "tls alert: .*certificate.*, it was shown the client certificate", healthcheck.ErrCredentials)
		k := checkConn{start: time.Now(), asksCertificate: true}
		err = k.failure(t.Context(), &net.OpError{Op: remoteAlert, Err: alertInternalError}, "the answer")
		failsWith(t, err, "tls alert: internal error")
		if errors.Is(err, healthcheck.ErrCredentials) {
			t.Error("an internal error of the target is taken for a refusal")
		}
	}
}

// TestTLSSystemRoots uses an authority that no system knows.
func TestTLSSystemRoots(t *testing.T) {
	to := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{newTLSAuthority(t, "ca").server(t)}})
	_, err := TLS{Verify: true}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "certificate is by an unknown authority|cannot check: no authorities on this machine")
}

func TestTLSALPN(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	certs := []tls.Certificate{ca.server(t)}
	with := serveTLS(t, &tls.Config{Certificates: certs, NextProtos: []string{"redis"}})
	without := serveTLS(t, &tls.Config{Certificates: certs})
	if _, err := (TLS{ALPN: []string{"h2", "redis"}}).Check(deadlineIn(t, patience), with); err != nil {
		t.Errorf("a protocol that both have: %v", err)
	}
	_, err := TLS{ALPN: []string{"h2"}}.Check(deadlineIn(t, patience), with)
	failsWith(t, err, "tls alert: no application protocol")
	_, err = TLS{ALPN: []string{"h2", "redis"}}.Check(deadlineIn(t, patience), without)
	failsWith(t, err, `no application protocol agreed on, offered "h2, redis"`)
}

func TestTLSAlerts(t *testing.T) {
	to := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{newTLSAuthority(t, "ca").server(t)},
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, MaxVersion: tls.VersionTLS12,
	})
	_, err := TLS{}.Check(deadlineIn(t, patience), to)
	failsWith(t, err, "tls alert: handshake failure")
	// RFC 8446, 6: type 21, version 1.2, two bytes: fatal, unrecognized_name
	alert := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		_, _ = io.WriteString(c, "\x15\x03\x03\x00\x02\x02\x70")
		readToEnd(ctx, c)
	})
	_, err = TLS{ServerName: "b.example"}.Check(deadlineIn(t, patience), targetAt(alert.Address()))
	failsWith(t, err, "tls alert: unrecognized name")
}

// A recorder is a connection that records the bytes read.
type recorder struct {
	net.Conn
	read []byte
}

// Read implements net.Conn.
func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read = append(r.read, p[:n]...)
	return n, err
}

// TestTLSPartsInOrder checks a server that speaks first. It must see an alert (close_notify) and an end, and no reset.
func TestTLSPartsInOrder(t *testing.T) {
	type parting struct {
		record byte // the type of the last one
		err    error
	}
	ca := newTLSAuthority(t, "ca")
	seen := make(chan parting, 1)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.server(t)},
		MaxVersion:   tls.VersionTLS12, // 1.3 hides the types of records
	}
	to := targetAt(harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		r := &recorder{Conn: c}
		conn := tls.Server(r, config)
		_, _ = io.WriteString(conn, "220 hello\r\n")
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // crypto/tls stops at the alert
		}
		p := parting{err: err}
		for b := r.read; len(b) >= 5; b = b[5+int(b[3])<<8+int(b[4]):] {
			p.record = b[0]
		}
		sendTo(ctx, seen, p)
	}).Address())
	script := newScript(t, step(ExpectText("220 ")))
	script.TLS = &tls.Config{RootCAs: ca.roots()}
	for _, check := range []healthcheck.Checker{TLS{}, script} {
		_, err := check.Check(deadlineIn(t, patience), to)
		must(t, err)
		const alert = 21 // RFC 5246, 6.2.1
		if p := harness.Receive(t, "the end that the server sees", seen); p != (parting{alert, nil}) {
			t.Errorf("the server reads %+v, want an alert and the end", p)
		}
	}
}

func TestTLSOfATalker(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{newTLSAuthority(t, "ca").server(t)}}
	to := targetAt(harness.Serve(t, overTLS(config, func(_ context.Context, c net.Conn) {
		for buf, err := make([]byte, 16<<10), error(nil); err == nil; {
			_, err = c.Write(buf)
		}
	})).Address())
	if _, err := (TLS{}).Check(deadlineIn(t, patience), to); err != nil {
		t.Errorf("a server that talks without end: %v", err)
	}
}

func TestTLSSilentAfterTheHandshake(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{newTLSAuthority(t, "ca").server(t)}}
	to := targetAt(harness.Serve(t, overTLS(config, func(ctx context.Context, _ net.Conn) { <-ctx.Done() })).Address())
	start := time.Now()
	_, err := TLS{}.Check(deadlineIn(t, patience), to)
	must(t, err)
	if took := time.Since(start); took > patience/2 {
		t.Errorf("the check took %v, want little more than twice %v", took, finishTime)
	}
}

func TestTLSOfOthers(t *testing.T) {
	_, err := TLS{}.Check(deadlineIn(t, patience), refusing(t))
	failsWith(t, err, "connect refused", syscall.ECONNREFUSED)
	for want, handle := range map[string]harness.Handler{
		`not tls: answer begins with "SSH-2"`:                    harness.SpeakFirst("SSH-2.0-OpenSSH_9.6\r\n"),
		"timed out waiting for the tls handshake after [0-9]+ms": harness.Silent,
		"(closed|reset) before the tls handshake":                harness.CloseAtOnce,
		"connect reset|reset before the tls handshake":           harness.ResetAtOnce,
	} {
		to := targetAt(harness.Serve(t, handle).Address())
		failsAtLast(t, want, func(ctx context.Context) error {
			_, err := TLS{}.Check(ctx, to)
			return err
		})
	}
	survives(t, "\x16\x03\x03\x40\x00\x02", func(ctx context.Context, to healthcheck.Target) error {
		_, err := TLS{}.Check(ctx, to)
		return err
	})
}

func TestTLSCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := targetAt(harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		cancel()
		harness.Silent(ctx, c)
	}).Address())
	_, err := TLS{}.Check(ctx, to)
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}

func TestTLSMissingRoots(t *testing.T) {
	_, noneErr := TLS{}.judge(target("a"), tls.ConnectionState{}, time.Now())
	failsWith(t, noneErr, "no certificate")
	err := certificateError(newTLSAuthority(t, "ca").server(t).Leaf, x509.SystemRootsError{Err: io.EOF})
	failsWith(t, err, "cannot check: no authorities on this machine", healthcheck.ErrInconclusive)
}
