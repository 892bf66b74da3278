// Package l4 is the data plane: it accepts clients, asks a pool for a backend, connects to it and moves the
// bytes both ways until the session ends. It knows nothing of configuration files, of health checks or of
// why a backend is eligible.
//
// A Server's methods may be called from any goroutine. Inside, each session belongs to one loop, and what belongs to a
// loop is touched on that loop's goroutine only. The rooms behind this package, below internal: loop is the event loop,
// gate decides who may come in, session, flow and dns serve TCP, UDP and DNS, dial connects to backends, listen holds
// the listeners' sockets, wire reads network bytes, sock makes system calls, and tally counts. docs/architecture.md
// follows a session, a flow and a question through them.
package l4

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/postgres"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
	"github.com/limeload/limeload-l4/pool"
)

// Options are what a Server is made with and keeps for life.
type Options struct {
	Loops       int  // 0 = one for each usable CPU
	MaxSessions int  // in the whole process, more are refused; 0 = no more than there are descriptors for, the rest waits
	Reserve     int  // descriptors that stay free for what is not a session, health checks first of all; 0 = 32
	NoOffload   bool // UDP_GRO and UDP_SEGMENT are not used even where the kernel has them
	Access      bool // a log line at the end of each session and flow
	// AccessEvery is for Access: of the sessions and flows that end in order, every so many-th has a line; 0 and 1 = all,
	// negative = none. Those that do not end in order all have one.
	AccessEvery int
	NoProbes    bool // but for those that end with Probe

	// Sockets are those of another process, see HandOver. The first Apply uses those that fit its listeners, by name and
	// place, and closes the others. nil = there is none; otherwise Start admits nobody, see Admit.
	Sockets []ListeningSocket

	DrainTimeout time.Duration // as in Settings

	// Log gets the access lines, written onLoop, and the server's own warnings. Its writer must never
	// block: a stuck terminal would stop the data plane. The zero value is silent.
	Log zerolog.Logger
}

// A Plan is all that a Server is to do: what Apply turns the running one into.
type Plan struct {
	Listeners []ListenerSpec
}

// defaultReserve is Options.Reserve when that is 0.
const defaultReserve = 32

// A Server is a set of loops and the listeners they serve. Its zero value is of no use, see New.
type Server struct {
	// set once, then read-only
	log     zerolog.Logger
	offload sock.Offload
	started time.Time
	gate    *gate.Gate
	access  *tally.AccessLog
	cancels *postgres.Sender
	gone    chan struct{} // closed when the loops are

	// The loops, and what each has on it, by the loop's index.
	loops     []*loop.Loop
	sessions  []*session.Loop
	flows     []*flow.Loop
	questions []*dns.Loop

	threads *tlsconn.Threads // for TLS handshakes

	drainTimeout atomic.Int64 // a time.Duration

	// changing is held from Prepare to the end of Commit or Discard, and from HandOver to the end of the hand-over. It is
	// taken before mu. The listeners and their bindings are changed with both held, and read with either
	changing sync.Mutex
	lastID   dial.ListenerID   // changing guards it
	handed   []ListeningSocket // of another process, that no listener has yet; changing guards it

	departing sync.WaitGroup // changes that close sockets; mu is held to add one, unless ended

	// mu guards the fields below
	mu        sync.Mutex
	listeners map[listenerKey]*listener
	leaving   []*listen.Binding                // of UDP listeners that are gone, and perhaps have flows
	revoking  map[weak.Pointer[pool.Pool]]bool // pools that report revoked leases
	running   sync.WaitGroup                   // loops
	live      bool
	ended     bool
	waits     bool      // it admits nobody until Admit
	handing   *Handover // that is under way or finished; nil for none
}

