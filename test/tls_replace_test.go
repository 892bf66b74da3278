package test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// replacements is how often each certificate is replaced.
const replacements = 100

// A replaced is a certificate that is replaced while clients ask for it. Its common names are generations: 0, 1, ...
type replaced struct {
	name   string
	issued atomic.Int64         // the newest generation that is in the files, or about to be
	newest atomic.Int64         // that a client has seen
	next   func(generation int) // replaces the files
	roots  *x509.CertPool
}

// seen makes a handshake, and returns the generation of the certificate.
func (r *replaced) seen(at string) (int64, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", at,
		&tls.Config{ServerName: r.name, RootCAs: r.roots})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return strconv.ParseInt(c.ConnectionState().PeerCertificates[0].Subject.CommonName, 10, 64)
}

// visit makes a handshake at each tick, until stop is closed. No handshake may fail, or see a certificate that is older
// than one seen before, or that was never there.
func (r *replaced) visit(at string, ticks <-chan time.Time, stop <-chan struct{}) (n int, err error) {
	newest := int64(0)
	for {
		select {
		case <-stop:
			return n, nil
		case <-ticks:
		}
		generation, err := r.seen(at)
		switch latest := r.issued.Load(); {
		case err != nil:
			return n, fmt.Errorf("%s: handshake %d: %w", r.name, n, err)
		case generation < newest || generation > latest:
			return n, fmt.Errorf("%s: certificate %d after %d, while the latest is %d", r.name, generation, newest, latest)
		}
		newest = generation
		r.newest.Store(max(generation, r.newest.Load()))
		n++
	}
}

// TestTLSReplaced replaces two certificates 100 times each while clients make 200 handshakes a second: one by renaming
// files over the old ones, the other by changing a symbolic link to a folder as Kubernetes does it. No handshake fails.
// Then a broken file comes, and a good one.
func TestTLSReplaced(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	issue := func(to *replaced, dir, file string, generation int) {
		in := *ca
		in.dir = dir
		in.issue(t, strconv.Itoa(generation), ecdsaKey(t), forHosts(to.name))
		to.issued.Store(int64(generation))
		for _, kind := range []string{".crt", ".key"} { // the pair does not match in between
			check(t, os.Rename(filepath.Join(dir, strconv.Itoa(generation)+kind), filepath.Join(dir, file+kind)))
		}
	}
	renamed := &replaced{name: "renamed.example.com", roots: roots}
	renamed.next = func(generation int) { issue(renamed, ca.dir, "renamed", generation) }
	linked, secret := &replaced{name: "linked.example.com", roots: roots}, t.TempDir()
	linked.next = func(generation int) {
		folder := fmt.Sprintf("..2026_%d", generation)
		check(t, os.Mkdir(filepath.Join(secret, folder), 0o700))
		issue(linked, filepath.Join(secret, folder), "tls", generation)
		check(t, os.Symlink(folder, filepath.Join(secret, "..data_tmp")))
		old, _ := os.Readlink(filepath.Join(secret, "..data"))
		check(t, os.Rename(filepath.Join(secret, "..data_tmp"), filepath.Join(secret, "..data")))
		if old != "" {
			check(t, os.RemoveAll(filepath.Join(secret, old)))
		}
	}
	renamed.next(0)
	linked.next(0)
	for _, kind := range []string{".crt", ".key"} {
		check(t, os.Symlink("..data/tls"+kind, filepath.Join(secret, "tls"+kind)))
	}
	backend := harness.Serve(t, harness.Echo)
	second := (&authority{dir: secret}).pairs("tls")
	b := world{Backends: []string{backend.Address()}, Listener: []string{
		tlsTable(ca.pairs("renamed")[:len(ca.pairs("renamed"))-1] + ", " + second[len("certificates = ["):]),
	}}.start(t)
	at := b.Address(t, "main")

	const visitors = 8
	ticker := time.NewTicker(time.Second / 200)
	defer ticker.Stop()
	stop := make(chan struct{})
	var visiting sync.WaitGroup
	var made atomic.Int64
	for i := range visitors {
		r := []*replaced{renamed, linked}[i%2]
		visiting.Go(func() {
			n, err := r.visit(at, ticker.C, stop)
			if err != nil {
				t.Error(err)
			}
			made.Add(int64(n))
		})
	}
	began := time.Now()
	for i := range int64(replacements) {
		renamed.next(int(1 + i))
		linked.next(int(1 + i))
		harness.Eventually(t, "clients see the new certificates", func() error {
			if a, b := renamed.newest.Load(), linked.newest.Load(); a < 1+i || b < 1+i {
				return fmt.Errorf("%d and %d of %d", a, b, 1+i)
			}
			return nil
		})
	}
	latest := func(what string, r *replaced) {
		t.Helper()
		harness.Eventually(t, what, func() error {
			if generation, err := r.seen(at); err != nil || generation != r.issued.Load() {
				return fmt.Errorf("certificate %d, %v; the latest is %d", generation, err, r.issued.Load())
			}
			return nil
		})
	}
	latest("the last certificate by renaming is in use", renamed)
	latest("the last certificate by linking is in use", linked)
	took := time.Since(began)

	check(t, os.WriteFile(filepath.Join(ca.dir, "renamed.key"), []byte("x"), 0o600))
	b.WaitLine(t, "a report", func(l harness.Line) bool {
		return l.Message == "certificates not taken up: the old ones stay" && l.Seen.After(began.Add(took))
	})
	awaitMetric(t, b, "limeload_tls_reload_failure", 1)
	if generation, err := renamed.seen(at); err != nil || generation != replacements {
		t.Errorf("with a broken file: certificate %d, %v", generation, err)
	}
	linked.next(replacements + 1) // has to wait, since all that belongs to a listener is taken up together
	renamed.next(replacements + 1)
	latest("the certificate after the broken one is in use", renamed)
	latest("the one beside it is in use", linked)
	awaitMetric(t, b, "limeload_tls_reload_failure", 0)
	close(stop)
	visiting.Wait()
	t.Logf("%d handshakes while 2 certificates were replaced %d times in %v", made.Load(), replacements, took)
	if ok := metrics(t, b)[`limeload_tls_reloads_total{result="done"}`]; ok < replacements {
		t.Errorf("files were taken up %v times only", ok)
	}
}
