package daemon

import (
	"math"
	"syscall"
)

// programDescriptors is how many descriptors a check that runs a program has at once: its output, its process, and one more while it
// is started.
const programDescriptors = 3

// checkSlots are how many checks may be under way at once; see healthcheck.Options for who gets them. A check that hangs costs a
// descriptor and a goroutine, so there are many: enough for 1,000 backends that swallow SYNs at an interval of 2 s. The data plane
// keeps the descriptors free.
type checkSlots struct {
	sockets, programs int
}

// checkSlotsFor shares out a limit of descriptors: a sixteenth of it for checks with sockets, and less for programs.
func checkSlotsFor(limit uint64) checkSlots {
	share := func(of, least, most uint64) int { return int(min(max(limit/of, least), most)) }
	return checkSlots{sockets: share(16, 32, 512), programs: share(128, 4, 32)}
}

// descriptors is how many the checks may have at once.
func (c checkSlots) descriptors() int { return c.sockets + programDescriptors*c.programs }

// descriptorLimit is how many descriptors this process may have open.
func descriptorLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxUint64 // it fails for a bad address alone: getrlimit(2)
	}
	return limit.Cur
}
