package main

import (
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// A poller is one epoll instance, level-triggered. It belongs to one goroutine,
// which is to be locked to its thread. Its zero value is of no use, see newPoller.
type poller struct {
	fd     int
	events [256]syscall.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) close() { closeFD(p.fd) }

// add watches fd for events.
func (p *poller) add(fd int, events uint32) error {
	return p.control(syscall.EPOLL_CTL_ADD, fd, events)
}

// change watches fd, which is watched already, for other events.
func (p *poller) change(fd int, events uint32) error {
	return p.control(syscall.EPOLL_CTL_MOD, fd, events)
}

func (p *poller) control(op uintptr, fd int, events uint32) error {
	ev := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), op, uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// wait returns the events that are there, or none after timeout. They are valid
// until the next wait.
//
// It waits without involving Go's scheduler: in a process with one loop, handing over the P and getting it back would
// only add noise, about a tenth of the work. Go's monitor thread then interrupts a long wait now and then with a
// signal, which is no event; Gosched lets the runtime proceed.
func (p *poller) wait(timeout time.Duration) ([]syscall.EpollEvent, error) {
	ts := syscall.NsecToTimespec(int64(max(timeout, 0)))
	n, _, errno := syscall.RawSyscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0:
		return p.events[:n], nil
	case syscall.EINTR:
		runtime.Gosched()
		return nil, nil
	}
	return nil, os.NewSyscallError("epoll_pwait2", errno)
}
