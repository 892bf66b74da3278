package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// How much a check reads from one connection. With HTTP/1.1 the header and the body have separate limits.
const (
	maxHTTP1BodyBytes = 2 * maxBodyBytes                    // chunked encoding needs six bytes for a chunk of one byte
	maxHTTP2Bytes     = 4 * (maxHeaderBytes + maxBodyBytes) // including the frames
)

// An HTTP/1.1 answer begins with http1Start (RFC 9112, 4). The first frame of HTTP/2 has the type SETTINGS; the type of
// a frame follows three bytes of length (RFC 9113, 3.4 and 4.1).
const (
	http1Start    = "HTTP/"
	typeAt        = 3
	settingsFrame = 4
)

// A witness is the connection that net/http, or grpc, uses for one check. The errors of these libraries do not say
// whether a connection was closed or reset, how early, and by which side; a witness remembers that. It also
//
//   - delays reads until something was written, since net/http would log a target that speaks first (as SSH and SMTP
//     do);
//   - refuses an answer of another protocol at its first bytes, since net/http would wait for the end of a line;
//   - limits how much is read;
//   - hides write errors, since an overloaded target may answer and close without reading the request.
//
// Its methods may be called from any goroutine. Close leaves the underlying connection open, so that the check can end
// it in order. No goroutine uses that connection after end has returned.
type witness struct {
	net.Conn

	http2   bool
	written chan struct{} // closed by the first Write, or by Close

	reading, writing sync.Mutex // held while the underlying connection is read or written

	// mu guards the fields below
	mu       sync.Mutex
	left     int    // bytes that may still be read
	head     []byte // the first bytes read, up to longestQuote and one more
	readErr  error  // the first one
	writeErr error  // the first one
	began    bool   // written is closed
	sent     bool   // Write was called
	closed   bool
}

// newWitness returns a witness of c, on which protocol is spoken.
func newWitness(c net.Conn, protocol string) *witness {
	w := &witness{Conn: c, http2: protocol == protocolHTTP2, written: make(chan struct{}), left: maxHeaderBytes}
	if w.http2 {
		w.left = maxHTTP2Bytes
	}
	return w
}

// Read implements net.Conn.
func (w *witness) Read(p []byte) (int, error) {
	<-w.written
	w.reading.Lock()
	defer w.reading.Unlock()
	w.mu.Lock()
	closed, left := w.closed, w.left
	w.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	if left <= 0 {
		return 0, w.refuse(errEndless)
	}
	n, err := w.Conn.Read(p[:min(len(p), left)])
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left -= n
	w.head = append(w.head, p[:min(n, longestQuote+1-len(w.head))]...)
	if said := w.otherProtocol(err); said != nil {
		n, err = 0, said
	}
	if w.readErr == nil {
		w.readErr = err
	}
	return n, err
}

// otherProtocol returns what is wrong with the first bytes read; err is the error of reading them, if any. mu is held.
func (w *witness) otherProtocol(err error) error {
	n := len(w.head)
	if w.http2 {
		if n > typeAt && w.head[typeAt] != settingsFrame || n > 0 && n <= typeAt && err != nil {
			return unhealthyf("not http/2: answer begins with %s", quoted(w.head))
		}
		return nil
	}
	if n = min(n, len(http1Start)); string(w.head[:n]) != http1Start[:n] {
		return unhealthyf("not http: answer begins with %s", quoted(w.head))
	}
	return nil
}

// Write implements net.Conn. It does not return errors of the connection: if there is no answer, the next read fails.
func (w *witness) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	closed := w.closed
	w.sent = true
	w.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	_, err := w.Conn.Write(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writeErr == nil {
		w.writeErr = err
	}
	w.begin()
	return len(p), nil
}

// Close makes later reads and writes fail. It does not interrupt those in progress; end does.
func (w *witness) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.begin()
	return nil
}

// begin allows reads. mu is held.
func (w *witness) begin() {
	if !w.began {
		w.began = true
		close(w.written)
	}
}

// end closes w, interrupts the reads and writes in progress, and waits for them to return. raw is the TCP connection
// below w.Conn.
func (w *witness) end(raw rawConn) {
	_ = w.Close()
	_ = raw.SetDeadline(time.Unix(1, 0))
	w.reading.Lock()
	defer w.reading.Unlock()
	w.writing.Lock()
	defer w.writing.Unlock()
}

// expectBody sets the limit of the body. It is called when the header of an answer was read.
func (w *witness) expectBody() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.http2 {
		w.left = maxHTTP1BodyBytes
	}
}

// refuse records err as the reason why nothing more is read, unless there is a reason already. It returns err.
func (w *witness) refuse(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.readErr == nil {
		w.readErr = err
	}
	return err
}

// headerFailure puts into words an error that net/http returned instead of an answer.
func (w *witness) headerFailure(ctx context.Context, k *checkConn, err error) error {
	w.mu.Lock()
	readErr, sent, left := w.readErr, w.sent, w.left
	w.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case !sent:
		return cannotCheckf("%s", escaped(err.Error())).because(err)
	case !w.http2 && left <= 0 && (readErr == nil || errors.Is(readErr, errEndless)):
		return unhealthyf("header longer than %d KiB", maxHeaderBytes>>10).because(err)
	case !w.http2 && readErr == nil: // a whole header was read, and it is not valid
		return unhealthyf("not http: %s", escaped(innermost(err).Error())).because(err)
	}
	return w.failure(ctx, k, err, "the answer")
}

// innermost returns the error at the end of err's chain, without the text that net/http may have put around it.
func innermost(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

// failure puts into words an error that net/http returned instead of what. If the connection itself had an error, that
// one says more.
func (w *witness) failure(ctx context.Context, k *checkConn, err error, what string) error {
	w.mu.Lock()
	readErr, writeErr := w.readErr, w.writeErr
	w.mu.Unlock()
	if said, ok := errors.AsType[*checkError](readErr); ok && !errors.Is(ctx.Err(), context.Canceled) {
		return said
	}
	switch {
	case readErr == io.EOF && writeErr != nil: // the kernel reports a reset only once: the write had it
		err = writeErr
	case readErr != nil:
		err = readErr
	}
	return k.failure(ctx, err, what)
}
