package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// serveHTTP returns a target that is a net/http server of the given protocols, with TLS if config is not nil.
func serveHTTP(t *testing.T, handler http.Handler, config *tls.Config, protocols ...string) healthcheck.Target {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Protocols = new(http.Protocols)
	for _, protocol := range protocols {
		switch protocol {
		case "http/1.1":
			s.Config.Protocols.SetHTTP1(true)
		case "h2":
			s.Config.Protocols.SetHTTP2(true)
			s.EnableHTTP2 = true
		case "h2c":
			s.Config.Protocols.SetUnencryptedHTTP2(true)
		}
	}
	if config != nil {
		s.TLS = config
		s.TLS.NextProtos = protocols
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return targetAt(s.Listener.Addr().String())
}

// sayHTTP is a handler that reads the header of a request, sends answer and closes.
func sayHTTP(answer string) harness.Handler {
	return func(_ context.Context, c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	}
}

func TestHTTPRequest(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	type seen struct{ proto, method, uri, host, agent, name string }
	requests := make(chan seen, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := seen{r.Proto, r.Method, r.RequestURI, r.Host, r.UserAgent(), ""}
		if r.TLS != nil {
			s.name = r.TLS.ServerName
		}
		sendTo(r.Context(), requests, s)
		if len(r.Header) != 1 && !(len(r.Header) == 2 && r.Header.Get("Connection") == "close") {
			t.Errorf("header %v, want the user agent alone", r.Header)
		}
	})
	server := func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{ca.server(t)}} }
	client := &tls.Config{RootCAs: ca.roots()}
	plain := serveHTTP(t, handler, nil, "http/1.1")
	both := serveHTTP(t, handler, server(), "h2", "http/1.1")
	old := serveHTTP(t, handler, server(), "http/1.1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // is not for us
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	for _, tt := range []struct {
		to    healthcheck.Target
		check HTTP
		want  seen
	}{
		{plain, HTTP{}, seen{"HTTP/1.1", "GET", "/", plain.Addr.String(), userAgent, ""}},
		{plain, HTTP{Method: "HEAD", Path: "/a%2Fb?c=d%20e", Host: "lime.example"},
			seen{"HTTP/1.1", "HEAD", "/a%2Fb?c=d%20e", "lime.example", userAgent, ""}},
		{refusing(t), HTTP{Port: plain.Addr.Port()}, seen{"HTTP/1.1", "GET", "/", plain.Addr.String(), userAgent, ""}},
		{both, HTTP{TLS: client}, seen{"HTTP/2.0", "GET", "/", both.Addr.String(), userAgent, ""}},
		{both, HTTP{TLS: client, Host: "lime.example:444", Method: "OPTIONS", Path: "/x?y"},
			seen{"HTTP/2.0", "OPTIONS", "/x?y", "lime.example:444", userAgent, "lime.example"}},
		{old, HTTP{TLS: client, Host: "lime.example"},
			seen{"HTTP/1.1", "GET", "/", "lime.example", userAgent, "lime.example"}},
	} {
		got, err := tt.check.Check(deadlineIn(t, patience), tt.to)
		if err != nil || got.Detail != "status 200" || got.Latency <= 0 {
			t.Errorf("%+v: %+v, %v, want status 200", tt.check, got, err)
			continue
		}
		if s := harness.Receive(t, "what the server saw", requests); s != tt.want {
			t.Errorf("%+v: the server saw %+v, want %+v", tt.check, s, tt.want)
		}
	}
	if client.NextProtos != nil || client.ServerName != "" {
		t.Error("the caller's configuration was changed")
	}
	silent := harness.Serve(t, overTLS(server(), func(_ context.Context, c net.Conn) { // a server that knows no ALPN
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}))
	if got, err := (HTTP{TLS: client}).Check(deadlineIn(t, patience), targetAt(silent.Address())); err != nil ||
		got.Detail != "status 204" {
		t.Errorf("without ALPN: %+v, %v, want status 204", got, err)
	}
	_, err := HTTP{TLS: client, Host: "b.example"}.Check(deadlineIn(t, patience), both)
	failsWith(t, err, `certificate is for another name: "lime.example, 127.0.0.1", wanted "b.example"`)
	_, err = HTTP{TLS: client}.Check(deadlineIn(t, patience), plain)
	failsWith(t, err, `not tls: answer begins with "HTTP/"`)
}

