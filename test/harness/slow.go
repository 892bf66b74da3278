package harness

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A SlowLink passes TCP connections on to a server, which it can make slow, let hang, or cut. A new one does nothing of
// this. It ends with the test. Its methods may be called from any goroutine.
type SlowLink struct {
	listener *net.TCPListener
	serving  sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below
	target  string
	changed chan struct{} // closed and replaced at each change of them
	delay   time.Duration // of what the server sends
	hanging bool
	cut     bool
	open    map[*net.TCPConn]struct{}
}

// StartSlowLink starts a link on a free port of 127.0.0.1 to a server's address.
func StartSlowLink(t testing.TB, target string) *SlowLink {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &SlowLink{
		listener: l, target: target, changed: make(chan struct{}), open: make(map[*net.TCPConn]struct{}),
	}
	s.serving.Go(s.accept)
	t.Cleanup(func() {
		l.Close()
		s.Cut()
		s.serving.Wait()
	})
	return s
}

// Address returns the address that clients connect to.
func (s *SlowLink) Address() string { return s.listener.Addr().String() }

// Delay makes everything that the server sends arrive later by d.
func (s *SlowLink) Delay(d time.Duration) { s.change(func() { s.delay = d }) }

// Hang keeps back all bytes of both sides, as a host that hangs would, until Mend. Connections are accepted.
func (s *SlowLink) Hang() { s.change(func() { s.hanging = true }) }

// Cut resets all connections, and each new one, until Mend.
func (s *SlowLink) Cut() {
	s.change(func() {
		s.cut = true
		for c := range s.open {
			Reset(c)
		}
		clear(s.open)
	})
}

// Lead leads new connections to another server.
func (s *SlowLink) Lead(target string) { s.change(func() { s.target = target }) }

// Mend ends what Delay, Hang and Cut have begun.
func (s *SlowLink) Mend() { s.change(func() { s.delay, s.hanging, s.cut = 0, false, false }) }

func (s *SlowLink) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// enter records a connection, which Cut resets, and returns the server's address. It reports false if the link is cut.
func (s *SlowLink) enter(c *net.TCPConn) (target string, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.open[c] = struct{}{}
	}
	return s.target, !s.cut
}

// leave closes a connection.
func (s *SlowLink) leave(c *net.TCPConn) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	c.Close()
}

func (s *SlowLink) accept() {
	for {
		c, err := s.listener.AcceptTCP()
		if err != nil {
			return // the test ends
		}
		target, is := s.enter(c)
		if !is {
			Reset(c)
			continue
		}
		s.serving.Go(func() { s.serve(c, target) })
	}
}

func (s *SlowLink) serve(client *net.TCPConn, target string) {
	defer s.leave(client)
	c, err := net.Dial("tcp", target)
	if err != nil {
		Reset(client)
		return
	}
	server := c.(*net.TCPConn)
	defer s.leave(server)
	if _, is := s.enter(server); !is {
		return
	}
	var passing sync.WaitGroup
	passing.Go(func() { s.pass(client, server, false) })
	s.pass(server, client, true)
	passing.Wait()
}

// A chunk is bytes on their way.
type chunk struct {
	bytes []byte
	came  time.Time
}

// pass passes bytes on until one side ends, and then ends both.
func (s *SlowLink) pass(from, to *net.TCPConn, slow bool) {
	chunks := make(chan chunk, 1024) // the reader closes it
	stopped := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(chunks)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case chunks <- chunk{b[:n], time.Now()}:
				case <-stopped:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range chunks {
		if !s.await(c, slow) {
			break
		}
		if _, err := to.Write(c.bytes); err != nil {
			break
		}
	}
	close(stopped)
	from.Close()
	to.Close()
	reading.Wait()
}

// await waits until a chunk may pass. It reports false if the link was cut.
func (s *SlowLink) await(c chunk, slow bool) bool {
	for {
		s.mu.Lock()
		changed, hanging, cut, delay := s.changed, s.hanging, s.cut, s.delay
		s.mu.Unlock()
		if cut {
			return false
		}
		var wait time.Duration
		if slow {
			wait = time.Until(c.came.Add(delay))
		}
		if !hanging && wait <= 0 {
			return true
		}
		if hanging {
			wait = time.Hour // until a change
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}
