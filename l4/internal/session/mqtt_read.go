package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// An mqttReading is mqttPreface for a session whose bytes cannot be peeked at, since they come out of TLS that ends
// here. It reads them, and they become the session's prefill. It holds at most what a CONNECT needs to name its client,
// and one read more.
type mqttReading struct {
	on      *Loop
	timeout time.Duration
	sent    loop.ByteQueue
}

// Phase implements Preface.
func (p *mqttReading) Phase() string { return "inspecting" }

// Cut implements Preface: the client is owed nothing.
func (p *mqttReading) Cut(*Session) (whole bool) { return true }

// Release implements Preface.
func (p *mqttReading) Release(*Session) { p.sent.Release(&p.on.Buffers) }

// Step implements Preface.
func (p *mqttReading) Step(s *Session, why Cause) Step {
	var until time.Duration
	if why == Begun {
		until = p.on.Now + p.timeout
	}
	switch {
	case why == Expired:
		return Refuse(tally.InspectTimeout)
	case s.client.broken:
		s.noteUnread()
		e, _ := s.Broken()
		return Lost(s, e)
	}
	for s.Readable() && !s.Ended() {
		n, e := p.on.Read(s)
		if e == sock.Again {
			break
		}
		if e != 0 {
			return Lost(s, e)
		}
		p.sent.Append(&p.on.Buffers, p.on.Scratch[:n])
		id, need, ok := wire.MQTTClientID(p.sent.Bytes())
		if ok && need > 0 {
			continue
		}
		pass := Pass{}
		if len(id) > 0 {
			pass.Name = pool.NameKey(id)
		}
		p.on.Prefill(s, &p.sent, true)
		return PassOn(pass)
	}
	if s.Ended() { // the rest will never come
		return End(tally.ClientClosed, true)
	}
	return More(until)
}
