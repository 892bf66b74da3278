package l4

import (
	"context"
	"fmt"
	"time"
)

// A LoopInfo is what a loop is doing, read without stopping it; an immutable copy.
type LoopInfo struct {
	Index    int
	Sessions int       // here or on their way here
	Turns    uint64    // how often it has woken up
	LastTurn time.Time // when it did last; zero before the first time
	Waiting  bool      // for events; false in a turn. A loop that has been in a turn for seconds is stuck
}

// Loops describes every loop, in their order. It reads a few numbers, and may be called from any goroutine as often as
// one likes.
func (s *Server) Loops() []LoopInfo {
	infos := make([]LoopInfo, 0, len(s.loops))
	for i, l := range s.loops {
		state := l.State()
		infos = append(infos, LoopInfo{
			Index: i, Sessions: s.sessions[i].Load(),
			Turns: state.Turns, LastTurn: state.LastTurn, Waiting: state.Waiting,
		})
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

// Live asks every loop to answer, and returns nil when all have. It returns a *StuckLoopError for the first loop, in
// their order, that had not answered when ctx was done, or ctx's error if it was done from the beginning. A server that
// does not run, before Start or after Shutdown, has no loop that could be stuck. It may be called from any goroutine.
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
		answers = append(answers, l.Ask())
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

// serving reports whether the loops run.
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
