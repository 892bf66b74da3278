package session

import (
	"crypto/tls"
	"encoding/binary"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
)

// TLS of the kernel. A side whose tlsconn.Conn has gone into the kernel is read and written as one without TLS, by the
// relay of relay.go, with three differences. What is read ends at a record that is not data, which has to be taken by
// itself. So the last bytes before a FIN are not the end: a close_notify follows. And one goes before our own FIN.

// intoKernel makes the kernel go on with TLS on the sides that are ripe for it. It reports false when the session has
// ended.
func (l *Loop) intoKernel(s *Session) bool {
	x := s.extra
	return l.moveIntoKernel(s, &s.client, &x.client, tally.ClientSide) &&
		l.moveIntoKernel(s, &s.backend, &x.backend, tally.BackendSide)
}

func (l *Loop) moveIntoKernel(s *Session, c *conn, secure **tlsconn.Conn, side tally.Side) bool {
	t := *secure
	if t == nil || !t.Ripe() {
		return true
	}
	if !t.IntoKernel() {
		if e := t.Failed(); e != 0 {
			return l.lose(s, c, e)
		}
		return true
	}
	*secure = nil
	t.Close(&l.Buffers)
	c.kernel, c.readable, c.writable = true, true, true
	l.counters(s).Secured(side, true)
	l.later(s) // what has come already is no event
	return true
}

// Alerts (RFC 8446, 6).
const (
	alertFatal = 2

	closeNotify       = 0
	unexpectedMessage = 10
	badRecordMAC      = 20
	recordOverflow    = 22
	userCanceled      = 90
)

// Messages of a handshake (RFC 8446, 4).
const (
	newSessionTicket = 4
	keyUpdate        = 24
)

// badRecords are the alerts for what a read says of a record that the kernel cannot decrypt.
var badRecords = map[sock.Errno]uint8{
	sock.BadSeal: badRecordMAC, sock.LongRecord: recordOverflow, sock.NoData: unexpectedMessage,
}

// keysChanged is why a session ends whose peer changes its keys.
const keysChanged = "the peer changes its keys (KeyUpdate), which kernel TLS cannot do here: kernel_tls = \"off\" " +
	"serves such peers"

// unreadableRecord handles what a read of a connection whose TLS is the kernel's says. It reports false when the session
// has ended.
func (l *Loop) unreadableRecord(s *Session, from *conn, e sock.Errno) bool {
	if e == sock.NotData || e == sock.NoData {
		kind, n, found := sock.ReadRecord(int(from.fd), l.Scratch)
		switch p := l.Scratch[:n]; {
		case found != 0 && found != sock.Again:
			e = found
		case found == sock.Again, kind == sock.RecordData: // neither is what the read has said
		case kind == sock.RecordAlert:
			return l.onAlert(s, from, p)
		case kind == sock.RecordHandshake:
			return l.onHandshakeMessages(s, from, p)
		default:
			return l.breakTLS(s, from, unexpectedMessage)
		}
	}
	if alert, known := badRecords[e]; known {
		return l.breakTLS(s, from, alert)
	}
	return l.lose(s, from, e)
}

// onAlert handles an alert of a peer.
func (l *Loop) onAlert(s *Session, from *conn, p []byte) bool {
	switch {
	case len(p) != 2:
		return l.breakTLS(s, from, unexpectedMessage)
	case p[1] == closeNotify:
		s.endOf(s.sourceOf(from), l.Now)
		return true
	case p[1] == userCanceled: // a close_notify follows (RFC 8446, 6.1)
		return true
	}
	return l.endTLS(s, from, "remote error: "+tls.AlertError(p[1]).Error())
}

// onHandshakeMessages handles what a peer sends behind its handshake.
func (l *Loop) onHandshakeMessages(s *Session, from *conn, p []byte) bool {
	for len(p) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(p)&0xffffff)
		switch {
		case p[0] == keyUpdate:
			return l.endTLS(s, from, keysChanged)
		case p[0] != newSessionTicket || from != &s.backend:
			return l.breakTLS(s, from, unexpectedMessage)
		}
		p = p[min(n, len(p)):] // a later ticket is not kept
	}
	return true
}

// breakTLS ends a session whose peer has broken the protocol. The peer is told by which alert that is.
func (l *Loop) breakTLS(s *Session, from *conn, alert uint8) bool {
	_ = sock.SendAlert(int(from.fd), alertFatal, alert)
	return l.endTLS(s, from, "local error: "+tls.AlertError(alert).Error())
}

// endTLS ends a session whose TLS cannot go on.
func (l *Loop) endTLS(s *Session, from *conn, why string) bool {
	l.more(s).failure = why
	if from == &s.client {
		l.end(s, tally.BrokenTLS)
	} else {
		l.end(s, tally.BackendLost)
	}
	return false
}

// sourceOf is the direction of what a side sends.
func (s *Session) sourceOf(from *conn) *direction {
	if from == &s.client {
		return &s.in
	}
	return &s.out
}
