package daemon

// ofFleetLimits declares the numbers of what the nodes of a fleet divide and share. Without a fleet there are none.
func (c *catalog) ofFleetLimits(d *Daemon) part {
	var (
		share = c.gauge("limeload_fleet_rate_share",
			"This node's part of the rates that the nodes of a fleet divide: above 0 to 1.")
		tickets = c.gauge("limeload_fleet_tickets_shared",
			"TLS session tickets are made with keys that all nodes of the fleet have (1), or with keys of this node alone (0).")
	)
	return func(to sink) {
		if d.fleet == nil {
			return
		}
		to.put(share, d.fleet.rateShare())
		if d.fleet.conf.TicketKeys {
			to.claim(tickets, d.fleet.tickets.areShared())
		}
	}
}
