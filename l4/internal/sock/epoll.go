package sock

import (
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bits that a Poller reports for a descriptor. They are the kernel's (epoll_ctl(2)).
const (
	PollIn       = unix.EPOLLIN    // bytes, a FIN or a new client can be read
	PollOut      = unix.EPOLLOUT   // there is room to write again, or a connect succeeded
	PollUrgent   = unix.EPOLLPRI   // urgent data: reads stop at its mark, so a short read proves nothing
	PollPeerDone = unix.EPOLLRDHUP // the peer's FIN arrived: nothing comes after the bytes that can be read now
	PollError    = unix.EPOLLERR   // a reset, a failed connect, or the kernel gave up the peer
	PollHangup   = unix.EPOLLHUP   // both halves are closed
)

// busyFor is how long a Poller without events keeps waiting outside the scheduler. With a longer time the runtime's
// monitor thread wakes up on an idle machine; with a shorter one the scheduler's hand-offs return under load that comes
// in bursts. 20 ms was found with prototypes; the exact figure matters little.
const busyFor = 20 * time.Millisecond

// EventBatch is how many events one Wait returns at most. If it returns that many, there may be more.
const EventBatch = 256

// A Poller is one epoll instance. Only the loop that owns it may use it; its zero value is of no use, see NewPoller.
type Poller struct {
	fd         int
	busy       bool      // there were events lately: wait outside the scheduler
	quietSince time.Time // when a raw wait first returned no event; zero while they return events
	events     [EventBatch]unix.EpollEvent
}

// An Event is what happened to one registered descriptor.
type Event struct{ e *unix.EpollEvent }

// Key returns the two numbers that the descriptor was registered with.
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

// Add registers a connection for all events, edge-triggered. No other epoll_ctl is needed: closing the connection
// removes it.
func (p *Poller) Add(fd int, id int32, generation uint32) Errno {
	return p.ctl(fd, id, generation, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLET)
}

// WatchInput turns reports of bytes to read on or off for a connection of Add, those of urgent data included. A FIN, an
// error and room to write are reported all the same. It also reports again whatever is ready already.
//
// The kernel wakes up a Poller for arriving bytes also if it wants to know of urgent data only.
func (p *Poller) WatchInput(fd int, id int32, generation uint32, on bool) {
	ev := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: id, Pad: int32(generation)}
	if on {
		ev.Events |= unix.EPOLLIN | unix.EPOLLPRI
	}
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&ev)),
		0, 0)
}

// AddListener registers a listening socket, level-triggered: each Wait reports it as long as clients wait, so no loop
// has to call accept until it finds nobody.
func (p *Poller) AddListener(fd int, id int32) Errno {
	return p.ctl(fd, id, 0, unix.EPOLLIN)
}

// AddSharedListener registers a listening socket that other Pollers have too, under other descriptors of the same
// socket. It is level-triggered like AddListener, and exclusive (EPOLLEXCLUSIVE): for each client, the kernel wakes one
// waiting Poller and not all of them.
//
// No client waits forever while a Poller sleeps. The kernel skips a Poller that is not waiting and wakes the next one.
// The skipped Poller still has the socket on its ready list, and looks again at its next Wait. With edge triggering,
// the Poller that wakes up would have to accept all waiting clients, or nobody would be notified of the others.
func (p *Poller) AddSharedListener(fd int, id int32) Errno {
	return p.ctl(fd, id, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
}

// RemoveListener removes a listening socket until it is added again. Its clients wait in the kernel's queue.
func (p *Poller) RemoveListener(fd int) {
	unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

func (p *Poller) ctl(fd int, id int32, generation uint32, events uint32) Errno {
	ev := unix.EpollEvent{Events: events, Fd: id, Pad: int32(generation)}
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

// Wait waits for the first event for at most limit (negative: without a limit, zero: not at all) and returns how many
// events there are. Event returns them, until the next Wait. Wait may return 0 before limit is over: the caller reads
// its clock and calls again.
//
// A blocking system call normally informs the scheduler (entersyscall), whose monitor thread then takes the P away, and
// on return a P must be found again: with a wait for every few requests that is 10 to 20 % of the cost of a request. So
// while events keep arriving, Wait stays in a raw epoll_pwait and keeps its P, and the program runs with more Ps than
// loops (see l4.Server). The price: the runtime cannot stop a goroutine in a raw system call. When it needs to, above
// all for garbage collection, it sends SIGURG, and the wait ends with EINTR. Then, and only then, Wait calls Gosched,
// which lets the runtime stop the goroutine. Without that call a collection never gets its stop: in a test the process
// hung for good.
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
		// The monitor thread interrupts any goroutine that runs for 10 ms, this wait included, and timers shorten
		// waits. So quiet time is measured across several waits.
		switch now := time.Now(); {
		case p.quietSince.IsZero():
			p.quietSince = now
		case now.Sub(p.quietSince) >= busyFor:
			p.busy = false
		}
		return 0
	}
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(millis(limit)), 0, 0)
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
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(ms), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// millis rounds up, so that Wait does not wait for one timer in many short waits. A negative value stays "no limit".
func millis(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int((d + time.Millisecond - 1) / time.Millisecond)
}

// A Wakeup lets another goroutine make a Poller's Wait return. It is an eventfd. Its zero value is of no use.
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
