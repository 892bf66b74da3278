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

// This file has the wording of failures, so that all checks word them alike. The operator reads the formats that
// unhealthyf, wrongRolef, laggingf, fallbackf, refusedf and cannotCheckf get, and what functions with names in ...Words
// return. Each is a row of docs/health.md; TestFailuresAreDocumented checks that.

// A checkError says in a few words why a check failed.
type checkError struct {
	words  string
	causes []error
}

// Error returns the words without the causes, which would repeat the address.
func (e *checkError) Error() string { return e.words }

// Unwrap returns the causes.
func (e *checkError) Unwrap() []error { return e.causes }

// because adds causes and returns e.
func (e *checkError) because(causes ...error) *checkError {
	e.causes = append(e.causes, causes...)
	return e
}

// unhealthyf returns the failure of a target that does not work.
func unhealthyf(format string, args ...any) *checkError {
	return &checkError{words: fmt.Sprintf(format, args...)}
}

// wrongRolef returns the failure of a target that works and has another role than wanted.
func wrongRolef(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrWrongRole)
}

// laggingf returns the failure of a target that works and is too far behind.
func laggingf(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrLagging)
}

// fallbackf returns the finding of a target that works and whose other role may serve for want of the wanted one.
func fallbackf(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrFallback)
}

// judgeRole returns what is wrong with the role of a target. fallback says that a primary may serve for want of
// replicas: then a primary has the wrong role only in the last place, see fallsBack.
func judgeRole(is, wanted healthcheck.Role, fallback bool) error {
	if wanted == healthcheck.RoleUnknown || is == wanted || fallback && is == healthcheck.RolePrimary {
		return nil
	}
	return wrongRolef("is a %v, wanted a %v", is, wanted)
}

// fallsBack returns the finding of a target with which nothing else is wrong: a primary that may serve for want of
// replicas; else nil.
func fallsBack(is, wanted healthcheck.Role, fallback bool) error {
	if fallback && wanted == healthcheck.RoleReplica && is == healthcheck.RolePrimary {
		return fallbackf("is a primary, which serves while no replica can")
	}
	return nil
}

// isReport reports whether a finding is about the role or the lag of a target that works.
func isReport(err error) bool {
	return errors.Is(err, healthcheck.ErrWrongRole) || errors.Is(err, healthcheck.ErrLagging) ||
		errors.Is(err, healthcheck.ErrFallback)
}

// refusedf returns the failure of a target that answers and refuses the credentials of the check.
func refusedf(format string, args ...any) *checkError {
	return unhealthyf(format, args...).because(healthcheck.ErrCredentials)
}

// cannotCheckf returns the error of a check that found out nothing about its target.
func cannotCheckf(format string, args ...any) *checkError {
	return unhealthyf("cannot check: "+format, args...).because(healthcheck.ErrInconclusive)
}

// cancelled returns the error of a check whose context ended before its deadline. The scheduler drops such results, so
// no operator reads it.
func cancelled(cause error) *checkError {
	return &checkError{words: "cancelled", causes: []error{cause, context.Canceled, healthcheck.ErrInconclusive}}
}

// timedOut returns the failure of a target from which what ("the answer") did not come in time.
func timedOut(ctx context.Context, start time.Time, what string, cause error) *checkError {
	return unhealthyf("timed out waiting for %s after %v", what, waited(ctx, start)).
		because(cause, context.DeadlineExceeded)
}

// waited returns how long a check has waited that began at start. After its deadline that is the time until the
// deadline, since a busy machine notices the deadline late.
func waited(ctx context.Context, start time.Time) time.Duration {
	after := time.Since(start)
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		after = max(0, deadline.Sub(start))
	}
	return after.Round(time.Millisecond)
}

// What may happen to packets, as ICMP or the kernel reports it.
const (
	networkUnreachable  = "network unreachable"
	hostUnreachable     = "host unreachable"
	protocolUnreachable = "protocol unreachable"
	portUnreachable     = "port unreachable"
	prohibited          = "administratively prohibited"
	wayTooLong          = "time to live exceeded on the way"
	noLocalAddress      = "no address of this machine can reach it"
)

// networkWords says what a socket's error means for packets to the target; "" if the error is not about that.
func networkWords(err error) string {
	switch {
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return hostUnreachable
	case errors.Is(err, syscall.ENETUNREACH):
		return networkUnreachable
	case errors.Is(err, syscall.ENOPROTOOPT):
		return protocolUnreachable
	case errors.Is(err, syscall.EACCES): // a route of this machine prohibits it, or with IPv6 a firewall elsewhere
		return prohibited
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT): // see shortage
		return noLocalAddress
	case errors.Is(err, syscall.EPERM):
		return "not permitted by a firewall of this machine"
	}
	return ""
}

// commonFailure puts into words the errors that any check may have: it was cancelled, this machine is short of
// something, or packets do not arrive. It returns nil for other errors.
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

// connectError puts into words why a connect failed that began at start.
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

// isTimeout reports whether err is due to a deadline, either ours or the kernel's.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// longestQuote is how many characters of an answer an error shows: enough to recognise the answer, and no more than fit
// in a line of a log.
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

// escaped is like quoted but without the quotes, for our own texts that may contain text of a target.
func escaped(s string) string {
	text, whole := printable([]byte(s))
	if !whole {
		text += "..."
	}
	return text
}

// printable returns up to longestQuote characters of b, with escapes for all but printable ASCII, and whether that is
// all of b.
func printable(b []byte) (text string, whole bool) {
	var out []byte
	for len(b) > 0 {
		_, size := utf8.DecodeRune(b)
		piece := string(b[:size])
		if piece != `"` { // a quote is not escaped: people understand the text without
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