// TestHTTPAnswers checks answers of net/http with HTTP/1.1 and HTTP/2.
func TestHTTPAnswers(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	handler := http.NewServeMux()
	handler.HandleFunc("/{code}", func(w http.ResponseWriter, r *http.Request) {
		code := 0
		_, _ = fmt.Sscan(r.PathValue("code"), &code)
		w.Header().Set("Location", "/500")
		w.WriteHeader(code)
	})
	handler.HandleFunc("/body", func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 { // chunked
			_, _ = io.WriteString(w, strings.Repeat("x", 64))
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, strings.Repeat("x", maxBodyBytes-64_000-4)+"last"+"beyond")
	})
	handler.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "all is we")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "ll")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	handler.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for err := error(nil); err == nil; {
			_, err = io.WriteString(w, "lorem ipsum ")
		}
	})
	handler.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "all is")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	handler.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	handler.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	config := &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}
	versions := map[string]struct {
		to   healthcheck.Target
		base HTTP
	}{
		"http/1.1": {serveHTTP(t, handler, nil, "http/1.1"), HTTP{}},
		"h2":       {serveHTTP(t, handler, config, "h2"), HTTP{TLS: &tls.Config{RootCAs: ca.roots()}}},
	}
	for _, tt := range []struct {
		path, body string
		status     []StatusRange
		want       string // the error, if any
	}{
		{"/200", "", nil, ""},
		{"/301", "", nil, ""}, // not followed
		{"/399", "", nil, ""},
		{"/400", "", nil, "status 400 Bad Request, wanted 200-399"},
		{"/503", "", nil, "status 503 Service Unavailable, wanted 200-399"},
		{"/503", "", []StatusRange{{200, 299}, {503, 503}}, ""},
		{"/301", "", []StatusRange{{200, 299}, {503, 503}}, "status 301 Moved Permanently, wanted 200-299, 503"},
		{"/499", "", nil, "status 499, wanted 200-399"},
		{"/early", "", []StatusRange{{204, 204}}, ""},
		{"/body", "xlast", nil, ""},
		{"/body", "beyond", nil, `body lacks "beyond", begins with "x{100}"\.\.\.`},
		{"/slow", "is well", nil, ""},
		{"/slow", "is ill", nil, "timed out waiting for the end of the body after .*ms"},
		{"/empty", "x", nil, `body lacks "x", is empty`},
		{"/endless", "dolor", nil, `body lacks "dolor", begins with "(lorem ipsum ){8}lore"\.\.\.`},
		{"/endless", "", nil, ""},
		{"/abort", "is well", nil, "(closed before|waiting for) the end of the body.*"},
	} {
		for version, v := range versions {
			t.Run(version+tt.path+" "+tt.body, func(t *testing.T) {
				check := v.base
				check.Path, check.Body = tt.path, tt.body
				check.Status = tt.status
				if strings.HasPrefix(tt.want, "timed out") {
					failsAtLast(t, tt.want, func(ctx context.Context) error {
						_, err := check.Check(ctx, v.to)
						return err
					})
					return
				}
				got, err := check.Check(deadlineIn(t, patience), v.to)
				if tt.want != "" {
					failsWith(t, err, tt.want)
				} else if err != nil || !strings.HasPrefix(got.Detail, "status ") {
					t.Errorf("%+v, %v, want no error", got, err)
				}
			})
		}
	}
}

