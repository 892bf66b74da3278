package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// spraySockets is how many sockets a sender has at once: it replaces the oldest when all addresses have sent from it.
const spraySockets = 16

// A sprayer is one sender of patternSpray: each of its datagrams comes from another address and port, as long as there
// are any. All of 127.0.0.0/8 belongs to the machine, so the kernel lets any socket send from it. It belongs to one
// goroutine; see newSprayer.
type sprayer struct {
	job       job
	poll      *poller
	pace      pace
	datagrams *datagrams
	begun     time.Time // all times are since then
	fds       []int     // the last is in use
	sent      uint64    // since ever
	first     uint32    // address
	addresses uint32
	sequence  uint64
	head      [64]byte
	result    floodResult

	to      syscall.RawSockaddrInet4
	from    sprayFrom
	vector  syscall.Iovec
	message syscall.Msghdr
}

// A sprayFrom is a control message that sets the source address of a datagram (ip(7), IP_PKTINFO).
type sprayFrom struct {
	head syscall.Cmsghdr
	info syscall.Inet4Pktinfo
	_    [4]byte // to a multiple of the head's alignment
}

func newSprayer(j job, number int) (*sprayer, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	source := j.Flood.Source.Masked()
	first := source.Addr().As4()
	s := &sprayer{
		job: j, poll: poll, pace: newPace(j.Flood.Rate, j.Flood.Senders), to: sockaddr(j.Targets[0]),
		first: binary.BigEndian.Uint32(first[:]), addresses: 1 << (32 - source.Bits()),
		sequence: uint64(number) << 40,
	}
	if s.datagrams, err = newDatagrams(j.Datagram); err == nil {
		err = s.open()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.from.head = syscall.Cmsghdr{Level: syscall.IPPROTO_IP, Type: syscall.IP_PKTINFO}
	s.from.head.SetLen(syscall.CmsgLen(int(unsafe.Sizeof(s.from.info))))
	s.message = syscall.Msghdr{
		Name: (*byte)(unsafe.Pointer(&s.to)), Namelen: uint32(unsafe.Sizeof(s.to)), Iov: &s.vector, Iovlen: 1,
		Control: (*byte)(unsafe.Pointer(&s.from)),
	}
	s.message.SetControllen(syscall.CmsgSpace(int(unsafe.Sizeof(s.from.info))))
	return s, nil
}

func (s *sprayer) close() {
	for _, fd := range s.fds {
		closeFD(fd)
	}
	s.poll.close()
}

// open makes the next socket, and closes the oldest one if there are enough.
func (s *sprayer) open() error {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return os.NewSyscallError("socket", errno)
	}
	s.fds = append(s.fds, int(fd))
	anyone := sockaddr(netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_BIND, fd, uintptr(unsafe.Pointer(&anyone)),
		unsafe.Sizeof(anyone)); errno != 0 {
		return os.NewSyscallError("bind", errno)
	}
	if len(s.fds) > spraySockets {
		closeFD(s.fds[0])
		s.fds = append(s.fds[:0], s.fds[1:]...)
	}
	if !s.job.Flood.Ask {
		return nil // its answers stay unread
	}
	if err := setOption(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, trainQueue); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return s.poll.add(int(fd), syscall.EPOLLIN)
}

func (s *sprayer) now() time.Duration { return time.Since(s.begun) }

func (s *sprayer) run(d time.Duration) (floodResult, error) {
	s.begun, s.result = time.Now(), floodResult{Elapsed: d}
	for now := s.now(); now < d; now = s.now() {
		for i := 0; i < 64 && s.pace.due(s.result.Offered, now); i++ {
			if err := s.send(); err != nil {
				return s.result, err
			}
		}
		if s.pace.every == 0 && !s.job.Flood.Ask {
			continue
		}
		// A wake-up for each datagram would cost more than the datagram.
		if err := s.read(min(d-now, max(s.pace.wait(s.result.Offered, now), time.Millisecond/2))); err != nil {
			return s.result, err
		}
	}
	for at := s.now(); s.job.Flood.Ask && at < d+drainAfter; at = s.now() {
		if err := s.read(d + drainAfter - at); err != nil {
			return s.result, err
		}
	}
	return s.result, nil
}

// send sends one datagram from the next address.
func (s *sprayer) send() error {
	n := uint32(s.sent % uint64(s.addresses))
	if n == 0 && s.sent > 0 {
		if err := s.open(); err != nil {
			return err
		}
	}
	s.sent++
	s.sequence++
	binary.BigEndian.PutUint32(s.from.info.Spec_dst[:], s.first+n)
	b := s.datagrams.next(s.sequence)
	s.vector.Base = &b[0]
	s.vector.SetLen(len(b))
	_, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(s.fds[len(s.fds)-1]),
		uintptr(unsafe.Pointer(&s.message)), syscall.MSG_NOSIGNAL)
	switch {
	case errno == 0:
		s.result.Offered++
	case again(errno) || errors.Is(errno, syscall.ENOBUFS) || errors.Is(errno, syscall.ECONNREFUSED):
		s.result.Failed++
	default:
		return os.NewSyscallError("sendmsg", errno)
	}
	return nil
}

// read counts the answers that come within the time.
func (s *sprayer) read(within time.Duration) error {
	events, err := s.poll.wait(within)
	if err != nil {
		return err
	}
	for i := range events {
		for range 64 {
			n, errno := readFD(int(events[i].Fd), s.head[:])
			if errno != 0 {
				break // there is no more, or an error of something sent earlier
			}
			if _, ok := s.datagrams.answers(s.head[:n]); ok {
				s.result.Answered++
			}
		}
	}
	return nil
}
