package l4test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// Dial connects a client, with a deadline of 20 s, until the test ends.
func Dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// Backend serves each connection with handle until the test ends, and returns its address. With a nil handle
// it says nothing and holds on to its connections.
func Backend(t testing.TB, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ended := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				if handle == nil {
					<-ended
					return
				}
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		close(ended)
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// Echo sends back what it reads, and its FIN after the client's.
func Echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// Refusing is an address nobody listens on.
func Refusing(t testing.TB) string {
	t.Helper()
	return harness.FreeAddress(t)
}

// Swallowing is an address whose accept queue is full, so that its kernel drops further SYNs.
func Swallowing(t *testing.T) string {
	t.Helper()
	fd, err := sock.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sock.ListenOptions{Backlog: 0}, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close(fd) })
	addr, err := sock.LocalAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return addr.String()
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the accept queue does not fill")
	return ""
}

// Reset reports whether the peer ends a connection with a reset, as opposed to a FIN.
func Reset(t *testing.T, c net.Conn) bool {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return err != nil
}

// RefusedWithReset tells how a new client is refused. The reset may come so soon that it is connect that sees it.
func RefusedWithReset(t *testing.T, address string) bool {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if errors.Is(err, syscall.ECONNRESET) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return Reset(t, c)
}

// Ask sends a byte and waits for its echo.
func Ask(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// QueuedClients connects clients that find the backend taken, one after the other, and waits until each stands in the
// queue.
func QueuedClients(t *testing.T, s *l4.Server, p *pool.Pool, n int) []*net.TCPConn {
	t.Helper()
	var clients []*net.TCPConn
	for i := range n {
		clients = append(clients, Dial(t, Address(s)))
		Eventually(t, "a client waits", func() bool { return p.Waiting() == i+1 })
	}
	return clients
}
