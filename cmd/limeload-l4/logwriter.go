package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueuedLog bounds the lines that wait to be written: several thousand access lines, more than a busy disk or
// journal falls behind for a moment.
const maxQueuedLog = 4 << 20

// logFlushTimeout is how long Close waits for a reader that reads nothing.
const logFlushTimeout = time.Second

// logPiece is about how much is written at once. A slow reader that reads one piece within logFlushTimeout counts as
// making progress.
const logPiece = 32 << 10

// logPause is the least time between two writes, in which lines are gathered. A write for each session's line would cost
// a sixth of what the session does.
const logPause = 5 * time.Millisecond

// A logWriter accepts log lines from any goroutine without ever blocking, and writes them from its own goroutine, many
// at a time. While maxQueuedLog bytes wait, it drops and counts lines, and later logs how many they were. Its zero
// value is of no use, see newLogWriter.
type logWriter struct {
	// set once, then read-only
	write func(lines []byte)
	wake  chan struct{} // has room for one; closed by Close
	done  chan struct{} // closed by run

	pieces  atomic.Int64  // number of pieces written
	dropped atomic.Uint64 // number of lines dropped

	// mu guards the fields below
	mu     sync.Mutex
	queue  []byte
	closed bool
}

// newLogWriter makes a logWriter; run does its work. With perLine, each Write to to has one line, which a
// zerolog.ConsoleWriter needs.
func newLogWriter(to io.Writer, perLine bool) *logWriter {
	w := &logWriter{wake: make(chan struct{}, 1), done: make(chan struct{})}
	w.write = func(lines []byte) { _, _ = to.Write(lines) } // there is nowhere to report an error of the log
	if perLine {
		w.write = func(lines []byte) {
			for line := range bytes.Lines(lines) {
				_, _ = to.Write(line)
			}
		}
	}
	return w
}

// Write queues a line. It never blocks and never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(line), nil
	}
	if len(w.queue)+len(line) > maxQueuedLog {
		w.dropped.Add(1)
		return len(line), nil
	}
	w.queue = append(w.queue, line...)
	if len(w.queue) == len(line) { // it was empty, so run may be asleep
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// run writes the queued lines until Close.
func (w *logWriter) run() {
	defer close(w.done)
	var spare []byte
	var reported uint64 // how many drops have been logged
	var last time.Time  // when something was written
	for open := true; open; {
		_, open = <-w.wake
		if pause := logPause - time.Since(last); pause > 0 {
			time.Sleep(pause)
		}
		w.mu.Lock()
		lines, dropped := w.queue, w.dropped.Load()
		w.queue = spare[:0]
		w.mu.Unlock()
		for rest := lines; len(rest) > 0; {
			n := pieceOf(rest)
			w.write(rest[:n])
			w.pieces.Add(1)
			rest = rest[n:]
		}
		if dropped > reported {
			w.write(fmt.Appendf(nil,
				`{"level":"warn","lines":%d,"event":"log_lines_dropped","time":%q,`+
					`"message":"log lines dropped: the log is not read fast enough"}`+"\n",
				dropped-reported, time.Now().Format(logTimeFormat)))
			reported = dropped
		}
		spare, last = lines, time.Now()
	}
}

// pieceOf returns how many bytes of whole lines to write at once.
func pieceOf(lines []byte) int {
	if len(lines) <= logPiece {
		return len(lines)
	}
	return logPiece + bytes.IndexByte(lines[logPiece:], '\n') + 1
}

// Close writes the queued lines and ends run. It gives up if nothing is read for logFlushTimeout.
func (w *logWriter) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.wake)
	}
	w.mu.Unlock()
	for {
		before := w.pieces.Load()
		select {
		case <-w.done:
			return
		case <-time.After(logFlushTimeout):
			if w.pieces.Load() == before {
				return
			}
		}
	}
}
