package sock

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// LowerPriority makes the calling thread nicer to others by n, see setpriority(2). The caller is locked to its thread,
// which ends with it: a process without privileges cannot raise the priority again. An error leaves the thread as it is,
// and is of no consequence.
func LowerPriority(n int) {
	self := unix.Gettid()
	if biased, err := unix.Getpriority(unix.PRIO_PROCESS, self); err == nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, self, 20-biased+n) // the system call's own form is 20 - nice
	}
}

// longSlice is the longest time slice that a thread may ask for (sched(7), Linux 6.12).
const longSlice = 100 * time.Millisecond

// GiveWay has the scheduler interrupt the calling goroutine's thread as soon as any other thread wakes up on its CPU,
// not at the end of a slice, which may be 3 ms later. The thread gets the same share of the CPU as before. It is for
// work that takes long beside loops whose clients wait. restore ends it, and is called by the same goroutine.
//
// A thread that wakes up interrupts one with a longer slice than its own since Linux 6.12. Before, slices cannot be
// set, and nothing changes.
func GiveWay() (restore func()) {
	runtime.LockOSThread()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil || a.Policy != unix.SCHED_NORMAL {
		return runtime.UnlockOSThread
	}
	before := a.Runtime
	a.Runtime = uint64(longSlice)
	if unix.SchedSetAttr(0, a, 0) != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		a.Runtime = before
		if unix.SchedSetAttr(0, a, 0) == nil { // or else the thread ends with the goroutine
			runtime.UnlockOSThread()
		}
	}
}
