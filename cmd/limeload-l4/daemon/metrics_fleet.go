package daemon

// ofFleet declares the numbers of the fleet. Without one there are none of them. No label has the name of another node:
// each node has metrics of its own.
func (c *catalog) ofFleet(d *Daemon) part {
	var (
		info = c.gauge("limeload_fleet_info",
			"The labels say which fleet this is, and which of its nodes; the value is always 1.", "fleet", "node")
		connected = c.gauge("limeload_fleet_connected",
			"The node has a connection to the fleet's etcd (1), or goes on with what it knew (0).")
		refused = c.gauge("limeload_fleet_writes_refused",
			"The fleet's etcd refuses what the node writes (1), such as for want of a permission or of space; the node reads on.")
		connects = c.counter("limeload_fleet_connects_total",
			"The node has connected to the fleet's etcd so often.")
		nodes = c.gauge("limeload_fleet_nodes",
			"The fleet has so many nodes now, as this node knows it, this one included, by whether they are ready.", "state")
		alone = c.gauge("limeload_fleet_alone",
			"The node reaches none of its backends, while others do or nobody can be asked, and so is not ready (1).")
		differs = c.gauge("limeload_fleet_config_differs",
			"The node runs another configuration than most nodes of the fleet (1).")
		records = c.gauge("limeload_fleet_records",
			"The node knows so many shared records: run-time changes, and the keys of TLS tickets.")
		pending = c.gauge("limeload_fleet_changes_pending",
			"The fleet's etcd does not have so many shared records of this node yet, and so other nodes may not either.")
		writes = c.counter("limeload_fleet_writes_total",
			"The node has written to the fleet's etcd so often, with up to 100 keys each time.")
		failures = c.counter("limeload_fleet_write_failures_total",
			"So many writes to the fleet's etcd have failed; they are repeated.")
		changes = c.counter("limeload_fleet_key_changes_total",
			"The fleet's etcd has told the node of so many changes of keys.")
		ignored = c.counter("limeload_fleet_ignored_total",
			"The node has ignored so many keys and values in etcd: they are not the fleet's, are too large or cannot be read.")
		unshared = c.counter("limeload_fleet_unshared_total",
			"So many values and changes of this node could not be shared, since they are too large or too many.")
		repairs = c.counter("limeload_fleet_repairs_total",
			"The node has written so many shared records again that etcd had lost.")
	)
	states := labelsFor("state", "ready", "not_ready")
	return func(to sink) {
		m := d.fleet
		if m == nil {
			return
		}
		s, stats := m.summary(), m.fleet.Stats()
		to.put(info, 1, label("fleet", s.Name), label("node", s.Node))
		to.claim(connected, s.Connected)
		to.claim(refused, s.Connected && s.Error != "")
		to.put(connects, float64(stats.Connects))
		to.put(nodes, float64(s.Ready), states[0])
		to.put(nodes, float64(s.Nodes-s.Ready), states[1])
		to.claim(alone, m.members.isAlone())
		to.claim(differs, s.OtherConfig)
		to.put(records, float64(stats.Records))
		to.put(pending, float64(stats.Pending))
		to.put(writes, float64(stats.Writes))
		to.put(failures, float64(stats.WriteFailures))
		to.put(changes, float64(stats.Changes))
		to.put(ignored, float64(stats.Ignored))
		to.put(unshared, float64(stats.Refused))
		to.put(repairs, float64(stats.Repairs))
	}
}
