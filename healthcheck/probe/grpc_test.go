package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// A healthService is a server of grpc.health.v1 over net/http. It has an answer, in bytes, for each service.
type healthService struct {
	t        *testing.T
	services map[string]healthAnswer
}

// A healthAnswer is one answer. Its zero value is the message SERVING.
type healthAnswer struct {
	body        string // in hex; "" = SERVING, "-" = none
	status      string // of the trailers; "" = 0, "-" = none
	message     string
	code        int    // of HTTP; 0 = 200
	contentType string // "" = application/grpc
	inHeader    bool   // an answer without a message: the status in the header, no trailers
	reset       bool   // the stream ends with a reset
	hang        bool   // after the message
	endless     bool
}

// ServeHTTP implements http.Handler.
func (s healthService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.ProtoMajor != 2 || r.Method != "POST" || r.URL.Path != "/grpc.health.v1.Health/Check" ||
		r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
		s.t.Errorf("request %v, body %x, %v", r, body, err)
	}
	if _, err := time.ParseDuration(r.Header.Get("Grpc-Timeout") + "s"); err != nil {
		s.t.Errorf("timeout %q: %v", r.Header.Get("Grpc-Timeout"), err)
	}
	a := healthAnswer{status: "3", message: "no request", inHeader: true}
	if len(body) == 5 || len(body) > 7 && body[5] == 0x0a && int(body[6]) == len(body)-7 &&
		int(body[4]) == len(body)-5 {
		var ok bool
		if a, ok = s.services[string(body[min(len(body), 7):])]; !ok {
			a = healthAnswer{status: "5", message: "unknown service", inHeader: true}
		}
	}
	a.write(w, r)
}

func (a healthAnswer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	if a.contentType != "" {
		h.Set("Content-Type", a.contentType)
	}
	prefix := http.TrailerPrefix
	if a.inHeader {
		prefix, a.body = "", "-"
	}
	if a.status != "-" {
		h.Set(prefix+"Grpc-Status", "0"+a.status)
		if a.message != "" {
			h.Set(prefix+"Grpc-Message", a.message)
		}
	}
	if a.code != 0 {
		w.WriteHeader(a.code)
	}
	if a.body == "" {
		a.body = "00 00000002 08 01" // golden: not compressed, two bytes, field 1 as a varint, SERVING
	}
	if a.body != "-" {
		b, err := hex.DecodeString(strings.ReplaceAll(a.body, " ", ""))
		if err != nil {
			panic(err) // a test's mistake
		}
		_, _ = w.Write(b)
		w.(http.Flusher).Flush()
	}
	for err := error(nil); a.endless && err == nil; {
		_, err = w.Write(make([]byte, 4096))
	}
	if a.hang {
		<-r.Context().Done()
	}
	if a.reset {
		panic(http.ErrAbortHandler)
	}
}

