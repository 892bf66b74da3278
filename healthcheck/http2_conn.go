package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxHTTP2Bytes is how much a check reads of one connection with HTTP/2: a header and a body as above, and the frames
// around them.
const maxHTTP2Bytes = 4 * (maxHeaderBytes + maxBodyBytes)

// exchangeHTTP2 sends request over HTTP/2, without asking first whether the target speaks it, and reads the header of the
// answer.
func exchangeHTTP2(ctx context.Context, k *talk, request *http.Request) (*httpAnswer, error) {
	w := &witness{Conn: k.Conn, left: maxHTTP2Bytes, over: make(chan struct{}), heard: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true) // as net/http sees it: TLS, if any, is done already
	transport := &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true, // what is not asked for is not sent, and the text is to be found in the body
		MaxResponseHeaderBytes: maxHeaderBytes,
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return &frameFilter{Conn: w}, nil },
	}
	conn, err := transport.NewClientConn(ctx, "http", request.URL.Host)
	if err != nil {
		return nil, w.failure(ctx, k, err, "the answer")
	}
	response, err := conn.RoundTrip(request)
	if err != nil {
		err = w.failure(ctx, k, err, "the answer")
		w.end(ctx, k)
		conn.Close()
		return nil, err
	}
	return &httpAnswer{
		Response: response,
		failure:  func(err error, what string) error { return w.failure(ctx, k, err, what) },
		end: func() {
			response.Body.Close()
			w.end(ctx, k)
			conn.Close()
		},
	}, nil
}

// A witness is a connection that remembers how reading began and ended, since the errors of net/http's HTTP/2 do not
// always say. Its methods may be called from any goroutine.
type witness struct {
	net.Conn

	over  chan struct{} // closed by finish, once nobody reads any more
	heard chan struct{} // closed by Read, once it read anything or failed to

	// mu guards the fields below
	mu   sync.Mutex
	left int    // bytes that may still be read
	head []byte // the first bytes read, up to longestQuote
	err  error  // the first of reading; then over is closed
}

// Read implements net.Conn.
func (w *witness) Read(p []byte) (int, error) {
	w.mu.Lock()
	left := w.left
	w.mu.Unlock()
	if left == 0 {
		w.finish(errEndless)
		return 0, errEndless
	}
	n, err := w.Conn.Read(p[:min(len(p), left)])
	w.mu.Lock()
	if w.err == nil && err != nil {
		w.err = err
	}
	select {
	case <-w.heard:
	default:
		close(w.heard) // under mu, though there is one reader: net.Conn allows more
	}
	w.left -= n
	w.head = append(w.head, p[:min(n, longestQuote-len(w.head))]...)
	w.mu.Unlock()
	if err != nil {
		w.finish(err)
	}
	return n, err
}

// Close keeps the connection for the parting, and lets nobody wait for a reader who gave up.
func (w *witness) Close() error {
	w.finish(nil)
	return nil
}

// finish notes the end of reading.
func (w *witness) finish(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	select {
	case <-w.over:
	default:
		close(w.over)
	}
}

// end says goodbye and waits until the HTTP/2 of net/http has read what the target still says; that must not be read by
// anybody else, since its reader may be in the middle of a record of TLS.
func (w *witness) end(ctx context.Context, k *talk) {
	k.release()
	until := k.partUntil(ctx)
	if k.raw.SetDeadline(until) != nil { // of writing, too: the reader answers pings
		return
	}
	k.closeNotify(until)
	_ = k.raw.CloseWrite()
	<-w.over // at the deadline at the latest: until it is closed, somebody reads
}

// failure puts an error into words that net/http returned instead of what.
func (w *witness) failure(ctx context.Context, k *talk, err error, what string) error {
	// What is not HTTP/2 may answer and close at once: writing fails then, perhaps before the answer was read.
	select {
	case <-w.heard:
	case <-ctx.Done():
	case <-time.After(partingTime):
	}
	w.mu.Lock()
	head, readError := w.head, w.err
	w.mu.Unlock()
	// RFC 9113, 3.4: the first frame is one of settings.
	if n := len(head); n > typeAt && head[typeAt] != settingsFrame || n > 0 && n <= typeAt && readError != nil {
		return unhealthyf("not http/2: answer begins with %s", quoted(head)).because(err)
	}
	if errors.Is(readError, errEndless) {
		return errEndless
	}
	if readError != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", readError, err) // in this order: an alert that was read outdoes that writing failed
	}
	return k.failure(ctx, err, what)
}
