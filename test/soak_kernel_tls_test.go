//go:build vm && soak

package test

import (
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestSoakKernelTLS moves a GiB each way through the kernel's TLS, for each kind of encryption, and has 200 sessions at
// once. The processor of the machine is emulated: it takes the better part of an hour.
func TestSoakKernelTLS(t *testing.T) {
	w := startKernelWorld(t)
	t.Run("many at once", func(t *testing.T) { manySessions(t, w, 200) })
	for _, g := range []leg{termination, reencryption, bothLegs} {
		t.Run("1 GiB each way/"+string(g), func(t *testing.T) {
			s := w.open(t, g)
			for _, e := range []tlsEnd{s.client, s.backend} {
				check(t, e.socket().SetDeadline(time.Time{}))
			}
			w.tradeBothWays(t, s, 1<<30)
		})
	}
}

// TestSoakKernelTLSPostgres has psql and PostgreSQL begin TLS by an SSLRequest, on both sides.
func TestSoakKernelTLSPostgres(t *testing.T) {
	x := newPostgresTLS(t)
	x.server.SecureWith(t, x.file(backPair+".crt"), x.file(backPair+".key"), postgresAccess())
	b := world{Backends: []string{x.server.Address()},
		Listener: []string{x.listenerTLS(`, handshake_timeout = "5m"`)},
		Pool:     []string{`connect_timeout = "5m"`, x.poolTLS("back.crt")}}.start(t)
	port := portOf(t, b.Address(t, "main"))
	if got := x.outcome(t, port, "sslmode=verify-full"); got != "TLSv1.3, TLSv1.3" {
		t.Errorf("versions are %q", got)
	}
	got := harness.MustRun(t, x.psql(t, port, "sslmode=verify-full", "select repeat('limeload', 100000)"))
	if want := strings.Repeat("limeload", 100_000); got != want {
		t.Errorf("%d bytes came, want %d", len(got), len(want))
	}
	for _, side := range []string{"client", "backend"} {
		awaitMetric(t, b, securedBy("main", side, "kernel"), 2)
	}
}