// healthAnswers are the services of the tests, and the errors of checks of each.
var healthAnswers = map[string]struct {
	answer healthAnswer
	want   string
}{
	"":               {healthAnswer{}, ""},
	"serving":        {healthAnswer{}, ""},
	"with a format":  {healthAnswer{contentType: "application/grpc+proto"}, ""},
	"unknown fields": {healthAnswer{body: "00 0000000e 12026869 1d01020304 a00601 0801"}, ""},
	"not serving":    {healthAnswer{body: "00 00000002 0802"}, "not serving"},
	"not known":      {healthAnswer{body: "00 00000002 0803"}, "service unknown"},
	"unknown":        {healthAnswer{body: "00 00000000"}, "serving status unknown"},
	"another":        {healthAnswer{body: "00 00000002 0809"}, "serving status 9"},
	"unimplemented":  {healthAnswer{status: "12", inHeader: true}, "the server has no health service"},
	"unavailable": {
		healthAnswer{status: "14", message: "to%20o b%C3%BCsy%0A%", inHeader: true},
		`grpc status 14 \(unavailable\): "to o b\\u00fcsy\\n%"`,
	},
	"in trailers": {healthAnswer{status: "16", body: "-"}, `grpc status 16 \(unauthenticated\)`},
	"after all":   {healthAnswer{status: "13"}, `grpc status 13 \(internal\)`},
	"new status":  {healthAnswer{status: "99"}, "grpc status 99"},
	"long message": {
		healthAnswer{status: "2", message: strings.Repeat("x", 5000), inHeader: true},
		`grpc status 2 \(unknown\): "x{100}"\.\.\.`,
	},
	"no number":   {healthAnswer{status: "x"}, `not a grpc status: strconv.ParseInt: parsing "0x": invalid syntax`},
	"no trailers": {healthAnswer{status: "-"}, "no grpc status: the trailers are missing"},
	"nothing":     {healthAnswer{status: "-", body: "-"}, `grpc status 2 \(unknown\)`}, // of an end without a status
	"big status":  {healthAnswer{status: "99999999999"}, "not a grpc status: .*"},
	"no message":  {healthAnswer{body: "-"}, "not an answer of the health service: cardinality violation: .*"},
	"two messages": {healthAnswer{body: "00 00000002 0801 00 00000002 0801"},
		"not an answer of the health service: cardinality violation: .*"},
	"half": {healthAnswer{body: "00 00000002 08"}, "not an answer of the health service: unexpected EOF"},
	"compressed": {healthAnswer{body: "01 00000002 0801"},
		"not an answer of the health service: grpc: compressed flag .*"},
	"bad flags": {healthAnswer{body: "02 00000002 0801"},
		"not an answer of the health service: grpc: received unexpected payload format .*"},
	"by a proxy": {
		healthAnswer{status: "1", message: "grpc: the client connection is closing"},
		`grpc status 1 \(cancelled\): "grpc: the client connection is closing"`,
	},
	"no protobuf": {healthAnswer{body: "00 00000002 ffff"},
		"not an answer of the health service: grpc: failed to unmarshal .*"},
	"long":    {healthAnswer{body: "00 00000401 " + strings.Repeat("00", 1025)}, "answer longer than 1024 bytes"},
	"endless": {healthAnswer{endless: true}, "not an answer of the health service: .*"},
	"reset":   {healthAnswer{reset: true}, "(waiting for|closed before) the end of the answer.*"},
	"http error": {healthAnswer{code: 503, contentType: "text/html"},
		"not a grpc server: status 503 Service Unavailable"},
	"html": {healthAnswer{contentType: "text/html"}, `not a grpc server: content type "text/html"`},
	"half a type": {healthAnswer{contentType: "application/grpcs"},
		`not a grpc server: content type "application/grpcs"`},
	"hangs":        {healthAnswer{hang: true}, "timed out waiting for the end of the answer after .*ms"},
	"does not say": {healthAnswer{body: "-", hang: true}, "timed out waiting for the answer after .*ms"},
}

func TestGRPC(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	service := healthService{t, map[string]healthAnswer{}}
	for name, tt := range healthAnswers {
		service.services[name] = tt.answer
	}
	plain := serveHTTP(t, service, nil, "h2c")
	secured := serveHTTP(t, service, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}, "h2")
	check := func(t *testing.T, name, want string, to healthcheck.Target, c GRPC) {
		c.Service = name
		if strings.HasPrefix(want, "timed out") {
			failsAtLast(t, want, func(ctx context.Context) error {
				_, err := c.Check(ctx, to)
				return err
			})
			return
		}
		got, err := c.Check(deadlineIn(t, patience), to)
		if want != "" {
			failsWith(t, err, want)
		} else if err != nil || got.Detail != "serving" || got.Latency <= 0 {
			t.Errorf("%+v, %v, want it serving", got, err)
		}
	}
	for name, tt := range healthAnswers {
		t.Run(name, func(t *testing.T) {
			check(t, name, tt.want, plain, GRPC{})
			check(t, name, tt.want, secured, GRPC{TLS: &tls.Config{RootCAs: ca.roots()}})
		})
	}
	check(t, "a service that nobody knows", "service unknown", plain, GRPC{})
	check(t, strings.Repeat("s", 100), "service unknown", plain, GRPC{})
	check(t, "", "", refusing(t), GRPC{Port: plain.Addr.Port()})
	check(t, "", "certificate is for another name: .*", secured, GRPC{
		TLS: &tls.Config{RootCAs: ca.roots()}, Authority: "b.example",
	})
}

func TestGRPCAuthority(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	hosts := make(chan string, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sendTo(r.Context(), hosts, r.Host)
		healthAnswer{}.write(w, r)
	})
	plain := serveHTTP(t, handler, nil, "h2c")
	secured := serveHTTP(t, handler, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}, "h2", "http/1.1")
	for authority, want := range map[string]string{
		"": "", "lime.example": "lime.example", "lime.example:1": "lime.example:1",
	} {
		for _, tt := range []struct {
			to healthcheck.Target
			c  GRPC
		}{{plain, GRPC{}}, {secured, GRPC{TLS: &tls.Config{RootCAs: ca.roots()}}}} {
			if want = authority; want == "" {
				want = tt.to.Addr.String()
			}
			tt.c.Authority = authority
			if _, err := tt.c.Check(deadlineIn(t, patience), tt.to); err != nil {
				t.Errorf("authority %q: %v", authority, err)
			} else if got := harness.Receive(t, "whom the server was asked for", hosts); got != want {
				t.Errorf("the server was asked for %q, want %q", got, want)
			}
		}
	}
	_, err := GRPC{Authority: "a b"}.Check(deadlineIn(t, patience), target("a"))
	failsWith(t, err, `cannot check: "a b" is no host`, healthcheck.ErrInconclusive)
}

