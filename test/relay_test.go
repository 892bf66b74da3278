package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// An end has the digests of what one end of a session sent and received.
type end struct {
	sent, got harness.Digest
	err       error
}

func exchange(c *net.TCPConn, tr harness.Traffic) (e end) {
	e.sent, e.got, e.err = harness.Exchange(c, tr)
	return e
}

// exchanging returns a handler that sends tr, and reports on ends what each connection sent and got.
func exchanging(tr harness.Traffic, ends chan<- end) harness.Handler {
	return func(_ context.Context, c *net.TCPConn) { ends <- exchange(c, tr) }
}

// sameBytes checks that each end got what the other one sent, and that the access line counts it.
func sameBytes(t *testing.T, client, backend end, session harness.Line) {
	t.Helper()
	if err := errors.Join(client.err, backend.err); err != nil {
		t.Fatal(err)
	}
	if client.sent != backend.got {
		t.Errorf("client sent %v, backend got %v", client.sent, backend.got)
	}
	if backend.sent != client.got {
		t.Errorf("backend sent %v, client got %v", backend.sent, client.got)
	}
	if session.BytesIn != client.sent.Bytes || session.BytesOut != backend.sent.Bytes {
		t.Errorf("bytes in %d and out %d, expected %d and %d: %s",
			session.BytesIn, session.BytesOut, client.sent.Bytes, backend.sent.Bytes, session.Text)
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		in, out int64
		chunk   int
	}{
		{"1 GiB each way in large writes", 1 << 30, 1 << 30, 1 << 20},
		{"1 MiB each way in one-byte writes", 1 << 20, 1 << 20, 1},
		{"writes of an odd size", 50_000_000, 40_000_001, 1447},
		{"writes as large as a common buffer", 64 << 20, 64 << 20, 64 << 10},
		{"one way in", 256 << 20, 0, 256 << 10},
		{"one way out", 0, 256 << 20, 256 << 10},
		{"one byte each way", 1, 1, 1},
		{"zero bytes", 0, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ends := make(chan end, 1)
			b, _ := between(t, exchanging(harness.Traffic{Seed: 1, Size: tc.out, Chunk: tc.chunk}, ends))
			c := b.Dial(t, "main")
			client := exchange(c, harness.Traffic{Seed: 2, Size: tc.in, Chunk: tc.chunk})
			check(t, client.err)
			backend := harness.Receive(t, "the backend's end", ends)
			sameBytes(t, client, backend, b.WaitSession(t, c.LocalAddr()))
		})
	}
}

func TestManySessionsBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	const sessions = 64
	ends := make(chan end, sessions)
	b, _ := between(t, exchanging(harness.Traffic{Seed: 1, Size: 3_000_003, Chunk: 100_000}, ends))
	clients := make(chan end, sessions)
	for range sessions {
		c := b.Dial(t, "main")
		go func() { clients <- exchange(c, harness.Traffic{Seed: 2, Size: 2_000_002, Chunk: 30_000}) }()
	}
	for range sessions {
		client, backend := harness.Receive(t, "a client's end", clients), harness.Receive(t, "a backend's end", ends)
		check(t, errors.Join(client.err, backend.err))
		// all clients send the same, and so do all backends: any pair will do
		if client.sent != backend.got || backend.sent != client.got {
			t.Errorf("client sent %v and got %v, backend sent %v and got %v", client.sent, client.got, backend.sent,
				backend.got)
		}
	}
	oneOf(t, b.WaitSessions(t, sessions), "client_closed", "backend_closed")
}

