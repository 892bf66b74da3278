package daemon

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/healthcheck/probe"
	"github.com/limeload/limeload-l4/pool"
)

// An agentPool asks the agents on the hosts of a pool's backends, and keeps what they have said last in force. The
// scheduler of the checks decides when. An agent that cannot be reached changes nothing. Its methods may be called from
// any goroutine.
type agentPool struct {
	// set once, then read-only
	log       zerolog.Logger
	pool      *pool.Pool
	scheduler *healthcheck.Scheduler
	settings  conf.Agent
	checker   healthcheck.Checker

	changed   *pool.Subscription // set by start
	following sync.WaitGroup

	inherited map[string]*agent // of the agentPool before; only start uses it

	mu sync.Mutex
	// mu guards the fields below
	agents map[string]*agent // by backend
}

// An agent is the agent of one backend.
type agent struct {
	at      netip.AddrPort // not valid if the backend has no host
	said    pool.Agent
	unknown string // the word that was warned about last
	missed  bool   // it could not be asked the last time
}

// agentTargetID returns the id of the target of a backend's agent, which no backend's check has.
func agentTargetID(pool, backend string) string { return "agent of " + targetID(pool, backend) }

// newAgentPool asks nobody before start. It returns nil if the pool has no agents.
func newAgentPool(log zerolog.Logger, s *healthcheck.Scheduler, p *pool.Pool, c *conf.Pool) *agentPool {
	if c.Agent.Port == 0 {
		return nil
	}
	k := &agentPool{log: log, pool: p, scheduler: s, settings: c.Agent, agents: make(map[string]*agent)}
	k.checker = asking{k}
	if len(c.SourceAddrs) > 0 {
		k.checker = probe.From{Sources: c.SourceAddrs, Checker: k.checker}
	}
	return k
}

// policy says how often an agent is asked.
func (k *agentPool) policy() healthcheck.Policy {
	return healthcheck.Policy{
		Interval: k.settings.Interval.Std(), Timeout: k.settings.Timeout.Std(), Rise: 1, Fall: 1, Jitter: 0.1,
	}
}

// start begins to ask the agents, and follows the changes of the pool until end.
func (k *agentPool) start() {
	k.changed = k.pool.Subscribe(eventBuffer)
	k.match()
	k.inherited = nil
	k.following.Go(k.follow)
}

// end asks no more. What the agents have said stays if next, which may be nil, asks the same ones; else it is
// forgotten.
func (k *agentPool) end(next *agentPool) {
	k.changed.Close()
	k.following.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	if next != nil && next.settings.Port == k.settings.Port {
		next.inherited = k.agents
		for id := range k.agents {
			k.scheduler.Remove(agentTargetID(k.pool.Name(), id))
		}
		k.agents = nil
		return
	}
	for id := range k.agents {
		k.removeLocked(id)
	}
}

// follow asks the agents of the backends that the pool has, until the subscription is closed.
func (k *agentPool) follow() {
	var lost uint64
	for e := range k.changed.C() {
		changed := isMembership(e)
		for range len(k.changed.C()) {
			changed = isMembership(<-k.changed.C()) || changed
		}
		if dropped := k.changed.Dropped(); changed || dropped != lost {
			lost = dropped
			k.match()
		}
	}
}

// match updates the agents to the pool's backends.
func (k *agentPool) match() {
	k.mu.Lock()
	defer k.mu.Unlock()
	there := make(map[string]bool)
	for _, b := range k.pool.Backends() {
		there[b.ID] = true
		var at netip.AddrPort
		if host := b.Addr.Addr(); host.IsValid() {
			at = netip.AddrPortFrom(host, uint16(k.settings.Port))
		}
		if a := k.agents[b.ID]; a != nil {
			if a.at == at {
				continue
			}
			k.removeLocked(b.ID)
		}
		k.agents[b.ID] = &agent{at: at}
		if before := k.inherited[b.ID]; before != nil && before.at == at {
			k.agents[b.ID] = before
		}
		if !at.IsValid() { // the configuration allows none, but a discovery may find one
			k.of(k.log.Warn(), b.ID).Str("event", "agent_failed").Msg("a backend without an ip address has no agent")
			continue
		}
		t := healthcheck.Target{
			ID: agentTargetID(k.pool.Name(), b.ID), Group: "agents of " + k.pool.Name(), Name: b.ID, Addr: at, Exact: true,
			Receiver: k,
		}
		if err := k.scheduler.Add(t, k.checker, k.policy()); err != nil {
			k.of(k.log.Error(), b.ID).AnErr("err", err).Str("event", "agent_failed").Msg("agent not asked")
		}
	}
	for id := range k.agents {
		if !there[id] {
			k.removeLocked(id)
		}
	}
}

