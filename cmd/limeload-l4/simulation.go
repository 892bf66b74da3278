package main

import (
	"container/heap"
	"errors"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool"
)

// A simulated session is one client: it arrives, and stays for its lifetime once it has a backend.
type simulated struct {
	at       time.Duration // since the start
	client   netip.AddrPort
	lifetime time.Duration
}

// A simulation replays sessions over a real pool with its real algorithm and a simulated clock. Nothing is connected,
// and an hour takes only as long as its picks.
type simulation struct {
	options pool.Options
	pool    *pool.Pool
	latency map[string]time.Duration // to the first byte, by backend; 1 ms for the others
	change  func(*pool.Pool) error   // is called halfway; nil for none

	now     time.Duration
	endings endings
	result  simulationResult
	live    map[string]*simulatedBackend
}

// A simulatedBackend is what a simulation has counted for one backend.
type simulatedBackend struct {
	id     string
	tier   int
	phases []simulatedPhase // before and after the change
	open   int
	most   int // the most that were open at the same time
}

// A simulatedPhase is a backend's weight in a part of a simulation (0 if it is not in the pool), and the sessions that
// it got.
type simulatedPhase struct {
	weight   uint32
	sessions int
}

// A simulationResult is the result of a simulation.
type simulationResult struct {
	sessions  int
	phases    int                 // 1, or 2 with a change
	backends  []*simulatedBackend // in the order in which they were added to the pool
	noBackend int                 // refused: no backend was eligible
	full      int                 // refused: all backends were at their limits, and the queue was full
	timedOut  int                 // left the queue without a backend
	waited    int                 // waited, and got a backend
	samples   int
	excess    float64 // sum over all samples: open sessions of the fullest backend, divided by the mean, by weight
	worst     float64 // the highest sample
	keys      keysMoved
}

// keysMoved counts the clients that a change gives another backend. Only algorithms that hash have keys.
type keysMoved struct {
	clients int // all clients
	had     int // moved from a backend that was removed or became lighter, or to one that was added or became heavier
	more    int // moved between two backends that did not change
}

// newSimulation makes the pool of the simulation, with healthy backends and the simulated clock.
func newSimulation(o pool.Options, specs []pool.Spec) (*simulation, error) {
	o.Initial = pool.Healthy
	s := &simulation{options: o, live: make(map[string]*simulatedBackend)}
	o.Clock = func() time.Duration { return s.now }
	var err error
	if s.pool, err = pool.New(o); err != nil {
		return nil, err
	}
	return s, s.pool.Add(specs...)
}

// run replays sessions, which must be sorted by arrival.
func (s *simulation) run(sessions []simulated) error {
	s.follow()
	every := max(len(sessions)/1000, 1) // a thousand samples
	for i, one := range sessions {
		if i == len(sessions)/2 && s.change != nil {
			if err := s.changeNow(sessions); err != nil {
				return err
			}
		}
		s.advance(one.at)
		s.admit(one)
		if i%every == 0 && i > len(sessions)/10 { // after the filling
			s.sample()
		}
	}
	for len(s.endings) > 0 {
		s.advance(s.endings[0].at)
	}
	s.result.sessions = len(sessions)
	return nil
}

// follow begins a phase: it records the backends that are in the pool, and their weights.
func (s *simulation) follow() {
	s.result.phases++
	for _, b := range s.pool.Backends() {
		sb := s.live[b.ID]
		if sb == nil {
			sb = &simulatedBackend{id: b.ID, tier: b.Tier, phases: make([]simulatedPhase, s.result.phases-1, 2)}
			s.live[b.ID] = sb
			s.result.backends = append(s.result.backends, sb)
		}
		phase := simulatedPhase{weight: b.Weight}
		if b.Mode != pool.Ready {
			phase.weight = 0
		}
		sb.phases = append(sb.phases, phase)
	}
	for _, sb := range s.result.backends {
		if len(sb.phases) < s.result.phases { // it was removed
			sb.phases = append(sb.phases, simulatedPhase{})
		}
	}
}

// admit handles the arrival of a session.
func (s *simulation) admit(one simulated) {
	pc := pool.PickContext{Client: one.client}
	l, err := s.pool.Pick(pc)
	switch {
	case err == nil:
		s.begin(one, l)
	case errors.Is(err, pool.ErrBusy):
		s.wait(one, pc, s.pool.Wait, s.pool.QueueTimeout())
	case s.pool.HoldTimeout() > 0:
		s.wait(one, pc, s.pool.Hold, s.pool.HoldTimeout())
	default:
		s.result.noBackend++
	}
}

// wait puts a session into the pool's line, by Wait or by Hold.
func (s *simulation) wait(one simulated, pc pool.PickContext, join func(*pool.Waiter) error, timeout time.Duration) {
	w := &pool.Waiter{Context: pc, Serve: func(l pool.Lease, err error) {
		if err != nil {
			s.result.noBackend++
			return
		}
		s.result.waited++
		s.begin(one, l)
	}}
	if err := join(w); err != nil {
		s.result.full++
		return
	}
	ramped := s.pool.Ramped()
	var leave func()
	leave = func() {
		if more := s.pool.Ramped() - ramped; more > 0 { // the line was spread: that counts for no timeout
			ramped += more
			heap.Push(&s.endings, ending{at: s.now + more, end: leave})
		} else if s.pool.Leave(w) {
			s.result.timedOut++
		}
	}
	heap.Push(&s.endings, ending{at: s.now + timeout, end: leave})
}

