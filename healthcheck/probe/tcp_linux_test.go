package probe

import (
	"context"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// silent returns a target that does not answer a connect: the queue of the listener is full, and Linux drops each SYN.
func silent(t *testing.T) healthcheck.Target {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, os.NewSyscallError("socket", err))
	t.Cleanup(func() { syscall.Close(fd) })
	must(t, os.NewSyscallError("bind", syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))
	must(t, os.NewSyscallError("listen", syscall.Listen(fd, 0)))
	name, err := syscall.Getsockname(fd)
	must(t, os.NewSyscallError("getsockname", err))
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return healthcheck.Target{ID: "a", Addr: netip.AddrPortFrom(addr, uint16(name.(*syscall.SockaddrInet4).Port))}
}

func TestTCPTimesOut(t *testing.T) {
	to := silent(t)
	const timeout = 200 * time.Millisecond
	for range 10 { // the first few fill the queue
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err := TCP{}.Check(ctx, to)
		cancel()
		if err == nil {
			continue
		}
		documented(t, err)
		if err.Error() != "connect timed out after 200ms" {
			t.Errorf("error %q, want %q", err, "connect timed out after 200ms")
		}
		return
	}
	t.Fatal("the listener accepts although its queue must be full")
}