// TestGRPCOfOthers checks servers of other protocols.
func TestGRPCOfOthers(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	certs := []tls.Certificate{ca.server(t)}
	client := &tls.Config{RootCAs: ca.roots()}
	_, err := GRPC{}.Check(deadlineIn(t, patience), refusing(t))
	failsWith(t, err, "connect refused", syscall.ECONNREFUSED)

	old := serveHTTP(t, http.NotFoundHandler(), &tls.Config{Certificates: certs}, "http/1.1")
	_, err = GRPC{TLS: client}.Check(deadlineIn(t, patience), old)
	failsWith(t, err, "tls alert: no application protocol")
	silent := harness.Serve(t, overTLS(&tls.Config{Certificates: certs}, readToEnd))
	_, err = GRPC{TLS: client}.Check(deadlineIn(t, patience), targetAt(silent.Address()))
	failsWith(t, err, `no application protocol agreed on, offered "h2"`)
	h2 := serveHTTP(t, http.NotFoundHandler(), nil, "h2c")
	_, err = GRPC{}.Check(deadlineIn(t, patience), h2)
	failsWith(t, err, "not a grpc server: status 404 Not Found")
	http1 := serveHTTP(t, http.NotFoundHandler(), nil, "http/1.1")
	_, err = GRPC{}.Check(deadlineIn(t, patience), http1)
	failsWith(t, err, `not http/2: answer begins with "HTTP/1.1 .*"(\.\.\.)?`)

	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for want, handle := range map[string]harness.Handler{
		`not http/2: answer begins with "-ERR.*`: harness.SpeakFirst("-ERR unknown\r\n"),
		`not http/2: answer begins with "hi"`: func(ctx context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, "hi")
			_ = c.CloseWrite()
			readToEnd(ctx, c)
		},
		"closed before the answer": func(ctx context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, settings)
			_ = c.CloseWrite()
			readToEnd(ctx, c)
		},
		"timed out waiting for the answer after .*ms": func(ctx context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, settings)
			harness.Silent(ctx, c)
		},
		"(connect )?reset( before the answer)?|closed before the answer": harness.ResetAtOnce,
		// pings that want an answer, from a server that reads no answers
		"answered without end|(timed out waiting for|reset before|closed before) the answer.*": func(
			_ context.Context, c *net.TCPConn,
		) {
			pings := bytes.Repeat([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x00lorem ip"), 4096)
			block := append([]byte(settings), pings...)
			for err := error(nil); err == nil; {
				_, err = c.Write(block)
				block = pings
			}
		},
		"answered without end": func(_ context.Context, c *net.TCPConn) { // frames of no known type
			go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the connection
			frame := []byte("\x00\x40\x00\x42\x00\x00\x00\x00\x00" + strings.Repeat("x", 1<<14))
			_, err := io.WriteString(c, settings)
			for err == nil {
				_, err = c.Write(frame)
			}
		},
		// GOAWAY with a reason
		"waiting for the answer: the server wants another connection": func(ctx context.Context, c *net.TCPConn) {
			_, _ = io.WriteString(c, settings+"\x00\x00\x0b\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0bbye")
			harness.Silent(ctx, c)
		},
	} {
		to := targetAt(harness.Serve(t, handle).Address())
		failsAtLast(t, want, func(ctx context.Context) error {
			_, err := GRPC{}.Check(ctx, to)
			return err
		})
	}
	survives(t, settings+"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88",
		func(ctx context.Context, to healthcheck.Target) error {
			_, err := GRPC{}.Check(ctx, to)
			return err
		})
}

func TestGRPCCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := serveHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}), nil, "h2c")
	_, err := GRPC{}.Check(ctx, to)
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}

// BenchmarkGRPC measures a check and the server that answers it.
func BenchmarkGRPC(b *testing.B) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		healthAnswer{}.write(w, r)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	to := targetAt(s.Listener.Addr().String())
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		if _, err := (GRPC{}).Check(ctx, to); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
}
