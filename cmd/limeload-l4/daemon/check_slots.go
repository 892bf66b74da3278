package daemon

import (
	"math"
	"syscall"
)

// programDescriptors is how many descriptors a check that runs a program needs: one for its output, one for its
// process, and one more while the program is started.
const programDescriptors = 3

// checkSlots is how many checks may run at the same time; see healthcheck.Options for how they are shared out. A check
// that hangs costs a descriptor and a goroutine, so there are many slots: enough for 1,000 backends that drop SYNs at
// an interval of 2 s. The data plane keeps the descriptors free.
type checkSlots struct {
	sockets, programs int
}

// checkSlotsFor divides a limit of descriptors: a sixteenth of it is for checks with sockets, less is for programs.
func checkSlotsFor(limit uint64) checkSlots {
	share := func(of, least, most uint64) int { return int(min(max(limit/of, least), most)) }
	return checkSlots{sockets: share(16, 32, 512), programs: share(128, 4, 32)}
}

// descriptors returns how many descriptors the checks may have open at the same time.
func (c checkSlots) descriptors() int { return c.sockets + programDescriptors*c.programs }

// descriptorLimit returns how many descriptors this process may have open.
func descriptorLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxUint64 // getrlimit(2) only fails for a bad address
	}
	return limit.Cur
}
