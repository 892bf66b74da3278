package main

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

const (
	// pingWindow is how many datagrams may wait for an answer: DNS tells so many apart.
	pingWindow = 1 << 16

	// pingPatience is how long a datagram waits for its answer, at the end of the work: then it is lost.
	pingPatience = time.Second
)

// A pingLoad is the load generator of patternPing: datagrams are due at fixed times, from sockets in turn, and each is
// to be answered. It belongs to one goroutine; see runPing.
type pingLoad struct {
	job       job
	poll      *poller
	datagrams *datagrams
	fds       []int
	begun     time.Time // all times are since then
	sequence  uint64    // of the last datagram
	pending   [pingWindow]ping
	waiting   int // pings without an answer
	head      [64]byte
	samples   []time.Duration
	lost      uint64
}

// A ping is one datagram.
type ping struct {
	sequence uint64
	due      time.Duration
	waits    bool
}

// runPing runs the load generator's process for patternPing, see runLoad.
func runPing(j job, lines *bufio.Scanner, stdin io.Reader, stdout io.Writer) error {
	poll, err := newPoller()
	if err != nil {
		return err
	}
	defer poll.close()
	p := &pingLoad{job: j, poll: poll}
	if p.datagrams, err = newDatagrams(j.Datagram); err != nil {
		return err
	}
	for i := range j.Connections {
		if err := p.open(j.Targets[i%len(j.Targets)]); err != nil {
			return err
		}
	}
	return obey(lines, stdin, stdout, func() error {
		return p.work(j.Warmup)
	}, func() (loadResult, error) {
		p.samples, p.lost = make([]time.Duration, 0, 1<<20), 0
		err := p.work(j.Duration)
		return p.result(), err
	})
}

// open makes a socket that sends to the target.
func (p *pingLoad) open(to netip.AddrPort) error {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_SOCKET, syscall.AF_INET,
		syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return os.NewSyscallError("socket", errno)
	}
	sa := sockaddr(to)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)),
		unsafe.Sizeof(sa)); errno != 0 {
		return os.NewSyscallError("connect", errno)
	}
	p.fds = append(p.fds, int(fd))
	return p.poll.add(int(fd), syscall.EPOLLIN)
}

func (p *pingLoad) now() time.Duration { return time.Since(p.begun) }

// work sends datagrams for d, and then waits for the answers that are missing.
func (p *pingLoad) work(d time.Duration) error {
	p.begun = time.Now()
	pace := newPace(p.job.Rate, 1)
	sent := uint64(0)
	for now := p.now(); now < d || p.waiting > 0 && now < d+pingPatience; now = p.now() {
		for now < d && pace.due(sent, now) {
			p.send(time.Duration(sent) * pace.every)
			sent++
		}
		wait := waitSlice
		if now < d {
			wait = min(pace.wait(sent, now), d-now)
		}
		if err := p.read(wait); err != nil {
			return err
		}
	}
	for i := range p.pending {
		if p.pending[i].waits {
			p.pending[i].waits = false
			p.lost++
		}
	}
	p.waiting = 0
	return nil
}

// send sends the next datagram. What the kernel does not accept is lost.
func (p *pingLoad) send(due time.Duration) {
	p.sequence++
	at := &p.pending[p.sequence%pingWindow]
	if at.waits {
		p.lost++
		p.waiting--
	}
	*at = ping{sequence: p.sequence, due: due, waits: true}
	p.waiting++
	writeFD(p.fds[p.sequence%uint64(len(p.fds))], p.datagrams.next(p.sequence))
}

func (p *pingLoad) read(within time.Duration) error {
	events, err := p.poll.wait(within)
	if err != nil {
		return err
	}
	for i := range events {
		for {
			n, errno := readFD(int(events[i].Fd), p.head[:])
			if errno != 0 {
				break // there is no more, or an error of something sent earlier
			}
			if sequence, ok := p.datagrams.answers(p.head[:n]); ok {
				p.take(sequence)
			}
		}
	}
	return nil
}

// take records the answer to a datagram, once.
func (p *pingLoad) take(sequence uint64) {
	at := &p.pending[sequence%pingWindow]
	if !at.waits || p.job.Datagram == datagramTrain && at.sequence != sequence {
		return
	}
	at.waits = false
	p.waiting--
	p.samples = append(p.samples, p.now()-at.due)
}

func (p *pingLoad) result() loadResult {
	slices.Sort(p.samples)
	r := loadResult{Requests: uint64(len(p.samples)), Lost: p.lost, Elapsed: p.job.Duration}
	if len(p.samples) > 0 {
		r.P50, r.P99 = percentile(p.samples, 50), percentile(p.samples, 99)
		r.Max = p.samples[len(p.samples)-1]
	}
	return r
}
