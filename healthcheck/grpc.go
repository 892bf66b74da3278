package healthcheck

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// GRPC checks that a target's gRPC health service (grpc.health.v1.Health/Check) calls it, or one service of it, serving.
// It is a plain value; its zero value asks for the server as a whole, on the target's own port and without TLS.
type GRPC struct {
	Port      uint16      // instead of the target's; 0 = the target's
	TLS       *tls.Config // nil = h2c; without a ServerName the certificate has to be for Authority, or the target's address
	Service   string      // asked for by this name; "" = the server as a whole
	Authority string      // what would be Host in HTTP/1.1; "" = the target's address and port
}

// healthMethod is the path of the call. Source: the gRPC health checking protocol, health.proto of grpc.health.v1.
const healthMethod = "/grpc.health.v1.Health/Check"

// Check asks t once. Its errors wrap their cause, and ErrInconclusive when that is ours.
func (c GRPC) Check(ctx context.Context, t Target) (Result, error) {
	o := httpOptions{method: http.MethodPost, host: c.Authority, port: c.Port, tls: c.TLS, protocols: []string{protocolHTTP2}}
	request, err := c.request(ctx, t, o)
	if err != nil {
		return Result{}, cannotCheckf("%s", escaped(err.Error())).because(err)
	}
	latency, err := exchangeHTTP(ctx, t, o, request, judgeGRPC)
	if err != nil {
		return Result{}, err
	}
	return Result{Latency: latency, Detail: "serving"}, nil
}

// request builds the call; an error is a mistake of the configuration.
func (c GRPC) request(ctx context.Context, t Target, o httpOptions) (*http.Request, error) {
	request, err := checkRequest(ctx, t, &url.URL{Path: healthMethod}, o)
	if err != nil {
		return nil, err
	}
	message := appendGRPCMessage(nil, appendHealthRequest(nil, c.Service))
	request.Body = io.NopCloser(strings.NewReader(string(message)))
	request.ContentLength = int64(len(message))
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers") // some servers take what lacks it for a proxy that does not know trailers
	if deadline, ok := ctx.Deadline(); ok {
		left := max(1, time.Until(deadline).Milliseconds())
		request.Header.Set("Grpc-Timeout", strconv.FormatInt(min(left, 99_999_999), 10)+"m") // eight digits at most
	}
	return request, nil
}

// judgeGRPC reads the rest of an answer and says what is wrong with it.
func judgeGRPC(answer *httpAnswer) error {
	if answer.StatusCode != http.StatusOK {
		return unhealthyf("not a grpc server: status %s", httpStatus(answer.StatusCode))
	}
	contentType := answer.Header.Get("Content-Type")
	if !isGRPC(contentType) {
		return unhealthyf("not a grpc server: content type %s", quoted([]byte(contentType)))
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxGRPCBytes+1)) // the byte more is for knowing that it is too long
	if err != nil {
		return answer.failure(err, "the end of the answer")
	}
	if len(body) > maxGRPCBytes {
		return unhealthyf("answer longer than %d bytes", maxGRPCBytes)
	}
	// An answer without a message has its status in the header, and no trailers.
	status, ok := grpcStatus(answer.Trailer)
	if !ok {
		status, ok = grpcStatus(answer.Header)
	}
	if !ok {
		return unhealthyf("no grpc status: the trailers are missing")
	}
	if err := status.err(); err != nil {
		return err
	}
	serving, err := parseGRPCAnswer(body)
	if err != nil {
		return unhealthyf("not an answer of the health service: %v", err).because(err)
	}
	return serving.err()
}

// isGRPC reports whether a content type is gRPC's, perhaps with the format of the messages: "application/grpc+proto".
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// A grpcResult is how a call ended, as grpc-status and grpc-message say.
type grpcResult struct {
	code, message string
}

// grpcStatus finds the result in a header or trailers.
func grpcStatus(h http.Header) (grpcResult, bool) {
	codes := h.Values("Grpc-Status")
	if len(codes) == 0 {
		return grpcResult{}, false
	}
	return grpcResult{codes[0], h.Get("Grpc-Message")}, true
}

// err puts the result into words; nil is OK.
func (r grpcResult) err() error {
	code, err := strconv.ParseUint(r.code, 10, 32)
	if err != nil {
		return unhealthyf("not a grpc status: %s", quoted([]byte(r.code))).because(err)
	}
	switch code {
	case 0:
		return nil
	case 5: // NOT_FOUND is what Check answers where Watch answers SERVICE_UNKNOWN
		return unhealthyf("service unknown")
	case 12:
		return unhealthyf("the server has no health service")
	}
	status := strconv.FormatUint(code, 10)
	if code < uint64(len(grpcCodes)) {
		status += " (" + grpcCodes[code] + ")"
	}
	if r.message != "" {
		return unhealthyf("grpc status %s: %s", status, quoted(decodeGRPCMessage(r.message)))
	}
	return unhealthyf("grpc status %s", status)
}

// grpcCodes are the names of the statuses. Source: statuscodes.md of gRPC.
var grpcCodes = [...]string{
	"ok", "cancelled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists", "permission denied",
	"resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented", "internal", "unavailable",
	"data loss", "unauthenticated",
}

// decodeGRPCMessage undoes the percent-encoding of grpc-message. What is not well encoded stays as it is, as PROTOCOL-HTTP2.md
// of gRPC asks.
func decodeGRPCMessage(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}
