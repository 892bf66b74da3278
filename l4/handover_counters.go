package l4

import (
	"maps"

	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// Counters are what listeners and backends have counted. They are written as JSON. Each is a list of counts by name;
// those that are zero are left out.
type Counters struct {
	Listeners []ListenerCounts `json:"listeners"`
	Pools     []PoolCounts     `json:"pools"`
}

// ListenerCounts are what one listener has counted.
type ListenerCounts struct {
	Name     string      `json:"name"`
	Protocol Protocol    `json:"protocol"`
	Counts   pool.Counts `json:"counts"`
}

// PoolCounts are what one pool has counted, and its backends by their ids.
type PoolCounts struct {
	Name     string                 `json:"name"`
	Counts   pool.Counts            `json:"counts"`
	Backends map[string]pool.Counts `json:"backends"`

	Sticky *pool.StickyClients `json:"sticky,omitempty"` // the clients it remembers; with the first call of Counters
}

// maxSticky bounds the clients that all pools remember and that are handed over. One takes sixteen bytes of JSON.
const maxSticky = 1 << 20

// Counters returns what was counted since the last call, or since the server began. The first call has the clients that
// pools remember, too: before Admit it brings them in time for the clients that come.
func (h *Handover) Counters() Counters {
	s := h.server
	s.flushAll()
	now := s.countersNow()
	since := now.minus(h.before)
	if h.before.Pools == nil {
		s.addSticky(&since)
	}
	h.before = now
	return since
}

// flushAll makes sessions and flows add their bytes to the counters now.
func (s *Server) flushAll() {
	s.onEachLoop(func(i int) { // when the loops have ended, all is counted
		s.sessions[i].Flush()
		s.flows[i].Flush()
	})
}

// addSticky adds the clients that pools remember.
func (s *Server) addSticky(c *Counters) {
	s.mu.Lock()
	pools := s.poolsLocked()
	s.mu.Unlock()
	left := maxSticky / max(1, len(pools))
	for p := range pools {
		for i := range c.Pools {
			if c.Pools[i].Name == p.Name() {
				c.Pools[i].Sticky = p.StickyClients(left)
			}
		}
	}
}

// countersNow is what was counted so far.
func (s *Server) countersNow() (all Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ls := range s.listeners {
		all.Listeners = append(all.Listeners, ListenerCounts{
			Name: ls.name, Protocol: ls.spec.Load().Protocol, Counts: ls.counts(),
		})
	}
	for p := range s.poolsLocked() {
		c := PoolCounts{Name: p.Name()}
		c.Counts, c.Backends = p.Counts()
		all.Pools = append(all.Pools, c)
	}
	return all
}

// poolsLocked are the pools of the listeners. mu is held.
func (s *Server) poolsLocked() map[*pool.Pool]bool {
	all := make(map[*pool.Pool]bool)
	for _, ls := range s.listeners {
		for p := range ls.spec.Load().pools {
			all[p] = true
		}
	}
	return all
}

// counts is what the listener has counted, by name.
func (ls *listener) counts() pool.Counts {
	all := tally.Counts(ls.gate.Counters)
	set := func(name string, n uint64) {
		if n > 0 {
			all[name] = n
		}
	}
	for _, r := range gate.Reasons() {
		set(wouldRefuse(r), ls.gate.WouldRefuse(r))
	}
	for _, r := range CancelResults() {
		set("cancels."+r.String(), ls.postgres.Count(r))
	}
	if ls.dns != nil {
		maps.Copy(all, ls.dns.Counts())
	}
	return all
}

// wouldRefuse names what Listener.WouldRefuse counts.
func wouldRefuse(r gate.Reason) string { return "would_refuse." + r.Name() }

// addCounts adds what the listener of another process has counted.
func (ls *listener) addCounts(counts pool.Counts) {
	ls.gate.Counters[0].AddCounts(counts)
	for _, r := range gate.Reasons() {
		if n := counts[wouldRefuse(r)]; n > 0 {
			ls.gate.AddWouldRefuse(r, n)
		}
	}
	for _, r := range CancelResults() {
		if n := counts["cancels."+r.String()]; n > 0 {
			ls.postgres.AddCount(r, n)
		}
	}
	if ls.dns != nil {
		ls.dns.AddCounts(counts)
	}
}

// minus returns what c has more than before.
func (c Counters) minus(before Counters) (since Counters) {
	listeners := make(map[listenerKey]pool.Counts)
	for _, l := range before.Listeners {
		listeners[listenerKey{l.Name, l.Protocol}] = l.Counts
	}
	for _, l := range c.Listeners {
		l.Counts = minus(l.Counts, listeners[listenerKey{l.Name, l.Protocol}])
		since.Listeners = append(since.Listeners, l)
	}
	pools := make(map[string]PoolCounts)
	for _, p := range before.Pools {
		pools[p.Name] = p
	}
	for _, p := range c.Pools {
		was := pools[p.Name]
		more := PoolCounts{Name: p.Name, Counts: minus(p.Counts, was.Counts), Backends: make(map[string]pool.Counts)}
		for id, counts := range p.Backends {
			more.Backends[id] = minus(counts, was.Backends[id])
		}
		since.Pools = append(since.Pools, more)
	}
	return since
}

// minus returns the counts that are more than before. Counts never fall.
func minus(counts, before pool.Counts) pool.Counts {
	more := make(pool.Counts)
	for name, n := range counts {
		if was := before[name]; n > was {
			more[name] = n - was
		}
	}
	return more
}

// AddCounters adds what another process has counted to the listeners and backends of the same names. What it does not
// know is ignored.
func (s *Server) AddCounters(c Counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range c.Listeners {
		if ls := s.listeners[listenerKey{l.Name, l.Protocol}]; ls != nil {
			ls.addCounts(l.Counts)
		}
	}
	pools := make(map[string]*pool.Pool)
	for p := range s.poolsLocked() {
		pools[p.Name()] = p
	}
	for _, l := range c.Pools {
		if p := pools[l.Name]; p != nil {
			p.AddCounts(l.Counts, l.Backends)
			p.AddStickyClients(l.Sticky)
		}
	}
}
