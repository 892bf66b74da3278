package healthcheck

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBodyBytes is how much of a body is searched for the text, and maxHeaderBytes how long a header may be.
const (
	maxBodyBytes   = 64 << 10
	maxHeaderBytes = 64 << 10
)

// userAgent is what a target finds in its access log.
const userAgent = "limeload-l4 check"

// HTTP checks that a target answers one request. It is a plain value; its zero value is GET / on the target's own port,
// for which each status of 200 to 399 will do.
//
// It follows no redirects and knows no proxies: it is about this target. It speaks HTTP/1.1, and over TLS also HTTP/2 when
// the target chooses that; the NextProtos of TLS do not count.
type HTTP struct {
	Port   uint16        // instead of the target's; 0 = the target's
	TLS    *tls.Config   // nil = http; without a ServerName the certificate has to be for Host, or the target's address
	Method string        // "" = GET
	Path   string        // with a query, perhaps; "" = /
	Host   string        // the header, with a port or without; "" = the target's address and port
	Status []StatusRange // any of them will do; none = 200-399
	Body   string        // has to be in the first 64 KiB of the body; "" = the body is not looked at
}

// A StatusRange is some statuses of HTTP. It is a plain value.
type StatusRange struct {
	From, To int // both included
}

// usualStatus is what a browser would not call an error.
var usualStatus = StatusRange{200, 399}

// ParseStatusRange reads "200" or "200-299".
func ParseStatusRange(s string) (StatusRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	r := StatusRange{From: parseStatus(from), To: parseStatus(to)}
	if r.From == 0 || r.To == 0 {
		return StatusRange{}, fmt.Errorf("status %s: want one like 200, or a range like 200-299", quoted([]byte(s)))
	}
	if r.From > r.To {
		return StatusRange{}, fmt.Errorf("status %s: want the lower one first", quoted([]byte(s)))
	}
	return r, nil
}

// parseStatus returns a final status of HTTP (RFC 9110, 15), or 0.
func parseStatus(s string) int {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < 200 || n > 599 || len(s) != 3 {
		return 0
	}
	return int(n)
}

// String returns the range as ParseStatusRange reads it.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Check sends one request to t. Its errors wrap their cause, and ErrInconclusive when that is ours.
func (c HTTP) Check(ctx context.Context, t Target) (Result, error) {
	request, err := c.request(ctx, t)
	if err != nil {
		return Result{}, &checkError{words: "cannot check: " + escaped(err.Error()), causes: []error{err, ErrInconclusive}}
	}
	k, err := openTalk(ctx, t, c.Port)
	if err != nil {
		return Result{}, err
	}
	defer k.part(ctx)
	if c.TLS != nil {
		config := c.TLS.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
		if err := k.secure(ctx, config, certificateName(c.Host, t)); err != nil {
			return Result{}, err
		}
	}
	exchange := exchangeHTTP1
	if conn, ok := k.Conn.(*tls.Conn); ok && conn.ConnectionState().NegotiatedProtocol == "h2" {
		exchange = exchangeHTTP2
	}
	answer, err := exchange(ctx, k, request)
	if err != nil {
		return Result{}, err
	}
	defer answer.end()
	if err := c.judge(answer); err != nil {
		return Result{}, err
	}
	return Result{Latency: time.Since(k.start), Detail: "status " + strconv.Itoa(answer.StatusCode)}, nil
}

// request builds what is sent; an error is a mistake of the configuration.
func (c HTTP) request(ctx context.Context, t Target) (*http.Request, error) {
	path := c.Path
	if path == "" {
		path = "/"
	}
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("the path does not begin with /")
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, err
	}
	return checkRequest(ctx, t, u, requestOptions{
		method: c.Method, host: c.Host, port: c.Port, secure: c.TLS != nil,
	})
}

// requestOptions are what HTTP and GRPC have their own ideas of.
type requestOptions struct {
	method, host string // may be empty
	port         uint16 // instead of the target's, if not 0
	secure       bool
}

// checkRequest returns a request for u at t.
func checkRequest(ctx context.Context, t Target, u *url.URL, o requestOptions) (*http.Request, error) {
	u.Scheme = "http"
	if o.secure {
		u.Scheme = "https"
	}
	port := t.Addr.Port()
	if o.port != 0 {
		port = o.port
	}
	u.Host = net.JoinHostPort(addressName(t), strconv.Itoa(int(port)))
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

// judge looks at an answer.
func (c HTTP) judge(answer *httpAnswer) error {
	wanted := c.Status
	if len(wanted) == 0 {
		wanted = []StatusRange{usualStatus}
	}
	good := false
	var words []string
	for _, r := range wanted {
		good = good || r.From <= answer.StatusCode && answer.StatusCode <= r.To
		words = append(words, r.String())
	}
	if !good {
		return &checkError{words: fmt.Sprintf("%s, wanted %s", statusInWords(answer.StatusCode), strings.Join(words, ", "))}
	}
	if c.Body == "" {
		return nil
	}
	return c.searchBody(answer)
}

// searchBody reads the body until the text is found: a body may be long, and come slowly.
func (c HTTP) searchBody(answer *httpAnswer) error {
	var body []byte
	buf := make([]byte, 4<<10)
	for len(body) < maxBodyBytes {
		from := max(0, len(body)-len(c.Body)+1)
		n, err := answer.Body.Read(buf[:min(len(buf), maxBodyBytes-len(body))])
		body = append(body, buf[:n]...)
		if bytes.Contains(body[from:], []byte(c.Body)) {
			return nil
		}
		if err == io.EOF { // as it is, or the body was cut short
			break
		}
		if err != nil {
			return answer.failure(err, "the end of the body")
		}
	}
	words := fmt.Sprintf("body lacks %s, begins with %s", quoted([]byte(c.Body)), quoted(body))
	if len(body) == 0 {
		words = fmt.Sprintf("body lacks %s, is empty", quoted([]byte(c.Body)))
	}
	return &checkError{words: words}
}

// statusInWords names a status; the target's own words for it may be any, and HTTP/2 has none.
func statusInWords(code int) string {
	return strings.TrimSpace(fmt.Sprintf("status %d %s", code, http.StatusText(code)))
}
