package sock

import (
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a Poller reports of a descriptor. The bits are the kernel's (epoll_ctl(2)).
const (
	PollIn       = unix.EPOLLIN    // bytes, a FIN or a new client can be read
	PollOut      = unix.EPOLLOUT   // there is room to write again, or a connect has succeeded
	PollUrgent   = unix.EPOLLPRI   // urgent data: reads stop at its mark, so a short read proves nothing
	PollPeerDone = unix.EPOLLRDHUP // the peer's FIN is in: what a read does not find now will never come
	PollError    = unix.EPOLLERR   // a reset, a failed connect, a peer given up
	PollHangup   = unix.EPOLLHUP   // both halves are closed
)

// busyFor is how long a Poller without events goes on waiting outside the scheduler. Longer costs the
// runtime's monitor thread's wake-ups on an idle machine, shorter brings back the scheduler's hand-offs under
// load that comes in bursts. 20 ms was found with prototypes; the exact figure matters little.
const busyFor = 20 * time.Millisecond

// EventBatch is how many events one Wait brings at most; so many say that more may wait.
const EventBatch = 256

// A Poller is one epoll instance. It is used by one goroutine, the loop that owns it; its zero value is of
// no use, see NewPoller.
type Poller struct {
	fd         int
	busy       bool      // events came lately: wait outside the scheduler
	quietSince time.Time // when a raw wait first brought nothing; zero while they bring events
	events     [EventBatch]unix.EpollEvent
}

// An Event is what happened to one registered descriptor.
type Event struct{ e *unix.EpollEvent }

// Key returns the two numbers the descriptor was registered with.
func (e Event) Key() (id int32, generation uint32) { return e.e.Fd, uint32(e.e.Pad) }

// Bits returns the Poll bits that are set.
func (e Event) Bits() uint32 { return e.e.Events }

// NewPoller makes an epoll instance.
func NewPoller() (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &Poller{fd: fd}, nil
}

// Close closes the epoll instance; registered descriptors stay open.
func (p *Poller) Close() { Close(p.fd) }

// Add registers a connection for everything that can happen to it, edge-triggered. This is the only
// epoll_ctl of its life: closing it takes it out.
func (p *Poller) Add(fd int, id int32, generation uint32) Errno {
	return p.ctl(fd, id, generation, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLET)
}

// AddListener registers a listening socket, level-triggered: as long as clients wait, each Wait says so, and
// none needs the accept that finds nobody.
func (p *Poller) AddListener(fd int, id int32) Errno {
	return p.ctl(fd, id, 0, unix.EPOLLIN)
}

// AddSharedListener registers a listening socket that other Pollers have too, by other descriptors of the same socket. It is
// level-triggered like AddListener's, and exclusive (EPOLLEXCLUSIVE): the kernel wakes one Poller that waits, and not all of
// them, for each client.
//
// No client is left waiting while a Poller sleeps: a Poller that does not wait just now is passed over, and the next one woken;
// it still has the socket on its list of what is ready, and looks again at its next Wait. Edge-triggered, whoever is woken would
// have to take all that wait, or they would be told of no more.
func (p *Poller) AddSharedListener(fd int, id int32) Errno {
	return p.ctl(fd, id, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
}

// RemoveListener takes a listening socket out until it is added again; its clients wait in the kernel's queue.
func (p *Poller) RemoveListener(fd int) {
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

func (p *Poller) ctl(fd int, id int32, generation uint32, events uint32) Errno {
	ev := unix.EpollEvent{Events: events, Fd: id, Pad: int32(generation)}
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

// Wait returns how many events there are, waiting for the first at most limit (negative: without a limit,
// zero: not at all); Event gives them, until the next Wait. It may return 0 before limit is over: the
// caller looks at its clock and calls again.
//
// A blocking system call normally tells the scheduler (entersyscall), whose monitor thread then takes the P
// away, and on return a P must be found again: with a wait for every few requests that is 10 to 20 % of
// the cost of a request. So while events keep coming, Wait stays in a raw epoll_pwait, keeps its P, and
// the program runs with more Ps than loops (see l4.Server). The price: a goroutine in a raw system call cannot
// be stopped by the runtime. When the runtime wants it to, for garbage collection first of all, it
// sends SIGURG, the wait ends with EINTR, and then, and only then, Gosched lets the runtime have its way.
// Without that call a collection never gets its stop: tried, the process hangs for good.
func (p *Poller) Wait(limit time.Duration) int {
	if limit == 0 {
		n, _ := p.waitRaw(0)
		return n
	}
	if p.busy {
		raw := busyFor
		if limit > 0 && limit < raw {
			raw = limit
		}
		n, e := p.waitRaw(millis(raw))
		if n > 0 {
			p.quietSince = time.Time{}
			return n
		}
		if e == unix.EINTR {
			runtime.Gosched()
		}
		// The monitor thread interrupts whatever runs for 10 ms, this wait included, and timers cut waits
		// short: quiet time is measured across all of them.
		switch now := time.Now(); {
		case p.quietSince.IsZero():
			p.quietSince = now
		case now.Sub(p.quietSince) >= busyFor:
			p.busy = false
		}
		return 0
	}
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(millis(limit)), 0, 0)
	if e != 0 || n == 0 {
		return 0
	}
	p.busy = true
	p.quietSince = time.Time{}
	return int(n)
}

// Event returns the i-th event of the last Wait.
func (p *Poller) Event(i int) Event { return Event{&p.events[i]} }

func (p *Poller) waitRaw(ms int) (int, Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(ms), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// millis rounds up, so that a timer is never waited for in many short waits; negative stays "no limit".
func millis(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

// A Wakeup makes a Poller's Wait return from another goroutine: an eventfd. Its zero value is of no use.
type Wakeup struct{ fd int }

// NewWakeup makes a Wakeup and registers it with p under id.
func NewWakeup(p *Poller, id int32) (Wakeup, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return Wakeup{}, os.NewSyscallError("eventfd2", err)
	}
	if e := p.ctl(fd, id, 0, unix.EPOLLIN|unix.EPOLLET); e != 0 {
		Close(fd)
		return Wakeup{}, os.NewSyscallError("epoll_ctl", e)
	}
	return Wakeup{fd}, nil
}

// Signal wakes the Poller. It may be called from any goroutine until Close.
func (w Wakeup) Signal() {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
	runtime.KeepAlive(&one)
}

// Close closes the eventfd.
func (w Wakeup) Close() { Close(w.fd) }
