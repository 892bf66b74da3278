package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// adminPatience is how long running requests may take when a socket is closed.
const adminPatience = 2 * time.Second

// metricsMode is the mode of a Unix socket for metrics: whoever may enter its folder may read them, as every user of the
// machine may at a TCP address.
const metricsMode = 0o666

// An httpSocket answers HTTP at one address. The zero value has none.
type httpSocket struct {
	server   *admin.Server // nil if there is none
	listener net.Listener
	place    string        // the address in one form for all texts of it; see placeOf
	served   chan struct{} // closed by run
}

// An adminSocket is the control API at one address. The zero value has none.
type adminSocket struct {
	httpSocket
	settings conf.Admin
	token    string
}

// A metricsSocket is where /metrics, /ready and /live are alone. The zero value has no address.
type metricsSocket struct {
	httpSocket
	settings conf.Metrics
}

// openAdmin opens the admin socket of a configuration. It answers after serve.
//
// If the default address cannot be used, for want of rights or of its folder, that is only logged: somebody may be
// trying the program out.
func (d *Daemon) openAdmin(cfg *conf.Config, token string) (*adminSocket, error) {
	a := &adminSocket{settings: cfg.Admin, token: token}
	if cfg.Admin.Address == "" {
		return a, nil
	}
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	network, path := "tcp", ""
	if cfg.Admin.Socket != "" {
		network, path = "unix", cfg.FilePath(cfg.Admin.Socket)
	}
	a.place = placeOf(cfg.Admin.Bind, path)
	a.listener, err = d.listenHTTP(ctx, adminSocketName, a.place, path, cfg.Admin.Mode, func() (net.Listener, error) {
		return admin.ListenTCP(ctx, cfg.Admin.Bind, a.token)
	})
	switch {
	case err != nil && cfg.Admin.Address == conf.DefaultAdminAddress:
		d.log.Warn().AnErr("err", err).
			Str("event", "admin_failed").Msg("no admin socket: set admin.address to a place of your own")
		return &adminSocket{settings: cfg.Admin}, nil
	case err != nil:
		return nil, notOpened(cfg, "admin", cfg.Admin.Address, network, err)
	}
	a.server = admin.NewServer(admin.Options{Balancer: d, Metrics: d.metrics, Token: a.token, Log: d.log,
		MaxTOML: conf.MaxFileBytes})
	return a, nil
}

// openMetrics opens the address for metrics of a configuration. It answers after serve.
func (d *Daemon) openMetrics(cfg *conf.Config) (*metricsSocket, error) {
	m := &metricsSocket{settings: cfg.Metrics}
	c := &m.settings
	if c.Address == "" {
		return m, nil
	}
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	network, path := "tcp", ""
	if c.Socket != "" {
		network, path = "unix", cfg.FilePath(c.Socket)
	}
	m.place = placeOf(c.Bind, path)
	if path == "" && c.Bind.Addr().IsUnspecified() && !c.DualStack {
		m.place += " alone" // [::] of the admin address has IPv4 clients too
	}
	m.listener, err = d.listenHTTP(ctx, metricsSocketName, m.place, path, metricsMode, func() (net.Listener, error) {
		return admin.ListenMetrics(ctx, c.Bind, c.DualStack)
	})
	if err != nil {
		return nil, notOpened(cfg, "metrics", c.Address, network, err)
	}
	m.server = admin.NewServer(admin.Options{Balancer: d, Metrics: d.publicMetrics, Log: d.log, MetricsOnly: true})
	return m, nil
}

// The names of the sockets in a hand-over.
const (
	adminSocketName   = "admin"
	metricsSocketName = "metrics"
)

// placeOf returns where a socket is: "unix:" with the absolute path, or IP:PORT for the path "".
func placeOf(bind netip.AddrPort, path string) string {
	if path != "" {
		return "unix:" + path
	}
	return bind.String()
}

// listenHTTP opens the socket of a name: the old process's, if there is one that has it, or else one of its own, with
// listen if the path of a Unix socket is "".
func (d *Daemon) listenHTTP(
	ctx context.Context, name, place, path string, mode os.FileMode, listen func() (net.Listener, error),
) (net.Listener, error) {
	if l, err := d.from.takeHTTP(name, place, path, mode); l != nil || err != nil {
		return l, err
	}
	if path != "" {
		return admin.ListenUnix(ctx, path, mode)
	}
	return d.listenTCP(place, listen)
}

