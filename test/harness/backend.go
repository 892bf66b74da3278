package harness

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Handler serves one connection of a Backend; the Backend closes the connection when it returns. ctx ends with the
// Backend.
type Handler func(ctx context.Context, c *net.TCPConn)

// A Backend is a TCP server inside the test process. Its methods may be called from any goroutine.
type Backend struct {
	// set once, then read-only
	listener *net.TCPListener
	handle   Handler
	ctx      context.Context // ends with the backend, for its handlers
	cancel   context.CancelFunc

	serving sync.WaitGroup // the accept loop and every handler

	// mu guards the fields below
	mu       sync.Mutex
	open     map[*net.TCPConn]bool
	accepted int
	closed   bool
}

// Serve starts a backend on a free port of 127.0.0.1. It is closed at the end of the test.
func Serve(t testing.TB, handle Handler) *Backend {
	t.Helper()
	return ServeOn(t, "127.0.0.1:0", handle)
}

// ServeOn is Serve on an address of the caller's choice, for IPv6 or a backend that comes back.
func ServeOn(t testing.TB, address string, handle Handler) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(l.(*net.TCPListener), handle)
	t.Cleanup(b.Close)
	b.serving.Go(b.accept)
	return b
}

func newBackend(l *net.TCPListener, handle Handler) *Backend {
	b := &Backend{listener: l, handle: handle, open: map[*net.TCPConn]bool{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Address returns the address that the backend listens on.
func (b *Backend) Address() string { return b.listener.Addr().String() }

// Accepted returns the number of connections so far.
func (b *Backend) Accepted() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accepted
}

// Open returns the number of connections whose handler has not returned.
func (b *Backend) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// Close stops listening, closes all connections and returns when every handler has returned. A second call does
// nothing.
func (b *Backend) Close() {
	b.cancel()
	b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		c.Close()
	}
	b.mu.Unlock()
	b.serving.Wait()
}

func (b *Backend) accept() {
	for {
		c, err := b.listener.AcceptTCP()
		if err != nil {
			return // the listener was closed: on loopback nothing else ends it
		}
		b.mu.Lock()
		if b.closed {
			c.Close()
		} else {
			b.open[c] = true
			b.accepted++
			b.serving.Go(func() { b.serve(c) })
		}
		b.mu.Unlock()
	}
}

func (b *Backend) serve(c *net.TCPConn) {
	b.handle(b.ctx, c)
	c.Close()
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
}

// Echo sends back what it receives, until the other side ends its half.
func Echo(_ context.Context, c *net.TCPConn) {
	// without splice, so that the backend sees every read
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

// Silent accepts and reads, but sends nothing, not even a FIN in answer to one.
func Silent(ctx context.Context, c *net.TCPConn) {
	if _, err := io.Copy(io.Discard, c); err == nil {
		<-ctx.Done()
	}
}

// Unread accepts and leaves everything unread in the kernel.
func Unread(ctx context.Context, _ *net.TCPConn) { <-ctx.Done() }

// CloseAtOnce ends the connection in order before its first byte.
func CloseAtOnce(context.Context, *net.TCPConn) {}

// ResetAtOnce resets the connection before its first byte.
func ResetAtOnce(_ context.Context, c *net.TCPConn) { Reset(c) }

// SpeakFirst returns a handler that sends greeting before it reads anything, and echoes from then on.
func SpeakFirst(greeting string) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		if _, err := io.WriteString(c, greeting); err == nil {
			Echo(ctx, c)
		}
	}
}

// SpeakLate is SpeakFirst with a pause before the greeting.
func SpeakLate(after time.Duration, greeting string) Handler {
	return func(ctx context.Context, c *net.TCPConn) {
		select {
		case <-time.After(after):
			SpeakFirst(greeting)(ctx, c)
		case <-ctx.Done():
		}
	}
}

// Name returns a handler that sends name and closes, so that a client learns which backend it got.
func Name(name string) Handler {
	return func(_ context.Context, c *net.TCPConn) { _, _ = io.WriteString(c, name) }
}

// Reset ends c with a RST instead of a FIN.
func Reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // an error means that it is closed already
	c.Close()
}
