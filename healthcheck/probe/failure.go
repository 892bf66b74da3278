package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/healthcheck"
)

// This file has how failures are worded, one way for all checks. The formats given to unhealthyf, wrongRolef, laggingf, refusedf and
// cannotCheckf, and what functions called ...Words return, are the reasons an operator reads: each is a row of
// docs/health.md, and TestFailuresAreDocumented holds the two together.

// A checkError says in words why a check failed.
type checkError struct {
	words  string
	causes []error
}

// Error returns the words alone: the cause repeats the address, which whoever reads this knows.
func (e *checkError) Error() string { return e.words }

// Unwrap returns the causes.
func (e *checkError) Unwrap() []error { return e.causes }

// because adds causes and returns e.
func (e *checkError) because(causes ...error) *checkError {
	e.causes = append(e.causes, causes...)
	return e
}

// unhealthyf is the failure of a target that does not work.
func unhealthyf(format string, args ...any) *checkError {
	return &checkError{words: fmt.Sprintf(format, args...)}
}

// wrongRolef is the failure of one that works, and is not what is wanted of it.
func wrongRolef(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrWrongRole)
}

// laggingf is the failure of one that works, and is behind.
func laggingf(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrLagging)
}

// refusedf is the failure of one that answers, and does not take the credentials of the check.
func refusedf(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrCredentials)
}

// cannotCheckf is what a check says that found out nothing about its target.
func cannotCheckf(format string, args ...any) *checkError {
	return unhealthyf("cannot check: "+format, args...).because(healthcheck.ErrInconclusive)
}

// cancelled is what a check says whose context ended before its deadline. The scheduler drops such results: no operator reads it.
func cancelled(cause error) *checkError {
	return &checkError{words: "cancelled", causes: []error{cause, context.Canceled, healthcheck.ErrInconclusive}}
}

// timedOut is the failure of a target from which what ("the answer") did not come in time.
func timedOut(ctx context.Context, start time.Time, what string, cause error) *checkError {
	return unhealthyf("timed out waiting for %s after %v", what, waited(ctx, start)).because(cause, context.DeadlineExceeded)
}

// waited returns how long a check has waited that began at start: to its deadline, and not to when a busy machine saw it.
func waited(ctx context.Context, start time.Time) time.Duration {
	after := time.Since(start)
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		after = max(0, deadline.Sub(start))
	}
	return after.Round(time.Millisecond)
}

// What becomes of packets on their way, as ICMP says or the kernel knows.
const (
	networkUnreachable  = "network unreachable"
	hostUnreachable     = "host unreachable"
	protocolUnreachable = "protocol unreachable"
	portUnreachable     = "port unreachable"
	prohibited          = "administratively prohibited"
	wayTooLong          = "time to live exceeded on the way"
	noLocalAddress      = "no address of this machine can reach it"
)

// networkWords says what became of packets by an error of a socket; "" if it is none of that kind.
func networkWords(err error) string {
	switch {
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return hostUnreachable
	case errors.Is(err, syscall.ENETUNREACH):
		return networkUnreachable
	case errors.Is(err, syscall.ENOPROTOOPT):
		return protocolUnreachable
	case errors.Is(err, syscall.EACCES): // of a route here that says prohibit, or for IPv6 of a firewall elsewhere
		return prohibited
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT): // see shortage
		return noLocalAddress
	case errors.Is(err, syscall.EPERM):
		return "not permitted by a firewall of this machine"
	}
	return ""
}

// commonFailure puts into words what may become of any check: that it was cancelled, that this machine is short of
// something, or that packets do not arrive. It is nil for everything else.
func commonFailure(ctx context.Context, err error) *checkError {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cancelled(err)
	}
	if short := shortage(err); short != nil {
		return short
	}
	if words := networkWords(err); words != "" {
		return unhealthyf("%s", words).because(err)
	}
	return nil
}

// connectError puts the reason of a failed connect, begun at start, into words.
func connectError(ctx context.Context, start time.Time, err error) error {
	if common := commonFailure(ctx, err); common != nil {
		return common
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return unhealthyf("connect refused").because(err)
	case errors.Is(err, syscall.ECONNRESET):
		return unhealthyf("connect reset").because(err)
	case isTimeout(err):
		return unhealthyf("connect timed out after %v", waited(ctx, start)).because(err, context.DeadlineExceeded)
	}
	return unhealthyf("connect: %s", escaped(err.Error())).because(err)
}

// isTimeout reports whether err is that of a deadline, of ours or of the kernel's.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// longestQuote is how many characters of what a target said go into an error: enough to recognise it, and no more than a
// line in a log.
const longestQuote = 100

// quoted returns b in quotes and cut to about longestQuote characters, all of them printable.
func quoted(b []byte) string {
	if len(b) == 0 {
		return "nothing"
	}
	text, whole := printable(b)
	if !whole {
		return `"` + text + `"...`
	}
	return `"` + text + `"`
}

// escaped is quoted without the quotes, for words of our own that may have foreign ones in them.
func escaped(s string) string {
	text, whole := printable([]byte(s))
	if !whole {
		text += "..."
	}
	return text
}

// printable returns up to longestQuote characters of b, with escapes for all but printable ASCII, and whether that is all.
func printable(b []byte) (text string, whole bool) {
	var out []byte
	for len(b) > 0 {
		_, size := utf8.DecodeRune(b)
		piece := string(b[:size])
		if piece != `"` { // the quotes around it are for people, who can do without escapes in between
			quote := strconv.QuoteToASCII(piece)
			piece = quote[1 : len(quote)-1]
		}
		if len(out)+len(piece) > longestQuote {
			return string(out), false
		}
		out, b = append(out, piece...), b[size:]
	}
	return string(out), true
}