// TestHTTPOfOthers checks answers that net/http would not send.
func TestHTTPOfOthers(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	for answer, want := range map[string]string{
		ok + "\r\n": "",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5) + ok + "\r\n": "",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 6) + ok + "\r\n": "status 1xx again and again",
		"HTTP/1.0 200 OK\r\n\r\n":                  "",
		"HTTP/1.1 200\r\n\r\n":                     "",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n": "status 101 Switching Protocols, wanted 200-399",
		"":                "(closed|reset) before the answer",
		"HTTP":            "closed before the answer",
		ok + "Content-Le": "closed before the answer",
		ok + "x: " + strings.Repeat("y", 100_000):               "header longer than 64 KiB",
		ok + strings.Repeat("x: y\r\n", 20_000):                 "header longer than 64 KiB",
		"-ERR unknown command 'GET'\r\n":                        `not http: answer begins with "-ERR unknown command 'GET'\\r\\n"`,
		"\x00\x01":                                              `not http: answer begins with "\\x00\\x01"`,
		"HTTP/1.1 abc OK\r\n\r\n":                               "not http: malformed HTTP status code .*",
		"HTTP/1.1 " + strings.Repeat("9", 9999) + "\r\n\r\n":    "not http: malformed HTTP status code .*",
		ok + "no colon here\r\n\r\n":                            "not http: malformed MIME header.*",
		ok + "Content-Length: -1\r\n\r\n":                       "not http: bad Content-Length.*",
		"HTTP/1.1 999 " + strings.Repeat("n", 500) + "\r\n\r":   "closed before the answer",
		"HTTP/1.1 999 " + strings.Repeat("n", 500) + "\r\n\r\n": "status 999, wanted 200-399",
	} {
		_, err := HTTP{}.Check(deadlineIn(t, patience), targetAt(harness.Serve(t, sayHTTP(answer)).Address()))
		if want != "" {
			failsWith(t, err, want)
		} else if err != nil {
			t.Errorf("%.60q: %v", answer, err)
		}
	}
	for answer, want := range map[string]string{
		ok + "Content-Length: 10\r\n\r\nshort":                                           "closed before the end of the body",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort":                              "closed before the end of the body",
		ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nshort":                             "waiting for the end of the body: invalid byte in chunk length",
		ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nz\r\n", 40_000): "answered without end",
		ok + "\r\n" + strings.Repeat("1", 300):                                           `body lacks "x", begins with "1{100}"...`,
		ok + "Content-Length: 5\r\n\r\nshort and what does not count x":                  `body lacks "x", begins with "short"`,
	} {
		_, err := HTTP{Body: "x"}.Check(deadlineIn(t, patience), targetAt(harness.Serve(t, sayHTTP(answer)).Address()))
		failsWith(t, err, want)
	}
}

func TestHTTPHostileServers(t *testing.T) {
	check := func(ctx context.Context, to healthcheck.Target) error {
		_, err := HTTP{Body: "well"}.Check(ctx, to)
		return err
	}
	survives(t, "HTTP/1.1 200 OK\r\n", check)
	_, err := HTTP{}.Check(deadlineIn(t, patience), refusing(t))
	failsWith(t, err, "connect refused", syscall.ECONNREFUSED)
	for want, handle := range map[string]harness.Handler{
		"timed out waiting for the answer after [0-9]+ms":           harness.Silent,
		"(connect )?reset( before the answer)?":                     harness.ResetAtOnce,
		`not http: answer begins with "SSH-2.0-OpenSSH_9.6\\r\\n.*`: harness.SpeakFirst("SSH-2.0-OpenSSH_9.6\r\n"),
	} {
		to := targetAt(harness.Serve(t, handle).Address())
		failsAtLast(t, want, func(ctx context.Context) error { return check(ctx, to) })
	}
	dribbled := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		dribble(ctx, c, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well")
		readToEnd(ctx, c)
	})
	if err := check(deadlineIn(t, patience), targetAt(dribbled.Address())); err != nil {
		t.Errorf("a good answer, byte by byte: %v", err)
	}
}

// TestHTTPPartsInOrder: a server that sends more than the check reads sees an end, and not a reset.
func TestHTTPPartsInOrder(t *testing.T) {
	seen := make(chan error, 1)
	to := targetAt(harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
		_, _ = c.Write(make([]byte, 20_000))
		_, err := c.Read(make([]byte, 1))
		seen <- err
	}).Address())
	_, err := HTTP{}.Check(deadlineIn(t, patience), to)
	must(t, err)
	if err := harness.Receive(t, "the end that the server sees", seen); err != io.EOF {
		t.Errorf("the server reads %v, want EOF", err)
	}
}

