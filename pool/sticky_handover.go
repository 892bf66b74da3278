package pool

import (
	"encoding/binary"
	"math"
	"time"
)

// StickyClients are the clients that a pool remembers, on their way to the same pool of another process. They are
// written as JSON.
type StickyClients struct {
	// By is what clients are remembered by. A pool that remembers them by something else does not take them.
	By string `json:"by"`
	// Clients has for each backend, by its id, stickyBytes for each client: its hash, and how many milliseconds ago it
	// came last.
	Clients map[string][]byte `json:"clients"`
}

const stickyBytes = 8 + 4

// stickyBy says what the clients are remembered by.
func (s *settings) stickyBy() string {
	switch {
	case !s.StickyName:
		return "address"
	case s.NamedBy == MQTTClientID:
		return "mqtt_client_id"
	}
	return "server_name"
}

// StickyClients returns the clients that the pool remembers, up to most of them, and nil if it remembers none. It may
// be called from any goroutine.
func (p *Pool) StickyClients(most int) *StickyClients {
	s := p.settings()
	t := s.sticky
	if t == nil || most <= 0 {
		return nil
	}
	now := p.clock()
	all := &StickyClients{By: s.stickyBy(), Clients: make(map[string][]byte)}
	for i := range t.sets {
		set := &t.sets[i]
		for way := range set.keys {
			key := set.keys[way].Load()
			b, seen := set.backends[way].Load(), time.Duration(set.seen[way].Load())
			if key < stickyReserved || b == nil || set.keys[way].Load() != key || now-seen >= t.ttl {
				continue
			}
			if most--; most < 0 {
				return all
			}
			ago := min(max(now-seen, 0)/time.Millisecond, math.MaxUint32)
			to := binary.BigEndian.AppendUint64(all.Clients[b.id], key)
			all.Clients[b.id] = binary.BigEndian.AppendUint32(to, uint32(ago))
		}
	}
	if len(all.Clients) == 0 {
		return nil
	}
	return all
}

// AddStickyClients remembers the clients of another process, but for those that have come here already, and those of
// backends that the pool does not have. It may be called from any goroutine.
func (p *Pool) AddStickyClients(c *StickyClients) {
	s := p.settings()
	t := s.sticky
	if t == nil || c == nil || c.By != s.stickyBy() {
		return
	}
	now := p.clock()
	for _, m := range p.snap.Load().members {
		for text := c.Clients[m.backend.id]; len(text) >= stickyBytes; text = text[stickyBytes:] {
			key := binary.BigEndian.Uint64(text)
			ago := time.Duration(binary.BigEndian.Uint32(text[8:])) * time.Millisecond
			if key >= stickyReserved {
				t.adopt(key, m.backend, int64(now-ago), now)
			}
		}
	}
}
