package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"
)

// maxDepth is the most requests that may be under way on one connection: two
// keep a bulk stream without a gap.
const maxDepth = 2

// A loadConn is one connection of the load generator. It belongs to the load's
// loop. Its zero value is of no use, see load.open.
//
// Invariants: answered <= sent <= answered + maxDepth; bytes are left to write
// only of request number sent.
type loadConn struct {
	// set once, then read-only
	fd     int
	number int
	source netip.Addr
	target netip.AddrPort

	established bool
	forWrites   bool // epoll watches for EPOLLOUT besides EPOLLIN

	sent, answered uint64
	begun          [maxDepth]time.Duration // when, or for when, request n was begun: at n%maxDepth

	head        [requestBytes]byte
	headLeft    int
	payloadLeft int64

	reply     [answerBytes]byte
	replyGot  int
	replyLeft int64 // bytes of the present answer after its first answerBytes

	nextDue int // number in the schedule of the next request this connection is to send, patternPaced
}

// connect starts to connect and watches the socket.
func (c *loadConn) connect(l *load) error {
	if err := bindSource(c.fd, c.source); err != nil {
		return err
	}
	done, err := connectFD(c.fd, c.target)
	if err != nil {
		return err
	}
	c.established, c.forWrites = done, !done
	return l.poll.add(c.fd, c.interest())
}

func (c *loadConn) interest() uint32 {
	if c.forWrites {
		return syscall.EPOLLIN | syscall.EPOLLOUT
	}
	return syscall.EPOLLIN
}

// writing reports whether a request is not yet written whole.
func (c *loadConn) writing() bool { return c.headLeft > 0 || c.payloadLeft > 0 }

// begin sends the next request, or as much of it as the socket takes. Nothing may
// be left to write of the one before. The latency counts from begun.
func (c *loadConn) begin(l *load, begun time.Duration) error {
	if c.writing() || c.sent-c.answered == maxDepth {
		panic("bench: request begun before the one before it was written")
	}
	c.sent++
	c.begun[c.sent%maxDepth] = begun
	request{
		sequence: c.sequence(c.sent), payload: l.job.Payload, answer: l.job.Answer, raw: l.job.Raw,
	}.put(&c.head)
	c.headLeft, c.payloadLeft = requestBytes, l.job.Payload
	if l.job.Raw && c.sent > 1 {
		c.headLeft = 0
	}
	l.inFlight++
	if l.inFlight == 1 {
		l.lastSeen = l.now()
	}
	if !c.established {
		return nil // advance writes it
	}
	return c.write(l)
}

// sequence returns the number that request n of this connection carries on the wire: no other connection of the job
// uses it.
func (c *loadConn) sequence(n uint64) uint64 { return uint64(c.number)<<40 | n }

// finish counts the oldest request under way as answered and returns when it was begun.
func (c *loadConn) finish(l *load) time.Duration {
	c.answered++
	l.inFlight--
	l.bytes += l.job.Payload + l.job.Answer
	return c.begun[c.answered%maxDepth]
}

// advance makes all progress that is possible now and reports whether an answer is complete.
func (c *loadConn) advance(l *load, events uint32) (bool, error) {
	if !c.established {
		if err := c.connected(); err != nil {
			return false, err
		}
		if err := c.write(l); err != nil {
			return false, err
		}
	} else if events&syscall.EPOLLOUT != 0 {
		if err := c.write(l); err != nil {
			return false, err
		}
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 {
		return false, nil
	}
	return c.read(l)
}

// connected returns the result of a connect.
func (c *loadConn) connected() error {
	errno, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil {
		return err
	}
	if errno != 0 {
		return fmt.Errorf("connect: %w", syscall.Errno(errno))
	}
	c.established = true
	return nil
}

// write sends the head and then one chunk of payload, so that the streams of this
// one loop take turns, and watches for room if more is to be written.
func (c *loadConn) write(l *load) error {
	if c.headLeft > 0 {
		n, errno := writeFD(c.fd, c.head[requestBytes-c.headLeft:])
		if errno != 0 && !again(errno) {
			return fmt.Errorf("write: %w", errno)
		}
		if errno == 0 {
			c.headLeft -= n
		}
	}
	if c.headLeft == 0 && c.payloadLeft > 0 {
		n, errno := writeFD(c.fd, l.filler[:min(c.payloadLeft, chunkBytes)])
		if errno != 0 && !again(errno) {
			return fmt.Errorf("write: %w", errno)
		}
		if errno == 0 {
			c.payloadLeft -= int64(n)
		}
	}
	if c.forWrites == c.writing() {
		return nil
	}
	c.forWrites = c.writing()
	return l.poll.change(c.fd, c.interest())
}

var errEarlyAnswer = errors.New("bytes that no request asked for")

// read reads one piece of the current answer and reports whether it was the last. Further bytes raise another event.
func (c *loadConn) read(l *load) (bool, error) {
	if c.replyGot < answerBytes {
		n, errno := readFD(c.fd, c.reply[c.replyGot:])
		if err := readError(n, errno); err != nil || again(errno) {
			return false, err
		}
		if c.sent == c.answered {
			return false, errEarlyAnswer
		}
		if c.replyGot += n; c.replyGot < answerBytes {
			return false, nil
		}
		if got, want := parseAnswer(&c.reply), c.sequence(c.answered+1); got != want {
			return false, fmt.Errorf("answer %#x to request %#x", got, want)
		}
	} else {
		n, errno := discardFD(c.fd, min(c.replyLeft, discardBytes))
		if err := readError(n, errno); err != nil || again(errno) {
			return false, err
		}
		if c.sent == c.answered {
			return false, errEarlyAnswer
		}
		c.replyLeft -= int64(n)
	}
	if c.replyLeft > 0 {
		return false, nil
	}
	c.awaitAnswer(l)
	return true, nil
}

// awaitAnswer makes the connection ready to read the next answer from its first byte.
func (c *loadConn) awaitAnswer(l *load) {
	c.replyGot, c.replyLeft = 0, l.job.Answer-answerBytes
	if l.job.Raw {
		c.replyGot, c.replyLeft = answerBytes, l.job.Answer // it has no head
	}
}

// readError returns the error of a read without bytes. An answer is due or the connection must stay open, so its end is
// an error.
func readError(n int, errno syscall.Errno) error {
	switch {
	case again(errno):
		return nil
	case errno != 0:
		return fmt.Errorf("read: %w", errno)
	case n == 0:
		return fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
	}
	return nil
}
