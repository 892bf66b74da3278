package l4

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
)

// A dnsService is what the loops share of a listener with DNS settings. It lasts until these change, or the listener goes.
type dnsService struct {
	// set once, then read-only
	listener *listener
	chain    *chain // of its sockets to backends
	settings DNSSettings
	tcp      bool                       // clients come, and backends are asked, by TCP
	cache    *dnscache.Cache[dnsClient] // nil for none
	askers   []*dnsAsker                // one for each loop
}

// A dnsClient is a client that waits for an answer, and whose asker is to give it: who has sent a datagram, or else a session.
type dnsClient struct {
	asker      *dnsAsker
	id         clientID // as which it is counted
	from       caller
	session    *session // nil for a datagram
	generation uint32   // of the session
}

// A dnsTally is what one asker has counted: written onLoop, read by anyone.
type dnsTally struct {
	inFlight, sockets                                          atomic.Int64
	asked, answered, timedOut, unreachable, failed, mismatched atomic.Uint64
}

func newDNSService(s *Server, ls *listener, spec *ListenerSpec) *dnsService {
	settings := *spec.DNS
	service := &dnsService{listener: ls, chain: &chain{[]*listener{ls}}, settings: settings, tcp: spec.Protocol == TCP}
	if settings.Cache.MaxEntries > 0 {
		service.cache = dnscache.New[dnsClient](settings.cacheOptions())
	}
	for _, l := range s.loops {
		service.askers = append(service.askers, newDNSAsker(l, service))
	}
	return service
}

// swapDNSLocked gives a listener the service that its new spec asks for, and returns the one it had if that is another. Server.mu is held.
func (s *Server) swapDNSLocked(ls *listener, old, spec *ListenerSpec) (left *dnsService, changed bool) {
	if old != nil && old.sameDNS(spec) || old == nil && spec.DNS == nil {
		return nil, false
	}
	left, ls.dns = ls.dns, nil
	if spec.DNS != nil {
		ls.dns = newDNSService(s, ls, spec)
	}
	return left, true
}

func (service *dnsService) info() *DNSInfo {
	info := new(DNSInfo)
	if service.cache != nil {
		info.Cache = service.cache.Counters()
	}
	for _, k := range service.askers {
		t := &k.tally
		info.InFlight += int(t.inFlight.Load())
		info.Sockets += int(t.sockets.Load())
		info.Asked += t.asked.Load()
		info.Answered += t.answered.Load()
		info.TimedOut += t.timedOut.Load()
		info.Unreachable += t.unreachable.Load()
		info.Failed += t.failed.Load()
		info.Mismatched += t.mismatched.Load()
	}
	return info
}

// screenDoors has a service, or none, stand before the flows of a listener, or answer its sessions' questions. onLoop.
func (l *loop) screenDoors(ls *listener, service *dnsService) {
	var stands screen
	if service != nil {
		k := service.askers[l.index]
		l.dns.prepare(l.server.offload.GSO)
		if !slices.Contains(l.dns.askers, k) {
			l.dns.askers = append(l.dns.askers, k)
		}
		stands = k
		if service.tcp {
			l.dns.talkers[ls] = k
			return
		}
	}
	for _, d := range l.flows.doors {
		if d != nil && d.listener == ls {
			d.screen = stands
		}
	}
}

// drainQuestions waits for the answers of those who wait for one at doors that admit nobody any more, and from the end of ctx on
// has them answered without a backend. Flows are over by then.
func (s *Server) drainQuestions(ctx context.Context) error {
	s.mu.Lock()
	bindings := append([]*binding(nil), s.leaving...)
	for _, ls := range s.listeners {
		bindings = append(bindings, ls.bound)
	}
	s.mu.Unlock()
	var err error
	for _, b := range bindings {
		if b.protocol != UDP || b.ending.flows.Load() == 0 {
			continue
		}
		select {
		case <-b.ending.gone:
			continue
		case <-ctx.Done():
		}
		if err == nil {
			err = ctx.Err()
			s.onLoops((*loop).failQuestions)
		}
		<-b.ending.gone
	}
	return err
}
