package test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestOneListenerExhausted has one client whose idle connections take all descriptors that its listener may use: the
// other TCP and UDP listeners and the admin socket still work. When the client closes, although its backend does not,
// other clients are served.
func TestOneListenerExhausted(t *testing.T) {
	t.Parallel()
	const descriptors, hoard = 300, 200
	careless := harness.Serve(t, harness.Silent)
	echo, udp := harness.Serve(t, harness.Echo), harness.ServeUDP(t, harness.EchoDatagrams)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{
		Config: configOf(t,
			service{name: "hoarded", backends: []string{careless.Address()},
				listener: []string{`half_close_timeout = "1h"`}},
			service{name: "tcp", backends: []string{echo.Address()}},
			service{name: "udp", backends: []string{udp.Address()}, listener: []string{`protocol = "udp"`}}),
		Descriptors: descriptors,
	})
	t.Cleanup(func() { endFlows(t, b) })
	t.Cleanup(careless.Close) // before the balancer is checked for leaks
	var idle []net.Conn
	for range hoard {
		idle = append(idle, b.Dial(t, "hoarded"))
	}
	harness.Eventually(t, "the listener has paused", func() error {
		for _, l := range b.Lines() {
			if strings.HasPrefix(l.Message, "accept paused") {
				return nil
			}
		}
		return errors.New("no line says so")
	})
	for range 5 {
		check(t, harness.PingPong(b.Dial(t, "tcp"), 1, 1))
		ask(t, harness.DialUDP(t, b.Address(t, "udp")), "?")
	}
	var list struct{ Total int }
	b.Ask(t, "GET", "/v1/sessions?listener=hoarded", nil, &list)
	if list.Total >= hoard {
		t.Fatalf("%d idle sessions: the limit was not in force", list.Total)
	}

	for _, c := range idle {
		check(t, c.Close()) // a FIN, which the backend ignores
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: harness.Patience}
	c, err := d.Dial("tcp", b.Address(t, "hoarded"))
	check(t, err)
	defer c.Close()
	harness.Eventually(t, "another client is served", func() error {
		b.Ask(t, "GET", "/v1/sessions?listener=hoarded&client=127.0.0.9/32", nil, &list)
		if list.Total != 1 {
			return errors.New("it has no session")
		}
		return nil
	})
	for _, l := range b.Sessions() {
		if l.Reason != "half_close" {
			t.Errorf("%s", l.Text)
		}
	}
}
