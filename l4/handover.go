package l4

import (
	"context"
	"errors"

	"github.com/limeload/limeload-l4/pool"
)

// A hand-over gives what one process serves to another one, at an upgrade: first the listening sockets, then the flows,
// then the sessions. Both processes have a descriptor of each socket meanwhile, so nothing is lost with a process that
// dies: what it had not given away goes with it, and nothing else.
//
//	old process                          new process
//	-----------                          -----------
//	HandOver, Sockets         ------->   New with Options.Sockets, Apply, Start: its loops run, but admit nobody
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
const HandoverVersion = 1

// ErrHandingOver is the error of a second HandOver, while one is under way or finished.
var ErrHandingOver = errors.New("l4: a hand-over is under way")

// A ListeningSocket is a socket of a listener on its way to another process. It is written as JSON; the descriptor goes
// beside it.
type ListeningSocket struct {
	Listener string       `json:"listener"`
	Protocol Protocol     `json:"protocol"`
	Place    pool.Address `json:"place"`   // as its ListenerSpec has it, perhaps with port 0
	Address  pool.Address `json:"address"` // where it is bound
	Loop     int          `json:"loop"`    // the index of the loop that served it

	FD int `json:"-"`
}

// A Handover is the old process's side. Its methods are called by one goroutine at a time.
type Handover struct{}

// HandOver begins to hand over what the server serves. Until Resume or Shutdown, Prepare and Apply wait. The error is
// ErrHandingOver or ErrShutdown.
func (s *Server) HandOver() (*Handover, error) { return nil, errors.ErrUnsupported }

// Sockets returns the listening sockets. The descriptors stay the server's.
func (h *Handover) Sockets() []ListeningSocket { return nil }

// Pause makes the server admit nobody: clients wait in the kernel's queues. It returns when every loop has done so.
// What is admitted goes on, DNS questions too.
func (h *Handover) Pause() {}

// A Moving is a session or a flow on its way to another process. It is written as JSON; its descriptors go beside it.
type Moving struct {
	FDs []int `json:"-"` // of a session the client's and the backend's; of a flow its backend's, or none
}

// Detach stops serving flows (UDP) or sessions (TCP) that are at rest, at most so many, and returns them. Whoever gets
// them calls Moved or Returned for each soon: nobody serves it meanwhile. None are returned when none is at rest just
// now; see Left.
func (h *Handover) Detach(p Protocol, most int) []Moving { return nil }

// Moved closes and forgets what Detach has returned: the other process has it.
func (h *Handover) Moved(m []Moving) {}

// Returned serves again what Detach has returned: the other process has refused it, or is gone.
func (h *Handover) Returned(m []Moving) {}

// Left counts the sessions, flows and questions that this process still has, by why they cannot be handed over: "tls",
// "busy", "connecting", "refused" and so on. The words are for people.
func (h *Handover) Left(ctx context.Context) (map[string]int, error) { return nil, nil }

// Counters are what listeners and backends have counted. They are written as JSON.
type Counters struct{}

// Counters returns what was counted since the last call, or since the server began.
func (h *Handover) Counters() Counters { return Counters{} }

// Resume gives the hand-over up: the server admits clients again.
func (h *Handover) Resume() {}

// Finish says that the other process has the listeners: the server closes its own descriptors of them and leaves what
// they stand for alone, such as a Unix socket's file. Shutdown follows.
func (h *Handover) Finish() {}

// A Taking is what the new process has taken over and does not serve yet.
type Taking struct {
	Refused []int // indices of what it did not take: it has no such listener, pool or backend. Their descriptors are closed
}

// TakeOver takes sessions and flows over. The descriptors are the server's from now on. It is called between Start and
// Shutdown; flows before Admit.
func (s *Server) TakeOver(m []Moving) *Taking { return &Taking{} }

// Begin serves what was taken. Until then nothing is read, and nothing is lost if this process ends.
func (t *Taking) Begin() {}

// Admit begins to admit clients, in a server that was made with Options.Sockets. It does nothing in others.
func (s *Server) Admit() {}

// AddCounters adds what another process has counted to the listeners and backends of the same names.
func (s *Server) AddCounters(c Counters) {}
