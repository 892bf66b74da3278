package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

// A Kind is one of a closed set of reasons why a member of etcd gave no usable answer.
type Kind string

// Error returns the kind in words.
func (k Kind) Error() string { return "etcd: " + string(k) }

// The kinds of a Mistake, for errors.Is.
const (
	NoAnswer     = Kind("no answer")            // nothing came in time, or the member could not be reached
	BadAnswer    = Kind("no usable answer")     // it refuses the request, or contradicts itself
	LoginRefused = Kind("the login is refused") // the user or the password is wrong or missing, or a right is
	NoTLS        = Kind("no TLS connection")    // one side speaks TLS and the other does not, or trusts it not
	NoMajority   = Kind("no majority")          // etcd's members have no leader, or do not agree
	TooMuchData  = Kind("too much data")        // more keys, or larger ones, than are read or written
	NotEtcd      = Kind("not etcd")             // something else listens there
	NoSpace      = Kind("no space")             // etcd takes no writes until somebody makes room
)

// A Mistake says why a member of etcd gave no usable answer, and what to do about it. The same cause has the same text,
// and all of it can be printed. It is a plain value.
type Mistake struct {
	Endpoint string
	Kind     Kind
	Detail   string // more in words, and what to do about it
	Err      error  // the cause
}

// Error says who was asked, and with what result.
func (m *Mistake) Error() string {
	return fmt.Sprintf("ask etcd at %s: %s: %s", m.Endpoint, string(m.Kind), m.Detail)
}

// Unwrap returns the kind and the cause.
func (m *Mistake) Unwrap() []error { return []error{m.Kind, m.Err} }

// Needs says which rights a user of etcd needs. It is a plain value.
type Needs struct {
	Prefix string // of the keys
	Write  bool   // beside reading them
}

// Explain returns the error of a member of etcd in words that say what to do about it; it returns a *Mistake in err as
// it is. The words name keys of the configuration (user, password_file, ca, server_name, cert, key), which are the same
// wherever etcd is configured. If the connection was refused or ended, it may connect to the endpoint to find out what
// that speaks, for a second or two.
func (l Login) Explain(ctx context.Context, endpoint string, needs Needs, err error) *Mistake {
	if known, is := errors.AsType[*Mistake](err); is {
		return known
	}
	m := &Mistake{Endpoint: endpoint, Kind: NoAnswer, Err: err}
	handshake, ofHandshake := errors.AsType[*HandshakeError](err)
	code := status.Code(err)
	said, isEtcds := errors.AsType[rpctypes.EtcdError](err) // so etcd has answered
	switch {
	case ofHandshake:
		m.Kind, m.Detail = ofHandshakeError(ctx, endpoint, handshake.Err)
	case errors.Is(err, ErrTooMany):
		m.Kind, m.Detail = TooMuchData, fmt.Sprintf("the keys below %s: %v", reach.Quote(needs.Prefix), err)
	case errors.Is(err, ErrBehind), errors.Is(err, ErrFlood), errors.Is(err, ErrCompacted):
		m.Kind, m.Detail = BadAnswer, err.Error()
	case isEtcds:
		m.Kind, m.Detail = l.ofEtcd(needs, said)
	case code == codes.ResourceExhausted:
		m.Kind, m.Detail = TooMuchData, fmt.Sprintf("an answer about the keys below %s has more than %d MiB",
			reach.Quote(needs.Prefix), MaxBytes>>20)
	case code == codes.Unimplemented:
		m.Kind, m.Detail = NotEtcd, noEtcd
	case code == codes.DeadlineExceeded, reach.IsTimeout(err):
		m.Detail = "timed out"
	case code == codes.Canceled, errors.Is(err, context.Canceled):
		m.Detail = "ended"
	case code == codes.Unavailable, code == codes.Internal, errors.Is(err, ErrLost):
		m.Kind, m.Detail = l.ofEnd(ctx, endpoint)
	case code == codes.Unknown, code == codes.OK:
		m.Detail = reach.NoAnswer(err)
	default:
		m.Kind, m.Detail = BadAnswer, reach.Quote(status.Convert(err).Message())
	}
	return m
}