// New makes a server with its loops, which Start sets going. The process's descriptor limit is read here.
func New(o Options) (*Server, error) {
	n := o.Loops
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	s := &Server{
		log: o.Log, started: startOf(o), access: &tally.AccessLog{Log: o.Log}, gone: make(chan struct{}),
		listeners: make(map[listenerKey]*listener), revoking: make(map[weak.Pointer[pool.Pool]]bool),
	}
	if !o.NoOffload {
		var err error
		if s.offload, err = sock.DetectOffload(); err != nil {
			return nil, err
		}
	}
	firstID := rand.Uint64() << 40
	for i := range n {
		l, err := loop.New(i, s.started, firstID|uint64(i)<<32)
		if err != nil {
			s.discard()
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	var pipes int
	var err error
	s.gate, pipes, err = gate.New(gate.Options{
		Log: o.Log, Started: s.started, Reserve: cmp.Or(o.Reserve, defaultReserve), Loops: n,
	})
	if err != nil {
		s.discard()
		return nil, err
	}
	s.cancels = postgres.NewSender(&s.gate.Chains)
	s.cancels.Encrypt = encryptCancel
	s.furnish(pipes)
	s.expectSockets(o.Sockets)
	s.Set(Settings{
		MaxSessions: o.MaxSessions, Access: o.Access, AccessEvery: o.AccessEvery, NoProbes: o.NoProbes,
		DrainTimeout: o.DrainTimeout,
	})
	return s, nil
}

// furnish puts sessions, flows and DNS on each loop. In a turn, DNS comes first: clients of a question that fails have
// their answer at once.
func (s *Server) furnish(pipes int) {
	dialers := make([]*dial.Dialer, len(s.loops))
	for i, l := range s.loops {
		l.Pipes.Limit = pipes
		dialers[i] = dial.NewDialer(&s.gate.Chains)
	}
	s.questions = dns.Attach(s.loops, dialers, s.offload)
	s.threads = tlsconn.NewThreads(len(s.loops))
	s.sessions = session.Attach(s.loops, dialers, s.access, s.threads)
	s.flows = flow.Attach(s.loops, dialers, s.access, s.offload)
	for i, q := range s.questions {
		q.Join(s.flows[i], s.sessions[i])
	}
}

// Start sets the loops going: clients of the listeners applied so far, which have waited in the kernel's queue, are
// served from now on.
//
// A loop waits in raw system calls (see sock.Poller.Wait) and keeps its P meanwhile, so the runtime gets as many as
// there are loops and two more for all else, garbage collection included.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live || s.ended {
		return
	}
	s.live = true
	if want := len(s.loops) + 2; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	for _, l := range s.loops {
		s.running.Go(l.Run)
	}
}

// onLoops calls f with the index of each loop, on that loop. It returns a channel that is closed when all have.
func (s *Server) onLoops(f func(i int)) <-chan struct{} {
	return loop.Each(s.loops, func(l *loop.Loop) { f(l.Index) })
}

// Listeners describes every listener, in the order of their names, and of one name TCP first. It may be called from any
// goroutine.
func (s *Server) Listeners() []ListenerInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]ListenerInfo, 0, len(s.listeners))
	for _, ls := range s.listeners {
		infos = append(infos, ls.info())
	}
	slices.SortFunc(infos, func(a, b ListenerInfo) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	return infos
}

// namedLocked returns the listener of that name, that of TCP if there are two; nil if there is none. mu is held.
func (s *Server) namedLocked(name string) *listener {
	if ls := s.listeners[listenerKey{name, TCP}]; ls != nil {
		return ls
	}
	return s.listeners[listenerKey{name, UDP}]
}

// Flows is how many flows there are now.
func (s *Server) Flows() int { return s.gate.Flows() }

// Started is the moment from which ClientInfo.Seen counts.
func (s *Server) Started() time.Time { return s.started }

// Sessions is how many sessions there are now.
func (s *Server) Sessions() int { return s.gate.Sessions() }

