package probe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

const (
	maxBodyBytes   = 64 << 10 // how much of a body is searched for the text
	maxHeaderBytes = 64 << 10 // how long a header may be
)

// HTTP checks that a target answers one request. It is a plain value; its zero value sends GET / to the target's own
// port, and accepts each status of 200 to 399.
//
// It follows no redirects and uses no proxies, since the check is about this target. It speaks HTTP/1.1, and over TLS
// also HTTP/2 if the target chooses that. The NextProtos of TLS are ignored.
//
// net/http writes to the standard logger about odd HTTP/2 frames, as often as a target sends them. A program with a log
// of its own should silence the standard logger: log.SetOutput(io.Discard).
type HTTP struct {
	Port   uint16        // instead of the target's; 0 = the target's
	TLS    *tls.Config   // nil = http; without a ServerName the certificate must be for Host, or the target's address
	Method string        // "" = GET
	Path   string        // may have a query; "" = /
	Host   string        // the header Host, with or without a port; "" = the target's address and port
	Status []StatusRange // the status must be in one of them; none = 200-399
	Body   string        // must be in the first 64 KiB of the body; "" = the body is not read
}

// A StatusRange is a range of HTTP statuses. It is a plain value.
type StatusRange struct {
	From, To int // both included
}

// usualStatus is the statuses that are no errors to a browser.
var usualStatus = StatusRange{200, 399}

// String returns the range as in the configuration.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Check sends one request to t. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive
// as well.
func (c HTTP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	request, err := c.request(ctx, t)
	if err != nil {
		return healthcheck.Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	k, protocol, err := openHTTP(ctx, t, c.Port, c.TLS, c.Host, protocolHTTP2, protocolHTTP1)
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.finish(ctx)
	w := newWitness(k.Conn, protocol)
	defer w.end(k.raw)
	var result healthcheck.Result
	err = roundTrip(ctx, k, w, request, func(answer *httpAnswer) error {
		if err := c.judge(answer); err != nil {
			return err
		}
		result = healthcheck.Result{Latency: time.Since(k.start), Detail: "status " + strconv.Itoa(answer.StatusCode)}
		return nil
	})
	return result, err
}

// request builds the request; an error is a mistake in the configuration.
func (c HTTP) request(ctx context.Context, t healthcheck.Target) (*http.Request, error) {
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
	u.Scheme = "http"
	if c.TLS != nil {
		u.Scheme = "https"
	}
	u.Host = authority(t, c.Port)
	request, err := http.NewRequestWithContext(ctx, c.Method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if err := validHost(c.Host); err != nil {
		return nil, err
	}
	request.Host = cmp.Or(c.Host, u.Host)
	request.Header.Set("User-Agent", userAgent)
	return request, nil
}

// judge returns what is wrong with an answer.
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
		return unhealthyf("status %s, wanted %s", httpStatus(answer.StatusCode), strings.Join(words, ", "))
	}
	if c.Body == "" {
		return nil
	}
	return c.searchBody(answer)
}

// searchBody reads the body until it finds the text, and no further: a body may be long, and come slowly.
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
	if len(body) == 0 {
		return unhealthyf("body lacks %s, is empty", quoted([]byte(c.Body)))
	}
	return unhealthyf("body lacks %s, begins with %s", quoted([]byte(c.Body)), quoted(body))
}

// httpStatus returns a status with its standard name. The target's own name may be anything, and HTTP/2 has none.
func httpStatus(code int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
}
