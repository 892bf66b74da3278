package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/limeload/limeload-l4/healthcheck"
)

// maxGRPCBytes is how long an answer may be. It has two bytes; the rest is for fields that we do not know.
const maxGRPCBytes = 1 << 10

// GRPC checks that a target's gRPC health service (grpc.health.v1.Health/Check) calls it, or one service of it, serving.
// It is a plain value; its zero value asks for the server as a whole, on the target's own port and without TLS.
type GRPC struct {
	Port      uint16      // instead of the target's; 0 = the target's
	TLS       *tls.Config // nil = h2c; without a ServerName the certificate has to be for Authority, or the target's address
	Service   string      // asked for by this name; "" = the server as a whole
	Authority string      // what would be Host in HTTP/1.1; "" = the target's address and port
}

// Check asks t once. Its errors wrap their cause, and ErrInconclusive when that is ours.
func (c GRPC) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if err := validHost(c.Authority); err != nil {
		return healthcheck.Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	k, _, err := openHTTP(ctx, t, c.Port, c.TLS, c.Authority, protocolHTTP2)
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.part(ctx)
	latency, err := c.ask(ctx, k, t)
	if err != nil {
		return healthcheck.Result{}, err
	}
	return healthcheck.Result{Latency: latency, Detail: "serving"}, nil
}

// ask makes the call over k, and returns how long the check took.
//
// The connection exists already, made as for the other checks, so that a failed connect or handshake has the same reason
// everywhere. A witness stands between grpc and it, as for net/http.
func (c GRPC) ask(ctx context.Context, k *talk, t healthcheck.Target) (time.Duration, error) {
	w := newWitness(k.Conn, protocolHTTP2)
	progress := new(callProgress)
	made := insecure.NewCredentials()
	if c.TLS != nil {
		made = doneTLS{made}
	}
	address := net.JoinHostPort(addressName(t), strconv.Itoa(int(atPort(t, c.Port).Port())))
	conn, err := grpc.NewClient("passthrough:///the connection of the check",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if progress.dials.Add(1) > 1 {
				return nil, errGoAway
			}
			return w, nil
		}),
		grpc.WithTransportCredentials(made),
		grpc.WithAuthority(cmp.Or(c.Authority, address)), grpc.WithUserAgent(userAgent), grpc.WithStatsHandler(progress),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithDisableHealthCheck(),
		grpc.WithMaxHeaderListSize(maxHeaderBytes), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(1<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxGRPCBytes)),
	)
	if err != nil {
		w.end(k.raw)
		return 0, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	defer conn.Close()
	defer w.end(k.raw) // first, since closing waits for whoever reads or writes
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service})
	if err != nil {
		return 0, progress.failure(ctx, k, w, err)
	}
	return time.Since(k.start), servingError(answer.GetStatus())
}

// doneTLS are the credentials of a connection whose TLS handshake is done: only the scheme of the request, https, is left.
type doneTLS struct {
	credentials.TransportCredentials
}

// Info implements credentials.TransportCredentials.
func (doneTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (d doneTLS) Clone() credentials.TransportCredentials { return d }

// callProgress records how far a call came, since grpc's errors do not say whether the server or grpc made a status.
// Its zero value is ready to use, by any goroutine.
type callProgress struct {
	header, trailers atomic.Bool
	dials            atomic.Int32
}

// errGoAway is what is wrong when grpc dials again although the connection did not break.
var errGoAway = errors.New("the server wants another connection")

// HandleRPC implements stats.Handler.
func (p *callProgress) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.InHeader:
		p.header.Store(true)
	case *stats.InTrailer:
		p.trailers.Store(true)
	}
}

// TagRPC implements stats.Handler.
func (p *callProgress) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (p *callProgress) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (p *callProgress) HandleConn(context.Context, stats.ConnStats) {}

// What grpc says of answers that it does not understand, or how that begins; there are no errors to compare with. If grpc
// words them in another way, TestGRPC fails.
const (
	grpcWrongHTTP   = "unexpected HTTP status code received from server: "
	grpcWrongType   = "transport: received unexpected content-type "
	grpcWrongStatus = "transport: malformed grpc-status: "
	grpcNoTrailers  = "server closed the stream without sending trailers"
	grpcTooLong     = "grpc: received message larger than max"
)

