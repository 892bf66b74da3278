package sock

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// DescriptorLimit is how many descriptors this process may have open (RLIMIT_NOFILE, the soft limit; the Go
// runtime raises it to the hard one at start).
func DescriptorLimit() (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(lim.Cur, 1<<30)), nil
}

// OpenDescriptors counts the descriptors this process has open now.
func OpenDescriptors() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	return len(entries) - 1, nil // the one that read the folder
}

// LocalPorts is the range of ports that the kernel gives to sockets which do not choose one
// (net.ipv4.ip_local_port_range, of this network namespace and of both IP versions). It reports false where that cannot
// be read.
func LocalPorts() (first, last int, ok bool) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, false
	}
	n, err := fmt.Sscan(string(text), &first, &last)
	return first, last, err == nil && n == 2 && 0 <= first && first <= last && last <= math.MaxUint16
}
