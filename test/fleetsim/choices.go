package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/pool"
)

// maxSessions is how many sessions have a client of their own in clientOf.
const maxSessions = 1 << 26

// nodesOfPool is how many nodes share a pool if a choice does not depend on what else the node has. The tables of
// 10,000 backends take a third of a second to build.
const nodesOfPool = 10

// An algorithm is a way to choose among a number of backends. It is a plain value.
type algorithm struct {
	kind     string
	bound    float64 // hash_balance; 0 for none
	backends int
}

func (a algorithm) String() string {
	if a.bound > 0 {
		return fmt.Sprintf("%s, hash_balance %v", a.kind, a.bound)
	}
	return a.kind
}

// hashes reports whether the choice depends on the client alone.
func (a algorithm) hashes() bool { return a.kind != "random" && a.bound == 0 }

// choices are the figures of one algorithm. It is a plain value. Shares are of all sessions.
type choices struct {
	Algorithm string  `json:"algorithm"`
	Bound     float64 `json:"hash_balance,omitempty"`
	Backends  int     `json:"backends"`
	Mean      float64 `json:"sessions_of_a_backend"`
	Max       float64 `json:"max_over_mean"`
	P99       float64 `json:"p99_over_mean"`
	Min       float64 `json:"min_over_mean"`
	// Bounded is the share of sessions that hash_balance has sent elsewhere.
	Bounded float64 `json:"bounded,omitempty"`
	// NodeLeaves says what happens when a node leaves and ECMP gives nearly all sessions to other nodes.
	NodeLeaves *handedOver `json:"node_leaves,omitempty"`
	// Of the others, nil if the client alone does not decide: one backend is removed, or added.
	BackendLeaves *moved `json:"backend_leaves,omitempty"`
	BackendComes  *moved `json:"backend_comes,omitempty"`

	chosen []int32 // the backend of each session
}

// handedOver are sessions that another node chooses a backend for. It is a plain value.
type handedOver struct {
	Sessions int `json:"sessions"` // that reach another node
	Moved    int `json:"moved"`    // for which that node chooses another backend
}

// moved are the shares of sessions that have another backend after a change. It is a plain value.
type moved struct {
	Had    float64 `json:"had_to"` // from the backend that left, or to the one that came
	Others float64 `json:"others"` // between two backends that stay
}

// clientOf returns the client of a session, which has no other one.
func clientOf(session int32) netip.AddrPort {
	at := uint32(session) + 11<<24 // 11.0.0.0 and up
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)}), 40000)
}

// newPool returns a node's pool: with its backends in the node's order.
func newPool(a algorithm, node int) (*pool.Pool, error) {
	p, err := pool.New(pool.Options{Name: "all", Algorithm: a.kind, HashBalance: a.bound, Initial: pool.Healthy})
	if err != nil {
		return nil, err
	}
	order := rand.New(rand.NewPCG(uint64(node), 1)).Perm(a.backends)
	specs := make([]pool.Spec, a.backends)
	for i, b := range order {
		specs[i] = specOf(b)
	}
	return p, p.Add(specs...)
}

// specOf returns a backend by its number.
func specOf(backend int) pool.Spec {
	at := netip.AddrFrom4([4]byte{10, byte(backend >> 16), byte(backend >> 8), byte(backend)})
	return pool.Spec{ID: backendName(backend), Addr: pool.At(netip.AddrPortFrom(at, 6379)), Weight: 1}
}

func backendName(backend int) string { return fmt.Sprintf("b%06d", backend) }

// numberOf returns the number of a backend.
func numberOf(b *pool.Backend) (n int32) {
	for _, digit := range b.ID()[1:] {
		n = n*10 + digit - '0'
	}
	return n
}

