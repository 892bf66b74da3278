package probe

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

func TestConnectErrorsInWords(t *testing.T) {
	syscallError := func(errno syscall.Errno) error {
		loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
		return &net.OpError{Op: "dial", Net: "tcp", Addr: loopback, Err: os.NewSyscallError("connect", errno)}
	}
	for _, tt := range []struct {
		err          error
		want         string
		inconclusive bool
	}{
		{syscallError(syscall.ECONNREFUSED), "connect refused", false},
		{syscallError(syscall.ECONNRESET), "connect reset", false},
		{syscallError(syscall.EHOSTUNREACH), "host unreachable", false},
		{syscallError(syscall.ENETUNREACH), "network unreachable", false},
		{syscallError(syscall.ETIMEDOUT), "connect timed out after 2m0s", false},
		{syscallError(syscall.EMFILE), "cannot check: too many open files", true},
		{syscallError(syscall.ENFILE), "cannot check: too many open files in system", true},
		{syscallError(syscall.ENOMEM), "cannot check: cannot allocate memory", true},
		{syscallError(syscall.ENOBUFS), "cannot check: no buffer space available", true},
		{syscallError(syscall.EAGAIN), "cannot check: resource temporarily unavailable", true},
		{syscallError(syscall.ENOSPC), "cannot check: no space left on device", true},
		{syscallError(syscall.EADDRNOTAVAIL), "cannot check: no local port is free", true}, // loopback has an address
		{os.NewSyscallError("sendmsg", syscall.EADDRNOTAVAIL), "no address of this machine can reach it", false},
		{syscallError(syscall.EAFNOSUPPORT), "no address of this machine can reach it", false},
		{syscallError(syscall.EACCES), "administratively prohibited", false},
	} {
		got := connectError(t.Context(), time.Now().Add(-2*time.Minute), tt.err)
		documented(t, got)
		if got.Error() != tt.want || !errors.Is(got, tt.err) ||
			errors.Is(got, healthcheck.ErrInconclusive) != tt.inconclusive {
			t.Errorf("%v in words is %q (inconclusive: %v), want %q (%v)",
				tt.err, got, errors.Is(got, healthcheck.ErrInconclusive), tt.want, tt.inconclusive)
		}
	}
	failsWith(t, connectError(t.Context(), time.Now(), net.ErrClosed), "connect: use of closed network connection",
		net.ErrClosed)
}

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "nothing",
		"+PONG\r\n":              `"+PONG\r\n"`,
		`say "hi" \`:             `"say "hi" \\"`,
		"\x00\xff\u00e9\u202e":   `"\x00\xff\u00e9\u202e"`,
		strings.Repeat("x", 100): `"` + strings.Repeat("x", 100) + `"`,
		strings.Repeat("x", 101): `"` + strings.Repeat("x", 100) + `"...`,
		strings.Repeat("\a", 99): `"` + strings.Repeat(`\a`, 50) + `"...`,
	} {
		if got := quoted([]byte(in)); got != want {
			t.Errorf("quoted(%q) = %s, want %s", in, got, want)
		}
	}
	if got, want := escaped(strings.Repeat("x", 101)), strings.Repeat("x", 100)+"..."; got != want {
		t.Errorf("escaped = %q, want %q", got, want)
	}
}

func FuzzQuoted(f *testing.F) {
	f.Add([]byte("220 mail\r\n"))
	f.Add([]byte("\xff\x00\u202e\U0010ffff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, got := range []string{quoted(b), escaped(string(b))} {
			if len(got) > longestQuote+5 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q from %q is too long, or not printable", got, b)
			}
		}
	})
}
