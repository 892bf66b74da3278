package sock

import "golang.org/x/sys/unix"

// LowerPriority makes the calling thread nicer to others by n, see setpriority(2). The caller is locked to its thread,
// which ends with it: a process without privileges cannot raise the priority again. An error leaves the thread as it is,
// and is of no consequence.
func LowerPriority(n int) {
	self := unix.Gettid()
	if biased, err := unix.Getpriority(unix.PRIO_PROCESS, self); err == nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, self, 20-biased+n) // the system call's own form is 20 - nice
	}
}
