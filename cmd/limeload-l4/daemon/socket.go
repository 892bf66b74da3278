package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
)

// adminPatience is how long running requests may take when the admin socket is closed.
const adminPatience = 2 * time.Second

// An adminSocket is the control API at one address. The zero value has none.
type adminSocket struct {
	settings conf.Admin
	token    string
	place    string        // the address in full: "unix:" with the absolute path, or IP:PORT as configured
	server   *admin.Server // nil if there is none
	listener net.Listener
	served   chan struct{} // closed by run
}

// openAdmin opens the admin socket of a configuration. It answers after serve.
//
// If the default address cannot be used, for want of rights or of its folder, that is only logged: somebody may be
// trying the program out.
func (d *Daemon) openAdmin(cfg *conf.Config, token string) (*adminSocket, error) {
	a := &adminSocket{settings: cfg.Admin, token: token, place: adminPlace(cfg)}
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
	a.listener, err = d.from.takeHTTP(adminSocketName, a.place, path, cfg.Admin.Mode)
	switch {
	case a.listener != nil || err != nil:
	case path != "":
		a.listener, err = admin.ListenUnix(ctx, path, cfg.Admin.Mode)
	default:
		a.listener, err = admin.ListenTCP(ctx, cfg.Admin.Bind, a.token)
	}
	switch {
	case err != nil && cfg.Admin.Address == conf.DefaultAdminAddress:
		d.log.Warn().AnErr("err", err).Msg("no admin socket: set admin.address to a place of your own")
		return &adminSocket{settings: cfg.Admin}, nil
	case err != nil:
		e := cfg.ErrorAt(conf.Path("admin", "address"), err)
		e.Found = fmt.Sprintf("%q", cfg.Admin.Address)
		e.Allowed = remedy(err, network)
		return nil, e
	}
	a.server = admin.NewServer(admin.Options{Balancer: d, Metrics: d.metrics, Token: a.token, Log: d.log,
		MaxTOML: conf.MaxFileBytes})
	return a, nil
}

// adminSocketName is the name of the admin socket in a hand-over.
const adminSocketName = "admin"

// adminPlace returns the admin address in full.
func adminPlace(cfg *conf.Config) string {
	if cfg.Admin.Socket != "" {
		return "unix:" + cfg.FilePath(cfg.Admin.Socket)
	}
	return cfg.Admin.Bind.String()
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
func (a *adminSocket) serve(d *Daemon) {
	if a.server == nil {
		return
	}
	a.served = make(chan struct{})
	go a.run(d) // end stops it and waits for it
}

// run answers requests until the server is shut down.
func (a *adminSocket) run(d *Daemon) {
	defer close(a.served)
	if err := a.server.Serve(a.listener); err != nil {
		d.log.Error().AnErr("err", err).Msg("admin socket")
	}
}

// end closes the socket. Running requests have adminPatience to finish.
func (a *adminSocket) end() {
	if a.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	_ = a.server.Shutdown(ctx) // what had not finished was cut off
	<-a.served
}

// nextAdmin opens the admin socket of a new configuration. If the address is the same, it returns the same socket with
// other settings.
func (d *Daemon) nextAdmin(cfg *conf.Config, token string) (*adminSocket, error) {
	if d.admin.settings.Address != cfg.Admin.Address {
		return d.openAdmin(cfg, token)
	}
	next := *d.admin
	next.settings, next.token = cfg.Admin, token
	return &next, nil
}

// useAdmin replaces the admin socket.
func (d *Daemon) useAdmin(next *adminSocket) {
	old := d.admin
	d.admin = next
	if next.server != old.server {
		d.retiring.Go(old.end) // not waited for here, since it may be answering the request for this reload
		next.serve(d)
		return
	}
	if next.server == nil {
		return
	}
	next.server.SetToken(next.token)
	if next.settings.Mode != old.settings.Mode && next.settings.Socket != "" {
		if err := os.Chmod(d.boot.FilePath(next.settings.Socket), next.settings.Mode); err != nil {
			d.log.Error().AnErr("err", err).Msg("mode of the admin socket not changed")
		}
	}
}
