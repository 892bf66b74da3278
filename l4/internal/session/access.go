package session

import (
	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// logBegin writes a line when a session has its backend, at level debug.
func (l *Loop) logBegin(s *Session) {
	ev := l.access.Log.Debug()
	if !ev.Enabled() {
		return
	}
	var text [128]byte
	ev.Bytes("session", s.id.Append(text[:0])).Str("listener", s.listener.Name).Str("pool", s.pool.Name())
	b := s.lease.Backend()
	ev.Str("backend", b.ID()).Bytes("backend_address", s.addressOf(b).AppendTo(text[:0]))
	l.logClient(ev, s)
	ev.Int("retries", len(s.tried())).Str("event", "session_began").Msg("session began")
}

// logClient adds who the client of a session is.
func (l *Loop) logClient(ev *zerolog.Event, s *Session) {
	var text [128]byte
	if s.byUnix() {
		ev.Bytes("client", s.extra.process.AppendTo(text[:0]))
	} else {
		ev.Bytes("client", s.peer.AppendTo(text[:0]))
	}
	if via := s.Via(); via.IsValid() {
		ev.Bytes("via", via.AppendTo(text[:0]))
	}
}

// logEnd writes the access line of a session. Times are in seconds; those of phases it did not reach are
// left out. connect_time is that of the connect that succeeded, retries the ones that did not before it.
func (l *Loop) logEnd(s *Session, why tally.Reason) {
	ev := l.access.Log.Info()
	if !ev.Enabled() {
		return
	}
	var text [128]byte
	ev.Bytes("session", s.id.Append(text[:0])).Str("listener", s.listener.Name)
	if s.pool != nil {
		ev.Str("pool", s.pool.Name())
	}
	retries := len(s.tried())
	b := s.lease.Backend()
	if s.phase != relaying {
		b = nil
		if retries > 0 {
			b = s.tried()[retries-1]
			retries--
		}
	}
	if b != nil {
		ev.Str("backend", b.ID()).Bytes("backend_address", s.addressOf(b).AppendTo(text[:0]))
	}
	l.logClient(ev, s)
	ev.Uint64("bytes_in", s.in.bytes).
		Uint64("bytes_out", s.out.bytes).
		Float64("duration", (l.Now - s.accepted).Seconds())
	if s.waiter != nil {
		ev.Float64("queue_time", s.waited(l.Now).Seconds())
	}
	if s.phase == relaying {
		ev.Float64("connect_time", (s.connected - s.connect).Seconds())
	}
	if s.firstByte > 0 {
		ev.Float64("first_byte_time", (s.firstByte - s.accepted).Seconds())
	}
	ev.Int("retries", retries).Str("reason", why.String())
	if x := s.extra; x != nil && x.failure != "" {
		ev.Str("err", x.failure)
	} else if s.cause != 0 {
		ev.Str("err", sock.Text(s.cause))
	}
	ev.Str("event", "session_ended").Msg("session ended")
}
