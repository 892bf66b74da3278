//go:build vm && soak

package test

import (
	"testing"
	"time"
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