// Shutdown closes the listeners, once the handshakes under way are over. Sessions and flows go on to their end, and DNS
// questions are answered; sessions of pools that drain safely end where nothing is lost. Those that are left when ctx
// is done are cut, the questions' clients get an expired answer or SERVFAIL, and then ctx's error is returned. Shutdown
// returns when the last loop is gone; a second call does nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	if !s.live {
		for _, ls := range s.listeners {
			for _, b := range ls.bound {
				b.Withdraw()
			}
		}
		s.discard()
		close(s.gone)
		s.mu.Unlock()
		s.closeUnused()
		return nil
	}
	listeners := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()

	s.closeUnused()
	if !s.endHandover() {
		s.closeListeners(ctx, listeners)
	}
	s.leaveAll(ctx)
	err := s.drain(ctx)
	if e := s.drainQuestions(ctx); err == nil {
		err = e
	}
	for _, l := range s.loops {
		l.Post(l.Stop)
	}
	s.running.Wait()
	s.cancels.Close()
	s.threads.Close()
	close(s.gone)
	for _, ls := range listeners {
		ls.gate.NoteRefusals()
	}
	return err
}

// closeListeners makes the loops leave the listeners, and returns when they have.
func (s *Server) closeListeners(ctx context.Context, listeners []*listener) {
	s.departing.Wait()
	var closing []<-chan struct{}
	var departures []listen.Departure
	for _, ls := range listeners {
		for _, b := range ls.bound {
			if b.Protocol == TCP {
				departures = append(departures, listen.Departure{Binding: b})
			} else {
				closing = append(closing, s.leave(b))
			}
		}
	}
	listen.Depart(ctx, departures)
	for _, d := range departures {
		closing = append(closing, s.leave(d.Binding))
	}
	for _, closed := range closing {
		<-closed
	}
}

// leave makes every loop leave its sockets of a binding. It returns a channel that is closed when all have.
func (s *Server) leave(b *listen.Binding) <-chan struct{} {
	b.Withdraw()
	return s.onLoops(func(i int) {
		if b.Protocol == TCP {
			s.sessions[i].Leave(b)
		} else {
			s.flows[i].Leave(b)
		}
	})
}

// closeSockets makes every loop close its sockets of a UDP listener that was left, and that has no flow any more.
func (s *Server) closeSockets(b *listen.Binding) {
	s.onLoops(func(i int) { s.flows[i].CloseSockets(b) })
}

// drain waits for the last session and flow. When ctx is done first, it ends them.
func (s *Server) drain(ctx context.Context) error {
	empty := s.gate.Drain()
	select {
	case <-empty:
		return nil
	default:
	}
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
	}
	<-s.onLoops(func(i int) { s.questions[i].FailAll() }) // before the sessions that wait for the answers
	s.onLoops(func(i int) {
		s.sessions[i].EndAll(tally.Drained)
		s.flows[i].EndAll(tally.Drained)
	})
	<-empty
	return ctx.Err()
}

// drainQuestions waits for the answers of clients at sockets that admit nobody any more. When ctx is done first, they
// are answered without a backend. Flows are over by then.
func (s *Server) drainQuestions(ctx context.Context) error {
	s.mu.Lock()
	bindings := slices.Clone(s.leaving)
	for _, ls := range s.listeners {
		bindings = append(bindings, ls.bound...)
	}
	s.mu.Unlock()
	var err error
	for _, b := range bindings {
		if b.Protocol != UDP || !b.Ending.Held() {
			continue
		}
		select {
		case <-b.Ending.Gone():
			continue
		case <-ctx.Done():
		}
		if err == nil {
			err = ctx.Err()
			s.onLoops(func(i int) { s.questions[i].FailAll() })
		}
		<-b.Ending.Gone()
	}
	return err
}

// discard closes what New and Apply opened when the loops never ran; clients that wait are reset.
func (s *Server) discard() {
	for _, l := range s.loops {
		l.Discard()
	}
}
