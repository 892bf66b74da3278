package daemon

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// goodConfig is a configuration whose pool has one backend, at 127.0.0.1:7998.
const goodConfig = `
[admin]
address = ""
[listener.web]
address = "127.0.0.1:7999"
pool = "web"
[pool.web]
backends = [{ address = "127.0.0.1:7998" }]
`

// parsed returns the configuration goodConfig with more lines at its end.
func parsed(t *testing.T, more string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse("lb.toml", []byte(goodConfig+more))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// testDaemon returns a daemon that does not run. Its server is shut down at the end of the test.
func testDaemon(t *testing.T, cfg *conf.Config) *Daemon {
	t.Helper()
	for i := range cfg.Listeners {
		cfg.Listeners[i].Binds = []conf.Bind{{Addr: netip.MustParseAddrPort("127.0.0.1:0")}}
	}
	d, err := New(Options{Config: cfg, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.server.Shutdown(context.Background()) })
	return d
}

// checkedDaemon returns a daemon of goodConfig whose checks run until the end of the test, with its pool. health are
// the lines of the table [pool.web.health]. The pool's backend is at address, unless that is "".
func checkedDaemon(t *testing.T, address, health string) (*Daemon, *served) {
	t.Helper()
	cfg := parsed(t, "[pool.web.health]\n"+health)
	if address != "" {
		b := &cfg.Pools[0].Backends[0]
		b.Name, b.Addr = address, netip.MustParseAddrPort(address)
	}
	d := testDaemon(t, cfg)
	s := d.pools["web"]
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.checks.Run(ctx) })
	s.start()
	t.Cleanup(func() {
		s.end()
		cancel()
		running.Wait()
	})
	return d, s
}

// listenLocal listens on a free port of 127.0.0.1 until the end of the test, and returns the address.
func listenLocal(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}