// TestHalfClose ends one half before the other side begins to send a large answer.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	question := harness.Traffic{Seed: 1, Size: 100_000, Chunk: 10_000}
	answer := harness.Traffic{Seed: 2, Size: 64 << 20, Chunk: 64 << 10}
	ask := func(c *net.TCPConn) (e end) {
		if e.sent, e.err = question.Send(c); e.err == nil {
			if e.err = c.CloseWrite(); e.err == nil {
				e.got, e.err = harness.Collect(c)
			}
		}
		return e
	}
	reply := func(c *net.TCPConn) (e end) {
		if e.got, e.err = harness.Collect(c); e.err == nil {
			if e.sent, e.err = answer.Send(c); e.err == nil {
				e.err = c.CloseWrite()
			}
		}
		return e
	}
	for _, tc := range []struct {
		reason          string
		client, backend func(*net.TCPConn) end
	}{
		{"client_closed", ask, reply},
		{"backend_closed", reply, ask},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			ends := make(chan end, 1)
			b, _ := between(t, func(_ context.Context, c *net.TCPConn) { ends <- tc.backend(c) })
			c := b.Dial(t, "main")
			client := tc.client(c)
			check(t, client.err)
			session := b.WaitSession(t, c.LocalAddr())
			sameBytes(t, client, harness.Receive(t, "the backend's end", ends), session)
			oneOf(t, []harness.Line{session}, tc.reason)
		})
	}
}

func TestBackendSpeaksFirst(t *testing.T) {
	t.Parallel()
	const greeting = "+OK limeload\r\n"
	b, _ := between(t, harness.SpeakFirst(greeting))
	c := b.Dial(t, "main")
	got := make([]byte, len(greeting))
	_, err := io.ReadFull(c, got)
	check(t, err)
	if string(got) != greeting {
		t.Errorf("greeting is %q", got)
	}
	check(t, harness.PingPong(c, 10, 100))
}

// TestClientWaits sends data, and perhaps a FIN, while the backend's connect takes a second: the data wait in the
// kernel.
func TestClientWaits(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, handle harness.Handler) (*harness.Balancer, *harness.Swallower, *net.TCPConn) {
		backend := harness.Swallow(t, handle)
		b := world{Backends: []string{backend.Address()}, Pool: []string{`connect_timeout = "50s"`}}.start(t)
		return b, backend, b.Dial(t, "main")
	}
	for _, size := range []int64{1, 1000, 300_000} {
		t.Run(fmt.Sprintf("%d bytes and a FIN", size), func(t *testing.T) {
			t.Parallel()
			ends := make(chan end, 1)
			b, backend, c := start(t, exchanging(harness.Traffic{Seed: 1, Size: 10_000, Chunk: 100}, ends))
			sent, err := harness.Traffic{Seed: 2, Size: size, Chunk: 1000}.Send(c)
			check(t, err)
			check(t, c.CloseWrite())
			backend.AwaitSYN(t)
			backend.Open(t)
			got, err := harness.Collect(c)
			check(t, err)
			sameBytes(t, end{sent: sent, got: got}, harness.Receive(t, "the backend's end", ends),
				b.WaitSession(t, c.LocalAddr()))
		})
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			t.Parallel()
			_, backend, c := start(t, harness.Echo)
			sent, err := harness.Traffic{Seed: 2, Size: size, Chunk: 1000}.Send(c)
			check(t, err)
			backend.AwaitSYN(t)
			backend.Open(t)
			got, err := harness.Collect(io.LimitReader(c, size))
			check(t, err)
			if got != sent {
				t.Errorf("sent %v, got back %v", sent, got)
			}
		})
	}
}

// TestClientLeavesBeforeConnect closes clients during the backend's connect: the balancer must notice it on its own.
func TestClientLeavesBeforeConnect(t *testing.T) {
	t.Parallel()
	backend := harness.Swallow(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}, Pool: []string{`connect_timeout = "10m"`}}.start(t)
	c := b.Dial(t, "main")
	check(t, harness.SendAll(c, "hello"))
	backend.AwaitSYN(t)
	harness.Reset(c)
	oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "client_reset")
}

