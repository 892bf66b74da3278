package flow

import (
	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// logBegin writes a line when a flow has its backend, at level debug.
func (l *Loop) logBegin(f *Flow) {
	ev := l.access.Log.Debug()
	if !ev.Enabled() {
		return
	}
	l.logWho(ev, f, f.destination())
	ev.Str("event", "flow_began").Msg("flow began")
}

// logWho adds the flow and its two sides to a line; b is nil if it has no backend.
func (l *Loop) logWho(ev *zerolog.Event, f *Flow, b *pool.Backend) {
	var text [64]byte
	ev.Bytes("flow", f.id.Append(text[:0])).
		Str("listener", f.socket.listener.Name).
		Str("pool", f.pool.Name())
	if b != nil {
		ev.Str("backend", b.ID()).Bytes("backend_address", b.Addr().WithPort(f.listenerPort()).AppendTo(text[:0]))
	}
	ev.Bytes("client", f.peer.AddrPort().AppendTo(text[:0]))
}

// logEnd writes the access line of a flow, which has the fields of a session's and the numbers of its datagrams.
// retries is how often it got another backend.
func (l *Loop) logEnd(f *Flow, why tally.Reason) {
	ev := l.access.Log.Info()
	if !ev.Enabled() {
		return
	}
	l.logWho(ev, f, f.backend)
	ev.Uint64("bytes_in", f.in.bytes).
		Uint64("bytes_out", f.out.bytes).
		Uint64("datagrams_in", f.in.datagrams).
		Uint64("datagrams_out", f.out.datagrams).
		Float64("duration", (l.Now - f.began).Seconds())
	if f.firstAnswer > 0 {
		ev.Float64("first_byte_time", (f.firstAnswer - f.began).Seconds())
	}
	ev.Int("retries", f.retries()).Str("reason", why.String())
	if f.cause != 0 {
		ev.Str("err", sock.Text(f.cause))
	}
	ev.Str("event", "flow_ended").Msg("flow ended")
}
