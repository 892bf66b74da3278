package algo

// Replica returns a picker that picks as p would at this moment: to ask it what comes next changes nothing that p goes
// by. The load of member i is loads[i] instead, a copy as by Load.CopyFrom, and State and Total are o's, in place of
// those that p was built with. Kind, weights and Balance remain p's. What p draws, the replica draws, too, and each
// draws its own.
//
// It costs little more than the copies of the members: tables are shared. p is one of Build; another kind of Picker is
// the caller's bug, and panics. It may be called from any goroutine. The replica's loads hear nothing of released
// leases: it is for a few picks, one after the other, and then of no use.
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

// replicas returns the members with other loads, which are by their index.
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

// replica has the hints as they are. Its loads have no seat, so that its picks take nothing from the real ones.
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

// CopyFrom makes l, which is new and used by nobody yet, hold as many leases as other does at this moment, with the
// same limit, share and times. It joins no Total.
func (l *Load) CopyFrom(other *Load) {
	l.leases.Store(other.Leases())
	l.limit.Store(other.limit.Load())
	l.withheld.Store(other.withheld.Load())
	l.firstByte.bits.Store(other.firstByte.bits.Load())
	l.connect.bits.Store(other.connect.bits.Load())
}

// CopyFrom makes s, which is new and used by nobody yet, stand where other stands at this moment.
func (s *State) CopyFrom(other *State) {
	s.position.Store(other.position.Load())
	s.clock.Store(other.clock.Load())
}
