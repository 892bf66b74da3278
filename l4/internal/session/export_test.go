package session

import (
	"syscall"
	"time"
	"unsafe"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// What tests from outside see of a session. All are called onLoop.

// SettleAfter is settleAfter.
const SettleAfter = settleAfter

// HeldIn reports whether bytes wait for the backend to take them.
func HeldIn(s *Session) bool { return s.in.held() }

// HeldOut reports whether bytes wait for the client to take them.
func HeldOut(s *Session) bool { return s.out.held() }

// BackendBroken reports whether an error of the backend's connection is pending.
func BackendBroken(s *Session) bool { return s.backend.broken }

// PassedEnd reports whether the client's FIN was passed on to the backend.
func PassedEnd(s *Session) bool { return s.in.shut }

// Queued reports whether the session waits for a backend, and whether the client's FIN is in.
func Queued(s *Session) (waits, ended bool) { return s.phase == queued, s.client.peerDone }

// ConnectingTo returns the id of the backend that the session is connecting to; "" in every other phase.
func ConnectingTo(s *Session) string {
	if s.phase != connecting {
		return ""
	}
	return s.lease.Backend().ID()
}

// HasDeadline reports whether the session is to be looked at at some time, even if nothing happens.
func HasDeadline(s *Session) bool {
	_, due := s.deadline()
	return due
}

// Peek returns what the client's first unread bytes are, at most n, and leaves them unread. ended reports whether fewer
// are there because the client has sent its FIN behind them.
func Peek(s *Session, n int) (first []byte, ended bool, e sock.Errno) {
	first = make([]byte, n)
	got, _, err := syscall.Recvfrom(int(s.client.fd), first, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	if err != nil {
		return nil, false, err.(syscall.Errno)
	}
	return first[:got], got < n && (got == 0 || s.client.peerDone), 0
}

// SetMaxHandshakes sets maxHandshakes, for servers that are made afterwards, and returns what it was.
func SetMaxHandshakes(to int) (before int) {
	before, maxHandshakes = maxHandshakes, to
	return before
}

// ReadMQTTAloud returns what opens prefaces that read MQTT client identifiers, as behind TLS, and do not peek at them.
func ReadMQTTAloud(timeout time.Duration) Opener { return mqttAloud(timeout) }

type mqttAloud time.Duration

func (o mqttAloud) Open(l *Loop, _ *Session) Preface {
	return &mqttReading{on: l, timeout: time.Duration(o)}
}

// Splices reports which directions of a session go through a pipe.
func Splices(s *Session) (in, out bool) { return s.in.bulk, s.out.bulk }

// HeldBack reports whether a direction of a session waits for bandwidth.
func HeldBack(s *Session) bool { return s.heldBack() }

// Unreported reports of which sides of a session it is not reported what they send.
func Unreported(s *Session) (client, backend bool) {
	x := s.extra
	return x != nil && x.pace != nil && x.pace.in.unreported, x != nil && x.pace != nil && x.pace.out.unreported
}

// Paces reports whether a session has a limit of bandwidth.
func Paces(s *Session) bool { return s.extra != nil && s.extra.pace != nil }

// FollowsTurns reports whether it is followed whose turn it is in a session.
func FollowsTurns(s *Session) bool { return s.follows() }

// Sizes are those of a session's memory, in bytes: of the session, its extra, and what follows its turns.
func Sizes() (session, more, followed uintptr) {
	return unsafe.Sizeof(Session{}), unsafe.Sizeof(extra{}), unsafe.Sizeof(turns{})
}
