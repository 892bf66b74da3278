package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// A streamLoad is the load generator of patternStream: each of its connections always sends, or receives. It belongs to
// one goroutine; see runStreams.
type streamLoad struct {
	job    job
	poll   *poller
	conns  map[int]*streamConn // by descriptor
	filler []byte
	stdin  bool // something can be read from it
}

// A streamConn is one connection.
type streamConn struct {
	fd     int
	opened bool   // its first byte is sent
	meter  *meter // of what it receives; nil if it sends
}

// runStreams runs the load generator's process for streams, see runLoad. Unlike the others it does not pause between
// the warm-up and the work: what has gathered in a pause would come all at once.
func runStreams(j job, lines *bufio.Scanner, stdin io.Reader, stdout io.Writer) error {
	poll, err := newPoller()
	if err != nil {
		return err
	}
	defer poll.close()
	l := &streamLoad{job: j, poll: poll, conns: map[int]*streamConn{}, filler: make([]byte, chunkBytes)}
	for range j.Connections {
		if err := l.open(); err != nil {
			return err
		}
	}
	if err := l.streamUntil(time.Now().Add(j.Warmup)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	in, ok := stdin.(*os.File)
	if !ok {
		return fmt.Errorf("stdin is no file but a %T", stdin)
	}
	if err := poll.add(int(in.Fd()), syscall.EPOLLIN); err != nil {
		return err
	}
	if err := l.streamUntil(time.Time{}); err != nil {
		return err
	}
	if !lines.Scan() {
		return lines.Err()
	}
	l.stdin = false
	from := time.Now()
	to := from.Add(j.Duration)
	if err := l.streamUntil(to); err != nil {
		return err
	}
	r, err := l.result(from, to)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(r); err != nil {
		return err
	}
	return l.streamUntil(time.Time{}) // while the bench looks at the processes, until stdin ends
}

// open begins to connect.
func (l *streamLoad) open() error {
	fd, err := socketFD()
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if _, err := connectFD(fd, l.job.Targets[0]); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	l.conns[fd] = &streamConn{fd: fd}
	return l.poll.add(fd, syscall.EPOLLOUT)
}

// streamUntil goes on until a time; with the zero time until something can be read from stdin.
func (l *streamLoad) streamUntil(end time.Time) error {
	lastSeen := time.Now()
	for now := lastSeen; end.IsZero() && !l.stdin || now.Before(end); now = time.Now() {
		wait := waitSlice
		if !end.IsZero() {
			wait = min(wait, end.Sub(now))
		}
		events, err := l.poll.wait(wait)
		if err != nil {
			return err
		}
		now = time.Now()
		if len(events) > 0 {
			lastSeen = now
		} else if now.Sub(lastSeen) > stallTimeout {
			return fmt.Errorf("no stream made progress for %s", stallTimeout)
		}
		for i := range events {
			c := l.conns[int(events[i].Fd)]
			if c == nil {
				l.stdin = true
				continue
			}
			if err := l.advance(c, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// advance makes the progress that a connection can make now.
func (l *streamLoad) advance(c *streamConn, now time.Time) error {
	if !c.opened {
		return l.begin(c, now)
	}
	if c.meter == nil {
		if _, errno := writeFD(c.fd, l.filler); errno != 0 && !again(errno) {
			return fmt.Errorf("write: %w", errno)
		}
		return nil
	}
	n, errno := discardFD(c.fd, discardBytes)
	if again(errno) {
		return nil
	}
	if err := readError(n, errno); err != nil {
		return err
	}
	c.meter.count(now, n)
	return nil
}

// begin says what a connection is for, once it is established.
func (l *streamLoad) begin(c *streamConn, now time.Time) error {
	kind := [1]byte{meterOut}
	if l.job.In {
		kind[0] = meterIn
	}
	if _, errno := writeFD(c.fd, kind[:]); errno != 0 {
		return fmt.Errorf("connect and write: %w", errno)
	}
	if c.opened = true; l.job.In {
		return nil
	}
	c.meter = newMeter(now)
	return l.poll.change(c.fd, syscall.EPOLLIN)
}

// result returns the figures between two times, from the side that received.
func (l *streamLoad) result(from, to time.Time) (loadResult, error) {
	var r streamResult
	if l.job.In {
		ctx, cancel := context.WithTimeout(context.Background(), stallTimeout)
		defer cancel()
		var err error
		if r, err = reportMeter(ctx, l.job.Meter, from, to); err != nil {
			return loadResult{}, fmt.Errorf("ask the backend: %w", err)
		}
	} else {
		var ms []*meter
		for _, c := range l.conns {
			if c.meter != nil {
				ms = append(ms, c.meter)
			}
		}
		r = measureStreams(ms, from, to)
	}
	return loadResult{Bytes: r.Bytes, Elapsed: r.Elapsed, Stream: &r}, nil
}
