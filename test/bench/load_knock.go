package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	epollET = 1 << 31 // linux/eventpoll.h EPOLLET; that of package syscall is negative

	// drainAfter is how long a flood waits for answers to what it has sent.
	drainAfter = 300 * time.Millisecond
)

// A knocker is one sender of patternKnock: it connects from one address again and again, and sees whether it is
// refused. It belongs to one goroutine; see newKnocker.
type knocker struct {
	job    job
	poll   *poller
	from   netip.Addr
	pace   pace
	begun  time.Time // all times are since then
	byFD   []knock
	free   int     // slots without a connection
	queue  []knock // connections in the order of their begin, those included that have ended
	head   [requestBytes]byte
	buffer [4096]byte
	result floodResult
}

// A knock is one connection. number is 0 for none.
type knock struct {
	number uint64
	fd     int
	begun  time.Duration
	sent   bool
	got    int // bytes of the answer
}

func newKnocker(j job) (*knocker, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	k := &knocker{job: j, poll: poll, from: j.Flood.Source.Addr(), pace: newPace(j.Flood.Rate, j.Flood.Senders)}
	request{sequence: 1, answer: answerBytes}.put(&k.head)
	return k, nil
}

func (k *knocker) close() { k.poll.close() }

func (k *knocker) now() time.Duration { return time.Since(k.begun) }

func (k *knocker) run(d time.Duration) (floodResult, error) {
	k.begun, k.result, k.queue, k.free = time.Now(), floodResult{Elapsed: d}, k.queue[:0], k.job.Flood.Slots
	for now := k.now(); now < d; now = k.now() {
		// only so many before it sees what has become of the others
		for i := 0; i < 16 && k.free > 0 && k.pace.due(k.result.Offered, now); i++ {
			if err := k.open(now); err != nil {
				return k.result, err
			}
		}
		if err := k.step(now, d); err != nil {
			return k.result, err
		}
	}
	// What was sent at its time was admitted in time. Without a rate clients queue, and the queue goes on after the end.
	for at := d; k.pace.every > 0 && k.free < k.job.Flood.Slots && at < d+drainAfter; at = k.now() {
		if err := k.step(at, d+drainAfter); err != nil {
			return k.result, err
		}
	}
	for _, c := range k.queue {
		k.end(c)
	}
	return k.result, nil
}

// step waits until something has happened or the next connection is due, but not past the end.
func (k *knocker) step(now, end time.Duration) error {
	wait := min(time.Millisecond, end-now)
	if k.free > 0 {
		wait = min(wait, k.pace.wait(k.result.Offered, now))
	}
	events, err := k.poll.wait(wait)
	if err != nil {
		return err
	}
	for i := range events {
		k.advance(&k.byFD[events[i].Fd], events[i].Events)
	}
	k.expire(k.now())
	return nil
}

// open begins to connect.
func (k *knocker) open(now time.Duration) error {
	s, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return os.NewSyscallError("socket", errno)
	}
	fd := int(s)
	// without TIME_WAIT, since there are only so many ports
	linger := syscall.Linger{Onoff: 1}
	syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, s, syscall.SOL_SOCKET, syscall.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	err := bindSource(fd, k.from)
	if err == nil {
		_, err = connectFD(fd, k.job.Targets[0])
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ENOBUFS) {
		k.result.Failed++
		closeFD(fd)
		return nil
	}
	if err != nil {
		closeFD(fd)
		return fmt.Errorf("connect %s to %s: %w", k.from, k.job.Targets[0], err)
	}
	k.result.Offered++
	for fd >= len(k.byFD) {
		k.byFD = append(k.byFD, knock{})
	}
	c := knock{number: k.result.Offered, fd: fd, begun: now}
	k.byFD[fd] = c
	k.queue = append(k.queue, c)
	k.free--
	return k.poll.add(fd, syscall.EPOLLIN|syscall.EPOLLOUT|syscall.EPOLLRDHUP|epollET)
}

// advance makes the progress that a connection can make.
func (k *knocker) advance(c *knock, events uint32) {
	if c.number == 0 {
		return
	}
	if k.job.Flood.Ask && !c.sent && events&syscall.EPOLLOUT != 0 {
		c.sent = true
		writeFD(c.fd, k.head[:]) // if it fails, so does the read below
	}
	if events&^syscall.EPOLLOUT == 0 {
		return
	}
	n, errno := readFD(c.fd, k.buffer[:])
	switch {
	case again(errno):
		return
	case errno != 0 || n == 0:
		k.result.Refused++
		k.end(*c)
	default:
		if c.got += n; !k.job.Flood.Ask || c.got >= answerBytes {
			k.result.Answered++
			k.end(*c)
		}
	}
}

// expire gives up the connections that are older than the patience.
func (k *knocker) expire(now time.Duration) {
	n := 0
	for ; n < len(k.queue); n++ {
		c := k.queue[n]
		if k.byFD[c.fd].number != c.number {
			continue // it has ended
		}
		if now-c.begun < k.job.Flood.Patience {
			break
		}
		k.result.Abandoned++
		k.end(c)
	}
	k.queue = k.queue[n:]
}

// end closes a connection, unless it has ended.
func (k *knocker) end(c knock) {
	if k.byFD[c.fd].number != c.number {
		return
	}
	closeFD(c.fd)
	k.byFD[c.fd].number = 0
	k.free++
}
