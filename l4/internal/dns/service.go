package dns

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// A Service is what the loops share of a listener with DNS settings. It lasts until these change, or the listener goes.
// Its methods may be called from any goroutine, but for Open.
type Service struct {
	// set once, then read-only
	listener   *gate.Listener
	pool       func() *pool.Pool // the listener's, now
	chain      *dial.Chain       // of the sockets to backends
	settings   Settings
	tcp        bool                    // clients come, and backends are asked, by TCP
	cache      *dnscache.Cache[client] // nil for none
	forwarders []*forwarder            // one for each loop
	sibling    *Service                // that has the same cache; nil for none
	crowded    wire.DNSError           // what clients are told with SERVFAIL when too many questions wait

	failing atomic.Pointer[failing] // of the pool that was the listener's when a question failed last
}

// A client is who waits for an answer, and whose forwarder is to give it: the sender of a datagram, or else a session.
type client struct {
	forwarder *forwarder
	id        gate.ClientID // as which it is counted
	byTCP     bool
	from      flow.Sender // unless byTCP
	session   session.Ref // if byTCP
}

// NewService makes the service of a listener, whose backends pool returns. tcp says that its clients come by TCP: then
// the service is an Opener of its sessions. Settings are valid, see Settings.Validate.
func NewService(loops []*Loop, ls *gate.Listener, pool func() *pool.Pool, settings Settings, tcp bool) *Service {
	s := newService(ls, pool, settings, tcp)
	s.makeCache()
	s.makeForwarders(loops)
	return s
}

// NewPair makes the services of two listeners of one name, of TCP and of UDP. They share one cache. The other arguments
// are those of NewService.
func NewPair(
	loops []*Loop, tcp, udp *gate.Listener, tcpPool, udpPool func() *pool.Pool, settings Settings,
) (byTCP, byUDP *Service) {
	byTCP, byUDP = newService(tcp, tcpPool, settings, true), newService(udp, udpPool, settings, false)
	byTCP.makeCache()
	byTCP.sibling, byUDP.sibling, byUDP.cache = byUDP, byTCP, byTCP.cache
	byTCP.makeForwarders(loops)
	byUDP.makeForwarders(loops)
	return byTCP, byUDP
}

// Sibling is the service that has the same cache; nil if there is none.
func (s *Service) Sibling() *Service { return s.sibling }

func newService(ls *gate.Listener, pool func() *pool.Pool, settings Settings, tcp bool) *Service {
	s := &Service{listener: ls, pool: pool, chain: dial.NewChain(ls.ID), settings: settings, tcp: tcp}
	s.crowded = wire.DNSError{Code: wire.DNSFailed, Extended: wire.DNSOther,
		Text: fmt.Sprintf("too many questions wait at listener %q", ls.Name)}
	return s
}

// makeCache makes the cache, if the settings ask for one.
func (s *Service) makeCache() {
	if s.settings.Cache.MaxEntries > 0 {
		o := s.settings.cacheOptions()
		o.Explain = func() []byte { return s.unanswered().AppendOption(nil) }
		s.cache = dnscache.New[client](o)
	}
}

func (s *Service) makeForwarders(loops []*Loop) {
	for _, l := range loops {
		s.forwarders = append(s.forwarders, newForwarder(l, s))
	}
}

// Serve puts the service before the flows of a listener of UDP on this loop, or has it answer its listener's sessions
// if udp is nil.
func (l *Loop) Serve(s *Service, udp *flow.Listener) {
	f := s.forwarders[l.Index]
	l.prepare()
	if !slices.Contains(l.forwarders, f) {
		l.forwarders = append(l.forwarders, f)
	}
	if udp == nil {
		l.talkers[s.listener] = f
		return
	}
	l.flows.Filter(udp, f)
}

// A failing is what clients are told with SERVFAIL when no backend of a pool has answered; immutable.
type failing struct {
	pool string
	why  wire.DNSError
}

// unanswered is what clients are told with SERVFAIL when no backend has answered.
func (s *Service) unanswered() *wire.DNSError {
	name := s.pool().Name()
	f := s.failing.Load()
	if f == nil || f.pool != name {
		f = &failing{pool: name, why: wire.DNSError{Code: wire.DNSFailed, Extended: wire.DNSUnreachable,
			Text: fmt.Sprintf("no backend of pool %q has answered", name)}}
		s.failing.Store(f)
	}
	return &f.why
}

// Retire says that the listener has another service, or is gone. The questions in flight are answered still.
func (l *Loop) Retire(s *Service) { s.forwarders[l.Index].drain() }

// An Info is what a service has counted since it was made; a plain value. Each number is true by itself, not all of
// them at one moment.
type Info struct {
	Cache dnscache.Counters // all zero without a cache

	InFlight int // questions at backends now
	Sockets  int // that they are asked by now

	Asked       uint64 // questions sent to a backend, each try
	Answered    uint64 // of these, those with an answer
	TimedOut    uint64 // those without one in time
	Unreachable uint64 // those whose backend could not be reached: ICMP said so, or a connection was not made
	Failed      uint64 // questions that no backend has answered after all tries
	Mismatched  uint64 // datagrams and messages from backends that answer nothing that was asked: late, malformed, forged
}

// counts is what one forwarder has counted: written onLoop, read by anyone.
type counts struct {
	inFlight, sockets                                          atomic.Int64
	asked, answered, timedOut, unreachable, failed, mismatched atomic.Uint64
}

// Info returns what the service has counted.
func (s *Service) Info() *Info {
	info := new(Info)
	if s.cache != nil {
		info.Cache = s.cache.Counters()
	}
	for _, f := range s.forwarders {
		c := &f.counts
		info.InFlight += int(c.inFlight.Load())
		info.Sockets += int(c.sockets.Load())
		info.Asked += c.asked.Load()
		info.Answered += c.answered.Load()
		info.TimedOut += c.timedOut.Load()
		info.Unreachable += c.unreachable.Load()
		info.Failed += c.failed.Load()
		info.Mismatched += c.mismatched.Load()
	}
	return info
}