// measureChoices has every node choose a backend for each of its sessions, then takes one node away, and then changes
// the backends.
func measureChoices(ctx context.Context, o options, a algorithm) (*choices, error) {
	c := &choices{Algorithm: a.kind, Bound: a.bound, Backends: a.backends, chosen: make([]int32, o.sessions)}
	again := make([]int32, o.sessions) // by the nodes that have the sessions once a node has left
	// the last node leaves
	before, after := sessionsOf(o, o.nodes), append(sessionsOf(o, o.nodes-1), nil)
	shared := nodesOfPool
	if a.bound > 0 {
		shared = 1
	}
	err := eachNode(ctx, (o.nodes+shared-1)/shared, func(first int) error {
		p, err := newPool(a, first)
		for node := first * shared; node < min((first+1)*shared, o.nodes) && err == nil; node++ {
			err = chooseTwice(p, before[node], after[node], c.chosen, again)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c.spread()
	if a.kind != "random" {
		c.NodeLeaves = new(handedOver)
		for session := range c.chosen {
			if nodeOf(session, o.nodes) != nodeOf(session, o.nodes-1) {
				c.NodeLeaves.Sessions++
				if c.chosen[session] != again[session] {
					c.NodeLeaves.Moved++
				}
			}
		}
	}
	if a.hashes() {
		err = c.changeBackends(a)
	}
	return c, err
}

// nodeOf returns the node that ECMP over so many nodes gives a session to.
func nodeOf(session, nodes int) int { return int(algo.Mix(uint64(session)^0x5eed) % uint64(nodes)) }

// sessionsOf returns the sessions of each node.
func sessionsOf(o options, nodes int) [][]int32 {
	all := make([][]int32, nodes)
	for session := range o.sessions {
		node := nodeOf(session, nodes)
		all[node] = append(all[node], int32(session))
	}
	return all
}

// eachNode calls f for the numbers of nodes, several at once.
func eachNode(ctx context.Context, nodes int, f func(node int) error) error {
	work := make(chan int)
	var working sync.WaitGroup
	var mu sync.Mutex
	var failed error // mu guards it
	for range runtime.GOMAXPROCS(0) {
		working.Go(func() {
			for node := range work {
				if err := f(node); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for node := range nodes {
		if ctx.Err() != nil {
			break
		}
		work <- node
	}
	close(work)
	working.Wait()
	if failed != nil {
		return failed
	}
	return ctx.Err()
}

// chooseTwice opens the sessions of a node, ends those that reach other nodes later, and opens those that come from
// other nodes then. Both lists are in order.
func chooseTwice(p *pool.Pool, before, after, chosen, again []int32) error {
	open := make([]pool.Lease, len(before))
	for i, session := range before {
		l, err := p.Pick(pool.PickContext{Client: clientOf(session)})
		if err != nil {
			return err
		}
		open[i], chosen[session] = l, numberOf(l.Backend())
	}
	for i, session := range before {
		if _, stays := slices.BinarySearch(after, session); !stays {
			open[i].Release(pool.Served)
		}
	}
	for _, session := range after {
		if i, stayed := slices.BinarySearch(before, session); stayed {
			again[session] = numberOf(open[i].Backend())
			continue
		}
		l, err := p.Pick(pool.PickContext{Client: clientOf(session)})
		if err != nil {
			return err
		}
		again[session] = numberOf(l.Backend())
	}
	return nil
}

// spread computes how even the choices are.
func (c *choices) spread() {
	counts := make([]int, c.Backends)
	for _, b := range c.chosen {
		counts[b]++
	}
	slices.Sort(counts)
	c.Mean = float64(len(c.chosen)) / float64(c.Backends)
	c.Max = float64(counts[len(counts)-1]) / c.Mean
	c.P99 = float64(counts[len(counts)*99/100]) / c.Mean
	c.Min = float64(counts[0]) / c.Mean
}

// different returns the share of sessions that have another backend than in other.
func (c *choices) different(other *choices) float64 {
	n := 0
	for session, b := range c.chosen {
		if b != other.chosen[session] {
			n++
		}
	}
	return float64(n) / float64(len(c.chosen))
}

// changeBackends removes a backend, brings it back, and adds another one, all on one node, since all nodes agree.
func (c *choices) changeBackends(a algorithm) error {
	p, err := newPool(a, 0)
	if err != nil {
		return err
	}
	gone, come := a.backends/2, a.backends
	if err := p.Remove(backendName(gone)); err != nil {
		return err
	}
	if c.BackendLeaves, err = c.compare(p, gone); err != nil {
		return err
	}
	if err := p.Add(specOf(gone), specOf(come)); err != nil {
		return err
	}
	c.BackendComes, err = c.compare(p, come)
	return err
}

// sampled is one of how many sessions compare asks for.
const sampled = 4

// compare asks a pool again for a part of the sessions, after this backend has left or come.
func (c *choices) compare(p *pool.Pool, changed int) (*moved, error) {
	had, others := make([]int, runtime.GOMAXPROCS(0)), make([]int, runtime.GOMAXPROCS(0))
	err := eachNode(context.Background(), len(had), func(part int) error { // here the parts of the sessions
		for session := sampled * part; session < len(c.chosen); session += sampled * len(had) {
			l, err := p.Pick(pool.PickContext{Client: clientOf(int32(session))})
			if err != nil {
				return err
			}
			switch now, was := numberOf(l.Backend()), c.chosen[session]; {
			case now == was:
			case int(now) == changed || int(was) == changed:
				had[part]++
			default:
				others[part]++
			}
			l.Release(pool.Served)
		}
		return nil
	})
	var m moved
	for i := range had {
		m.Had += float64(had[i]*sampled) / float64(len(c.chosen))
		m.Others += float64(others[i]*sampled) / float64(len(c.chosen))
	}
	return &m, err
}
