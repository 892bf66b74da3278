package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A gate is a log that reads nothing until it is opened.
type gate struct {
	open chan struct{}

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.Write(p)
}

func TestLogWriterKeepsOrder(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	w := newLogWriter(g, false)
	go w.run()
	var want strings.Builder
	for i := range 1000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.Close()
	if g.out.String() != want.String() {
		t.Error("other lines came out than went in")
	}
	if n, err := w.Write([]byte("late\n")); n != 5 || err != nil {
		t.Error("a line after Close failed")
	}
}

// TestLogWriterNeverBlocks: a stuck log blocks nobody, and once it goes on, the dropped lines are reported.
func TestLogWriterNeverBlocks(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	w := newLogWriter(g, false)
	go w.run()
	line := bytes.Repeat([]byte("x"), 1<<10)
	line[len(line)-1] = '\n'
	for range 3 * maxQueuedLog / len(line) {
		w.Write(line)
	}
	w.mu.Lock()
	queued, dropped := len(w.queue), w.dropped.Load()
	w.mu.Unlock()
	if queued > maxQueuedLog || dropped == 0 {
		t.Errorf("%d bytes are queued, %d lines were dropped", queued, dropped)
	}
	close(g.open)
	w.Close()
	told := regexp.MustCompile(`"lines":(\d+),.*"message":"log lines dropped`).FindAllSubmatch(g.out.Bytes(), -1)
	if len(told) != 1 || string(told[0][1]) != strconv.FormatUint(dropped, 10) {
		t.Errorf("%d lines were dropped, and %q tells of them", dropped, told)
	}
}

// TestLogWriterPerLine: a console writer gets one line at a time.
func TestLogWriterPerLine(t *testing.T) {
	var got []string
	w := newLogWriter(writerFunc(func(p []byte) { got = append(got, string(p)) }), true)
	w.Write([]byte("one\n"))
	w.Write([]byte("two\n"))
	go w.run()
	w.Close()
	if len(got) != 2 || got[0] != "one\n" || got[1] != "two\n" {
		t.Errorf("got %q", got)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// TestLogWriterGathers: a line by itself is written at once, and what comes in quick succession is written together.
func TestLogWriterGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes []string
		w := newLogWriter(writerFunc(func(p []byte) { writes = append(writes, string(p)) }), false)
		go w.run()
		w.Write([]byte("alone\n"))
		synctest.Wait()
		if len(writes) != 1 || writes[0] != "alone\n" {
			t.Errorf("%q was written at once", writes)
		}
		for i := range 20 { // during four pauses
			w.Write(fmt.Appendf(nil, "line %d\n", i))
			time.Sleep(logPause / 5)
		}
		w.Close()
		if n := len(writes) - 1; n > 5 || strings.Count(strings.Join(writes, ""), "\n") != 21 {
			t.Errorf("%d writes of the others: %q", n, writes[1:])
		}
	})
}

// TestLogWriterWaitsForASlowLog: Close loses nothing if the log is slow but not stuck, since it waits for each piece.
func TestLogWriterWaitsForASlowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got bytes.Buffer
		w := newLogWriter(writerFunc(func(p []byte) {
			time.Sleep(logFlushTimeout * 9 / 10)
			got.Write(p)
		}), false)
		var want bytes.Buffer
		for want.Len() < 10*logPiece {
			line := fmt.Appendf(nil, "line %d\n", want.Len())
			want.Write(line)
			w.Write(line)
		}
		go w.run()
		w.Close()
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%d of %d bytes were written", got.Len(), want.Len())
		}
	})
}
