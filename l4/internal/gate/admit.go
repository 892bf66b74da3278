package gate

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// isOpen reports whether nothing of the listener depends on who a client is, or on how often clients come.
func (ls *Listener) isOpen(s *Settings) bool {
	return s.Access == nil && !s.Limits.Rate.On() && ls.clients.Load() == nil && ls.gate.rules.Load() == nil
}

// admitClient asks for whatever depends on who the client is. most is how many it may have at once; 0 = without a limit.
// With Admitted the client has one more, until leaveClient.
func (ls *Listener) admitClient(s *Settings, client netip.Addr, place *Place, most int, now time.Duration) Reason {
	if !ls.letsIn(s, client) {
		return ls.refuse(Denied, client)
	}
	t := ls.clients.Load()
	if t == nil {
		return Admitted
	}
	if why := t.admit(t.mask.id(client.As16()), &s.Limits, most, true, now); why != Admitted {
		if why = ls.refuseUnlessDry(s, why, client); why != Admitted {
			return why
		}
	}
	*place = t.epoch
	return Admitted
}

// admitOften asks whether one more client may come. If not, the client gives its place back.
func (ls *Listener) admitOften(s *Settings, client netip.Addr, place *Place, now time.Duration) Reason {
	if !s.Limits.Rate.On() || ls.rate.Take(ls.limit(s), now) == 0 {
		return Admitted
	}
	why := ls.refuseUnlessDry(s, Often, client)
	if why != Admitted {
		ls.leaveClient(*place, client)
		*place = 0
		if t := ls.clients.Load(); t != nil && client.IsValid() {
			t.refuse(t.mask.id(client.As16()))
		}
	}
	return why
}

// refuse notes a refusal, and returns its reason.
func (ls *Listener) refuse(why Reason, client netip.Addr) Reason {
	ls.noteRefusal(why, client, false)
	return why
}

// refuseUnlessDry notes a refusal, and returns its reason; Admitted in a dry run.
func (ls *Listener) refuseUnlessDry(s *Settings, why Reason, client netip.Addr) Reason {
	ls.noteRefusal(why, client, s.Limits.DryRun)
	if s.Limits.DryRun {
		return Admitted
	}
	return why
}

// leaveClient gives a place at a client back.
func (ls *Listener) leaveClient(place Place, client netip.Addr) {
	if place == 0 {
		return
	}
	if t := ls.clients.Load(); t != nil && t.epoch == place {
		t.leave(t.mask.id(client.As16()))
	}
}

// nextEpoch returns the epoch of the listener's next table: never 0, so that it tells a place from none.
func (ls *Listener) nextEpoch() Place {
	ls.epoch++
	if ls.epoch == 0 {
		ls.epoch = 1
	}
	return ls.epoch
}

// Delays reports whether clients are left in the kernel's queue while the listener or the process is over a limit. Then
// Claim must be asked before a client is accepted.
func (ls *Listener) Delays() bool { return ls.settings().Limits.Over == OverDelay }

// claimAgain is how long a socket waits for a place of which nobody says that it is free.
const claimAgain = 50 * time.Millisecond

// Claim takes a place for a session that is about to be accepted. Without Admitted there is none, and again is when to
// ask again: clients wait in the kernel's queue meanwhile. A place that nobody came for is given back with Unclaim.
func (ls *Listener) Claim(now time.Duration) (again time.Duration, why Reason) {
	s := ls.settings()
	limit := ls.claimed(s)
	if wait := ls.rate.Take(limit, now); wait > 0 {
		return now + wait, Often
	}
	if why := ls.countSession(s); why != Admitted {
		ls.rate.Return(limit)
		return now + claimAgain, why
	}
	return 0, Admitted
}

// Unclaim gives back the place that Claim has taken.
func (ls *Listener) Unclaim() {
	ls.rate.Return(ls.claimed(ls.settings()))
	ls.uncountSession()
}

// claimed is the rate at which places are claimed. In a dry run the rate is asked when a client has come.
func (ls *Listener) claimed(s *Settings) rate.Limit {
	if s.Limits.DryRun {
		return rate.Limit{}
	}
	return ls.limit(s)
}

// limit is the rate of all clients together that is in force.
func (ls *Listener) limit(s *Settings) rate.Limit { return s.Limits.rate(ls.gate.RateShare()) }

// Hold says that clients of one more listening socket wait for a place, or of one less.
func (ls *Listener) Hold(more bool) {
	if more {
		ls.gate.held.Add(1)
	} else {
		ls.gate.held.Add(-1)
	}
}

// NoteDelay tells now and then that clients of the listener wait in the kernel's queue.
func (ls *Listener) NoteDelay(why Reason) {
	g := ls.gate
	if ls.delayNote.due(g) {
		g.log.Info().Str("listener", ls.Name).Stringer("reason", why.Ends()).
			Int64("listener_sessions", ls.sessions.Load()).Int64("sessions", g.sessions.Load()).
			Str("event", "clients_delayed").Msg("clients wait in the kernel's queue: over a limit")
	}
}
