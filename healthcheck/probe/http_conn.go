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

// userAgent is what a target finds in its access log.
const userAgent = "limeload-l4 check"

// The protocols, by their names in ALPN (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	protocolHTTP2 = "h2"
)

// validHost returns an error if host, with a port or without, cannot be a header Host. It may be empty.
func validHost(host string) error {
	if u, err := url.Parse("//" + host); err != nil || u.Host != host {
		return fmt.Errorf("%s is no host", quoted([]byte(host)))
	}
	return nil
}

// certificateName returns what the certificate has to be for when the configuration of TLS does not say: the host of a
// header Host, or the target's address.
func certificateName(host string, t healthcheck.Target) string {
	if host == "" {
		return addressName(t)
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]") // of an IPv6 address without a port
}

// openHTTP connects to t, with TLS if config is not nil, and returns the protocol to speak: the one agreed on in the TLS
// handshake, or without TLS the last of those offered. host is the header Host.
func openHTTP(
	ctx context.Context, t healthcheck.Target, port uint16, config *tls.Config, host string, offered ...string,
) (k *talk, protocol string, err error) {
	if config != nil {
		config = config.Clone()
		config.NextProtos = offered
	}
	k, err = openTalk(ctx, t, port, config, certificateName(host, t))
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
		k.part(ctx)
		return nil, "", noProtocol(offered)
	}
	return k, protocol, nil
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
