package discovery

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// etcdMistake returns the error of one member of etcd in words that say what to do about it.
func (p *Patroni) etcdMistake(ctx context.Context, endpoint string, err error) *ClusterError {
	e := &ClusterError{Cause: err, Kind: ErrNoAnswer}
	if own, is := errors.AsType[*ClusterError](err); is {
		e = own
	}
	e.What, e.Endpoints = "etcd", []string{endpoint}
	if e == err { //nolint:errorlint // it is complete, and not wrapped
		return e
	}
	handshake, ofHandshake := errors.AsType[*etcd.HandshakeError](err)
	code := status.Code(err)
	said, isEtcds := errors.AsType[rpctypes.EtcdError](err) // so etcd has answered
	if isEtcds {
		code = said.Code()
	}
	switch {
	case ofHandshake:
		detail, known := tlsMistake(handshake.Err)
		switch {
		case known:
			e.Kind, e.Detail = ErrTLS, detail
		case isDeadline(handshake.Err):
			e.Detail = "timed out in the TLS handshake"
		case speaksPlain(ctx, endpoint):
			e.Kind, e.Detail = ErrTLS, plainEndpoint
		default:
			e.Kind, e.Detail = ErrTLS, "it ended the handshake: "+noAnswer(handshake.Err)
		}
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail):
		e.Kind, e.Detail = ErrNoMajority, "etcd has no leader: too many of its members are down, or cut off from this one"
	case errors.Is(err, rpctypes.ErrUserEmpty):
		e.Kind, e.Detail = ErrLogin, "etcd needs a login: set user and password_file"
	case errors.Is(err, rpctypes.ErrAuthFailed):
		e.Kind, e.Detail = ErrLogin, fmt.Sprintf("etcd does not know the user %q with this password: see user and "+
			"password_file", p.o.User)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		e.Kind, e.Detail = ErrLogin, fmt.Sprintf("the user %q may not read the keys: `etcdctl role grant-permission ROLE "+
			"read --prefix=true %s` for one of its roles allows it", p.o.User, p.prefix)
	case code == codes.ResourceExhausted:
		e.Kind, e.Detail = ErrTooMuchData, fmt.Sprintf("the keys below %s have more than %d MiB", p.prefix, etcd.MaxBytes>>20)
	case code == codes.Unimplemented:
		e.Kind, e.Detail = ErrBadAnswer, "it does not speak the v3 API of etcd: with rest = true, endpoints are Patroni's own"
	case isDeadline(err), code == codes.DeadlineExceeded, errors.Is(err, rpctypes.ErrTimeout):
		e.Detail = "timed out"
	case isEtcds:
		e.Kind, e.Detail = ErrBadAnswer, said.Error()
	case code == codes.Unavailable || code == codes.Internal || errors.Is(err, etcd.ErrLost):
		e.Detail, e.Kind = p.noHTTP2(ctx, endpoint)
	default:
		e.Detail = noAnswer(err)
		if code != codes.Unknown && code != codes.OK {
			e.Kind, e.Detail = ErrBadAnswer, status.Convert(err).Message()
		}
	}
	return e
}

// noHTTP2 says why a member of etcd ends a connection that was made.
func (p *Patroni) noHTTP2(ctx context.Context, endpoint string) (detail string, kind error) {
	switch {
	case strings.HasPrefix(endpoint, "http://") && speaksTLS(ctx, endpoint):
		return secureEndpoint, ErrTLS
	case strings.HasPrefix(endpoint, "https://") && (p.o.TLS == nil || len(p.o.TLS.Certificates) == 0) &&
		wantsCertificate(ctx, endpoint):
		return "it refuses a client without a certificate: set cert and key to one that it trusts", ErrTLS
	case strings.HasPrefix(endpoint, "https://") && wantsCertificate(ctx, endpoint):
		return "it refuses our certificate: set cert and key to one that it trusts", ErrTLS
	}
	return "it closes the connection", ErrNoAnswer
}

func isDeadline(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// examineTimeout bounds an attempt to find out what an endpoint speaks.
const examineTimeout = time.Second

// examine connects to an endpoint that has failed, to find out what it speaks.
func examine(ctx context.Context, endpoint string, with func(net.Conn) bool) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	d := net.Dialer{Timeout: examineTimeout}
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	defer c.Close()
	if c.SetDeadline(time.Now().Add(examineTimeout)) != nil {
		return false
	}
	return with(c)
}

// speaksTLS reports whether an endpoint answers a TLS handshake. It is shown nothing of ours.
func speaksTLS(ctx context.Context, endpoint string) bool {
	return examine(ctx, endpoint, func(c net.Conn) bool {
		err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		_, alert := errors.AsType[tls.AlertError](err)
		return err == nil || alert || isRemoteAlert(err)
	})
}

// wantsCertificate reports whether an endpoint asks clients for a certificate.
func wantsCertificate(ctx context.Context, endpoint string) bool {
	asked := false
	examine(ctx, endpoint, func(c net.Conn) bool {
		secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &tls.Certificate{}, nil
			}})
		return secure.HandshakeContext(ctx) == nil
	})
	return asked
}

// isRemoteAlert reports whether err is an alert of the other side of a TLS connection.
func isRemoteAlert(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return is && op.Op == "remote error"
}

// speaksPlain reports whether an endpoint answers HTTP without TLS.
func speaksPlain(ctx context.Context, endpoint string) bool {
	return examine(ctx, endpoint, func(c net.Conn) bool {
		if _, err := c.Write([]byte("GET /version HTTP/1.0\r\n\r\n")); err != nil {
			return false
		}
		line, err := bufio.NewReaderSize(c, 256).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "HTTP/1.") && !strings.Contains(line, " 400 ")
	})
}
