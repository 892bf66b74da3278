package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// lostAfter is how long to wait for a train. A balancer that takes longer cannot be measured.
const lostAfter = 200 * time.Millisecond

// A trainLoad is the load generator of trains: each of its sockets has one train under way, there or back. It belongs
// to one goroutine; see runTrains.
type trainLoad struct {
	job     job
	poll    *poller
	started time.Time // all times of the loop are since then
	buffer  []byte    // room for a train
	conns   []*trainConn
	byFD    map[int]*trainConn
	result  loadResult
}

// A trainConn is one socket of the load generator.
type trainConn struct {
	fd    int
	train train
	got   int           // bytes of the answer
	begun time.Duration // the train was
	done  bool          // there is none
}

// runTrains runs the load generator's process for trains, see runLoad.
func runTrains(j job, lines *bufio.Scanner, stdin io.Reader, stdout io.Writer) error {
	poll, err := newPoller()
	if err != nil {
		return err
	}
	defer poll.close()
	l := &trainLoad{job: j, poll: poll, started: time.Now(), buffer: make([]byte, trainBytes),
		byFD: map[int]*trainConn{}}
	if err := l.open(); err != nil {
		return err
	}
	return obey(lines, stdin, stdout, func() error {
		if err := l.work(j.Warmup); err != nil {
			return err
		}
		l.result = loadResult{}
		return nil
	}, func() (loadResult, error) {
		begin := l.now()
		err := l.work(j.Duration)
		l.result.Elapsed = l.now() - begin
		return l.result, err
	})
}

func (l *trainLoad) now() time.Duration { return time.Since(l.started) }

// open makes the job's sockets; they take turns among the targets.
func (l *trainLoad) open() error {
	for i := range l.job.Connections {
		fd, err := trainSocket()
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		sa := sockaddr(l.job.Targets[i%len(l.job.Targets)])
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
			unsafe.Sizeof(sa)); errno != 0 {
			return os.NewSyscallError("connect", errno)
		}
		if err := l.poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
		c := &trainConn{fd: fd, done: true}
		l.conns = append(l.conns, c)
		l.byFD[fd] = c
	}
	return nil
}

// work keeps a train under way on each socket for d, and then waits for those that are.
func (l *trainLoad) work(d time.Duration) error {
	start := l.now()
	deadline := start + d
	for _, c := range l.conns {
		l.begin(c)
	}
	lastSeen, underWay := start, len(l.conns)
	for underWay > 0 {
		events, err := l.poll.wait(waitSlice)
		if err != nil {
			return err
		}
		now := l.now()
		for i := range events {
			c := l.byFD[int(events[i].Fd)]
			whole, err := l.read(c)
			if err != nil {
				return err
			}
			if whole {
				lastSeen = now
			}
		}
		underWay = 0
		for _, c := range l.conns {
			if !c.done && now-c.begun > lostAfter {
				l.result.Lost++
				c.done = true
			}
			if c.done && now < deadline {
				l.begin(c)
			}
			if !c.done {
				underWay++
			}
		}
		if now-lastSeen > stallTimeout {
			return fmt.Errorf("no train has come back for %s", stallTimeout)
		}
	}
	return nil
}

// begin sends the next train. Datagrams that the kernel does not accept count as lost.
func (l *trainLoad) begin(c *trainConn) {
	c.train = train{sequence: c.train.sequence + 1, in: uint32(l.job.Payload), out: uint32(l.job.Answer)}
	c.got, c.begun, c.done = 0, l.now(), false
	b := l.buffer[:max(l.job.Payload, trainHead)]
	c.train.in = uint32(len(b))
	c.train.fill(b)
	sendTrain(c.fd, b, nil)
}

// read reads what has arrived, and reports whether the socket's train is complete.
func (l *trainLoad) read(c *trainConn) (whole bool, err error) {
	for {
		var head [trainHead]byte
		var from syscall.RawSockaddrInet4
		n, errno := readTrain(c.fd, &head, &from)
		switch {
		case again(errno):
			return whole, nil
		case errno != 0:
			return whole, os.NewSyscallError("recvfrom", errno)
		}
		t, ok := parseTrain(head[:min(n, trainHead)])
		if !ok || t.sequence != c.train.sequence || c.done {
			continue // of a train that was given up
		}
		if c.got += n; c.got < int(max(c.train.out, trainHead)) {
			continue
		}
		c.done, whole = true, true
		l.result.Requests++
		l.result.Bytes += int64(c.train.in) + int64(c.got)
	}
}
