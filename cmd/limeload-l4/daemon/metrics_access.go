package daemon

// ofAccess declares the numbers of access lists.
func (c *catalog) ofAccess(d *Daemon) part {
	var (
		prefixes = c.gauge("limeload_listener_access_prefixes",
			"The listener allows or denies so many prefixes, those of its files included, by the list.",
			"list", "listener")
		reloads = c.counter("limeload_access_reloads_total",
			"A listener took up changed files of prefixes so often, and such files could not be used so often, by the result.",
			"result")
		failing = c.gauge("limeload_access_reload_failure",
			"The files of prefixes cannot be used as they are now, and those of before are in use (1).")
	)
	results := labelsFor("result", "done", "failed")
	lists := labelsFor("list", "allow", "deny")
	return func(to sink) {
		d.mu.RLock()
		cfg, in, r := d.cfg, d.access, d.accessReloads
		d.mu.RUnlock()
		for i := range cfg.Listeners {
			name := cfg.Listeners[i].Name
			if a := in[name]; a != nil {
				listener := label("listener", name)
				to.put(prefixes, float64(a.allowed), lists[0], listener)
				to.put(prefixes, float64(a.denied), lists[1], listener)
			}
		}
		to.put(reloads, float64(r.done), results[0])
		to.put(reloads, float64(r.failed), results[1])
		to.claim(failing, r.failing)
	}
}
