package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestNoAnswer(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err, Source: &net.TCPAddr{Port: 12345}})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), "connection refused"},
		{dial(errors.New("odd")), "odd"},
		{dial(os.ErrDeadlineExceeded), "timed out"},
		{context.DeadlineExceeded, "timed out"},
		{context.Canceled, "ended"},
		{&net.DNSError{Err: "no such host", Name: "h", Server: "10.0.0.53:53", IsNotFound: true}, `its host "h": no such host`},
		{&net.DNSError{Err: "i/o timeout", Name: "h", Server: "10.0.0.53:53", IsTimeout: true}, `its host "h": timed out`},
		{&net.DNSError{Err: "server misbehaving", Name: "h\n", Server: "10.0.0.53:53"}, `its host "h\n": server misbehaving`},
		{io.EOF, "EOF"},
	} {
		if got := NoAnswer(tt.err); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestQuote(t *testing.T) {
	if got, want := Quote("\x1b[2J"+strings.Repeat("x", 100)), `"\x1b[2J`+strings.Repeat("x", 76)+`"...`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestSpeaks finds out what real servers speak, with and without TLS and client certificates.
func TestSpeaks(t *testing.T) {
	t.Parallel()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.URL.Path) })
	start := func(c *tls.Config) string {
		s := httptest.NewUnstartedServer(hello)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		if s.TLS = c; c == nil {
			s.Start()
		} else {
			s.StartTLS()
		}
		t.Cleanup(s.Close)
		return s.URL
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain := start(nil)
	for _, tt := range []struct {
		endpoint          string
		tls, plain, wants bool
	}{
		{plain, false, true, false},
		{start(&tls.Config{}), true, false, false},
		{start(&tls.Config{ClientAuth: tls.RequestClientCert}), true, false, true},
		{start(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}), true, false, true},
		{"http://" + silent.Addr().String(), false, false, false},
		{"http://127.0.0.1:0", false, false, false},
		{":", false, false, false},
	} {
		ctx := t.Context()
		if got := SpeaksTLS(ctx, tt.endpoint); got != tt.tls {
			t.Errorf("%s speaks TLS: %v", tt.endpoint, got)
		}
		if got := SpeaksPlain(ctx, tt.endpoint); got != tt.plain {
			t.Errorf("%s speaks plainly: %v", tt.endpoint, got)
		}
		if got := WantsCertificate(ctx, tt.endpoint); got != tt.wants {
			t.Errorf("%s wants a certificate: %v", tt.endpoint, got)
		}
	}
	if got := AskPlain(t.Context(), plain, "/version"); !strings.HasPrefix(got, "HTTP/1.") ||
		!strings.HasSuffix(got, "hello /version") {
		t.Errorf("the answer is %q", got)
	}
}