// listenTCP listens at a place. One that the admin socket or the one for metrics has now, which is about to leave it,
// is shared with it meanwhile, so that a reload may give the address of one to the other.
func (d *Daemon) listenTCP(place string, listen func() (net.Listener, error)) (net.Listener, error) {
	if d.admin != nil && d.admin.server != nil && d.admin.place == place {
		return admin.Duplicate(d.admin.listener)
	}
	if d.scrapes != nil && d.scrapes.server != nil && d.scrapes.place == place {
		return admin.Duplicate(d.scrapes.listener)
	}
	return listen()
}

// notOpened returns the error for an address of a table that cannot be used.
func notOpened(cfg *conf.Config, table, address, network string, cause error) error {
	e := cfg.ErrorAt(conf.Path(table, "address"), cause)
	e.Found = fmt.Sprintf("%q", address)
	e.Allowed = remedy(cause, network)
	return e
}

// readToken reads the token of a configuration, the first line of its file; "" if it has none.
func readToken(cfg *conf.Config, from *files) (string, error) {
	if cfg.Admin.Address == "" || cfg.Admin.TokenFile == "" {
		return "", nil
	}
	key := conf.Path("admin", "token_file")
	line, err := from.firstLine(key, cfg.Admin.TokenFile)
	if err != nil && !errors.Is(err, errNotRead) {
		return "", cfg.ErrorAt(key, err)
	}
	return line, nil
}

// serve answers requests until end.
func (h *httpSocket) serve(d *Daemon) {
	if h.server == nil {
		return
	}
	h.served = make(chan struct{})
	go h.run(d) // end stops it and waits for it
}

// run answers requests until the server is shut down.
func (h *httpSocket) run(d *Daemon) {
	defer close(h.served)
	if err := h.server.Serve(h.listener); err != nil {
		d.log.Error().AnErr("err", err).Str("event", "admin_failed").Msg("admin socket")
	}
}

// own makes the socket this process's alone, if it was an old process's.
func (h *httpSocket) own(d *Daemon) {
	if h.server == nil {
		return
	}
	if err := admin.Own(h.listener); err != nil {
		d.log.Error().AnErr("err", err).Str("event", "admin_failed").Msg("mode of the admin socket not changed")
	}
}

// end closes the socket. Running requests have adminPatience to finish.
func (h *httpSocket) end() {
	if h.served == nil { // there is none, or this process was to take over and did not
		h.discard()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	_ = h.server.Shutdown(ctx) // what had not finished was cut off
	<-h.served
}

// leave closes the listener. It comes before the next server begins, which may have the same socket: no client of that
// one is to meet a server that ends.
func (h *httpSocket) leave() {
	if h.server != nil {
		h.server.Leave()
	}
}

// discard closes a socket that is not serving: it was opened for a start, an upgrade or a reload that has failed.
func (h *httpSocket) discard() {
	if h.server != nil {
		h.listener.Close()
	}
}

// nextSockets opens the sockets of a new configuration. One whose address is the same stays, with other settings.
func (d *Daemon) nextSockets(cfg *conf.Config, token string) (*adminSocket, *metricsSocket, error) {
	next := *d.admin
	next.settings, next.token = cfg.Admin, token
	control := &next
	if d.admin.settings.Address != cfg.Admin.Address {
		var err error
		if control, err = d.openAdmin(cfg, token); err != nil {
			return nil, nil, err
		}
	}
	if d.scrapes.settings == cfg.Metrics {
		return control, d.scrapes, nil
	}
	scrapes, err := d.openMetrics(cfg)
	if err != nil {
		if control.server != d.admin.server {
			control.discard()
		}
		return nil, nil, err
	}
	return control, scrapes, nil
}

// useSockets replaces the sockets.
func (d *Daemon) useSockets(control *adminSocket, scrapes *metricsSocket) {
	if old := d.scrapes; scrapes != old {
		d.scrapes = scrapes
		old.leave()
		scrapes.serve(d)
		d.retiring.Go(old.end)
	}
	old := d.admin
	d.admin = control
	if control.server != old.server {
		old.leave()
		control.serve(d)
		d.retiring.Go(old.end) // not waited for here, since it may be answering the request for this reload
		return
	}
	if control.server == nil {
		return
	}
	control.server.SetToken(control.token)
	if control.settings.Mode != old.settings.Mode && control.settings.Socket != "" {
		if err := os.Chmod(d.boot.FilePath(control.settings.Socket), control.settings.Mode); err != nil {
			d.log.Error().AnErr("err", err).Str("event", "admin_failed").Msg("mode of the admin socket not changed")
		}
	}
}
