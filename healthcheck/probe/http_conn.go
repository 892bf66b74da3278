package probe

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
	"strings"

	"github.com/limeload/limeload-l4/healthcheck"
)

// userAgent is how the check appears in a target's access log.
const userAgent = "limeload-l4 check"

// The names of the protocols in ALPN (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// validHost returns an error if host cannot be the value of a header Host. host may have a port, and may be empty.
func validHost(host string) error {
	if u, err := url.Parse("//" + host); err != nil || u.Host != host {
		return fmt.Errorf("%s is no host", quoted([]byte(host)))
	}
	return nil
}

// certificateName returns the name that the certificate must have if the configuration of TLS names none: the host of
// the header Host, or the target's address.
func certificateName(host string, t healthcheck.Target) string {
	if host == "" {
		return addressName(t)
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]") // of an IPv6 address without a port
}

// openHTTP connects to t, with TLS if config is not nil. It returns the protocol to speak: the one that the TLS
// handshake agreed on, or without TLS the last one offered. host is the header Host.
func openHTTP(
	ctx context.Context, t healthcheck.Target, port uint16, config *tls.Config, host string, offered ...string,
) (k *checkConn, protocol string, err error) {
	if config != nil {
		config = config.Clone()
		config.NextProtos = offered
	}
	k, err = openConn(ctx, t, port, config, certificateName(host, t))
	if err != nil {
		return nil, "", err
	}
	conn, ok := k.Conn.(*tls.Conn)
	if !ok {
		return k, offered[len(offered)-1], nil
	}
	protocol = conn.ConnectionState().NegotiatedProtocol
	if protocol == "" {
		protocol = protocolHTTP1 // a server without ALPN knows no other
	}
	if !slices.Contains(offered, protocol) {
		k.finish(ctx)
		return nil, "", noProtocol(offered)
	}
	return k, protocol, nil
}

// An httpAnswer is the answer to a request. It is valid until the function judge of roundTrip returns.
type httpAnswer struct {
	*http.Response

	failure func(err error, what string) error // puts an error of reading the body into words
}

// maxInformational is how many answers with a status of 1xx may come before the final one.
const maxInformational = 5

// roundTrip sends request over w and calls judge with the answer.
//
// The connection is made in the same way as for the other checks, so that a failed connect or handshake has the same
// reason everywhere. net/http gets it as a connection without TLS on which one protocol is spoken.
func roundTrip(
	ctx context.Context, k *checkConn, w *witness, request *http.Request, judge func(*httpAnswer) error,
) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!w.http2)
	protocols.SetUnencryptedHTTP2(w.http2)
	transport := &http.Transport{
		Protocols:              protocols,
		DisableKeepAlives:      true,
		DisableCompression:     true, // the text is searched in the body as it is
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        1 << 10, // a request is short
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return w, nil },
	}
	// Not transport.RoundTrip, which would dial again after some errors.
	const unused = "localhost:80" // DialContext has the connection already
	conn, err := transport.NewClientConn(ctx, "http", unused)
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
