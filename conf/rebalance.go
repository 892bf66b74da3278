package conf

import "slices"

// checkRebalance reports pools that rebalance, and in which a session would come back to the backend that it has left:
// the client, or the order of the backends, decides where it goes.
func checkRebalance(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		if p.Rebalance.MaxSkew == 0 {
			continue
		}
		path := Path("pool", p.Name, "rebalance", "max_skew")
		fixed := []string{"first", "client_hash", "ring_hash", "maglev"}
		if slices.Contains(fixed, p.Algorithm) && !r.seen[Path("pool", p.Name, "algorithm")] {
			r.add(path, Error{Found: literal(p.Rebalance.MaxSkew),
				Message: "with algorithm " + quote(p.Algorithm) + " a session comes back to the backend that it has left",
				Allowed: "needs another algorithm, such as least_conn, or 0"})
		}
		if p.Sticky.TTL > 0 {
			r.add(path, Error{Found: literal(p.Rebalance.MaxSkew),
				Message: "with sticky.ttl a session comes back to the backend that it has left",
				Allowed: "needs a pool without sticky, or 0"})
		}
	}
}
