package session

import (
	"time"

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

	loops []stages // by the loop's index, each used on its loop only
}

// An mqttPreface is the preface of all sessions that are in one state.
type mqttPreface struct {
	*mqttOpener
	on *Loop
}

// ReadMQTT returns what opens the preface that reads MQTT client identifiers, for a server with so many loops. A client
// must have sent its CONNECT, as far as the identifier, within timeout.
func ReadMQTT(timeout time.Duration, loops int) Opener {
	return &mqttOpener{timeout: timeout, loops: make([]stages, loops)}
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
	if at.untouched == nil {
		at.untouched, at.marked = &mqttPreface{o, l}, &mqttPreface{o, l}
	}
	return at.untouched
}

// Phase implements Preface.
func (p *mqttPreface) Phase() string { return "inspecting" }

// Cut implements Preface: the client is owed nothing.
func (p *mqttPreface) Cut(*Session) (whole bool) { return true }

// Release implements Preface.
func (p *mqttPreface) Release(s *Session) { p.loops[p.on.Index].release(p.on, s, p) }

// Step implements Preface.
func (p *mqttPreface) Step(s *Session, why Cause) Step {
	var until time.Duration
	switch why {
	case Begun:
		until = p.on.Now + p.timeout
	case Expired:
		return Refuse(tally.InspectTimeout)
	}
	sent, step, ok := p.on.glance(s, wire.MaxMQTTClientID, until)
	if !ok {
		return step
	}
	switch id, need, ok := wire.MQTTClientID(sent); {
	case !ok || need == 0 && len(id) == 0:
		return PassOn(Pass{})
	case need == 0:
		return PassOn(Pass{Name: pool.NameKey(id)})
	default:
		return p.loops[p.on.Index].await(s, p, sent, need, until)
	}
}
