package dial

import (
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// TestPortlessWithoutClientPort holds that a client which has come to no port, as one of a Unix socket, has no
// connection to a backend that needs its port, and that this says nothing about the backend.
func TestPortlessWithoutClientPort(t *testing.T) {
	p, err := pool.New(pool.Options{Name: "p", Algorithm: "round_robin", Initial: pool.Healthy})
	if err != nil {
		t.Fatal(err)
	}
	at := pool.At(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0))
	if err := p.Add(pool.Spec{ID: "a", Addr: at, Weight: 1}); err != nil {
		t.Fatal(err)
	}
	lease, err := p.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(pool.Neutral)
	d, link := NewDialer(new(Chains)), (*Link)(nil)
	for _, protocol := range []sock.Protocol{sock.TCP, sock.UDP} {
		fd, e := d.Dial(0, protocol, p, lease.Backend(), Client{Link: &link})
		if fd != -1 || e != sock.PortNeeded || Outcome(e) != pool.Neutral {
			t.Errorf("%v: descriptor %d, %v, outcome %v", protocol, fd, e, Outcome(e))
		}
	}
}
