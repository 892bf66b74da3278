package test

import (
	"fmt"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestAddresses connects over both IP versions on either side of the balancer.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		listen  string // with %d for the port
		clients []string
	}{
		{"127.0.0.1:%d", []string{"127.0.0.1:%d"}},
		{"[::1]:%d", []string{"[::1]:%d"}},
		{":%d", []string{"127.0.0.1:%d", "[::1]:%d"}},
		{"[::]:%d", []string{"[::1]:%d"}},
		{"0.0.0.0:%d", []string{"127.0.0.1:%d"}},
	} {
		for _, backendAddress := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(tc.listen+" to "+backendAddress, func(t *testing.T) {
				backend := harness.ServeOn(t, backendAddress, harness.Echo)
				port := harness.FreePort(t)
				b := world{Listen: fmt.Sprintf(tc.listen, port), Backends: []string{backend.Address()}}.start(t)
				for _, address := range tc.clients {
					c := harness.Dial(t, fmt.Sprintf(address, port))
					check(t, harness.PingPong(c, 10, 1000))
					check(t, c.Close())
					// the line has the client's address as the client itself sees it, never ::ffff:127.0.0.1
					line := b.WaitSession(t, c.LocalAddr())
					if line.Reason != "client_closed" || line.BackendAddress != backend.Address() {
						t.Errorf("expected an orderly session with %s: %s", backend.Address(), line.Text)
					}
				}
			})
		}
	}
}

// TestListenersAndPools runs several of each in one process.
func TestListenersAndPools(t *testing.T) {
	t.Parallel()
	red, blue := harness.Serve(t, harness.Name("red")), harness.Serve(t, harness.Name("blue"))
	var config string
	for _, l := range []struct{ name, pool string }{{"one", "red"}, {"two", "blue"}, {"three", "blue"}} {
		config += fmt.Sprintf("[listener.%s]\naddress = %q\npool = %q\n", l.name, harness.FreeAddress(t), l.pool)
	}
	config += "[pool.red]\nbackends = " + harness.BackendList(red.Address()) + "\n"
	config += "[pool.blue]\nbackends = " + harness.BackendList(blue.Address()) + "\n"
	b := harness.StartBalancer(t, config)
	for listener, expected := range map[string]string{"one": "red", "two": "blue", "three": "blue"} {
		c := b.Dial(t, listener)
		if got := readAll(t, c); got != expected {
			t.Errorf("listener %s leads to pool %s, expected %s", listener, got, expected)
		}
		check(t, c.Close())
		if line := b.WaitSession(t, c.LocalAddr()); line.Listener != listener || line.Pool != expected {
			t.Errorf("expected listener %s and pool %s: %s", listener, expected, line.Text)
		}
	}
}

// TestAlgorithms counts the sessions of each backend.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	t.Run("round_robin is exact over a period", func(t *testing.T) {
		a, b, drained := harness.Serve(t, harness.Name("a")), harness.Serve(t, harness.Name("b")),
			harness.Serve(t, harness.Name("c"))
		balancer := harness.StartBalancer(t, fmt.Sprintf(`
[listener.main]
address = %q
pool = "all"
[pool.all]
algorithm = "round_robin"
backends = [
  { address = %q, weight = 3 },
  { address = %q },
  { address = %q, weight = 0 },
]`, harness.FreeAddress(t), a.Address(), b.Address(), drained.Address()))
		got := map[string]int{}
		for range 40 {
			got[readAll(t, balancer.Dial(t, "main"))]++
		}
		if got["a"] != 30 || got["b"] != 10 {
			t.Errorf("40 sessions went to %v, expected 30 to a, 10 to b and none to c", got)
		}
	})
	t.Run("least_conn fills the emptier backend", func(t *testing.T) {
		backends := []*harness.Backend{harness.Serve(t, harness.SpeakFirst("a")),
			harness.Serve(t, harness.SpeakFirst("b"))}
		b := world{
			Backends: []string{backends[0].Address(), backends[1].Address()},
			Pool:     []string{`algorithm = "least_conn"`},
		}.start(t)
		got := map[string]int{}
		for range 20 {
			c := b.Dial(t, "main")
			greeting := make([]byte, 1)
			_, err := c.Read(greeting)
			check(t, err)
			got[string(greeting)]++
		}
		if got["a"] != 10 || got["b"] != 10 {
			t.Errorf("20 sessions that stay went to %v, expected half to each", got)
		}
	})
}
