package daemon

import (
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// eventBuffer is how many events of one pool wait for an observer: enough for all backends of a large pool to change at
// once.
const eventBuffer = 1024

// An eventLog writes the events of a pool to the log, and what they mean for clients. It also passes them on to the
// API.
type eventLog struct {
	// set once, then read-only
	daemon *Daemon
	log    zerolog.Logger
	pool   *pool.Pool
	events *pool.Subscription

	lost   uint64
	served bool // a backend was eligible after the last event
	trying bool // no backend was healthy, and all were tried
	fell   bool // no replica was eligible, and the primary served
}

func newEventLog(d *Daemon, p *pool.Pool, events *pool.Subscription) *eventLog {
	return &eventLog{daemon: d, log: d.log, pool: p, events: events}
}

// follow logs until the subscription is closed.
func (l *eventLog) follow() {
	l.served = l.pool.Eligible() > 0
	for e := range l.events.C() {
		if n := l.events.Dropped(); n > l.lost {
			l.log.Warn().Str("pool", l.pool.Name()).Uint64("events", n-l.lost).
				Str("event", "events_lost").Msg("pool events lost")
			l.lost = n
		}
		l.write(e)
		l.publish(e)
		l.writeService()
		l.daemon.poke()
		switch e.(type) {
		case pool.Added, pool.Removed, pool.WeightChanged, pool.LimitChanged, pool.RateChanged, pool.ModeChanged,
			pool.Overruled:
			l.daemon.fleet.poolChanged(l.pool.Name())
		}
	}
}

// write logs one event. from and to are always strings, since log stores want one type for each name.
func (l *eventLog) write(e pool.Event) {
	switch e := e.(type) {
	case pool.VerdictChanged:
		line := l.log.Info()
		if worrying(e.From, e.To) {
			line = l.log.Warn()
		}
		l.of(line, e.Change).Stringer("from", e.From).Stringer("to", e.To).Str("reason", e.Reason).
			Str("event", "verdict_changed").Msg("verdict changed")
	case pool.Added:
		l.of(l.log.Info(), e.Change).Str("source", e.Backend.Source).Uint32("weight", e.Backend.Weight).
			Str("event", "backend_added").Msg("backend added")
	case pool.Removed:
		l.of(l.log.Info(), e.Change).Str("source", e.Backend.Source).Int64("sessions", e.Backend.Leases).
			Str("event", "backend_removed").Msg("backend removed")
	case pool.ModeChanged:
		l.of(l.log.Info(), e.Change).Stringer("from", e.From).Stringer("to", e.To).Int64("sessions", e.Backend.Leases).
			Str("event", "mode_changed").Msg("mode changed")
	case pool.WeightChanged:
		l.of(l.log.Info(), e.Change).Str("from", fmt.Sprint(e.From)).Str("to", fmt.Sprint(e.To)).
			Str("event", "weight_changed").Msg("weight changed")
	case pool.LimitChanged:
		l.of(l.log.Info(), e.Change).Str("from", fmt.Sprint(e.From)).Str("to", fmt.Sprint(e.To)).
			Str("event", "max_sessions_changed").Msg("max_sessions changed")
	case pool.RateChanged:
		l.of(l.log.Info(), e.Change).Stringer("from", e.From).Stringer("to", e.To).
			Str("event", "max_rate_changed").Msg("max_rate changed")
	case pool.CheckChanged:
		l.of(l.log.Info(), e.Change).Str("from", checkText(e.From)).Str("to", checkText(e.To)).
			Str("event", "check_changed").Msg("check changed")
	case pool.RoleChanged:
		l.of(l.log.Info(), e.Change).Stringer("from", e.From).Stringer("to", e.To).Str("source", e.Backend.Source).
			Str("event", "role_changed").Msg("role changed")
	case pool.AgentChanged:
		line := l.log.Info()
		if e.To.Down && !e.From.Down {
			line = l.log.Warn()
		}
		l.of(line, e.Change).Stringer("from", e.From).Stringer("to", e.To).
			Str("event", "agent_changed").Msg("agent changed")
	case pool.BreakerChanged:
		line := l.log.Info()
		if e.To == pool.Open {
			line = l.log.Warn().Float64("open_for", e.For.Seconds())
		}
		l.of(line, e.Change).Stringer("from", e.From).Stringer("to", e.To).Str("reason", e.Reason).
			Str("event", "breaker_changed").Msg("breaker changed")
	case pool.Suspected:
		l.of(l.log.Debug(), e.Change).Str("event", "backend_suspected").Msg("backend suspected")
	case pool.Overruled:
		l.of(l.log.Warn(), e.Change).Str("reason", e.Dropped.String()).
			Str("event", "run_time_change_dropped").Msg("run-time change dropped")
	case pool.Discovered:
		empty := errors.Is(e.Err, discovery.ErrNoBackend)
		if e.Err != nil && e.Found == 0 && !empty {
			l.log.Warn().Str("pool", e.Pool).Str("source", e.Source).AnErr("err", e.Err).
				Str("event", "discovery_failed").Msg("discovery failed")
			return
		}
		line, message := l.log.Info(), "discovered"
		switch {
		case e.Err != nil && !empty:
			line, message = l.log.Warn().AnErr("err", e.Err), "discovered, except for some that are of no use"
		case e.Found == 0: // a valid answer, so on_error does not apply
			line, message = l.log.Warn().AnErr("err", e.Err), "discovery names no backend: the pool has none from it"
		}
		line.Str("pool", e.Pool).Str("source", e.Source).Int("found", e.Found).Int("added", e.Changed.Added).
			Int("removed", e.Changed.Removed).Int("changed", e.Changed.Changed).Int("ignored", e.Changed.Ignored).
			Str("event", "discovered").Msg(message)
	}
}

// worrying reports whether a change of a verdict is a reason for a warning. A standby that is found where the primary
// is wanted, and a primary where replicas are, are as intended. A backend that served and loses its role is not.
func worrying(from, to pool.Verdict) bool {
	switch to {
	case pool.Healthy, pool.Fallback:
		return false
	case pool.WrongRole:
		return from == pool.Healthy || from == pool.Fallback
	}
	return true
}

// of adds the backend of an event to a line.
func (l *eventLog) of(line *zerolog.Event, c pool.Change) *zerolog.Event {
	return line.Str("pool", c.Pool).Str("backend", c.Backend.ID).Stringer("backend_address", c.Backend.Addr)
}

// writeService logs when the last eligible backend is lost, when the first one is back, when a pool tries backends that
// are not healthy, and when the primary serves for want of replicas.
func (l *eventLog) writeService() {
	eligible, trying, falls := l.pool.Eligible(), l.pool.TriesAll(), l.pool.FallsBack()
	switch {
	case eligible == 0 && l.served:
		l.log.Error().Str("pool", l.pool.Name()).
			Str("event", "pool_cannot_serve").Msg("no backend is eligible: clients are refused")
	case trying && !l.trying:
		l.log.Error().Str("pool", l.pool.Name()).Int("eligible", eligible).
			Str("event", "pool_tries_all").Msg("no backend is healthy: all are tried")
	case falls && !l.fell:
		l.log.Info().Str("pool", l.pool.Name()).Int("eligible", eligible).
			Str("event", "pool_falls_back").Msg("no replica is eligible: the primary serves")
	case !falls && l.fell && eligible > 0:
		l.log.Info().Str("pool", l.pool.Name()).Int("eligible", eligible).
			Str("event", "pool_serves_replicas").Msg("replicas serve again")
	case eligible > 0 && (!l.served || !trying && l.trying):
		l.log.Info().Str("pool", l.pool.Name()).Int("eligible", eligible).
			Str("event", "pool_can_serve").Msg("pool can serve")
	}
	l.served, l.trying, l.fell = eligible > 0, trying && eligible > 0, falls
}

// publish sends one event to the readers of the API's stream.
func (l *eventLog) publish(e pool.Event) {
	of := func(kind string, c pool.Change, from, to any, reason string) {
		event := admin.Event{At: c.At, Kind: kind, Pool: c.Pool, Backend: c.Backend.ID, Reason: reason}
		if c.Backend.Addr.IsValid() {
			event.Address = c.Backend.Addr.String()
		}
		if from != nil {
			event.From, event.To = fmt.Sprint(from), fmt.Sprint(to)
		}
		l.daemon.events.publish(event)
	}
	switch e := e.(type) {
	case pool.Added:
		of("backend_added", e.Change, nil, nil, apiSource(e.Backend.Source))
	case pool.Removed:
		of("backend_removed", e.Change, nil, nil, "")
	case pool.VerdictChanged:
		of("verdict_changed", e.Change, e.From, e.To, e.Reason)
	case pool.ModeChanged:
		of("mode_changed", e.Change, e.From, e.To, "")
	case pool.WeightChanged:
		of("weight_changed", e.Change, e.From, e.To, "")
	case pool.LimitChanged:
		of("max_sessions_changed", e.Change, e.From, e.To, "")
	case pool.RateChanged:
		of("max_rate_changed", e.Change, e.From.String(), e.To.String(), "")
	case pool.CheckChanged:
		of("check_changed", e.Change, checkText(e.From), checkText(e.To), "")
	case pool.RoleChanged:
		of("role_changed", e.Change, e.From, e.To, e.Backend.Source)
	case pool.AgentChanged:
		of("agent_changed", e.Change, e.From, e.To, e.To.Reason)
	case pool.BreakerChanged:
		of("breaker_changed", e.Change, e.From, e.To, e.Reason)
	case pool.Overruled:
		of("run_time_change_dropped", e.Change, nil, nil, e.Dropped.String())
	case pool.Discovered:
		reason := fmt.Sprintf("%s named %d %s", e.Source, e.Found, plural(e.Found, "backend"))
		if e.Found == 0 {
			reason = fmt.Sprintf("%s named no backend: %d removed", e.Source, e.Changed.Removed)
		}
		switch {
		case errors.Is(e.Err, discovery.ErrNoBackend): // an answer
		case e.Err != nil && e.Found > 0:
			reason += "; of no use: " + e.Err.Error()
		case e.Err != nil:
			reason = e.Source + ": " + e.Err.Error()
		}
		of("discovered", e.Change, nil, nil, reason)
	}
}