// begin keeps the lease of a session for its lifetime.
func (s *simulation) begin(one simulated, l pool.Lease) {
	b := s.live[l.Backend().ID()]
	b.phases[s.result.phases-1].sessions++
	b.open++
	b.most = max(b.most, b.open)
	latency, slow := s.latency[b.id]
	if !slow {
		latency = time.Millisecond
	}
	heap.Push(&s.endings, ending{at: s.now + latency, end: func() { l.FirstByteTook(latency, 0) }})
	heap.Push(&s.endings, ending{at: s.now + max(one.lifetime, latency), end: func() {
		b.open--
		l.Release(pool.Served)
	}})
}

// advance sets the clock, ends the sessions that are over by then, and serves those that waited for a rate.
func (s *simulation) advance(to time.Duration) {
	for {
		at, wait := s.pool.NextByRate()
		ends := len(s.endings) > 0 && s.endings[0].at <= to
		switch {
		case wait && at <= to && (!ends || at < s.endings[0].at):
			s.now = max(s.now, at)
			s.pool.ServeByRate()
		case ends:
			e := heap.Pop(&s.endings).(ending)
			s.now = e.at
			e.end()
		default:
			s.now = to
			return
		}
	}
}

// sample compares the fullest backend with the mean, among those of positive weight in the first tier that has
// sessions.
func (s *simulation) sample() {
	infos := s.pool.Backends()
	tier := -1
	for _, b := range infos {
		if s.live[b.ID].open > 0 && (tier < 0 || b.Tier < tier) {
			tier = b.Tier
		}
	}
	var open, weights, most float64
	for _, b := range infos {
		if b.Tier != tier || b.Weight == 0 {
			continue
		}
		n := float64(s.live[b.ID].open)
		open, weights = open+n, weights+float64(b.Weight)
		most = max(most, n/float64(b.Weight))
	}
	if open == 0 {
		return
	}
	excess := most / (open / weights)
	s.result.samples++
	s.result.excess += excess
	s.result.worst = max(s.result.worst, excess)
}

// changeNow makes the change, and counts the clients whose keys it moves.
func (s *simulation) changeNow(sessions []simulated) error {
	clients := make(map[netip.Addr]netip.AddrPort)
	for _, one := range sessions {
		clients[one.client.Addr()] = one.client
	}
	before, err := s.assigned(clients)
	if err != nil {
		return err
	}
	if err := s.change(s.pool); err != nil {
		return err
	}
	s.follow()
	after, err := s.assigned(clients)
	if err != nil {
		return err
	}
	// gain returns by how much the change made a backend heavier.
	gain := func(id string) int64 {
		phases := s.live[id].phases
		return int64(phases[len(phases)-1].weight) - int64(phases[len(phases)-2].weight)
	}
	s.result.keys.clients = len(before)
	for client, home := range before {
		switch now := after[client]; {
		case now == home:
		case gain(home) < 0 || now == "" || gain(now) > 0:
			s.result.keys.had++
		default:
			s.result.keys.more++
		}
	}
	return nil
}

// assigned returns the backend of each client's key, whatever the loads are: it asks a pool of the same backends
// without sessions. The result is empty for algorithms that do not hash.
func (s *simulation) assigned(clients map[netip.Addr]netip.AddrPort) (map[netip.Addr]string, error) {
	backends := make(map[netip.Addr]string)
	hashes := algo.KindOf(s.options.Algorithm).Hash
	if !hashes {
		return backends, nil
	}
	idle, err := pool.New(pool.Options{
		Name: s.options.Name, Algorithm: s.options.Algorithm, Initial: pool.Healthy, HashPort: s.options.HashPort,
		HashName: s.options.HashName, Zone: s.options.Zone,
	})
	if err != nil {
		return nil, err
	}
	var specs []pool.Spec
	for _, b := range s.pool.Backends() {
		specs = append(specs, pool.Spec{ID: b.ID, Addr: b.Addr, Weight: b.Weight, Tier: b.Tier, Zone: b.Zone,
			Mode: b.Mode})
	}
	if err := idle.Add(specs...); err != nil {
		return nil, err
	}
	for addr, client := range clients {
		if l, err := idle.Pick(pool.PickContext{Client: client}); err == nil {
			backends[addr] = l.Backend().ID()
			l.Release(pool.Neutral)
		}
	}
	return backends, nil
}

// An ending is a function to be called at a later time, mostly the end of a session.
type ending struct {
	at  time.Duration
	end func()
}

// endings is a heap, the next one first.
type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push adds an ending; see container/heap.
func (e *endings) Push(x any) { *e = append(*e, x.(ending)) }

// Pop removes the last ending; see container/heap.
func (e *endings) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
