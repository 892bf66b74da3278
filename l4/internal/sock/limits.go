package sock

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// DescriptorLimit returns how many descriptors this process may have open (RLIMIT_NOFILE, the soft limit; the Go
// runtime raises it to the hard limit at start).
func DescriptorLimit() (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(lim.Cur, 1<<30)), nil
}

// OpenDescriptors returns how many descriptors this process has open.
func OpenDescriptors() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	return len(entries) - 1, nil // without the one that read the folder
}

// LocalPorts returns the range of ports from which the kernel chooses local ports (net.ipv4.ip_local_port_range, for
// this network namespace and both IP versions). It returns false if the range cannot be read.
func LocalPorts() (first, last int, ok bool) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, false
	}
	n, err := fmt.Sscan(string(text), &first, &last)
	return first, last, err == nil && n == 2 && 0 <= first && first <= last && last <= math.MaxUint16
}
