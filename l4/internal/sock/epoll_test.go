package sock

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A spinner keeps a Poller busy or idle from its own goroutine, like a loop.
type spinner struct {
	poller *Poller
	wake   Wakeup
	events atomic.Int64
	stop   atomic.Bool
}

func startSpinner(t *testing.T) *spinner {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	s := &spinner{poller: p}
	if s.wake, err = NewWakeup(p, 1); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for !s.stop.Load() {
			s.events.Add(int64(p.Wait(-1)))
		}
	})
	t.Cleanup(func() {
		s.stop.Store(true)
		s.wake.Signal()
		running.Wait()
		s.wake.Close()
		p.Close()
	})
	return s
}

// TestWaitLetsTheRuntimeStop checks that garbage collection gets its stop of the world beside Pollers that wait outside
// the scheduler: idle, just gone quiet and busy. Without the Gosched in Wait this test hangs.
func TestWaitLetsTheRuntimeStop(t *testing.T) {
	previous := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(previous)
	idle, busy := startSpinner(t), startSpinner(t)

	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			busy.wake.Signal()
			runtime.GC()
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<16)
		t.Fatalf("200 collections have not ended in a minute\n%s", buf[:runtime.Stack(buf, true)])
	}
	if busy.events.Load() == 0 {
		t.Error("the busy poller saw no event")
	}
	if idle.events.Load() != 0 {
		t.Error("the idle poller saw events")
	}
}

// TestWaitGoesIdle checks that a Poller without events stops waiting in short rounds, so that its thread sleeps.
func TestWaitGoesIdle(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w, err := NewWakeup(p, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Signal()
	if n := p.Wait(-1); n != 1 || !p.busy {
		t.Fatalf("%d events, busy %v after a wake-up", n, p.busy)
	}
	for deadline := time.Now().Add(10 * time.Second); p.busy; {
		if n := p.Wait(-1); n != 0 {
			t.Fatalf("%d events out of nowhere", n)
		}
		if time.Now().After(deadline) {
			t.Fatal("still busy after ten seconds without an event")
		}
	}
	// A signal, for example the runtime's own, may interrupt a wait, but not one wait after the other.
	for deadline := time.Now().Add(10 * time.Second); ; {
		start := time.Now()
		if n := p.Wait(50 * time.Millisecond); n != 0 {
			t.Fatalf("%d events out of nowhere", n)
		}
		if time.Since(start) >= 45*time.Millisecond {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no idle wait of 50 ms takes that long")
		}
	}
}

// TestWaitLimits checks that zero does not wait and that a limit ends a wait.
func TestWaitLimits(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n := p.Wait(0); n != 0 {
		t.Fatalf("%d events out of nowhere", n)
	}
	p.busy = true
	if n := p.Wait(time.Millisecond); n != 0 {
		t.Fatalf("%d events out of nowhere", n)
	}
}

// TestWatchInput holds that a connection whose input is not watched is reported for its FIN and its reset only, and
// that what has come meanwhile is reported as soon as it is watched again.
func TestWatchInput(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	client, accepted, _ := pair(t, "127.0.0.1:0", ListenOptions{})
	events := func() (bits uint32) {
		for n := p.Wait(50 * time.Millisecond); n > 0; n-- {
			bits |= p.Event(n - 1).Bits()
		}
		return bits
	}
	p.Add(accepted, 1, 1)
	if got := events(); got != PollOut {
		t.Fatalf("added: %x", got)
	}
	p.WatchInput(accepted, 1, 1, false)
	if got := events(); got != PollOut {
		t.Fatalf("no longer watched: %x", got)
	}
	Write(client, []byte("x"), false)
	if got := events(); got != 0 {
		t.Errorf("bytes that are not watched: %x", got)
	}
	p.WatchInput(accepted, 1, 1, true)
	if got := events(); got != PollIn|PollOut {
		t.Errorf("bytes that came before: %x", got)
	}
	p.WatchInput(accepted, 1, 1, false)
	events()
	ShutdownWrite(client)
	if got := events(); got&PollPeerDone == 0 || got&PollIn != 0 {
		t.Errorf("a FIN that is not watched: %x", got)
	}
	Write(accepted, []byte("x"), false)
	Reset(client)
	if got := events(); got&PollError == 0 {
		t.Errorf("a reset: %x", got)
	}
}
