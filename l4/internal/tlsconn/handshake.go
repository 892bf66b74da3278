package tlsconn

import (
	"crypto/tls"
	"io"
	"net/netip"
	"sync/atomic"
)

// A handshake is a Conn's before it is established. It belongs to the loop, or, between Go and the report, to a thread.
type handshake struct {
	conn   *Conn
	thread *thread
	lane   uint8

	in    []byte // from the peer
	ended bool   // nothing follows
	out   []byte // for the peer

	routine *routine // nil before its begin and after its end

	over   bool // there is a result
	err    error
	report func() bool

	working bool        // the thread has it; onLoop
	closed  bool        // the session is over; onLoop
	givenUp atomic.Bool // the same, for the thread
}

// Result is how far a handshake has come.
type Result uint8

// The results.
const (
	Wants  Result = iota // more of what the peer sends
	Done                 // it is over, and the connection can be Established
	Broken               // it has failed, see HandshakeError
)

// Server makes a Conn to a client, whose handshake has yet to begin. from decides whose turn it is when many wait.
func (t *Threads) Server(s *Server, from netip.Addr) *Conn {
	c := t.begin(from)
	if c == nil {
		return nil
	}
	config := s.Config()
	if s.settings.KernelTLS {
		config = c.mayOffload(config, false)
	}
	c.tls = tls.Server((*transport)(c), config)
	return c
}

// Client makes a Conn to a backend, the same way. name and backend are those of Client.Config.
func (t *Threads) Client(to *Client, name string, backend netip.AddrPort, from netip.Addr) *Conn {
	c := t.begin(from)
	if c == nil {
		return nil
	}
	config := to.Config(name, backend)
	if to.settings.KernelTLS {
		config = c.mayOffload(config, true)
	}
	c.tls = tls.Client((*transport)(c), config)
	return c
}

// begin returns nil after Close.
func (t *Threads) begin(from netip.Addr) *Conn {
	thread := t.assign()
	if thread == nil {
		return nil
	}
	c := &Conn{}
	c.hand = &handshake{conn: c, thread: thread, lane: LaneOf(from)}
	return c
}

// Feed gives the handshake what the peer has sent. It is called while no thread has it.
func (c *Conn) Feed(p []byte) { c.hand.in = append(c.hand.in, p...) }

// FeedEnd says that the peer sends nothing more.
func (c *Conn) FeedEnd() { c.hand.ended = true }

// Go has a thread go on with the handshake, as far as it can with what was fed. report is called on the thread then; it
// has Reported called onLoop, or returns false if the loop is gone.
func (c *Conn) Go(report func() bool) {
	h := c.hand
	h.report, h.working = report, true
	if !h.thread.put(h) {
		h.working, h.over, h.err = false, true, errGivenUp
	}
}

// Working reports whether a thread has the handshake.
func (c *Conn) Working() bool { return c.hand != nil && c.hand.working }

// Reported takes the handshake back from its thread. It reports false if the Conn was closed meanwhile.
func (c *Conn) Reported() bool {
	h := c.hand
	h.working = false
	if h.closed {
		h.release()
	}
	return !h.closed
}

// Result is how far the handshake has come. It is asked while no thread has it.
func (c *Conn) Result() Result {
	switch h := c.hand; {
	case !h.over:
		return Wants
	case h.err != nil:
		return Broken
	}
	return Done
}

// HandshakeError is why the handshake has failed.
func (c *Conn) HandshakeError() error { return c.hand.err }

// Outgoing is what the peer is to get before anything else; the handshake forgets it.
func (c *Conn) Outgoing() []byte {
	p := c.hand.out
	c.hand.out = nil
	return p
}

// giveUp ends a handshake whose session is over. onLoop.
func (h *handshake) giveUp() {
	h.closed = true
	h.givenUp.Store(true)
	if !h.working {
		h.release()
	}
}

// release has the thread end the handshake, if it has begun. onLoop.
func (h *handshake) release() {
	if h.routine != nil && !h.over {
		h.report = func() bool { return true }
		h.thread.put(h) // if the thread is gone, it has ended all that it had begun
	}
}

// work goes on with the handshake. It is called on the thread.
func (h *handshake) work() {
	if h.givenUp.Load() {
		h.end()
	} else {
		if h.routine == nil {
			h.routine = h.thread.idle.take()
			h.routine.of = h
			h.thread.begun[h] = struct{}{}
		}
		h.goOn()
	}
	if !h.report() {
		h.end()
	}
}

// goOn has the coroutine go on until it wants more, or is over. It is called on the thread.
func (h *handshake) goOn() {
	if h.routine.resume(); h.over {
		delete(h.thread.begun, h)
		h.thread.idle.give(h.routine)
		h.routine = nil
	}
}

// end ends the handshake if it is not over. It is called on the thread.
func (h *handshake) end() {
	h.ended = true
	if h.routine != nil && !h.over {
		h.givenUp.Store(true)
		h.goOn()
	}
	h.over = true
	if h.err == nil {
		h.err = errGivenUp
	}
}

// read gives the coroutine what the peer has sent, and waits for it.
func (h *handshake) read(p []byte) (int, error) {
	for len(h.in) == 0 {
		switch {
		case h.givenUp.Load():
			return 0, errGivenUp
		case h.ended:
			return 0, io.EOF
		}
		h.routine.pause(struct{}{})
	}
	n := copy(p, h.in)
	h.in = h.in[n:]
	return n, nil
}
