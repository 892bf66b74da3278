package session_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// TestHalfClosedMakeRoom holds that sessions whose clients have left, and whose backends do not care, make room for
// clients that are there, and that the others stay.
func TestHalfClosedMakeRoom(t *testing.T) {
	release := make(chan struct{})
	spec := spec(newPool(t, backend(t, func(c *net.TCPConn) {
		echo(c)
		<-release
	})))
	t.Cleanup(func() { close(release) })
	spec.HalfCloseTimeout = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	capacity, _ := l4test.FlowBudget(s)
	capacity.Store(10)
	var there []net.Conn
	for i := range 10 {
		c := dial(t, address(s))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			there = append(there, c)
		} else {
			c.Close()
		}
	}
	for range 8 {
		c := dial(t, address(s))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		there = append(there, c)
	}
	for _, c := range there {
		if err := ask(c); err != nil {
			t.Error(err)
		}
	}
	if e := l4test.Info(s).Ended; e[tally.HalfClose] != 8 || len(e) != 1 {
		t.Errorf("ended: %v", e)
	}
}

// TestHalfClosedMayAnswer holds that a session that is half closed is not over while its backend answers, or while its
// client has not taken the answer.
func TestHalfClosedMayAnswer(t *testing.T) {
	s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		_, _ = c.Write(make([]byte, 16<<20))
	}))))
	c := dial(t, address(s))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var held *session.Session
	eventually(t, "the client takes no more", func() bool {
		return anySession(s, func(one *session.Session) bool {
			held = one
			return session.MayMakeRoom(one) && session.HeldOut(one)
		})
	})
	l4test.OnLoop(s, 0, func() {
		session.Rest(held, time.Hour)
		session.EndHalfClosed(l4test.RoomsOf(s).Sessions[0], held)
	})
	if n, err := io.Copy(io.Discard, c); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
