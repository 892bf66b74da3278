package session

import (
	"errors"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// An Inspector is the Opener of prefaces that choose a session's pool by its client's ClientHello. The hello is peeked
// at and stays in the socket, so the backend gets it from the relay like any other bytes.
//
// A session that waits for its hello is a descriptor and a timer, and has no memory of its own here. While the hello is
// incomplete, the socket's low-water mark is what it still needs: the loop does not wake up for the segments before.
type Inspector struct {
	// set once, then read-only
	routes     *Routes
	terminator *Terminator // goes on with the client; nil = the hello is for the backend
	timeout    time.Duration

	loops []stages // by the loop's index, each used on its loop only
}

// An inspection is the preface of all sessions that are in one state.
type inspection struct {
	*Inspector
	on *Loop
}

// NewInspector makes an Inspector for a server with so many loops. A client must have sent its ClientHello within
// timeout.
func NewInspector(routes []Route, timeout time.Duration, loops int) *Inspector {
	return &Inspector{routes: NewRoutes(routes), timeout: timeout, loops: make([]stages, loops)}
}

// Open implements Opener.
func (p *Inspector) Open(l *Loop, _ *Session) Preface {
	at := &p.loops[l.Index]
	if at.untouched == nil {
		at.untouched, at.marked = &inspection{p, l}, &inspection{p, l}
	}
	return at.untouched
}

// Phase implements Preface.
func (p *inspection) Phase() string { return "inspecting" }

// Cut implements Preface: the client is owed nothing.
func (p *inspection) Cut(*Session) (whole bool) { return true }

// Release implements Preface.
func (p *inspection) Release(s *Session) { p.loops[p.on.Index].release(p.on, s, p) }

// Step implements Preface.
func (p *inspection) Step(s *Session, why Cause) Step {
	var until time.Duration
	switch why {
	case Begun:
		until = p.on.Now + p.timeout
	case Expired:
		return p.late(s)
	}
	sent, step, ok := p.on.glance(s, wire.MaxClientHello, until)
	if !ok {
		return step
	}
	switch hello, need, err := wire.ClientHello(sent); {
	case err != nil:
		return p.refuse(s, err)
	case need == 0:
		return p.route(s, &hello, until)
	default:
		return p.loops[p.on.Index].await(s, p, sent, need, until)
	}
}

// route goes on with a client whose hello is complete.
func (p *inspection) route(s *Session, hello *wire.Hello, until time.Duration) Step {
	pass := Pass{Pool: p.routes.Pool(hello.ServerName(), hello.Offers)}
	if pass.Pool == nil && s.pool == nil {
		return p.alert(s, wire.AlertUnrecognizedName, tally.NoRoute)
	}
	if name := hello.ServerName(); len(name) > 0 {
		pass.Name = pool.NameKey(name)
	}
	t := p.terminator
	if t == nil {
		return PassOn(pass)
	}
	if !t.server.Serves(hello.ServerName()) {
		p.on.counters(s).HandshakeFailed(tally.ClientSide, tally.HandshakeName)
		return p.alert(s, wire.AlertUnrecognizedName, tally.UnknownName)
	}
	p.Release(s)
	return t.shake(p.on, s, hello, pass, until)
}

// late refuses a client whose hello has not come in time.
func (p *inspection) late(s *Session) Step {
	if p.terminator == nil {
		return Refuse(tally.InspectTimeout)
	}
	p.on.counters(s).HandshakeFailed(tally.ClientSide, tally.HandshakeLate)
	return Refuse(tally.HandshakeTimeout)
}

// refuse turns away a client whose bytes are no ClientHello. One that speaks TLS gets an alert.
func (p *inspection) refuse(s *Session, why error) Step {
	switch {
	case errors.Is(why, wire.ErrNotTLS):
		return Refuse(tally.NotTLS)
	case errors.Is(why, wire.ErrServerName):
		return p.alert(s, wire.AlertUnrecognizedName, tally.Malformed)
	}
	return p.alert(s, wire.AlertDecodeError, tally.Malformed)
}

// alert ends a session with a fatal TLS alert. What the client has sent is read first: to close with bytes unread would
// send a reset, which may overtake the alert.
func (p *inspection) alert(s *Session, what wire.Alert, why tally.Reason) Step {
	if _, e := p.on.Read(s); e != 0 {
		return Lost(s, e)
	}
	s.in.bytes = 0 // no backend would have had them
	_, e := p.on.Write(s, wire.AppendAlert(p.on.Scratch[:0], what))
	return End(why, e == 0)
}
