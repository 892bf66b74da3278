package algo

// Replica returns a picker that picks as p would at this moment, without changing the state of p. It uses loads[i] as
// the load of member i, a copy made by Load.CopyFrom, and the State and Total of o in place of those of p. Kind,
// weights and Balance remain those of p. If p draws at random, the replica makes its own draws.
//
// It costs little more than copying the members, since tables are shared. p must come from Build; Replica panics on any
// other Picker. It may be called from any goroutine. The replica does not learn of released leases: use it for a few
// picks in a row and then drop it.
func Replica(p Picker, loads []*Load, o Options) Picker {
	if o.State == nil {
		o.State = new(State)
	}
	return p.(replicable).replica(loads, o)
}

// Every picker of Build is replicable.
type replicable interface {
	replica(loads []*Load, o Options) Picker
}

// replicas returns the members with other loads, found by their index.
func replicas(members []candidate, loads []*Load) []candidate {
	c := make([]candidate, len(members))
	for i, m := range members {
		m.load = loads[m.index]
		c[i] = m
	}
	return c
}

func (nobody) replica([]*Load, Options) Picker { return nobody{} }

func (r *roundRobin) replica(loads []*Load, o Options) Picker {
	return &roundRobin{members: replicas(r.members, loads), table: r.table, state: o.State}
}

func (r *random) replica(loads []*Load, _ Options) Picker {
	return &random{members: replicas(r.members, loads), table: r.table}
}

func (p *p2c) replica(loads []*Load, _ Options) Picker {
	return &p2c{members: replicas(p.members, loads), table: p.table}
}

func (p *leastTime) replica(loads []*Load, o Options) Picker {
	return &leastTime{members: replicas(p.members, loads), table: p.table, state: o.State}
}

func (f *first) replica(loads []*Load, _ Options) Picker {
	return &first{blocks: f.blocks.replica(loads)}
}

func (l *leastConn) replica(loads []*Load, o Options) Picker {
	return &leastConn{blocks: l.blocks.replica(loads), state: o.State}
}

// replica returns a copy with the current hints. Its loads have no seat, so that its picks do not affect the real ones.
func (b *blocks) replica(loads []*Load) *blocks {
	c := &blocks{members: replicas(b.members, loads), weights: b.weights}
	if b.hints != nil {
		c.hints = make([]hint, len(b.hints))
		for i := range b.hints {
			c.hints[i].bits.Store(b.hints[i].bits.Load())
		}
	}
	return c
}

func (c *clientHash) replica(loads []*Load, o Options) Picker {
	return &clientHash{preference: c.preference.replica(loads, o), weighs: c.weighs}
}

func (r *ringHash) replica(loads []*Load, o Options) Picker {
	return &ringHash{preference: r.preference.replica(loads, o), points: r.points, starts: r.starts, shift: r.shift}
}

func (m *maglev) replica(loads []*Load, o Options) Picker {
	return &maglev{preference: m.preference.replica(loads, o), table: m.table}
}

func (p *preference) replica(loads []*Load, o Options) preference {
	c := preference{members: make([]hashed, len(p.members)), balance: p.balance, total: o.Total, weights: p.weights}
	for i, m := range p.members {
		m.load = loads[m.index]
		c.members[i] = m
	}
	return c
}

// CopyFrom copies the current leases, limit, share and times of other to l, which must be new and not in use yet. It
// joins no Total.
func (l *Load) CopyFrom(other *Load) {
	l.leases.Store(other.Leases())
	l.limit.Store(other.limit.Load())
	l.withheld.Store(other.withheld.Load())
	l.firstByte.bits.Store(other.firstByte.bits.Load())
	l.connect.bits.Store(other.connect.bits.Load())
}

// CopyFrom copies the current state of other to s, which must be new and not in use yet.
func (s *State) CopyFrom(other *State) {
	s.position.Store(other.position.Load())
	s.clock.Store(other.clock.Load())
}
