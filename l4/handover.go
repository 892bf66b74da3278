package l4

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// A hand-over gives what one process serves to another one, at an upgrade: first the listening sockets, then the flows,
// then the sessions. Both processes have a descriptor of each socket meanwhile, so nothing is lost with a process that
// dies: what it had not given away goes with it, and nothing else.
//
//	old process                          new process
//	-----------                          -----------
//	HandOver, Sockets         ------->   New with Options.Sockets, Apply, Start: its loops run, but admit nobody
//	Counters                  ------->   AddCounters, with the clients that sticky pools remember
//	Pause
//	Detach, flows             ------->   TakeOver
//	Moved, Returned           <-------   Taking.Refused, then Taking.Begin
//	                                     Admit: it accepts clients, and reads their datagrams
//	Detach, sessions          ------->   TakeOver, and so on until none is at rest
//	Counters                  ------->   AddCounters
//	Finish, Shutdown
//
// Give up with Resume as long as Finish was not called: the old process then goes on with all it has.

// HandoverVersion is the version of what Sockets, Detach and Counters return. Two processes with different ones cannot
// hand anything over.
const HandoverVersion = 2

// ErrHandingOver is the error of a second HandOver, while one is under way or finished.
var ErrHandingOver = errors.New("l4: a hand-over is under way")

// A Handover is the old process's side. Its methods are called by one goroutine at a time.
type Handover struct {
	server *Server

	// Where the walks through the sessions and flows of each loop go on.
	sessionsFrom, flowsFrom []int

	before Counters // what Counters has returned so far, in all

	// refusing guards refused. Loops take it, so nobody waits for a loop meanwhile
	refusing sync.Mutex
	refused  map[tally.ID]bool // the other process does not take them

	// mu guards the fields below
	mu       sync.Mutex
	paused   bool
	finished bool
	over     bool
}

// HandOver begins to hand over what the server serves. Until Resume or Shutdown, Prepare and Apply wait. The error is
// ErrHandingOver or ErrShutdown.
func (s *Server) HandOver() (*Handover, error) {
	h := &Handover{
		server: s, refused: make(map[tally.ID]bool),
		sessionsFrom: make([]int, len(s.loops)), flowsFrom: make([]int, len(s.loops)),
	}
	if err := s.mayHandOver(nil); err != nil {
		return nil, err
	}
	s.changing.Lock() // until the hand-over is over
	if err := s.mayHandOver(h); err != nil {
		s.changing.Unlock()
		return nil, err
	}
	return h, nil
}

// mayHandOver makes h the hand-over that is under way, unless there is one or the server is not running.
func (s *Server) mayHandOver(h *Handover) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended || !s.live:
		return ErrShutdown
	case s.handing != nil:
		return ErrHandingOver
	}
	s.handing = h
	return nil
}

// Pause makes the server admit nobody: clients wait in the kernel's queues. It returns when every loop has done so.
// What is admitted goes on, DNS questions too.
func (h *Handover) Pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused || h.over {
		return
	}
	h.paused = true
	s := h.server
	s.onEachLoop(func(i int) {
		s.sessions[i].Suspend()
		s.flows[i].Suspend()
		s.flows[i].NoteLost()
	})
}

// onEachLoop calls f with the index of each loop, on that loop, and waits, or until the loops have ended.
func (s *Server) onEachLoop(f func(i int)) { s.await(s.onLoops(f)) }

// await waits until a channel of onLoops is closed, or the loops have ended.
func (s *Server) await(done <-chan struct{}) {
	select {
	case <-done:
	case <-s.gone:
	}
}

// A Moving is a session or a flow on its way to another process. It is written as JSON; its descriptors go beside it.
type Moving struct {
	FDs []int `json:"-"` // of a session the client's and the backend's; of a flow its backend's, or none

	Session *session.State `json:"session,omitempty"`
	Flow    *flow.State    `json:"flow,omitempty"`

	loop    int // that it is detached from
	session session.Ref
	flow    flow.Ref
}

