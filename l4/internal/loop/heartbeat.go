package loop

import (
	"sync"
	"sync/atomic"
	"time"
)

// A heartbeat tells other goroutines what a loop is doing. The loop writes it twice in a turn; the padding keeps that
// off the cache lines that other loops read.
type heartbeat struct {
	_ [64]byte

	steps atomic.Uint64 // odd while the loop waits for events; every turn is two
	turn  atomic.Int64  // when the last turn began, since Loop.Started
	_     [64]byte
}

// rest says that the loop is about to wait. onLoop.
func (h *heartbeat) rest() { h.steps.Add(1) }

// beat says that the wait is over, and a turn begins. onLoop.
func (h *heartbeat) beat(now time.Duration) {
	h.turn.Store(int64(now))
	h.steps.Add(1)
}

// A State is what a loop is doing, at one moment.
type State struct {
	Turns    uint64    // how often it has woken up
	LastTurn time.Time // when it did last; zero before the first time
	Waiting  bool      // for events; false in a turn
}

// State reads the loop's heartbeat, without stopping the loop. It may be called from any goroutine.
func (l *Loop) State() State {
	steps := l.heartbeat.steps.Load()
	s := State{Turns: steps / 2, Waiting: steps == 0 || steps%2 == 1}
	if steps > 1 {
		s.LastTurn = l.Started.Add(time.Duration(l.heartbeat.turn.Load()))
	}
	return s
}

// A question is whether a loop answers. However often it is asked meanwhile, one message is under way.
type question struct {
	mu     sync.Mutex
	answer chan struct{} // mu guards it; closed by the loop, or by Ask when the loop is gone
}

// Ask returns a channel that is closed when the loop has answered, or has ended. It may be called from any goroutine.
func (l *Loop) Ask() <-chan struct{} {
	q := &l.question
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.answer != nil {
		select {
		case <-q.answer:
		default:
			return q.answer
		}
	}
	answer := make(chan struct{})
	q.answer = answer
	if !l.Post(func() { close(answer) }) {
		close(answer)
	}
	return answer
}
