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

// maxGRPCBytes is how long an answer may be. Two bytes are enough for all fields that exist today.
const maxGRPCBytes = 1 << 10

// GRPC checks that a target's gRPC health service (grpc.health.v1.Health/Check) reports the server, or one of its
// services, as serving. It is a plain value; its zero value asks about the server as a whole, on the target's own port,
// without TLS.
type GRPC struct {
	Port      uint16      // instead of the target's; 0 = the target's
	TLS       *tls.Config // nil = h2c; its ServerName may be empty: then it is Authority, or the target's address
	Service   string      // the name of the service to ask about; "" = the server as a whole
	Authority string      // the :authority header, which is Host in HTTP/1.1; "" = the target's address and port
}

// Check asks t once. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive as well.
func (c GRPC) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if err := validHost(c.Authority); err != nil {
		return healthcheck.Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	k, _, err := openHTTP(ctx, t, c.Port, c.TLS, c.Authority, protocolHTTP2)
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.finish(ctx)
	latency, err := c.ask(ctx, k, t)
	if err != nil {
		return healthcheck.Result{}, err
	}
	return healthcheck.Result{Latency: latency, Detail: "serving"}, nil
}

// ask makes the call over k, and returns how long the check has taken.
//
// The connection is made in the same way as for the other checks, so that a failed connect or handshake has the same
// reason everywhere. grpc gets a witness of it, as net/http does.
func (c GRPC) ask(ctx context.Context, k *checkConn, t healthcheck.Target) (time.Duration, error) {
	w := newWitness(k.Conn, protocolHTTP2)
	progress := new(callProgress)
	made := insecure.NewCredentials()
	if c.TLS != nil {
		made = doneTLS{made}
	}
	address := authority(t, c.Port)
	conn, err := grpc.NewClient("passthrough:///the connection of the check",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if progress.dials.Add(1) > 1 {
				return nil, errGoAway
			}
			return w, nil
		}),
		grpc.WithTransportCredentials(made),
		grpc.WithAuthority(cmp.Or(c.Authority, address)), grpc.WithUserAgent(userAgent),
		grpc.WithStatsHandler(progress),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithDisableHealthCheck(),
		grpc.WithMaxHeaderListSize(maxHeaderBytes), grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(1<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxGRPCBytes)),
	)
	if err != nil {
		w.end(k.raw)
		return 0, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	defer conn.Close()
	defer w.end(k.raw) // runs before conn.Close, which waits for reads and writes in progress
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: c.Service})
	if err != nil {
		return 0, progress.failure(ctx, k, w, err)
	}
	return time.Since(k.start), servingError(answer.GetStatus())
}

// doneTLS are the credentials of a connection whose TLS handshake is done. They only make grpc use the scheme https.
type doneTLS struct {
	credentials.TransportCredentials
}

// Info implements credentials.TransportCredentials.
func (doneTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (d doneTLS) Clone() credentials.TransportCredentials { return d }

// callProgress records how far a call got, since grpc's errors do not say whether a status is from the server or from
// grpc itself. Its zero value is ready to use, from any goroutine.
type callProgress struct {
	header, trailers atomic.Bool
	dials            atomic.Int32
}

// errGoAway is the error when grpc dials again although the connection did not break.
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

// The texts, or their beginnings, of grpc's errors about answers that it does not understand. grpc has no error values
// to compare with. If it changes a text, TestGRPC fails.
const (
	grpcWrongHTTP   = "unexpected HTTP status code received from server: "
	grpcWrongType   = "transport: received unexpected content-type "
	grpcWrongStatus = "transport: malformed grpc-status: "
	grpcNoTrailers  = "server closed the stream without sending trailers"
	grpcTooLong     = "grpc: received message larger than max"
)

// grpcWrongAnswers are the beginnings of grpc's errors about an answer that is not exactly one valid message.
var grpcWrongAnswers = []string{
	"grpc: failed to unmarshal ", "grpc: compressed flag ", "grpc: received unexpected payload format ",
	"grpc: Decompressor is not installed ", "cardinality violation: ", "unexpected EOF",
}

// failure puts an error of the call into words.
func (p *callProgress) failure(ctx context.Context, k *checkConn, w *witness, err error) error {
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

// notGRPC is the failure of a server that does not speak gRPC. message is grpc's error about its answer.
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

// servingError puts a serving status into words. A server may send any number.
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

// grpcStatusError puts the status that ended the call into words.
func grpcStatusError(s *status.Status) error {
	switch s.Code() {
	case codes.NotFound: // Check returns this if the service is unknown; SERVICE_UNKNOWN is for Watch
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
	"ok", "cancelled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists",
	"permission denied", "resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented",
	"internal", "unavailable",
	"data loss", "unauthenticated",
}