// How Detach makes busy sessions come to rest: it looks at them again so often. What a session holds goes to its
// receiver within microseconds, unless the receiver is slow.
const (
	settlingLooks = 10
	settlingPause = 5 * time.Millisecond
)

// Detach stops serving flows (UDP) or sessions (TCP) that are at rest, at most so many, and returns them. Whoever gets
// them calls Moved or Returned for each soon: nobody serves it meanwhile. None are returned when none is at rest just
// now; see Left. Sessions that are busy read no more for a moment, so that they come to rest.
func (h *Handover) Detach(p Protocol, most int) []Moving {
	for look := 0; ; look++ {
		found, settling := h.detachOnce(p, most)
		if len(found) > 0 || settling == 0 || look == settlingLooks {
			return found
		}
		time.Sleep(settlingPause)
	}
}

// detachOnce looks at each session or flow once, or until most are found. It returns how many sessions are to come to
// rest.
func (h *Handover) detachOnce(p Protocol, most int) (found []Moving, settling int) {
	if most <= 0 {
		return nil, 0
	}
	s := h.server
	begun := make([]int, len(s.loops)) // where this walk has begun, in each loop
	left := make([]bool, len(s.loops)) // it is not over
	round := make([]bool, len(s.loops))
	from := h.sessionsFrom
	if p == UDP {
		from = h.flowsFrom
	}
	for i := range begun {
		begun[i], left[i] = from[i], true
	}
	for len(found) < most && slices.Contains(left, true) {
		parts := make([]detachedPart, len(s.loops))
		each := (most - len(found) + len(s.loops) - 1) / len(s.loops)
		asked := 0
		done := make(chan int, len(s.loops))
		for i := range s.loops {
			quota := min(each, most-len(found)-asked*each)
			if left[i] && quota > 0 && s.loops[i].Post(func() {
				parts[i] = s.detachOnLoop(i, p, from[i], quota, h.spares)
				done <- i
			}) {
				asked++
				continue
			}
			left[i] = left[i] && quota <= 0
		}
		for range asked {
			select {
			case i := <-done:
				part := &parts[i]
				found = append(found, part.found...)
				settling += part.settling
				if part.next < 0 {
					part.next, round[i] = 0, true
				}
				from[i] = part.next
				left[i] = !(round[i] && from[i] >= begun[i])
			case <-s.gone:
				return found, settling
			}
		}
		if asked == 0 {
			break
		}
	}
	return found, settling
}

// A detachedPart is what a loop has detached of a slice.
type detachedPart struct {
	found    []Moving
	next     int
	settling int
}

func (s *Server) detachOnLoop(i int, p Protocol, from, most int, spare func(tally.ID) bool) (part detachedPart) {
	if p == UDP {
		var all []flow.Detached
		all, part.next = s.flows[i].Detach(from, most, spare)
		for k := range all {
			m := Moving{Flow: &all[k].State, loop: i, flow: all[k].Ref}
			if fd := all[k].FD; fd >= 0 {
				m.FDs = []int{fd}
			}
			part.found = append(part.found, m)
		}
		return part
	}
	var all []session.Detached
	all, part.next, part.settling = s.sessions[i].Detach(from, most, spare)
	for k := range all {
		d := &all[k]
		part.found = append(part.found, Moving{Session: &d.State, FDs: d.FDs[:], loop: i, session: d.Ref})
	}
	return part
}

// spares reports whether the other process has refused a session or a flow.
func (h *Handover) spares(id tally.ID) bool {
	h.refusing.Lock()
	defer h.refusing.Unlock()
	return h.refused[id]
}

// Moved closes and forgets what Detach has returned: the other process has it.
func (h *Handover) Moved(m []Moving) {
	h.settle(m, (*session.Loop).Gone, (*flow.Loop).Gone)
}

// Returned serves again what Detach has returned: the other process has refused it, or is gone.
func (h *Handover) Returned(m []Moving) {
	h.refusing.Lock()
	for i := range m {
		switch {
		case m[i].Session != nil:
			h.refused[m[i].Session.ID] = true
		case m[i].Flow != nil:
			h.refused[m[i].Flow.ID] = true
		}
	}
	h.refusing.Unlock()
	h.settle(m, (*session.Loop).Back, (*flow.Loop).Back)
}

