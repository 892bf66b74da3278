package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// userAgent is what a target finds in its access log.
const userAgent = "limeload-l4 check"

// The protocols, by their names in ALPN (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// httpOptions are what HTTP and GRPC have their own ideas of.
type httpOptions struct {
	method, host string      // may be empty
	port         uint16      // instead of the target's, if not 0
	tls          *tls.Config // nil = plain
	protocols    []string    // offered over TLS; in plain the last one is spoken
}

// checkRequest returns a request for u at t.
func checkRequest(ctx context.Context, t Target, u *url.URL, o httpOptions) (*http.Request, error) {
	u.Scheme = "http"
	if o.tls != nil {
		u.Scheme = "https"
	}
	u.Host = net.JoinHostPort(addressName(t), strconv.Itoa(int(atPort(t, o.port).Port())))
	request, err := http.NewRequestWithContext(ctx, o.method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if o.host != "" {
		host, err := url.Parse("//" + o.host)
		if err != nil || host.Host != o.host {
			return nil, fmt.Errorf("%s is no host", quoted([]byte(o.host)))
		}
		request.Host = o.host
	}
	request.Header.Set("User-Agent", userAgent)
	return request, nil
}

// certificateName returns what the certificate has to be for when the configuration of TLS does not say: the host of a
// header Host, or the target's address.
func certificateName(host string, t Target) string {
	if host == "" {
		return addressName(t)
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]") // of an IPv6 address without a port
}

// exchangeHTTP sends a request to t and has judge look at the answer. It returns how long that took.
func exchangeHTTP(ctx context.Context, t Target, o httpOptions, request *http.Request, judge func(*httpAnswer) error) (time.Duration, error) {
	config := o.tls
	if config != nil {
		config = config.Clone()
		config.NextProtos = o.protocols
	}
	k, err := openTalk(ctx, t, o.port, config, certificateName(o.host, t))
	if err != nil {
		return 0, err
	}
	defer k.part(ctx)
	protocol := o.protocols[len(o.protocols)-1]
	if conn, ok := k.Conn.(*tls.Conn); ok {
		protocol = conn.ConnectionState().NegotiatedProtocol
		if protocol == "" {
			protocol = protocolHTTP1 // a server without ALPN knows no other
		}
		if !slices.Contains(o.protocols, protocol) {
			return 0, noProtocol(o.protocols)
		}
	}
	exchange := exchangeHTTP1
	if protocol == protocolHTTP2 {
		exchange = exchangeHTTP2
	}
	answer, err := exchange(ctx, k, request)
	if err != nil {
		return 0, err
	}
	defer answer.end()
	if err := judge(answer); err != nil {
		return 0, err
	}
	return time.Since(k.start), nil
}

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
		return nil, cannotCheckf("%s", escaped(err.Error())).because(err)
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
		return nil, unhealthyf("header longer than %d KiB", maxHeaderBytes>>10).because(err)
	case noted.err == io.EOF && sendErr != nil: // a reset is told once only, and then looks like an end
		return nil, k.failure(ctx, sendErr, "the answer")
	default:
		return nil, k.failure(ctx, noted.err, "the answer")
	}
	limited.N = 2 * maxBodyBytes // the second half is for chunked encoding, of which a chunk of one byte has six
	return &httpAnswer{
		Response: response,
		failure: func(err error, what string) error {
			if limited.N <= 0 { // the target has not closed: it is this side that reads no more
				return errEndless
			}
			return k.failure(ctx, err, what)
		},
		end: func() {}, // the talk's part does it
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
			return nil, unhealthyf("not http: %s", escaped(err.Error())).because(err)
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, nil
		}
	}
	return nil, unhealthyf("status 1xx again and again")
}

// wantHTTP1 fails when what comes does not begin as an answer does. net/http would wait for the end of a line, which other
// protocols need not have.
func wantHTTP1(r *bufio.Reader) error {
	const start = "HTTP/"
	for n := 1; n <= len(start); n++ {
		got, err := r.Peek(n)
		if len(got) == n && got[n-1] != start[n-1] {
			got, _ = r.Peek(min(r.Buffered(), 4*longestQuote)) // it is there already
			return unhealthyf("not http: answer begins with %s", quoted(got))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
