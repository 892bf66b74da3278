package daemon

// ofTLS declares the numbers of certificates. Their labels are the paths in the configuration, which bounds them.
func (c *catalog) ofTLS(d *Daemon) part {
	var (
		notAfter = c.gauge("limeload_tls_certificate_not_after_seconds",
			"When a listener's certificate expires, or that of an authority in its file if that is earlier, "+
				"in seconds since 1970.", "certificate", "listener")
		shown = c.gauge("limeload_tls_client_certificate_not_after_seconds",
			"When the certificate that a pool's backends are shown expires, in seconds since 1970.", "certificate", "pool")
		reloads = c.counter("limeload_tls_reloads_total",
			"How often a listener or a pool took up changed files of TLS, and how often such files could not be used, "+
				"by the result.", "result")
		failing = c.gauge("limeload_tls_reload_failure",
			"1 if the files of TLS cannot be used as they are now, and those of before are in use.")
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