const noEtcd = "it does not speak the v3 API of etcd"

// ofHandshakeError explains a failed TLS handshake.
func ofHandshakeError(ctx context.Context, endpoint string, err error) (Kind, string) {
	detail, known := reach.TLS(err)
	switch {
	case known:
		return NoTLS, detail
	case reach.IsTimeout(err):
		return NoAnswer, "timed out in the TLS handshake"
	case reach.SpeaksPlain(ctx, endpoint):
		return NoTLS, reach.PlainEndpoint
	}
	return NoTLS, "it ended the handshake: " + reach.NoAnswer(err)
}

// ofEtcd explains what etcd has said. The library knows its errors by their texts, so that they can be printed.
func (l Login) ofEtcd(needs Needs, said rpctypes.EtcdError) (Kind, string) {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(said, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(rpctypes.ErrNoLeader, rpctypes.ErrTimeoutDueToLeaderFail):
		return NoMajority, "etcd has no leader: too many of its members are down, or cut off from this one"
	case is(rpctypes.ErrUserEmpty):
		return LoginRefused, "etcd needs a login: set user and password_file"
	case is(rpctypes.ErrAuthFailed):
		return LoginRefused, fmt.Sprintf("etcd does not know the user %q with this password: see user and password_file",
			l.User)
	case is(rpctypes.ErrAuthNotEnabled):
		return LoginRefused, "etcd has no logins (`etcdctl auth enable`): leave out user and password_file"
	case is(rpctypes.ErrPermissionDenied) && needs.Write:
		return LoginRefused, fmt.Sprintf("the user %q may not read and write the keys: `etcdctl role grant-permission ROLE "+
			"readwrite --prefix=true %s` for one of its roles allows it", l.User, needs.Prefix)
	case is(rpctypes.ErrPermissionDenied):
		return LoginRefused, fmt.Sprintf("the user %q may not read the keys: `etcdctl role grant-permission ROLE "+
			"read --prefix=true %s` for one of its roles allows it", l.User, needs.Prefix)
	case is(rpctypes.ErrNoSpace):
		return NoSpace, "etcd is full and takes no writes: compact and defragment it, and then `etcdctl alarm disarm`"
	case is(rpctypes.ErrRequestTooLarge):
		return TooMuchData, "etcd refuses a request that is too large: see its --max-request-bytes"
	case is(rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex),
		said.Code() == codes.DeadlineExceeded:
		return NoAnswer, "timed out"
	case is(rpctypes.ErrStopped):
		return NoAnswer, "etcd is shutting down"
	}
	return BadAnswer, said.Error()
}

// ofEnd says why a member of etcd ends a connection that was made.
func (l Login) ofEnd(ctx context.Context, endpoint string) (Kind, string) {
	secure := strings.HasPrefix(endpoint, "https://")
	switch {
	case !secure && reach.SpeaksTLS(ctx, endpoint):
		return NoTLS, reach.SecureEndpoint
	case secure && (l.TLS == nil || len(l.TLS.Certificates) == 0) && reach.WantsCertificate(ctx, endpoint):
		return NoTLS, "it refuses a client without a certificate: set cert and key to one that it trusts"
	case secure && reach.WantsCertificate(ctx, endpoint):
		return NoTLS, "it refuses our certificate: set cert and key to one that it trusts"
	case !secure && isOtherServer(ctx, endpoint):
		return NotEtcd, noEtcd
	}
	return NoAnswer, "it closes the connection"
}

// isOtherServer reports whether an endpoint answers HTTP as etcd would not.
func isOtherServer(ctx context.Context, endpoint string) bool {
	answer := reach.AskPlain(ctx, endpoint, "/version")
	return strings.HasPrefix(answer, "HTTP/") && !strings.Contains(answer, `"etcdserver"`)
}
