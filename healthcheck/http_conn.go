package healthcheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
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

// exchangeHTTP sends a request to t and calls judge with the answer. It returns how long that took.
func exchangeHTTP(
	ctx context.Context, t Target, o httpOptions, request *http.Request, judge func(*httpAnswer) error,
) (time.Duration, error) {
	config := o.tls
	if config != nil {
		config = config.Clone()
		config.NextProtos = o.protocols
	}
	k, err := openTalk(ctx, t, o.port, config, certificateName(o.host, t))
	if err != nil {
		return 0, err
	}
	protocol, err := agreedProtocol(k, o.protocols)
	if err != nil {
		k.part(ctx)
		return 0, err
	}
	w := newWitness(k.Conn, protocol)
	defer func() {
		w.end(k.raw)
		k.part(ctx)
	}()
	var latency time.Duration
	err = roundTrip(ctx, k, w, request, func(answer *httpAnswer) error {
		err := judge(answer)
		latency = time.Since(k.start)
		return err
	})
	return latency, err
}

// agreedProtocol returns the protocol to speak: the one of the TLS handshake, or the last of those offered without TLS.
func agreedProtocol(k *talk, offered []string) (string, error) {
	conn, ok := k.Conn.(*tls.Conn)
	if !ok {
		return offered[len(offered)-1], nil
	}
	protocol := conn.ConnectionState().NegotiatedProtocol
	if protocol == "" {
		protocol = protocolHTTP1 // a server without ALPN knows no other
	}
	if !slices.Contains(offered, protocol) {
		return "", noProtocol(offered)
	}
	return protocol, nil
}

// An httpAnswer is the answer to a request. It is valid until judge returns.
type httpAnswer struct {
	*http.Response

	failure func(err error, what string) error // puts an error of reading the body into words
}

// maxInformational is how many answers of status 1xx may come before the one that counts.
const maxInformational = 5

// roundTrip sends request over w and calls judge with the answer.
//
// The connection exists already, made as for the other checks, so that a failed connect or handshake has the same reason
// everywhere. For net/http it is one without TLS, and there is one protocol to speak.
func roundTrip(ctx context.Context, k *talk, w *witness, request *http.Request, judge func(*httpAnswer) error) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!w.http2)
	protocols.SetUnencryptedHTTP2(w.http2)
	transport := &http.Transport{
		Protocols:              protocols,
		DisableKeepAlives:      true,
		DisableCompression:     true, // the text is searched in the body as the target has it
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        1 << 10, // a request is short
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return w, nil },
	}
	// Not transport.RoundTrip, which would dial again after some errors.
	conn, err := transport.NewClientConn(ctx, "http", request.URL.Host)
	if err != nil {
		return w.failure(ctx, k, err, "the answer")
	}
	defer conn.Close()
	informational := 0
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		if informational++; informational <= maxInformational {
			return nil
		}
		return w.refuse(unhealthyf("status 1xx again and again"))
	}}
	request.Close = true // so that net/http does not wait for the end of writing before it returns an answer
	response, err := conn.RoundTrip(request.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		return w.headerFailure(ctx, k, err)
	}
	defer response.Body.Close()
	w.expectBody()
	return judge(&httpAnswer{
		Response: response,
		failure:  func(err error, what string) error { return w.failure(ctx, k, err, what) },
	})
}
