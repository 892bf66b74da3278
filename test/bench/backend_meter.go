package main

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

// A meterServer is the backend of trafficMeter, on several ports and in one loop. It belongs to one goroutine; see
// runMeterBackend.
type meterServer struct {
	poll      *poller
	listeners map[int]bool
	sessions  map[int]*meterSession // by descriptor
	filler    []byte
}

// A meterSession is one connection.
type meterSession struct {
	fd    int
	head  [17]byte // what it is for, and the times of a report
	got   int
	meter *meter // meterIn
}

// runMeterBackend runs the backend's process. It prints its addresses as one line of JSON and serves until it is ended.
func runMeterBackend(stdout io.Writer) error {
	quiet()
	files, addrs, err := listenBackends(backendCount)
	if err != nil {
		return err
	}
	poll, err := newPoller()
	if err != nil {
		return err
	}
	s := &meterServer{poll: poll, listeners: map[int]bool{}, sessions: map[int]*meterSession{},
		filler: make([]byte, chunkBytes)}
	for _, f := range files {
		fd := int(f.Fd())
		if err := syscall.SetNonblock(fd, true); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		s.listeners[fd] = true
		if err := poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(stdout).Encode(addrs); err != nil {
		return err
	}
	for {
		events, err := poll.wait(time.Second)
		if err != nil {
			return err
		}
		now := time.Now()
		for i := range events {
			fd := int(events[i].Fd)
			if s.listeners[fd] {
				err = s.accept(fd)
			} else {
				err = s.advance(s.sessions[fd], now)
			}
			if err != nil {
				return err
			}
		}
		runtime.KeepAlive(files)
	}
}

func (s *meterServer) accept(listener int) error {
	for {
		fd, errno := acceptFD(listener)
		switch errno {
		case 0:
		case syscall.EAGAIN, syscall.ECONNABORTED, syscall.EINTR:
			return nil
		default:
			return os.NewSyscallError("accept4", errno)
		}
		s.sessions[fd] = &meterSession{fd: fd}
		if err := s.poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
}

// advance makes the progress that a session can make now, and closes one that has ended.
func (s *meterServer) advance(c *meterSession, now time.Time) error {
	var ended bool
	var err error
	switch {
	case c.got == 0 || c.head[0] == meterReport:
		ended, err = s.readHead(c, now)
	case c.head[0] == meterIn:
		n, errno := discardFD(c.fd, discardBytes)
		if ended = errno == 0 && n == 0 || errno != 0 && !again(errno); n > 0 && errno == 0 {
			c.meter.count(now, n)
		}
	case c.head[0] == meterOut:
		_, errno := writeFD(c.fd, s.filler)
		ended = errno != 0 && !again(errno)
	}
	if ended {
		closeFD(c.fd)
		delete(s.sessions, c.fd)
	}
	return err
}

// readHead reads what the connection is for, and reports whether it has ended.
func (s *meterServer) readHead(c *meterSession, now time.Time) (ended bool, err error) {
	want := 1
	if c.got > 0 {
		want = len(c.head)
	}
	n, errno := readFD(c.fd, c.head[c.got:want])
	if again(errno) {
		return false, nil
	}
	if errno != 0 || n == 0 {
		return true, nil
	}
	c.got += n
	switch c.head[0] {
	case meterAsk:
		writeFD(c.fd, c.head[:1])
		return true, nil
	case meterIn:
		c.meter = newMeter(now)
	case meterOut:
		return false, s.poll.change(c.fd, syscall.EPOLLOUT)
	case meterReport:
		if c.got < len(c.head) {
			return false, nil
		}
		writeFD(c.fd, s.report(c))
		return true, nil
	default:
		return true, nil
	}
	return false, nil
}

// report answers a request for a report.
func (s *meterServer) report(c *meterSession) []byte {
	var ms []*meter
	for _, o := range s.sessions {
		if o.meter != nil {
			ms = append(ms, o.meter)
		}
	}
	from := time.Unix(0, int64(binary.BigEndian.Uint64(c.head[1:])))
	to := time.Unix(0, int64(binary.BigEndian.Uint64(c.head[9:])))
	b, err := json.Marshal(measureStreams(ms, from, to))
	if err != nil {
		panic(err) // numbers alone
	}
	return b
}
