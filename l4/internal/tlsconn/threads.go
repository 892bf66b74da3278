package tlsconn

import (
	"runtime"
	"sync"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

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
	lanes  Lanes[*handshake]
	closed bool

	// used by the thread only
	begun map[*handshake]struct{} // and not over
	idle  routines
}

func (t *thread) load() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lanes.Waiting()
}

// put makes a handshake wait for its turn. It reports false after close.
func (t *thread) put(h *handshake) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.lanes.Put(h.lane, h)
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
	for t.lanes.Waiting() == 0 && !t.closed {
		t.wake.Wait()
	}
	return t.lanes.Take()
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
