package daemon

// ofTLS declares the numbers of certificates. Their labels are the paths in the configuration, which bounds them.
func (c *catalog) ofTLS(d *Daemon) part {
	var (
		notAfter = c.gauge("limeload_tls_certificate_not_after_seconds",
			"The certificate of a listener, or that of an authority in its file if that is earlier, expires at this time, in seconds since 1970.",
			"certificate", "listener")
		shown = c.gauge("limeload_tls_client_certificate_not_after_seconds",
			"The certificate that the pool's backends are shown expires at this time, in seconds since 1970.",
			"certificate", "pool")
		reloads = c.counter("limeload_tls_reloads_total",
			"A listener or a pool took up changed files of TLS so often, and such files could not be used so often, by the result.",
			"result")
		failing = c.gauge("limeload_tls_reload_failure",
			"The files of TLS cannot be used as they are now, and those of before are in use (1).")
	)
	results := labelsFor("result", "done", "failed")
	return func(to sink) {
		d.mu.RLock()
		cfg, in, r := d.cfg, d.secured, d.tlsReloads
		d.mu.RUnlock()
		for i := range cfg.Listeners {
			name := cfg.Listeners[i].Name
			if s := in.servers[name]; s != nil {
				listener := label("listener", name)
				for _, one := range s.Certificates() {
					to.put(notAfter, timestamp(one.NotAfter), label("certificate", one.Name), listener)
				}
			}
		}
		for i := range cfg.Pools {
			name := cfg.Pools[i].Name
			if client := in.clients[name]; client != nil {
				for _, one := range client.Certificates() {
					to.put(shown, timestamp(one.NotAfter), label("certificate", one.Name), label("pool", name))
				}
			}
		}
		to.put(reloads, float64(r.done), results[0])
		to.put(reloads, float64(r.failed), results[1])
		to.claim(failing, r.failing)
	}
}