func TestReset(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		bulk bool
	}{{"quiet", false}, {"in the middle of bulk", true}} {
		for _, by := range []string{"client", "backend"} {
			t.Run(tc.name+" by "+by, func(t *testing.T) {
				b, client, backend := connected(t)
				resetter, other := client, backend
				if by == "backend" {
					resetter, other = backend, client
				}
				errs := make(chan error, 2)
				if tc.bulk {
					moved := endless(resetter)
					go func() { // ends with the reset
						_, err := io.Copy(io.Discard, struct{ io.Reader }{other})
						errs <- err
					}()
					go func() {
						_, err := harness.Traffic{Size: 1 << 40, Chunk: 1 << 20}.Send(other)
						errs <- err
					}()
					harness.Eventually(t, "bulk is under way", func() error { return atLeast(moved, 64<<20) })
				} else {
					check(t, roundTrip(client, backend))
					go func() {
						_, err := io.Copy(io.Discard, struct{ io.Reader }{other})
						errs <- err
					}()
				}
				harness.Reset(resetter)

				// the kernel reports the reset once, to the first call
				err := harness.Receive(t, "end of the other side", errs)
				if tc.bulk {
					err = errors.Join(err, harness.Receive(t, "end of the other side", errs))
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other side saw %v, expected a reset", err)
				}
				oneOf(t, []harness.Line{b.WaitSession(t, client.LocalAddr())}, by+"_reset")
			})
		}
	}
}

// endless sends and reads on c for as long as it lives, and counts what it reads.
func endless(c *net.TCPConn) *atomic.Int64 {
	var moved atomic.Int64
	go func() { _, _ = harness.Traffic{Size: 1 << 40, Chunk: 1 << 20}.Send(c) }()
	go func() { _, _ = io.Copy(&counter{n: &moved}, struct{ io.Reader }{c}) }()
	return &moved
}

// A counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

func atLeast(n *atomic.Int64, least int64) error {
	if now := n.Load(); now < least {
		return fmt.Errorf("%d of %d", now, least)
	}
	return nil
}

// roundTrip sends one byte each way.
func roundTrip(client, backend net.Conn) error {
	one := make([]byte, 1)
	for _, c := range [][2]net.Conn{{client, backend}, {backend, client}} {
		if _, err := c[0].Write([]byte("x")); err != nil {
			return err
		}
		if _, err := io.ReadFull(c[1], one); err != nil {
			return err
		}
	}
	return nil
}

// TestAnswerOutlivesBackend has a backend that answers and closes before its client has read a byte, or while it reads
// slowly.
func TestAnswerOutlivesBackend(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		size int64
		read int  // bytes at a time
		late bool // the client begins to read when the backend is gone
	}{
		{"small answer, late client", 1000, 1000, true},
		{"answer that fits the kernel's buffers, late client", 1 << 20, 64 << 10, true},
		{"large answer, slow client", 64 << 20, 4096, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent := make(chan end, 1)
			b, backend := between(t, func(_ context.Context, c *net.TCPConn) {
				var e end
				e.sent, e.err = harness.Traffic{Seed: 3, Size: tc.size, Chunk: 32 << 10}.Send(c)
				sent <- e // and the connection is closed, both halves at once
			})
			c := b.Dial(t, "main")
			check(t, c.SetReadBuffer(256<<10)) // less than a segment of loopback would make each wait for a timer
			if tc.late {
				harness.Eventually(t, "the backend is gone", func() error {
					if backend.Accepted() == 0 || backend.Open() > 0 {
						return errors.New("it still sends")
					}
					return nil
				})
			}
			got, err := harness.Collect(readAtMost{c, tc.read})
			check(t, err)
			check(t, c.Close())
			e := harness.Receive(t, "the backend's end", sent)
			check(t, e.err)
			if got != e.sent {
				t.Errorf("backend sent %v, client got %v", e.sent, got)
			}
			oneOf(t, []harness.Line{b.WaitSession(t, c.LocalAddr())}, "backend_closed")
		})
	}
}

// readAtMost reads from r in pieces of at most n bytes.
type readAtMost struct {
	r io.Reader
	n int
}

// Read implements io.Reader.
func (r readAtMost) Read(b []byte) (int, error) { return r.r.Read(b[:min(r.n, len(b))]) }
