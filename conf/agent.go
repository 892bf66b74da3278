package conf

import "fmt"

// checkAgents reports backends that have no host for the agent of their pool.
func checkAgents(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		if p.Agent.Port == 0 {
			continue
		}
		for k, b := range p.Backends {
			if b.Path == "" {
				continue
			}
			path := Path("pool", p.Name)
			r.add(join(join(path, "agent"), "port"), Error{Found: literal(p.Agent.Port),
				Message: fmt.Sprintf("%s is a Unix socket, and has no host where an agent could listen",
					element(join(path, "backends"), k)),
				Allowed: "needs 0, or only backends with an IP address"})
			break
		}
	}
}
