package sock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A CongestionError says that the kernel does not take a congestion control algorithm, and which ones it takes. It
// wraps the error number of the system call.
type CongestionError struct {
	Name string
	Err  error
}

// Error says what is wrong, and what is allowed on this host.
func (e *CongestionError) Error() string {
	file, why := "tcp_available_congestion_control", "this kernel has no such algorithm, or has not loaded it"
	switch {
	case errors.Is(e.Err, unix.EPERM):
		file, why = "tcp_allowed_congestion_control", "without CAP_NET_ADMIN this algorithm is not allowed"
	case !errors.Is(e.Err, unix.ENOENT):
		return fmt.Sprintf("congestion control %q: %v", e.Name, e.Err)
	}
	text := fmt.Sprintf("congestion control %q: %s", e.Name, why)
	if names := congestionControls(file); names != "" {
		text += fmt.Sprintf("; net.ipv4.%s allows %s", file, names)
	}
	return text
}

// Unwrap returns the error number.
func (e *CongestionError) Unwrap() error { return e.Err }

// congestionControls is a list of algorithms that the kernel has, in words; "" if it cannot be read.
func congestionControls(file string) string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/" + file)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text)), ", ")
}

// CheckCongestionControl returns the *CongestionError of an algorithm that connections of this process cannot have. It
// tries the algorithm on a socket.
func CheckCongestionControl(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer Close(fd)
	if e := setCongestionControl(fd, name); e != 0 {
		return &CongestionError{Name: name, Err: e}
	}
	return nil
}

// setCongestionControl sets the algorithm of a socket. Those that a listening socket accepts have its algorithm. name
// must not be "".
func setCongestionControl(fd int, name string) Errno {
	text := unsafe.Pointer(unsafe.StringData(name))
	return setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, text, uintptr(len(name)))
}

// LoopbackCongestionControl is the algorithm of connections over the loopback interface for which none is configured;
// "" is the system's. It is Reno where the system's is BBR. BBR paces what it sends by timers, to keep queues in the
// network short. Loopback has no such queue, and bulk over it costs up to twice the CPU time with BBR
// (docs/performance.md). Every kernel has Reno and lets every process use it.
func LoopbackCongestionControl() string {
	if strings.HasPrefix(systemCongestionControl(), "bbr") {
		return "reno"
	}
	return ""
}

// systemCongestionControl is the algorithm of new sockets, as the system has it now; "" if it cannot be read.
func systemCongestionControl() string {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	return strings.TrimSpace(string(text))
}

// resetCongestionControl gives a bound or listening socket the algorithm that it has without a configured one, as that
// is now. If that cannot be read or set, the socket keeps its own.
func resetCongestionControl(fd int) {
	name := ""
	if at, err := LocalAddr(fd); err == nil && at.Addr().IsLoopback() {
		name = LoopbackCongestionControl()
	}
	if name == "" {
		name = systemCongestionControl()
	}
	if name != "" && CongestionControl(fd) != name {
		setCongestionControl(fd, name)
	}
}

// CongestionControl is the algorithm of a socket; "" if that cannot be found out.
func CongestionControl(fd int) string {
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return ""
	}
	return name
}

// serverFastOpen is the bit of net.ipv4.tcp_fastopen that lets listening sockets accept data with a SYN
// (Documentation/networking/ip-sysctl.rst).
const serverFastOpen = 2

// FastOpenAllowed reports whether net.ipv4.tcp_fastopen lets listening sockets use TCP Fast Open, and its value. It
// reports true if that cannot be read.
func FastOpenAllowed() (allowed bool, value string) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_fastopen")
	if err != nil {
		return true, ""
	}
	value = strings.TrimSpace(string(text))
	var n int
	if _, err := fmt.Sscanf(value, "%v", &n); err != nil { // it may be written in hexadecimal
		return true, value
	}
	return n&serverFastOpen != 0, value
}
