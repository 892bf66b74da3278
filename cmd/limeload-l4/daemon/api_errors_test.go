package daemon

import (
	"errors"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// errorOf returns the error of a call.
func errorOf(_ *admin.Sharing, err error) error { return err }

// TestBackendErrors checks the errors about backends that do not exist, or cannot exist.
func TestBackendErrors(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	add := func(b admin.NewBackend) error {
		_, err := d.AddBackend("web", b)
		return err
	}
	weight, drained := 300, "drain"
	_, change := d.ChangeBackend("web", "bb", admin.BackendChange{Mode: &drained})
	_, drain := d.DrainBackend("web", "bb", admin.Drain{})
	none := ""
	_, noMode := d.ChangeBackend("web", "127.0.0.1:7998", admin.BackendChange{Mode: &none})
	const unknown = `pool web has no backend "bb"; it has 127.0.0.1:7998`
	for _, tt := range []struct {
		err      error
		want     string
		sentinel error
	}{
		{add(admin.NewBackend{Address: "127.0.0.1:99999"}),
			`address: found "127.0.0.1:99999"; the port is "99999"; needs 1 to 65535`, nil},
		{add(admin.NewBackend{Address: "[fe80::1%\x1b[31m]:80"}),
			`address: found "[fe80::1%\x1b[31m]:80"; the zone "\x1b[31m" is not the name of an interface`, nil},
		{add(admin.NewBackend{Address: "*:80"}),
			`address: found "*:80"; "*" is neither an IP address nor a host name; needs "IP:PORT", "[IPV6]:PORT", "IP" for each client's port, or "unix:PATH": it is discovery of type "dns" that resolves names`, nil},
		{add(admin.NewBackend{Address: "10.0.0.1:80", Mode: "maint"}),
			`mode: found "maint"; needs "ready", "drain" or "maintenance", did you mean "maintenance"?`, nil},
		{add(admin.NewBackend{Address: "0.0.0.0:80"}),
			`address: found "0.0.0.0:80"; this address can be listened on but not connected to`, nil},
		{add(admin.NewBackend{Address: "10.0.0.1:80", Weight: &weight}), `weight: found "300"; needs 0 to 256`, nil},
		{add(admin.NewBackend{Address: "10.0.0.1:80", Mode: "maint\u202e"}),
			`mode: found "maint\u202e"; needs "ready", "drain" or "maintenance"`, nil},
		{add(admin.NewBackend{Address: "10.0.0.1:80", Name: strings.Repeat("a", 70)}),
			`name: found "` + strings.Repeat("a", 64) + `..."; needs 1 to 64 letters, digits, '_', '-' or '.'`, nil},
		{add(admin.NewBackend{Address: "127.0.0.1:7998"}), `pool web has a backend "127.0.0.1:7998" already`,
			pool.ErrDuplicateBackend},
		{errorOf(d.RemoveBackend("web", "bb", admin.Origin{})), unknown, pool.ErrUnknownBackend},
		{change, unknown, pool.ErrUnknownBackend},
		{drain, unknown, pool.ErrUnknownBackend},
		{noMode, `mode: found ""; needs ready, drain or maintenance`, nil},
	} {
		if tt.err == nil || tt.err.Error() != tt.want || tt.sentinel != nil && !errors.Is(tt.err, tt.sentinel) {
			t.Errorf("got  %v\nwant %s", tt.err, tt.want)
		}
	}
}
