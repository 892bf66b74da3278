package sock

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Tune sets the options o of a listening socket, all but DualStack. They apply to clients that connect from now on;
// clients that wait to be accepted stay. Tune does not fail with options that passed CheckListenOptions.
func Tune(fd int, o ListenOptions) error {
	// SetLiveness does not touch options that are not set in o; here they may be left from an earlier call.
	if o.UserTimeout <= 0 {
		if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0); err != nil {
			return err
		}
	}
	if o.KeepAlive.Idle <= 0 {
		if err := setInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0); err != nil {
			return err
		}
	}
	if !o.FastOpen {
		if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 0); err != nil {
			return err
		}
	}
	if err := setListenOptions(fd, o); err != nil {
		return err
	}
	if o.CongestionControl == "" {
		resetCongestionControl(fd)
	}
	if err := unix.Listen(fd, o.Backlog); err != nil { // on a listening socket this changes only the backlog
		return os.NewSyscallError("listen", err)
	}
	return nil
}

// CheckListenOptions checks whether the kernel accepts these options, by setting them on a temporary socket.
func CheckListenOptions(o ListenOptions) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer Close(fd)
	return setListenOptions(fd, o)
}

// ErrNotListening is Inherit's error for an open descriptor that is not a listening TCP socket.
var ErrNotListening = errors.New("not a listening TCP socket")

// Inherit checks a listening TCP socket that another process opened, and returns its address. The descriptor becomes
// non-blocking and close-on-exec; the caller still owns it.
func Inherit(fd int) (netip.AddrPort, error) {
	for _, must := range [...]struct{ option, value int }{
		{unix.SO_PROTOCOL, unix.IPPROTO_TCP},
		{unix.SO_ACCEPTCONN, 1},
	} {
		value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, must.option)
		switch {
		case errors.Is(err, unix.ENOTSOCK):
			return netip.AddrPort{}, ErrNotListening
		case err != nil:
			return netip.AddrPort{}, os.NewSyscallError("getsockopt", err)
		case value != must.value:
			return netip.AddrPort{}, ErrNotListening
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("fcntl", err)
	}
	unix.CloseOnExec(fd)
	return LocalAddr(fd)
}

// noInterface is an index that no network interface has: the indexes count up from 1.
const noInterface = 1<<31 - 1

// StopNew stops new clients from reaching a listening socket. The kernel answers their SYN as if the socket were
// closed, or with another socket that listens on the same address. Handshakes under way continue, and clients that wait
// to be accepted stay; closing the socket would reset both. StopNew binds the socket to an interface that does not
// exist, which the kernel checks when a SYN arrives (Linux 5.7; before, it needs CAP_NET_RAW).
func StopNew(fd int) error { return setInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface) }

// Duplicate returns another descriptor of the same socket. Both descriptors share its queue of clients.
func Duplicate(fd int) (int, error) {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return other, nil
}
