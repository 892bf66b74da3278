package tlsconn

import (
	"runtime"
	"sync"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// laneCount is how many lines handshakes wait in, each in the one that a hash of its client's address says. Lines have
// their turn one after the other, so that a client with thousands of handshakes delays only the few that share its line
// (stochastic fairness queueing, McKenney, INFOCOM 1990).
const laneCount = 64

// niceness is how much lower the priority of the threads is than that of loops: a loop that wants the CPU gets nine
// tenths of it.
const niceness = 10

// heapFloor is how much the garbage collector lets be allocated at least before it runs. The heap of a balancer is small,
// and a handshake leaves some 60 KB: without a floor the collector would run all the time.
const heapFloor = 16 << 20

// Threads calculate handshakes. They start with the first one, and are as many as the loops.
//
// A handshake is a coroutine, and stays on the thread that it began on. All methods may be called from any goroutine.
type Threads struct {
	size int

	// mu guards the fields below
	mu      sync.Mutex
	all     []*thread
	next    int
	closed  bool
	running sync.WaitGroup
	floor   []byte // of heapFloor bytes, never touched, so that it takes no memory: the collector counts it as live
}

// NewThreads makes so many threads, which do not run yet.
func NewThreads(size int) *Threads { return &Threads{size: size} }

// Close ends the threads, when no session is left, and returns when they are gone.
func (t *Threads) Close() {
	t.mu.Lock()
	t.closed = true
	all := t.all
	t.mu.Unlock()
	for _, one := range all {
		one.close()
	}
	t.running.Wait()
}

// assign returns the thread of a new handshake; nil after Close.
func (t *Threads) assign() *thread {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	if t.all == nil {
		// The runtime gets a P for each: loops keep theirs while they wait.
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + t.size)
		t.floor = make([]byte, heapFloor)
		for range t.size {
			one := &thread{}
			one.wake.L = &one.mu
			t.all = append(t.all, one)
			t.running.Go(one.run)
		}
	}
	best := t.all[t.next%t.size]
	t.next++
	for _, one := range t.all {
		if one.load() < best.load() {
			best = one
		}
	}
	return best
}

// A thread calculates the handshakes that were assigned to it.
type thread struct {
	mu     sync.Mutex // guards the fields below
	wake   sync.Cond
	lanes  lanes
	closed bool

	// used by the thread only
	begun map[*handshake]struct{} // and not over
	idle  routines
}

func (t *thread) load() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lanes.waiting
}

// put makes a handshake wait for its turn. It reports false after close.
func (t *thread) put(h *handshake) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.lanes.put(h)
	t.wake.Signal()
	return true
}

func (t *thread) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.wake.Signal()
}

// take waits for the next handshake; nil after close, when none waits.
func (t *thread) take() *handshake {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.lanes.waiting == 0 && !t.closed {
		t.wake.Wait()
	}
	return t.lanes.take()
}

func (t *thread) run() {
	runtime.LockOSThread() // and left locked: the thread ends with the goroutine, and its priority with it
	sock.LowerPriority(niceness)
	t.begun = make(map[*handshake]struct{})
	for h := t.take(); h != nil; h = t.take() {
		h.work()
	}
	for h := range t.begun { // whose loops are gone
		h.end()
	}
	t.idle.end()
}

// lanes are the lines of handshakes that wait. The zero value is empty.
type lanes struct {
	of      [laneCount][]*handshake
	turns   []uint8 // those that are not empty, in the order of their turns
	waiting int
}

func (l *lanes) put(h *handshake) {
	line := &l.of[h.lane]
	if len(*line) == 0 {
		l.turns = append(l.turns, h.lane)
	}
	*line = append(*line, h)
	l.waiting++
}

// take returns the next handshake, nil if none waits.
func (l *lanes) take() *handshake {
	if l.waiting == 0 {
		return nil
	}
	lane := l.turns[0]
	l.turns = append(l.turns[:0], l.turns[1:]...)
	line := &l.of[lane]
	h := (*line)[0]
	(*line)[0] = nil
	*line = (*line)[1:]
	if len(*line) > 0 {
		l.turns = append(l.turns, lane)
	} else {
		*line = nil
	}
	l.waiting--
	return h
}