// settle calls one of the functions for each of m, on its loop, and waits.
func (h *Handover) settle(m []Moving, ofSession func(*session.Loop, session.Ref), ofFlow func(*flow.Loop, flow.Ref)) {
	s := h.server
	byLoop := make([][]*Moving, len(s.loops))
	for i := range m {
		byLoop[m[i].loop] = append(byLoop[m[i].loop], &m[i])
	}
	s.onEachLoop(func(i int) {
		for _, one := range byLoop[i] {
			if one.Flow != nil {
				ofFlow(s.flows[i], one.flow)
			} else {
				ofSession(s.sessions[i], one.session)
			}
		}
	})
}

// Left counts the sessions, flows and questions that this process still has, by why they cannot be handed over: "tls",
// "busy", "connecting", "refused" and so on. The words are for people.
func (h *Handover) Left(ctx context.Context) (map[string]int, error) {
	s := h.server
	counts := make(map[string]int)
	parts := make(chan map[string]int, len(s.loops))
	asked := 0
	for i := range s.loops {
		if s.loops[i].Post(func() { parts <- s.leftOnLoop(i, h.spares) }) {
			asked++
		}
	}
	for range asked {
		select {
		case part := <-parts:
			for why, n := range part {
				counts[why] += n
			}
		case <-s.gone:
			return counts, nil
		case <-ctx.Done():
			return counts, ctx.Err()
		}
	}
	return counts, nil
}

func (s *Server) leftOnLoop(i int, spare func(tally.ID) bool) map[string]int {
	counts := make(map[string]int)
	for from := 0; from >= 0; {
		from = s.sessions[i].Left(from, spare, counts)
	}
	for from := 0; from >= 0; {
		from = s.flows[i].Left(from, spare, counts)
	}
	if n := s.questions[i].InFlight(); n > 0 {
		counts["questions"] += n
	}
	return counts
}

// Resume gives the hand-over up: the server admits clients again. What Detach has returned is given to Returned before.
// It does nothing after Finish.
func (h *Handover) Resume() {
	h.mu.Lock()
	if h.finished || h.over {
		h.mu.Unlock()
		return
	}
	h.over = true
	h.mu.Unlock()
	h.resume()
	s := h.server
	s.mu.Lock()
	s.handing = nil
	s.mu.Unlock()
	s.changing.Unlock()
}

// resume admits clients again. changing is held.
func (h *Handover) resume() {
	s := h.server
	for _, ls := range s.listeners {
		spec := ls.spec.Load()
		for i, p := range spec.places() {
			ls.bound[i].Tune(spec.sockets(&p, s.offload)) // the other process may have given them its own options
		}
	}
	s.admit()
}

// Finish says that the other process has the listeners: the server closes its own descriptors of them and leaves what
// they stand for alone, such as a Unix socket's file. Shutdown follows.
func (h *Handover) Finish() {
	h.mu.Lock()
	if h.finished || h.over {
		h.mu.Unlock()
		return
	}
	h.finished = true
	h.mu.Unlock()
	h.Pause()
	s := h.server
	s.mu.Lock()
	bound := bindings(s.listeners)
	s.mu.Unlock()
	var closing []<-chan struct{}
	for _, b := range bound {
		b.GiveAway()
		closing = append(closing, s.leave(b))
	}
	for _, closed := range closing {
		s.await(closed)
	}
}

// endHandover ends a hand-over at Shutdown, if one is under way: changes that wait are told of the shutdown. It reports
// whether the listeners are another process's.
func (s *Server) endHandover() (theirs bool) {
	s.mu.Lock()
	h := s.handing
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.mu.Lock()
	over, finished := h.over, h.finished
	h.over = true
	h.mu.Unlock()
	if over {
		return finished
	}
	if !finished {
		h.resume()
	}
	s.changing.Unlock()
	return finished
}
