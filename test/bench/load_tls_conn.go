package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// A tlsConn is one connection of the load generator of TLS. It is for one goroutine; see tlsLoad.connect.
type tlsConn struct {
	source netip.Addr
	target netip.AddrPort
	wire   *wire
	tls    *tls.Conn // over wire

	sent  uint64 // requests
	head  [requestBytes]byte
	reply [answerBytes]byte
}

// A wire is a TCP connection, buffered in both directions if it has buffers: with many records in a system call, the
// client leaves more of the CPU to the balancer. Its zero value is of no use.
type wire struct {
	net.Conn
	r *bufio.Reader // nil: unbuffered
	w *bufio.Writer // nil: unbuffered
}

func (w *wire) Read(b []byte) (int, error) {
	if w.r == nil {
		return w.Conn.Read(b)
	}
	return w.r.Read(b)
}

func (w *wire) Write(b []byte) (int, error) {
	if w.w == nil {
		return w.Conn.Write(b)
	}
	return w.w.Write(b)
}

func (w *wire) flush() error {
	if w.w == nil {
		return nil
	}
	return w.w.Flush()
}

// connect opens a new connection in the slot, from the next source address to the next target, and does the handshake.
// The slot must not have an open one. Several goroutines may call it at once, each for a slot of its own.
func (l *tlsLoad) connect(s *tlsSlot) error {
	turn := s.number + s.opened*len(l.slots)
	s.opened++
	sources := sourceCount
	if l.job.TLS.Flood {
		sources = 1
	}
	c := &tlsConn{
		source: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + turn%sources)}),
		target: l.job.Targets[turn%len(l.job.Targets)],
	}
	s.conn = c
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.source, 0)),
		Timeout:   stallTimeout,
		KeepAlive: -1, // off: system calls that no other load generator makes
		ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
			var err error
			controlErr := raw.Control(func(fd uintptr) {
				err = setOption(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
			})
			if controlErr != nil {
				return controlErr
			}
			return err
		},
	}
	conn, err := d.Dial("tcp4", c.target.String())
	if err != nil {
		return err
	}
	c.wire = &wire{Conn: conn}
	c.tls = tls.Client(c.wire, s.config)
	if err := c.allow(stallTimeout); err != nil {
		return err
	}
	if err := c.tls.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	state := c.tls.ConnectionState()
	s.last = negotiated{
		version: state.Version, suite: state.CipherSuite, group: state.CurveID, resumed: state.DidResume,
	}
	if l.job.Pattern == patternKept {
		c.wire.r = bufio.NewReaderSize(conn, chunkBytes)
		c.wire.w = bufio.NewWriterSize(conn, chunkBytes)
	}
	return nil
}

// allow lets the connection's reads and writes take that long from now.
func (c *tlsConn) allow(d time.Duration) error { return c.wire.SetDeadline(time.Now().Add(d)) }

// close says goodbye in TLS and closes the connection, without waiting for the other side.
func (c *tlsConn) close() error {
	if c.tls == nil {
		return nil // it was never established
	}
	return c.tls.Close()
}

func (c *tlsConn) String() string {
	if c == nil {
		return "never opened"
	}
	return fmt.Sprintf("%s to %s", c.source, c.target)
}

// exchange sends the slot's next request with that much payload and reads its answer.
func (l *tlsLoad) exchange(s *tlsSlot, payload, answer int64) error {
	c := s.conn
	c.sent++
	sequence := uint64(s.number)<<40 | c.sent
	request{sequence: sequence, payload: payload, answer: answer}.put(&c.head)
	if _, err := c.tls.Write(c.head[:]); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	for left := payload; left > 0; {
		n, err := c.tls.Write(l.filler[:min(left, chunkBytes)])
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		left -= int64(n)
	}
	if err := c.wire.flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if _, err := io.ReadFull(c.tls, c.reply[:]); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if got := parseAnswer(&c.reply); got != sequence {
		return fmt.Errorf("answer %#x to request %#x", got, sequence)
	}
	for left := answer - answerBytes; left > 0; {
		n, err := c.tls.Read(s.buffer[:min(left, int64(len(s.buffer)))])
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		left -= int64(n)
	}
	return nil
}

// yieldCPU gives every thread of this process the lowest priority. Threads that start later inherit it.
func yieldCPU() error {
	const lowest = 19
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, lowest); err != nil {
			return os.NewSyscallError("setpriority", err)
		}
	}
	return nil
}