func TestHTTPBodyInPieces(t *testing.T) {
	for body, want := range map[string]string{
		"all is well": "", "all is we ll": `body lacks "well", begins with "all is we ll"`,
	} {
		slow := io.NopCloser(iotest.OneByteReader(strings.NewReader(body)))
		answer := &httpAnswer{Response: &http.Response{Body: slow}}
		if err := (HTTP{Body: "well"}).searchBody(answer); want != "" {
			failsWith(t, err, want)
		} else if err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestHTTPMistakes(t *testing.T) {
	for name, check := range map[string]HTTP{
		"method":    {Method: "G ET"},
		"path":      {Path: "status"},
		"bad path":  {Path: "/%zz"},
		"host":      {Host: "a b"},
		"long host": {Host: "a/b"},
		"user":      {Host: "me@a"},
		"newline":   {Path: "/x HTTP/1.1\r\nX: y"},
	} {
		_, err := check.Check(deadlineIn(t, patience), target("a")) // that nobody connects to
		if !errors.Is(err, healthcheck.ErrInconclusive) {
			t.Errorf("%s: error %v, want it inconclusive", name, err)
		}
		failsWith(t, err, "cannot check: .*")
	}
}

func TestHTTPCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := targetAt(harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		cancel()
		harness.Silent(ctx, c)
	}).Address())
	_, err := HTTP{}.Check(ctx, to)
	failsWith(t, err, "cancelled", context.Canceled, healthcheck.ErrInconclusive)
}

// TestHTTPLogsNothing checks targets that speak first, and one that sends more than it announced. net/http must not
// log.
func TestHTTPLogsNothing(t *testing.T) {
	before := log.Writer()
	defer log.SetOutput(before)
	logged := make(chan string, 100)
	log.SetOutput(writerFunc(func(p []byte) (int, error) {
		select {
		case logged <- string(p):
		default:
		}
		return len(p), nil
	}))
	for _, handle := range []harness.Handler{
		harness.SpeakFirst("SSH-2.0-OpenSSH_9.6\r\n"), harness.SpeakFirst("HTTP/1.1 200 OK\r\n\r\n"),
		harness.CloseAtOnce,
		sayHTTP("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n"),
	} {
		_, _ = HTTP{}.Check(deadlineIn(t, patience), targetAt(harness.Serve(t, handle).Address()))
	}
	select {
	case line := <-logged:
		t.Errorf("the process's log has %q", line)
	default:
	}
}

// A writerFunc is an io.Writer that is a function.
type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// FuzzWitness checks that it makes no difference in which pieces an answer comes, and that the number of bytes read is
// limited.
func FuzzWitness(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"), []byte{2}, false)
	f.Add([]byte("SSH-2.0-x\r\n"), []byte{0}, false)
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), []byte{3}, true)
	f.Add([]byte("hi"), []byte{0}, true)
	f.Fuzz(func(t *testing.T, b, sizes []byte, http2 bool) {
		read := func(sizes []byte) (int, error) {
			protocol := protocolHTTP1
			if http2 {
				protocol = protocolHTTP2
			}
			w := newWitness(&chunks{b: b, sizes: sizes}, protocol)
			w.begin()
			got, err := io.ReadAll(w)
			return len(got), err
		}
		n, whole := read([]byte{255})
		_, pieces := read(sizes)
		if (whole == nil) != (pieces == nil) || n > maxHTTP2Bytes {
			t.Errorf("%q: %v at once, %v in pieces", b, whole, pieces)
		}
		if said, ok := errors.AsType[*checkError](whole); whole != nil && (!ok || len(said.words) > 200) {
			t.Errorf("%q is refused with %v", b, whole)
		}
	})
}

// BenchmarkHTTP measures a check and the server that answers it.
func BenchmarkHTTP(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "all is well")
	}))
	defer s.Close()
	to := targetAt(s.Listener.Addr().String())
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		if _, err := (HTTP{Body: "well"}).Check(ctx, to); err != nil {
			b.Fatal(err)
		}
		cancel()
	}
}
