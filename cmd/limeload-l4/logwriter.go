package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueuedLog bounds the lines that wait to be written: some thousand access lines, more than a disk or
// a journal falls behind in passing.
const maxQueuedLog = 4 << 20

// logFlushTimeout is how long Close waits for a log that takes nothing more.
const logFlushTimeout = time.Second

// logPiece is about how much is written at once: what a slow reader takes of it within logFlushTimeout is progress.
const logPiece = 32 << 10

// A logWriter takes log lines from any goroutine without ever blocking it, and writes them from one of its
// own, many at a time. Lines that come while maxQueuedLog bytes wait are dropped and counted, and a line
// tells of them. Its zero value is of no use, see newLogWriter.
type logWriter struct {
	// set once, then read-only
	write func(lines []byte)
	wake  chan struct{} // one slot; closed by Close
	done  chan struct{} // closed by run

	pieces  atomic.Int64  // written so far
	dropped atomic.Uint64 // lines, ever

	// mu guards the fields below
	mu     sync.Mutex
	queue  []byte
	closed bool
}

// newLogWriter makes a logWriter; run does its work. With perLine, to gets one line for each Write, as a
// zerolog.ConsoleWriter wants it.
func newLogWriter(to io.Writer, perLine bool) *logWriter {
	w := &logWriter{wake: make(chan struct{}, 1), done: make(chan struct{})}
	w.write = func(lines []byte) { _, _ = to.Write(lines) } // a log that cannot be written has nowhere to say so
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
	if len(w.queue) == len(line) { // it was empty: nobody has been told
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// run writes what is queued until Close.
func (w *logWriter) run() {
	defer close(w.done)
	var spare []byte
	var told uint64 // of w.dropped
	for open := true; open; {
		_, open = <-w.wake
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
		if dropped > told {
			w.write(fmt.Appendf(nil, `{"level":"warn","lines":%d,"time":%q,"message":"log lines dropped: the log is not read fast enough"}`+"\n",
				dropped-told, time.Now().Format(logTimeFormat)))
			told = dropped
		}
		spare = lines
	}
}

// pieceOf returns how many bytes of whole lines to write at once.
func pieceOf(lines []byte) int {
	if len(lines) <= logPiece {
		return len(lines)
	}
	return logPiece + bytes.IndexByte(lines[logPiece:], '\n') + 1
}

// Close writes what is still queued and ends run; it gives up when the log takes nothing for logFlushTimeout.
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
