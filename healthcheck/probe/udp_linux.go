package probe

import (
	"os"
	"strings"
	"syscall"
)

// reportUnreachable makes a UDP socket return all ICMP errors. By default a connected socket returns only some: that a
// port is closed, but not that a host is gone.
func reportUnreachable(network, _ string, c syscall.RawConn) error {
	level, option := syscall.IPPROTO_IP, syscall.IP_RECVERR
	if strings.HasSuffix(network, "6") {
		level, option = syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR
	}
	var err error
	set := func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), level, option, 1) }
	if controlled := c.Control(set); controlled != nil {
		return controlled
	}
	return os.NewSyscallError("setsockopt", err)
}
