// Package l4 is the data plane: it accepts clients, asks a pool for a backend, connects to it and moves the
// bytes both ways until the session ends. It knows nothing of configuration files, of health checks or of
// why a backend is eligible.
//
// A Server's methods may be called from any goroutine. Inside, each session belongs to one loop, and
// what belongs to a loop is touched on that loop's goroutine only; see loop.
package l4

import (
	"cmp"
	"context"
	"fmt"
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

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// Options are what a Server is made with and keeps for life.
type Options struct {
	Loops       int  // 0 = one for each usable CPU
	MaxSessions int  // in the whole process, more are refused; 0 = no more than there are descriptors for, the rest waits
	Reserve     int  // descriptors that stay free for what is not a session, health checks first of all; 0 = 32
	NoOffload   bool // UDP_GRO and UDP_SEGMENT are not used even where the kernel has them
	Access      bool // a log line at the end of each session and flow
	NoProbes    bool // but for those that end with Probe

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
	spare   int // descriptors for sessions, flows and listeners
	offload sock.Offload
	started time.Time
	firstID uint64
	loops   []*loop
	gone    chan struct{} // closed when the loops are

	access       atomic.Bool
	probes       atomic.Bool  // access lines for them, too
	drainTimeout atomic.Int64 // a time.Duration

	max        atomic.Int64 // sessions; more are refused, 0 = none for that
	capacity   atomic.Int64 // sessions there are descriptors for if there is no flow; more wait in the kernel
	sessions   atomic.Int64
	flows      atomic.Int64
	shared     atomic.Pointer[budget]
	ports      atomic.Int64 // local ports that flows may have now
	portsMost  atomic.Int64 // the same while the kernel has them
	portsAgain atomic.Int64 // when they may have portsMost again, after the kernel was short of them; 0 = it was not
	draining   atomic.Bool
	emptyOnce  sync.Once
	empty      chan struct{} // closed by whoever sees the last session leave while draining
	chains     chains
	pauseNote  atomic.Int64 // when notePause may log again, in nanoseconds since started

	// changing is held from Prepare to the end of Commit or Discard, and taken before mu. The listeners and their bindings are
	// changed with both held, and read with either
	changing sync.Mutex

	departing sync.WaitGroup // changes that close sockets; mu is held to add one, unless ended

	// mu guards the fields below
	mu        sync.Mutex
	listeners map[string]*listener
	leaving   []*binding                       // of UDP listeners that are gone, and perhaps have flows
	revoking  map[weak.Pointer[pool.Pool]]bool // those that tell of revoked leases
	running   sync.WaitGroup                   // loops
	live      bool
	ended     bool
}

// New makes a server with its loops, which Start sets going. The process's descriptor limit is read here.
func New(o Options) (*Server, error) {
	loops := o.Loops
	if loops <= 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	s := &Server{
		log: o.Log, started: time.Now(), firstID: rand.Uint64() << 40,
		empty: make(chan struct{}), gone: make(chan struct{}),
		listeners: make(map[string]*listener), revoking: make(map[weak.Pointer[pool.Pool]]bool),
	}
	if !o.NoOffload {
		var err error
		if s.offload, err = sock.DetectOffload(); err != nil {
			return nil, err
		}
	}
	for i := range loops {
		l, err := newLoop(s, i)
		if err != nil {
			s.discard()
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	if err := s.budget(cmp.Or(o.Reserve, defaultReserve)); err != nil {
		s.discard()
		return nil, err
	}
	s.Set(Settings{MaxSessions: o.MaxSessions, Access: o.Access, NoProbes: o.NoProbes, DrainTimeout: o.DrainTimeout})
	return s, nil
}

// budget shares the descriptors out: a few for pipes, the reserve, and two for each session of the rest.
func (s *Server) budget(reserve int) error {
	limit, err := sock.DescriptorLimit()
	if err != nil {
		return err
	}
	open, err := sock.OpenDescriptors()
	if err != nil {
		return fmt.Errorf("count open descriptors: %w", err)
	}
	pipes := min(64, limit/64/len(s.loops))
	for _, l := range s.loops {
		l.pipes.limit = pipes
	}
	rest := limit - open - reserve - 2*pipes*len(s.loops)
	if rest < 2 {
		return fmt.Errorf("a limit of %d open files leaves none for sessions; raise it (ulimit -n, LimitNOFILE=)", limit)
	}
	s.spare = rest
	s.setBudgetLocked() // nobody else has the server yet
	return nil
}

// Start sets the loops going: clients of the listeners applied so far, which have waited in the kernel's queue,
// are served from now on.
//
// A loop waits in raw system calls (see sock.Poller.Wait) and keeps its P meanwhile, so the runtime
// gets as many as there are loops and two more for all else, garbage collection included.
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
		s.running.Go(l.run)
	}
}

// Listeners tells of every listener, in the order of their names. It may be called from any goroutine.
func (s *Server) Listeners() []ListenerInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]ListenerInfo, 0, len(s.listeners))
	for _, ls := range s.listeners {
		infos = append(infos, ls.info())
	}
	slices.SortFunc(infos, func(a, b ListenerInfo) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// Flows is how many flows there are now.
func (s *Server) Flows() int { return int(s.flows.Load()) }

// Sessions is how many sessions there are now.
func (s *Server) Sessions() int { return int(s.sessions.Load()) }

// Shutdown closes the listeners, once the handshakes under way are over, and lets the sessions and flows go on to their
// end, and DNS questions be answered; those that are left when ctx is done are cut, the questions' clients get an
// expired answer or SERVFAIL, and then ctx's error is returned. It returns when the last loop is gone; a second call
// does nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	if !s.live {
		s.discard()
		close(s.gone)
		s.mu.Unlock()
		return nil
	}
	listeners := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()

	s.closeListeners(ctx, listeners)
	err := s.drain(ctx)
	if e := s.drainQuestions(ctx); err == nil {
		err = e
	}
	for _, l := range s.loops {
		l.mailbox.post(message{do: l.stop})
	}
	s.running.Wait()
	close(s.gone)
	for _, ls := range listeners {
		s.noteRefusals(ls)
	}
	return err
}

