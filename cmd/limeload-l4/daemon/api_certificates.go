package daemon

import (
	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// certificates returns the certificates in use: those of listeners, then those of pools, in the order of the file.
func (d *Daemon) certificates() []admin.Certificate {
	d.mu.RLock()
	cfg, in := d.cfg, d.secured
	d.mu.RUnlock()
	var all []admin.Certificate
	for i := range cfg.Listeners {
		name := cfg.Listeners[i].Name
		if s := in.servers[name]; s != nil {
			for _, one := range s.Certificates() {
				all = append(all, admin.Certificate{Listener: name, Name: one.Name, NotAfter: one.NotAfter})
			}
		}
	}
	for i := range cfg.Pools {
		name := cfg.Pools[i].Name
		if client := in.clients[name]; client != nil {
			for _, one := range client.Certificates() {
				all = append(all, admin.Certificate{Pool: name, Name: one.Name, NotAfter: one.NotAfter})
			}
		}
	}
	return all
}

// isRefusal reports whether a session that ended with a reason was refused: those reasons come last, see package l4.
func isRefusal(why l4.Reason) bool { return why >= l4.MaxSessions }
