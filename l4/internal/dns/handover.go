package dns

import "sync/atomic"

// each calls visit with each counter that only grows, and its name.
func (c *counts) each(visit func(name string, n *atomic.Uint64)) {
	visit("dns.asked", &c.asked)
	visit("dns.answered", &c.answered)
	visit("dns.timed_out", &c.timedOut)
	visit("dns.unreachable", &c.unreachable)
	visit("dns.failed", &c.failed)
	visit("dns.mismatched", &c.mismatched)
}

// Counts returns what the service has counted by name, but for its cache and for what is zero.
func (s *Service) Counts() map[string]uint64 {
	all := make(map[string]uint64)
	for _, f := range s.forwarders {
		f.counts.each(func(name string, n *atomic.Uint64) {
			if v := n.Load(); v > 0 {
				all[name] += v
			}
		})
	}
	return all
}

// AddCounts adds what another process has counted. Names that are not known are ignored.
func (s *Service) AddCounts(counts map[string]uint64) {
	s.forwarders[0].counts.each(func(name string, n *atomic.Uint64) {
		if v := counts[name]; v > 0 {
			n.Add(v)
		}
	})
}

// InFlight is how many questions are at backends now. It is called onLoop.
func (l *Loop) InFlight() (n int) {
	for _, f := range l.forwarders {
		n += f.count
	}
	return n
}