// removeLocked asks the agent of a backend no more, and forgets what it has said.
func (k *agentPool) removeLocked(id string) {
	k.scheduler.Remove(agentTargetID(k.pool.Name(), id))
	delete(k.agents, id)
	k.set(id, pool.Agent{})
}

// of adds a backend to a line.
func (k *agentPool) of(line *zerolog.Event, backend string) *zerolog.Event {
	return line.Str("pool", k.pool.Name()).Str("backend", backend)
}

// set puts in force what an agent says.
func (k *agentPool) set(backend string, a pool.Agent) {
	if err := ignoreUnknown(k.pool.SetAgent(backend, a)); err != nil {
		k.of(k.log.Error(), backend).AnErr("err", err).Str("event", "agent_failed").Msg("agent not taken")
	}
}

// An asking is the checker that asks agents.
type asking struct{ agents *agentPool }

// Check asks the agent at t.
func (c asking) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	began := time.Now()
	answer, err := probe.AskAgent(ctx, t)
	if err != nil {
		c.agents.miss(t, err)
		return healthcheck.Result{}, err
	}
	c.agents.hear(t, answer)
	return healthcheck.Result{Latency: time.Since(began)}, nil
}

// miss logs once that an agent cannot be asked. What it has said stays.
func (k *agentPool) miss(t healthcheck.Target, err error) {
	if errors.Is(err, healthcheck.ErrInconclusive) || errors.Is(err, context.Canceled) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.agents[t.Name]
	if a == nil || a.at != t.Addr || a.missed {
		return
	}
	a.missed = true
	k.of(k.log.Warn(), t.Name).Stringer("address", t.Addr).Str("reason", err.Error()).Stringer("said", a.said).
		Str("event", "agent_not_understood").Msg("agent not understood: what it said last stays")
}

// hear takes what an agent says. What it does not mention stays.
func (k *agentPool) hear(t healthcheck.Target, answer probe.AgentAnswer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.agents[t.Name]
	if a == nil || a.at != t.Addr {
		return // the backend is gone, or another one
	}
	if a.missed {
		a.missed = false
		k.of(k.log.Info(), t.Name).Str("event", "agent_understood").Msg("agent understood again")
	}
	if answer.Unknown != "" && answer.Unknown != a.unknown {
		k.of(k.log.Warn(), t.Name).Str("word", answer.Unknown).
			Str("event", "agent_unknown_word").Msg("agent says an unknown word, which is ignored")
	}
	a.unknown = answer.Unknown
	a.said = merged(a.said, answer)
	k.set(t.Name, a.said)
}

// merged returns what an agent says after an answer.
func merged(before pool.Agent, answer probe.AgentAnswer) pool.Agent {
	a := before
	switch answer.Mode {
	case "ready":
		a.Mode = pool.Ready
	case "drain":
		a.Mode = pool.Drain
	case "maint":
		a.Mode = pool.Maintenance
	}
	switch answer.Health {
	case "up":
		a.Down, a.Reason = false, ""
	case "down":
		a.Down, a.Reason = true, answer.Reason
	}
	if answer.Weight != nil {
		a.Weighs, a.Percent = true, min(*answer.Weight, pool.MaxAgentPercent)
	}
	if answer.MaxSessions != nil {
		a.MaxSessions = min(*answer.MaxSessions, pool.MaxSessionLimit)
	}
	return a
}

// take has nothing to do: the results of agents are no verdicts.
func (k *agentPool) take([]healthcheck.Change) error { return nil }
