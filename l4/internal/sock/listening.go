package sock

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Tune gives a listening socket the options o, all but DualStack: whoever connects from now on gets them, and those that wait
// to be accepted stay. With options that CheckListenOptions has let pass it does not fail.
func Tune(fd int, o ListenOptions) error {
	// SetLiveness leaves alone what is not asked for; here it may have been set before.
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
	if err := setListenOptions(fd, o); err != nil {
		return err
	}
	if err := unix.Listen(fd, o.Backlog); err != nil { // on a socket that listens, only the backlog changes
		return os.NewSyscallError("listen", err)
	}
	return nil
}

// CheckListenOptions tells whether the kernel takes these options, by setting them on a socket of its own.
func CheckListenOptions(o ListenOptions) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer Close(fd)
	return setListenOptions(fd, o)
}

// ErrNotListening is Inherit's error for a descriptor that is open but no listening TCP socket.
var ErrNotListening = errors.New("not a listening TCP socket")

// Inherit looks at a listening TCP socket that another process has opened, and returns its address. The descriptor becomes
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

// noInterface is an index that no network interface has: they count up from 1.
const noInterface = 1<<31 - 1

// StopNew ends that new clients come to a listening socket: the kernel answers their SYN as if the socket were closed,
// or with another socket that listens on their address too. Handshakes under way go on to their end, and those who wait
// to be accepted stay. Closing would reset both. It binds the socket to an interface that does not exist, which the
// kernel looks at when a SYN comes (Linux 5.7; before, it takes CAP_NET_RAW).
func StopNew(fd int) error { return setInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, noInterface) }

// Duplicate returns another descriptor of the same socket, whose queue of clients the two then share.
func Duplicate(fd int) (int, error) {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return other, nil
}
