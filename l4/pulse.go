package l4

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A pulse tells other goroutines what a loop is at. The loop writes it twice in a turn; the padding keeps that off the cache
// lines that other loops read.
type pulse struct {
	_ [64]byte

	steps atomic.Uint64 // odd while the loop waits for events; every turn is two
	turn  atomic.Int64  // when the last turn began, since Server.started
	_     [64]byte
}

// rest says that the loop is about to wait. onLoop.
func (p *pulse) rest() { p.steps.Add(1) }

// beat says that the wait is over, and a turn begins. onLoop.
func (p *pulse) beat(now time.Duration) {
	p.turn.Store(int64(now))
	p.steps.Add(1)
}

// A LoopInfo is what a loop is at, read without stopping it; an immutable copy.
type LoopInfo struct {
	Index    int
	Sessions int       // here or on their way here
	Turns    uint64    // how often it has woken up
	LastTurn time.Time // when it did last; zero before the first time
	Waiting  bool      // for events; false in a turn. One that has been in a turn for seconds is stuck
}

// Loops tells of every loop, in their order. It reads a few numbers and may be called as often as one likes.
func (s *Server) Loops() []LoopInfo {
	infos := make([]LoopInfo, 0, len(s.loops))
	for _, l := range s.loops {
		steps := l.pulse.steps.Load()
		info := LoopInfo{
			Index: l.index, Sessions: int(l.load.Load()),
			Turns: steps / 2, Waiting: steps == 0 || steps%2 == 1,
		}
		if steps > 1 {
			info.LastTurn = s.started.Add(time.Duration(l.pulse.turn.Load()))
		}
		infos = append(infos, info)
	}
	return infos
}

// A StuckLoopError is a loop that has not answered.
type StuckLoopError struct {
	Loop   int
	Waited time.Duration
}

// Error names the loop, and how long it was waited for.
func (e *StuckLoopError) Error() string {
	return fmt.Sprintf("loop %d has not answered within %v", e.Loop, e.Waited.Round(time.Millisecond))
}

// Live asks every loop to answer, and returns nil when all have, or a *StuckLoopError for the first in their order that had not
// when ctx was done, or ctx's error if it was from the beginning. A server that does not run, before Start or after Shutdown, has
// no loop that could be stuck. It may be called from any goroutine.
func (s *Server) Live(ctx context.Context) error {
	if !s.serving() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	answers := make([]<-chan struct{}, 0, len(s.loops))
	for _, l := range s.loops {
		answers = append(answers, l.ask())
	}
	for i, answer := range answers {
		select {
		case <-answer:
			continue
		case <-s.gone:
			return nil
		case <-ctx.Done():
		}
		select {
		case <-answer: // both had come: the loop is not to blame
		default:
			return &StuckLoopError{Loop: i, Waited: time.Since(began)}
		}
	}
	return nil
}

// serving tells whether the loops run.
func (s *Server) serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.gone:
		return false
	default:
		return s.live
	}
}

// A question is whether a loop answers; however often it is asked meanwhile, one message is under way.
type question struct {
	mu     sync.Mutex
	answer chan struct{} // mu guards it; closed by the loop, or by ask when the loop is gone
}

// ask returns a channel that is closed when the loop has answered. It may be called from any goroutine.
func (l *loop) ask() <-chan struct{} {
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
	if !l.mailbox.post(message{do: func() { close(answer) }}) {
		close(answer)
	}
	return answer
}