// grpcWrongAnswers are the beginnings of what it says of an answer that is not exactly one good message.
var grpcWrongAnswers = []string{
	"grpc: failed to unmarshal ", "grpc: compressed flag ", "grpc: received unexpected payload format ",
	"grpc: Decompressor is not installed ", "cardinality violation: ", "unexpected EOF",
}

// failure puts an error of the call into words.
func (p *callProgress) failure(ctx context.Context, k *talk, w *witness, err error) error {
	what := "the answer"
	if p.header.Load() {
		what = "the end of the answer"
	}
	s := status.Convert(err)
	message, _, _ := strings.Cut(s.Message(), "\ndata: ")
	switch {
	case ctx.Err() != nil && !p.trailers.Load():
		return w.failure(ctx, k, ctx.Err(), what)
	case strings.HasPrefix(message, grpcTooLong):
		return unhealthyf("answer longer than %d bytes", maxGRPCBytes).because(err)
	case slices.ContainsFunc(grpcWrongAnswers, func(begin string) bool { return strings.HasPrefix(message, begin) }):
		return unhealthyf("not an answer of the health service: %s", escaped(message)).because(err)
	case p.trailers.Load():
		return grpcStatusError(s)
	case strings.HasPrefix(message, grpcWrongHTTP):
		return notGRPC(message).because(err)
	case strings.HasPrefix(message, grpcWrongStatus):
		return unhealthyf("not a grpc status: %s", escaped(strings.TrimPrefix(message, grpcWrongStatus))).because(err)
	case message == grpcNoTrailers:
		return unhealthyf("no grpc status: the trailers are missing").because(err)
	}
	if p.dials.Load() > 1 {
		return w.failure(ctx, k, errGoAway, what)
	}
	return w.failure(ctx, k, errors.New(message), what)
}

// notGRPC is the failure of a server that answered something else, of which grpc said message.
func notGRPC(message string) *checkError {
	status, rest, _ := strings.Cut(strings.TrimPrefix(message, grpcWrongHTTP), "; ")
	code := 0
	_, _ = fmt.Sscan(status, &code)
	if code != 200 {
		return unhealthyf("not a grpc server: status %s", httpStatus(code))
	}
	contentType := "" // there may be none
	if given, ok := strings.CutPrefix(rest, grpcWrongType); ok {
		contentType, _ = strconv.Unquote(given)
	}
	return unhealthyf("not a grpc server: content type %s", quoted([]byte(contentType)))
}

// servingError puts a status other than serving into words. Any number may come.
func servingError(s healthpb.HealthCheckResponse_ServingStatus) error {
	switch s {
	case healthpb.HealthCheckResponse_SERVING:
		return nil
	case healthpb.HealthCheckResponse_UNKNOWN:
		return unhealthyf("serving status unknown")
	case healthpb.HealthCheckResponse_NOT_SERVING:
		return unhealthyf("not serving")
	case healthpb.HealthCheckResponse_SERVICE_UNKNOWN:
		return unhealthyf("service unknown")
	}
	return unhealthyf("serving status %d", int32(s))
}

// grpcStatusError puts the server's status into words.
func grpcStatusError(s *status.Status) error {
	switch s.Code() {
	case codes.NotFound: // what Check answers where Watch answers SERVICE_UNKNOWN
		return unhealthyf("service unknown").because(s.Err())
	case codes.Unimplemented:
		return unhealthyf("the server has no health service").because(s.Err())
	}
	code := strconv.FormatUint(uint64(s.Code()), 10)
	if int(s.Code()) < len(grpcCodes) {
		code += " (" + grpcCodes[s.Code()] + ")"
	}
	if s.Message() != "" {
		return unhealthyf("grpc status %s: %s", code, quoted([]byte(s.Message()))).because(s.Err())
	}
	return unhealthyf("grpc status %s", code).because(s.Err())
}

// grpcCodes are the names of the statuses. Source: statuscodes.md of gRPC.
var grpcCodes = [...]string{
	"ok", "cancelled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists", "permission denied",
	"resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented", "internal", "unavailable",
	"data loss", "unauthenticated",
}