// closeListeners has the loops leave the listeners, and returns when they have.
func (s *Server) closeListeners(ctx context.Context, listeners []*listener) {
	s.departing.Wait()
	var closing []<-chan struct{}
	var departures []departure
	for _, ls := range listeners {
		if b := ls.bound; b.protocol == TCP {
			departures = append(departures, departure{binding: b})
		} else {
			closing = append(closing, s.onLoops(func(l *loop) { l.closeDoors(b) }))
		}
	}
	departTCP(ctx, departures)
	for _, d := range departures {
		closing = append(closing, s.onLoops(func(l *loop) { l.closeDoors(d.binding) }))
	}
	for _, closed := range closing {
		<-closed
	}
}

// drain waits for the last session and flow, and from the end of ctx on ends them.
func (s *Server) drain(ctx context.Context) error {
	s.draining.Store(true)
	if s.sessions.Load()+s.flows.Load() == 0 {
		s.noteEmpty()
		return nil
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	<-s.onLoops((*loop).failQuestions) // before the sessions that wait for the answers
	for _, l := range s.loops {
		l.mailbox.post(message{do: func() {
			l.sessions.all(func(s *session) { l.cut(s, Drained) })
			l.flows.store.all(func(f *flow) { l.endFlow(f, Drained) })
		}})
	}
	<-s.empty
	return ctx.Err()
}

// discard closes what New and Apply opened when the loops never ran; clients that wait are reset.
func (s *Server) discard() {
	for _, l := range s.loops {
		l.discarded = true
		for _, m := range l.mailbox.take(nil) {
			m.do() // doors that were to be opened or closed; clients come from loops that run
		}
		for _, d := range l.doors {
			if d != nil {
				sock.Close(d.fd)
			}
		}
		l.close()
	}
}

// clock is the time since the server was made.
func (s *Server) clock() time.Duration { return time.Since(s.started) }
