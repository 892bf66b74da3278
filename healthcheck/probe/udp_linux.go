package probe

import (
	"os"
	"strings"
	"syscall"
)

// reportUnreachable has a socket tell all ICMP errors. A connected one by itself tells only of some: of a closed port, but
// not of a host that is gone.
func reportUnreachable(network, _ string, c syscall.RawConn) error {
	level, option := syscall.IPPROTO_IP, syscall.IP_RECVERR
	if strings.HasSuffix(network, "6") {
		level, option = syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR
	}
	var err error
	if controlled := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, option, 1) }); controlled != nil {
		return controlled
	}
	return os.NewSyscallError("setsockopt", err)
}
