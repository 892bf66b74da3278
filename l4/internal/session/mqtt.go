package session

import (
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// An mqttOpener is the Opener of prefaces that name a session by the client identifier in its MQTT CONNECT. Like an
// Inspector, it peeks at the bytes and leaves them in the socket, and a session that waits is a descriptor and a timer.
//
// A client that does not speak MQTT, or that leaves its identifier to the broker, has no name: its pool goes by its
// address, and its backend answers it. To refuse it here would need an answer in its own version of MQTT.
type mqttOpener struct {
	// set once, then read-only
	timeout time.Duration

	loops []mqttPrefaces // by the loop's index, each used on its loop only
}

// mqttPrefaces are the prefaces of all sessions of one loop. A session has the first one until its client has sent a
// part of its CONNECT, and then the second one, with a low-water mark.
type mqttPrefaces struct{ untouched, marked mqttPreface }

// An mqttPreface is the preface of all sessions that are in one state.
type mqttPreface struct {
	*mqttOpener
	on *Loop
}

// ReadMQTT returns what opens the preface that reads MQTT client identifiers, for a server with so many loops. A client
// must have sent its CONNECT, as far as the identifier, within timeout.
func ReadMQTT(timeout time.Duration, loops int) Opener {
	return &mqttOpener{timeout: timeout, loops: make([]mqttPrefaces, loops)}
}

// Open implements Opener. Only sessions whose pool needs the identifier have the preface. A server name that an earlier
// preface has read is not the name that such a pool asks for.
func (o *mqttOpener) Open(l *Loop, s *Session) Preface {
	if s.pool == nil || !s.pool.NeedsName(pool.MQTTClientID) {
		return nil
	}
	s.name = 0
	if s.clientTLS() != nil { // there is nothing to peek at
		return &mqttReading{on: l, timeout: o.timeout}
	}
	at := &o.loops[l.Index]
	if at.untouched.on == nil {
		at.untouched, at.marked = mqttPreface{o, l}, mqttPreface{o, l}
	}
	return &at.untouched
}

// Phase implements Preface.
func (p *mqttPreface) Phase() string { return "inspecting" }

// Cut implements Preface: the client is owed nothing.
func (p *mqttPreface) Cut(*Session) (whole bool) { return true }

// Release implements Preface. A session that goes on to a backend hears of each byte again.
func (p *mqttPreface) Release(s *Session) {
	if p == &p.loops[p.on.Index].marked && s.client.open {
		sock.SetReadLowWater(int(s.client.fd), 1)
	}
}

// Step implements Preface.
func (p *mqttPreface) Step(s *Session, why Cause) Step {
	var until time.Duration
	if why == Begun {
		until = p.on.Now + p.timeout
	}
	switch {
	case why == Expired:
		return Refuse(tally.InspectTimeout)
	case !s.client.readable:
		return More(until)
	case s.client.broken:
		s.noteUnread()
		e, _ := s.Broken()
		return Lost(s, e)
	}
	sent, e := p.look(s)
	if e != 0 && e != sock.Again {
		return Lost(s, e)
	}
	id, need, ok := wire.MQTTClientID(sent)
	switch {
	case !ok || need == 0 && len(id) == 0:
		return PassOn(Pass{})
	case need == 0:
		return PassOn(Pass{Name: pool.NameKey(id)})
	case s.client.peerDone: // the rest will never come
		s.unread = len(sent) > 0
		return End(tally.ClientClosed, true)
	}
	s.client.readable = false
	if len(sent) > 0 {
		p.mark(s, need)
	}
	return More(until)
}

// look returns what the client has sent so far, at most as much as a CONNECT needs to name it, in the loop's Scratch.
func (p *mqttPreface) look(s *Session) (sent []byte, e sock.Errno) {
	n, e := sock.Peek(int(s.client.fd), p.on.Scratch[:wire.MaxMQTTClientID])
	return p.on.Scratch[:n], e
}

// mark lets the session sleep until so many bytes of its CONNECT are there. As in inspection.mark, a mark that is set
// already is not set again.
func (p *mqttPreface) mark(s *Session, need int) {
	marked := &p.loops[p.on.Index].marked
	if p == marked && sock.ReadLowWater(int(s.client.fd)) == need {
		return
	}
	sock.SetReadLowWater(int(s.client.fd), need)
	s.preface = marked
}
