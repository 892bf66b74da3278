package session_test

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// fill writes to a peer that does not read until the server's only session holds bytes for it.
func fill(t *testing.T, s *l4.Server, c *net.TCPConn, held func(*session.Session) bool) {
	t.Helper()
	chunk := make([]byte, 1<<20)
	eventually(t, "bytes are held", func() bool {
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		c.Write(chunk)
		return anySession(s, held)
	})
}

// stuck is a session whose backend accepts and leaves all else to the test.
func stuck(t *testing.T, change func(*l4.ListenerSpec)) (s *l4.Server, client, server *net.TCPConn) {
	t.Helper()
	conns, done := make(chan *net.TCPConn, 1), make(chan struct{})
	ls := spec(newPool(t, backend(t, func(c *net.TCPConn) {
		conns <- c
		<-done
	})))
	t.Cleanup(func() { close(done) })
	if change != nil {
		change(&ls)
	}
	s = start(t, l4.Options{Loops: 1}, ls)
	client = dial(t, address(s))
	return s, client, <-conns
}

// TestBothDead holds that a session ends when first one side and then the other was reset, while the bytes of
// both were held.
func TestBothDead(t *testing.T) {
	s, client, server := stuck(t, nil)
	fill(t, s, client, session.HeldIn)
	fill(t, s, server, session.HeldOut)
	server.SetLinger(0)
	server.Close()
	eventually(t, "the backend's reset is seen", func() bool {
		return s.Sessions() == 0 || anySession(s, session.BackendBroken)
	})
	client.SetLinger(0)
	client.Close()
	eventually(t, "the session has ended", func() bool { return s.Sessions() == 0 })
}

// TestResetWhileHeld holds that a client's reset ends a session whose backend does not take the client's last bytes,
// at the latest after half_close_timeout.
func TestResetWhileHeld(t *testing.T) {
	s, client, _ := stuck(t, func(ls *l4.ListenerSpec) { ls.HalfCloseTimeout = 200 * time.Millisecond })
	fill(t, s, client, session.HeldIn)
	client.SetLinger(0)
	client.Close()
	eventually(t, "the session has ended", func() bool { return s.Listeners()[0].Ended[tally.ClientReset] == 1 })
}

// TestUrgent holds that bytes behind an urgent one are not left lying: a read stops at its mark, and looks
// like one that has emptied the queue; a splice there looks like an empty queue, or like a FIN once one has come.
func TestUrgent(t *testing.T) {
	for _, test := range []struct {
		name   string
		before int
		fin    bool
	}{
		{"short", 6, true},
		{"short, no FIN", 6, false},
		{"bulk", 16 << 20, true},
		{"bulk, no FIN", 16 << 20, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, behind := bytes.Repeat([]byte("b"), test.before), bytes.Repeat([]byte("a"), 100_000)
			got := make(chan int, 1)
			s := start(t, l4.Options{Loops: 1}, spec(newPool(t, backend(t, func(c *net.TCPConn) {
				n, buf := 0, make([]byte, 1<<20)
				for n < len(before)+len(behind) {
					m, err := c.Read(buf)
					if err != nil {
						break
					}
					n += m - bytes.Count(buf[:m], []byte("!")) // the urgent byte itself may pass or not
				}
				got <- n
			}))))
			c := dial(t, address(s))
			c.Write(before)
			sendUrgent(t, c)
			c.Write(behind)
			if test.fin {
				c.CloseWrite()
			}
			select {
			case n := <-got:
				if n != len(before)+len(behind) {
					t.Errorf("%d of %d bytes arrived", n, len(before)+len(behind))
				}
			case <-time.After(10 * time.Second):
				t.Error("bytes were left lying")
				c.Close()
			}
			io.Copy(io.Discard, c)
		})
	}
}

func sendUrgent(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil)
		return err != syscall.EAGAIN
	})
	if err != nil {
		t.Fatal(err)
	}
}
