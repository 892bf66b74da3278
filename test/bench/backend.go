package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	// backendCount is how many backends every contender balances over, round robin, unless the scenario says otherwise.
	// They are ports of one process and one loop, since more processes would only compete for two CPUs.
	backendCount = 3

	// manyBackends is the most that a scenario has. The process listens on as many ports.
	manyBackends = 1000

	// chunkBytes is what one write of a long answer or payload offers. Large
	// enough that the sender's system calls do not count.
	chunkBytes = 256 << 10

	// discardBytes is the most that one read of bulk takes.
	discardBytes = 1 << 20
)

// A backendServer answers requests on several ports from one loop. It belongs to
// one goroutine; see serveBackend.
type backendServer struct {
	poll      *poller
	listeners map[int]bool
	sessions  []*backendSession // by descriptor; kept and used again, since the collector is off
	filler    []byte
}

// A backendSession is one connection to the backend.
//
// Invariant: exactly one of reading a head (got < requestBytes), reading payload
// (payload > 0) and answering (answer > 0) is going on.
type backendSession struct {
	fd        int
	head      [requestBytes]byte
	got       int
	reply     [answerBytes]byte
	replied   int64   // bytes of the answer written
	payload   int64   // bytes of payload still to come
	answer    int64   // bytes of the answer still to write
	forWrites bool    // epoll watches for EPOLLOUT and not for EPOLLIN
	raw       request // the connection's only head, if raw.raw
}

// runBackend runs the backend's process. It prints its addresses as one line of JSON and serves until it is ended.
func runBackend(stdout io.Writer) error {
	quiet()
	files, addrs, err := listenBackends(manyBackends)
	if err != nil {
		return err
	}
	poll, err := newPoller()
	if err != nil {
		return err
	}
	s := &backendServer{poll: poll, listeners: map[int]bool{}, filler: make([]byte, chunkBytes)}
	for _, f := range files {
		fd := int(f.Fd())
		if err := syscall.SetNonblock(fd, true); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		// accepted connections inherit it
		if err := setOption(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		s.listeners[fd] = true
		if err := poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(stdout).Encode(addrs); err != nil {
		return err
	}
	err = s.serve()
	runtime.KeepAlive(files)
	return err
}

// quiet limits the process to one thread and turns the garbage collector off, so that it does not compete with a
// balancer for two CPUs. The loops allocate next to nothing.
func quiet() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	// so that epoll_pwait2 wakes at its time and not up to the default 50us later
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0)
}

func listenBackends(n int) ([]*os.File, []netip.AddrPort, error) {
	var files []*os.File
	var addrs []netip.AddrPort
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0") // backlog: net.core.somaxconn
		if err != nil {
			return nil, nil, err
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
		addrs = append(addrs, l.Addr().(*net.TCPAddr).AddrPort())
		if err := l.Close(); err != nil { // f is a descriptor of its own
			return nil, nil, err
		}
	}
	return files, addrs, nil
}

func (s *backendServer) serve() error {
	for {
		events, err := s.poll.wait(time.Second)
		if err != nil {
			return err
		}
		for i := range events {
			fd := int(events[i].Fd)
			if s.listeners[fd] {
				err = s.accept(fd)
			} else {
				err = s.advance(s.sessions[fd])
			}
			if err != nil {
				return err
			}
		}
	}
}

func (s *backendServer) accept(listener int) error {
	for {
		fd, errno := acceptFD(listener)
		switch errno {
		case 0:
		case syscall.EAGAIN, syscall.ECONNABORTED, syscall.EINTR:
			return nil
		default:
			return os.NewSyscallError("accept4", errno)
		}
		for fd >= len(s.sessions) {
			s.sessions = append(s.sessions, &backendSession{})
		}
		*s.sessions[fd] = backendSession{fd: fd}
		if err := s.poll.add(fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
}

// advance makes all progress that a session can make now. It closes a connection that ends or breaks; the load
// generator decides what that means.
func (s *backendServer) advance(c *backendSession) error {
	var err error
	switch {
	case c.answer > 0:
		err = s.write(c)
	case c.payload > 0:
		err = s.readPayload(c)
	default:
		err = s.readHead(c)
	}
	if errors.Is(err, errSessionEnd) {
		closeFD(c.fd) // which takes it out of epoll too
		return nil
	}
	return err
}

// errSessionEnd says that a backend's session is over, in order or not.
var errSessionEnd = errors.New("session ended")

func (s *backendServer) readHead(c *backendSession) error {
	n, errno := readFD(c.fd, c.head[c.got:])
	if again(errno) {
		return nil
	}
	if errno != 0 || n == 0 {
		return errSessionEnd
	}
	c.got += n
	c.skipProxyHeader()
	if c.got < requestBytes {
		return nil
	}
	r, err := parseRequest(&c.head)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	c.payload = r.payload
	if r.raw {
		c.raw = r
	}
	if c.payload > 0 {
		return nil
	}
	return s.begin(c, r)
}

// proxySignature begins a header of the PROXY protocol, version 2; its length is in the last two of proxyFixed bytes.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyFixed     = 16
)

// skipProxyHeader removes a header of the PROXY protocol that the connection begins with. That of an IPv4 session is
// shorter than a request's head, so what was read has all of it or none.
func (c *backendSession) skipProxyHeader() {
	if c.got < proxyFixed || string(c.head[:len(proxySignature)]) != proxySignature {
		return
	}
	header := proxyFixed + int(binary.BigEndian.Uint16(c.head[proxyFixed-2:]))
	if c.got >= header {
		c.got = copy(c.head[:], c.head[header:c.got])
	}
}

func (s *backendServer) readPayload(c *backendSession) error {
	n, errno := discardFD(c.fd, min(c.payload, discardBytes))
	if again(errno) {
		return nil
	}
	if errno != 0 || n == 0 {
		return errSessionEnd
	}
	if c.payload -= int64(n); c.payload > 0 {
		return nil
	}
	if c.raw.raw {
		c.replied, c.answer = answerBytes, c.raw.answer // it has no head of its own
		return s.write(c)
	}
	r, err := parseRequest(&c.head)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	return s.begin(c, r)
}

// begin starts the answer to r, whose payload has been received.
func (s *backendServer) begin(c *backendSession, r request) error {
	putAnswer(&c.reply, r.sequence)
	c.replied, c.answer = 0, r.answer
	return s.write(c)
}

// write sends one piece of the answer, so that the streams of this loop take turns.
func (s *backendServer) write(c *backendSession) error {
	b := s.filler[:min(c.answer, chunkBytes)]
	if c.replied < answerBytes {
		b = c.reply[c.replied:]
	}
	n, errno := writeFD(c.fd, b)
	if errno != 0 && !again(errno) {
		return errSessionEnd
	}
	if errno == 0 {
		c.replied += int64(n)
		c.answer -= int64(n)
	}
	if c.answer == 0 {
		c.got, c.payload = 0, c.raw.payload
	}
	return s.watch(c, c.answer > 0)
}

// watch sets in epoll whether the session waits to write or to read.
func (s *backendServer) watch(c *backendSession, writes bool) error {
	if c.forWrites == writes {
		return nil
	}
	c.forWrites = writes
	if writes {
		return s.poll.change(c.fd, syscall.EPOLLOUT)
	}
	return s.poll.change(c.fd, syscall.EPOLLIN)
}

func again(errno syscall.Errno) bool { return errno == syscall.EAGAIN || errno == syscall.EINTR }
