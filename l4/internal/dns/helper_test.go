package dns_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
)

// loops returns the DNS part of each loop of a server.
func loops(s *l4.Server) []*room.Loop { return l4test.RoomsOf(s).Questions }

// onEach calls f on each loop of a server, one after the other.
func onEach(s *l4.Server, f func(*room.Loop)) {
	for i, l := range loops(s) {
		onLoop(s, i, func() { f(l) })
	}
}

// onFirst calls f on the first loop, with its only forwarder.
func onFirst(s *l4.Server, f func(*room.Loop, *room.Forwarder)) {
	l := loops(s)[0]
	onLoop(s, 0, func() { f(l, room.Forwarders(l)[0]) })
}

// eachSocket calls f for each socket that questions are given to, on the server's only loop.
func eachSocket(s *l4.Server, f func(*room.Forwarder, *room.Socket)) {
	l := loops(s)[0]
	onLoop(s, 0, func() { room.EachSocket(l, f) })
}

// listenerInfo describes a listener of a server that has several.
func listenerInfo(s *l4.Server, name string) l4.ListenerInfo {
	for _, info := range s.Listeners() {
		if info.Name == name {
			return info
		}
	}
	return l4.ListenerInfo{}
}

// An askedOnce is a query that came to a backend which does not answer by itself.
type askedOnce struct {
	from  netip.AddrPort
	query []byte
}

// holding puts what the backend gets into a channel.
func holding(size int) (chan askedOnce, func(*l4test.UDPBackend, netip.AddrPort, []byte)) {
	held := make(chan askedOnce, size)
	return held, func(_ *l4test.UDPBackend, from netip.AddrPort, query []byte) {
		held <- askedOnce{from, append([]byte(nil), query...)}
	}
}

// answer sends a backend's answer to a query that it held, with a TTL of 60.
func answer(t testing.TB, b *l4test.UDPBackend, a askedOnce) {
	t.Helper()
	answering(t, 60)(b, a.from, a.query)
}

// collect reads datagrams until so many have come, and hands each to take.
func collect(c *net.UDPConn, count int, take func([]byte) error) error {
	buf := make([]byte, 1<<16)
	for i := range count {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%d of %d answers came", i, count)
		}
		if err != nil {
			return err
		}
		if err := take(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

func idOfMessage(m []byte) uint16 { return binary.BigEndian.Uint16(m) }

// answerBit tells an answer from a question, in the third byte of a message (RFC 1035, 4.1.1).
const answerBit = 0x80

// anySession reports whether f is true of a session of the first loop. phase is what that session is doing.
func anySession(s *l4.Server, f func(one *session.Session, phase string) bool) (yes bool) {
	sessions := l4test.RoomsOf(s).Sessions[0]
	eachSession(s, 0, func(one *session.Session) { yes = yes || f(one, sessions.Entry(one).Phase) })
	return yes
}
