package sock

import (
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
