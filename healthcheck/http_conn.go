package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// An httpAnswer is what came for a request. end has to be called when it was read as far as wanted, and before the talk's
// part.
type httpAnswer struct {
	*http.Response

	failure func(err error, what string) error // puts an error of reading the body into words
	end     func()
}

// exchangeHTTP1 sends request and reads the header of the answer.
//
// It does without http.Transport, which complains to the process' log about a target that speaks first (as SMTP and SSH do),
// does not tell an early end from a late one, and leaves goroutines behind that nothing waits for.
func exchangeHTTP1(ctx context.Context, k *talk, request *http.Request) (*httpAnswer, error) {
	request.Close = true // "Connection: close"
	var sent bytes.Buffer
	if err := request.Write(&sent); err != nil {
		return nil, &checkError{words: "cannot check: " + escaped(err.Error()), causes: []error{err, ErrInconclusive}}
	}
	// A target that is overloaded may answer and close without reading: there is an answer to read then.
	_, sendErr := k.Write(sent.Bytes())

	limited := &io.LimitedReader{R: k, N: maxHeaderBytes}
	noted := &errorNoter{r: limited}
	response, err := readHTTP1(bufio.NewReader(noted), request)
	switch {
	case err == nil:
	case noted.err == nil: // everything was there, and was wrong
		return nil, err
	case limited.N <= 0:
		return nil, &checkError{words: "header longer than 64 KiB", causes: []error{err}}
	case noted.err == io.EOF && sendErr != nil: // a reset is told once only, and then looks like an end
		return nil, k.failure(ctx, sendErr, "the answer")
	default:
		return nil, k.failure(ctx, noted.err, "the answer")
	}
	limited.N = 2 * maxBodyBytes // the second half is for chunked encoding, of which a chunk of one byte has six
	return &httpAnswer{
		Response: response,
		failure:  func(err error, what string) error { return k.failure(ctx, err, what) },
		end:      func() {}, // the talk's part does it
	}, nil
}

// An errorNoter remembers the first error of r. net/http returns an error of its own for each kind of nonsense, and this
// tells them from those of the network.
type errorNoter struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (n *errorNoter) Read(p []byte) (int, error) {
	read, err := n.r.Read(p)
	if n.err == nil {
		n.err = err
	}
	return read, err
}

// maxInformational is how many answers of status 1xx may come before the one that counts; as in net/http.
const maxInformational = 5

// readHTTP1 reads the header of the first answer that is final.
func readHTTP1(r *bufio.Reader, request *http.Request) (*http.Response, error) {
	for range maxInformational + 1 {
		if err := wantHTTP1(r); err != nil {
			return nil, err
		}
		response, err := http.ReadResponse(r, request)
		if err != nil {
			return nil, &checkError{words: "not http: " + escaped(err.Error()), causes: []error{err}}
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
	return nil, &checkError{words: "status 1xx again and again"}
}

// wantHTTP1 fails when what comes does not begin as an answer does. net/http would wait for the end of a line, which other
// protocols need not have.
func wantHTTP1(r *bufio.Reader) error {
	const start = "HTTP/"
	for n := 1; n <= len(start); n++ {
		got, err := r.Peek(n)
		if len(got) == n && got[n-1] != start[n-1] {
			got, _ = r.Peek(min(r.Buffered(), 4*longestQuote)) // it is there already
			return &checkError{words: "not http: answer begins with " + quoted(got)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxHTTP2Bytes is how much a check reads of one connection with HTTP/2: a header and a body as above, and the frames
// around them.
const maxHTTP2Bytes = 4 * (maxHeaderBytes + maxBodyBytes)

// errTooMuch is what a witness ends an answer of more than that with.
var errTooMuch = errors.New("an answer without end")

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
		w.finish(errTooMuch)
		return 0, errTooMuch
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
		return &checkError{words: "not http/2: answer begins with " + quoted(head), causes: []error{err}}
	}
	if errors.Is(readError, errTooMuch) {
		return &checkError{words: errTooMuch.Error(), causes: []error{err, readError}}
	}
	if readError != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (%w)", readError, err) // in this order: an alert that was read outdoes that writing failed
	}
	return k.failure(ctx, err, what)
}
