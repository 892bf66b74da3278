package test

import (
	"fmt"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestQUICDrain takes a backend out of use during QUIC transfers, in every way that an operator can: they complete, and
// no datagram of them reaches the other backend.
func TestQUICDrain(t *testing.T) {
	t.Parallel()
	const clients, each = 4, 16 << 20
	for _, tc := range []struct {
		name, method, path string
		body               any // of the request; nil for none
	}{
		{"drain", "POST", "/drain", map[string]any{"deadline_seconds": 3600, "remove": true}},
		{"weight 0", "PATCH", "", map[string]any{"weight": 0}},
		{"maintenance", "PATCH", "", map[string]any{"mode": "maintenance"}},
		{"removal", "DELETE", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := startQUIC(t, each, clients)
			other := harness.ServeUDP(t, harness.SilentDatagrams)
			b := world{
				Backends: []string{q.address, other.Address()}, Global: []string{`drain_timeout = "1h"`},
				Pool: []string{`algorithm = "first"`},
			}.startUDP(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				q.askAll(t, b.Address(t, "main"), clients)
			}()
			defer func() { <-done }()
			harness.Eventually(t, "the transfers are under way", func() error {
				if l := udpFigures(t, b); l.Accepted < clients || l.BytesIn < clients*each/16 {
					return fmt.Errorf("%d flows, %d bytes", l.Accepted, l.BytesIn)
				}
				return nil
			})
			b.Ask(t, tc.method, "/v1/pools/all/backends/b1"+tc.path, tc.body, nil)
			if l := udpFigures(t, b); l.BytesIn >= clients*each {
				t.Errorf("the transfers were over, with %d bytes: this test sees nothing", l.BytesIn)
			}
			<-done
			if n := other.Received(); n > 0 {
				t.Errorf("%d datagrams came to the other backend", n)
			}
		})
	}
}
