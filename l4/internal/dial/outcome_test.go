package dial

import (
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// TestEvidenceOfErrors is the table of what an error of a connect or of a datagram says about a backend, by an error
// that this host knows and by one that ICMP tells.
func TestEvidenceOfErrors(t *testing.T) {
	for want, errnos := range map[pool.Outcome][]sock.Errno{
		pool.ConnectRefused: {syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED},
		pool.ConnectTimeout: {syscall.ETIMEDOUT},
		pool.ConnectUnreachable: {
			syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENONET,
			syscall.EACCES, syscall.EINVAL, syscall.ENODEV, syscall.ENXIO, syscall.EADDRNOTAVAIL,
			syscall.EAFNOSUPPORT, syscall.EPFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.ENOPROTOOPT, syscall.EPROTO,
		},
		pool.Neutral: { // our own want, and what nobody has thought of
			syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.ENOSPC,
			syscall.EAGAIN, syscall.EADDRINUSE, syscall.EINTR, syscall.EPERM,
			syscall.EBADF, syscall.EFAULT, syscall.EISCONN, syscall.Errno(9999),
		},
	} {
		for _, e := range errnos {
			if got := Outcome(e); got != want {
				t.Errorf("%v (%d): %v, want %v", e, int(e), got, want)
			}
			if got := DatagramOutcome(sock.Report{Errno: e, Sure: true}); got != want {
				t.Errorf("%v (%d), found out here: %v, want %v", e, int(e), got, want)
			}
			if got := DatagramOutcome(sock.Report{Errno: e}); got != pool.ICMPError {
				t.Errorf("%v (%d), told by ICMP: %v", e, int(e), got)
			}
		}
	}
}
