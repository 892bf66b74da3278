package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/test/harness"
)

// A hostTable is a lookup with answers that a test changes.
type hostTable struct {
	mu    sync.Mutex
	hosts map[string]string
}

func (h *hostTable) set(hosts map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hosts = hosts
}

func (h *hostTable) lookup(_ context.Context, _, host string) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ip, ok := h.hosts[host]; ok {
		return []netip.Addr{netip.MustParseAddr(ip)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// TestLateNames starts a balancer with a name that cannot be resolved. It serves everything else, adds the backend as
// soon as the name has an address, keeps it when a reload cannot resolve the name any more, and follows the name to
// another address.
func TestLateNames(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	echo := harness.Serve(t, harness.Echo)
	defer echo.Close()
	_, port, _ := net.SplitHostPort(echo.Address())
	file, web, other := filepath.Join(t.TempDir(), "lb.toml"), harness.FreeAddress(t), harness.FreeAddress(t)
	write := func(name, more string) {
		text := fmt.Sprintf(
			"[admin]\naddress = \"\"\n[listener.web]\naddress = %q\npool = \"web\"\n[listener.other]\naddress = %q\npool = \"other\"\n"+
				"[pool.other]\nbackends = [{ address = %q }]\n%s[pool.web]\nbackends = [{ name = \"b1\", address = %q }]\n",
			web, other, echo.Address(), more, name+":"+port)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("db.test", "")
	names := new(hostTable)
	cfg, err := Read(file)
	if err == nil {
		err = resolve(t.Context(), cfg, names.lookup, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Config: cfg, Version: "test", Lookup: names.lookup})
	if err != nil {
		t.Fatalf("a name without an address stops the start: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx, nil) })
	defer running.Wait()
	defer stop()
	<-d.life.reloadable

	served := func(address string) error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	unresolved := func(warnings []string) string { // without those about names that resolve to loopback
		return strings.Join(
			slices.DeleteFunc(warnings, func(w string) bool { return strings.Contains(w, "the name came to") }), "\n")
	}
	warned := func(want string) error {
		if got := unresolved(d.Status().Warnings); got != want {
			return fmt.Errorf("warnings %q, want %q", got, want)
		}
		return nil
	}
	backendAt := func(ip string) error {
		b, err := d.Backends("web")
		if err == nil && (len(b) != 1 || b[0].Address != ip+":"+port) {
			err = fmt.Errorf("backends %+v, want one at %s", b, ip)
		}
		return err
	}
	is := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	at := func(line int, name, text string) string {
		return fmt.Sprintf("%s:%d: pool.web.backends[0].address: found %q; cannot be resolved: no such host%s", file,
			line, name+":"+port, text)
	}

	is(warned(at(12, "db.test", "")))
	is(served(other))
	if served(web) == nil {
		t.Error("a pool without a backend serves")
	}
	// It does not block a reload of something else, or a new pool, either.
	write("db.test", "retries = 1\n")
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatalf("a name without an address stops a reload: %v", err)
	}
	names.set(map[string]string{"db.test": "127.0.0.1"})
	harness.Eventually(t, "the backend is there",
		func() error { return errors.Join(backendAt("127.0.0.1"), warned("")) })
	harness.Eventually(t, "clients are served", func() error { return served(web) })

	// The name cannot be resolved any more: the backend keeps its address, and `plan` and `status` say so.
	names.set(nil)
	write("db.test", "retries = 2\n")
	kept := at(13, "db.test", "; it keeps the address it had, 127.0.0.1")
	if p, err := d.Plan(t.Context(), nil); err != nil || unresolved(p.Warnings) != kept ||
		len(p.Pools[1].Backends) > 0 {
		t.Errorf("plan %+v, error %v", p, err)
	}
	if r, err := d.Reload(t.Context()); err != nil || unresolved(r.Plan.Warnings) != kept {
		t.Errorf("reload %+v, error %v", r, err)
	}
	is(warned(kept))
	is(backendAt("127.0.0.1"))
	is(served(web))
	names.set(map[string]string{"db.test": "127.0.0.2"})
	harness.Eventually(t, "the backend has moved",
		func() error { return errors.Join(backendAt("127.0.0.2"), warned("")) })

	// If a pool would lose all backends because of a name without an address, the reload is refused: it may be a typo.
	write("typo.test", "")
	_, err = d.Reload(t.Context())
	var refused *admin.ConfigError
	var mistake *conf.Error
	if !errors.As(err, &refused) || !errors.As(err, &mistake) || mistake.Error() != at(12, "typo.test", "") {
		t.Errorf("a reload that leaves a pool nothing gives %v", err)
	}
	is(backendAt("127.0.0.2"))
}
