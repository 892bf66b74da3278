//go:build netns

package test

import (
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestNetnsHosts: hosts reach each other over a network, until one is cut off.
func TestNetnsHosts(t *testing.T) {
	n := harness.NewNetwork(t, "lan")
	a, b := harness.NewHost(t, "a"), harness.NewHost(t, "b")
	n.Join(t, a, "eth0", "10.0.0.1/24", "2001:db8::1/64")
	n.Join(t, b, "eth0", "10.0.0.2/24", "2001:db8::2/64")
	for _, address := range []string{"10.0.0.2:80", "[2001:db8::2]:80"} {
		b.Serve(t, address, harness.Echo)
		c, err := a.Dial(nil, address)
		check(t, err)
		defer c.Close()
		check(t, harness.PingPong(c, 1, 1))
	}
	n.Cut(t, b)
	a.IP(t, "neigh", "flush", "dev", "eth0") // so that connect fails soon
	if c, err := a.Dial(nil, "10.0.0.2:80"); err == nil {
		c.Close()
		t.Error("a connection crosses a cut cable")
	}
	n.Mend(t, b)
	c, err := a.Dial(nil, "10.0.0.2:80")
	check(t, err)
	c.Close()
}
