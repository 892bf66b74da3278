// Package l4 is the data plane: it accepts clients, asks a pool for a backend, connects to it and moves the
// bytes both ways until the session ends. It knows nothing of configuration files, of health checks or of
// why a backend is eligible.
//
// A Server's methods may be called from any goroutine. Inside, each session belongs to one loop, and
// what belongs to a loop is touched on that loop's goroutine only; see loop.
package l4

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// Options are what a Server is made with and keeps for life.
type Options struct {
	Loops       int  // 0 = one for each usable CPU
	MaxSessions int  // in the whole process, more are refused; 0 = no more than there are descriptors for, the rest waits
	Access      bool // a log line at the end of each session

	// Log gets the access lines, written onLoop, and the server's own warnings. Its writer must never
	// block: a stuck terminal would stop the data plane. The zero value is silent.
	Log zerolog.Logger
}

// A Plan is all that a Server is to do: what Apply turns the running one into.
type Plan struct {
	Listeners []ListenerSpec
}

// checkReserve is how many descriptors stay free for what is not a session: health checks first of all.
const checkReserve = 32

// A Server is a set of loops and the listeners they serve. Its zero value is of no use, see New.
type Server struct {
	// set once, then read-only
	log     zerolog.Logger
	access  bool
	max     int64 // sessions; more are refused
	spare   int   // descriptors for sessions and listeners
	started time.Time
	firstID uint64
	loops   []*loop

	capacity  atomic.Int64 // sessions there are descriptors for; more wait in the kernel
	sessions  atomic.Int64
	draining  atomic.Bool
	emptyOnce sync.Once
	empty     chan struct{} // closed by whoever sees the last session leave while draining
	pauseNote atomic.Int64  // when notePause may log again, in nanoseconds since started

	// mu guards the fields below
	mu        sync.Mutex
	listeners map[string]*listener
	revoking  map[*pool.Pool]bool // those that tell of revoked leases
	running   sync.WaitGroup      // loops
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
		log: o.Log, access: o.Access,
		started: time.Now(), firstID: rand.Uint64() << 40,
		empty: make(chan struct{}), listeners: make(map[string]*listener), revoking: make(map[*pool.Pool]bool),
	}
	for i := range loops {
		l, err := newLoop(s, i)
		if err != nil {
			s.discard()
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	if err := s.budget(o.MaxSessions); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// budget shares the descriptors out: a few for pipes and checks, two for each session of the rest.
func (s *Server) budget(maxSessions int) error {
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
	rest := limit - open - checkReserve - 2*pipes*len(s.loops)
	if rest < 2 {
		return fmt.Errorf("a limit of %d open files leaves none for sessions; raise it (ulimit -n, LimitNOFILE=)", limit)
	}
	s.spare, s.max = rest, int64(maxSessions)
	s.reckon(0)
	if possible := s.capacity.Load(); s.max > possible {
		s.log.Warn().Int("max_sessions", maxSessions).Int64("possible", possible).Int("descriptors", limit).
			Msg("fewer sessions are possible than max_sessions: raise the limit of open files")
	}
	return nil
}

// reckon says how many sessions there are descriptors for beside so many listeners, at least one.
func (s *Server) reckon(listeners int) {
	s.capacity.Store(max(1, int64(s.spare-listeners*len(s.loops))/2))
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

// Apply makes the server serve exactly p. It first does all that can fail; on an error, nothing has changed.
// Listeners that are in p as they were keep their sockets and sessions; one whose name stays gets its new
// settings, for new sessions. One that is not in p any more stops accepting, and its sessions go on to their end.
// A listener that cannot be opened is a *ListenError.
func (s *Server) Apply(p Plan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return ErrShutdown
	}
	added, err := s.openLocked(p)
	if err != nil {
		return err
	}
	next := make(map[string]*listener, len(p.Listeners))
	for _, spec := range p.Listeners {
		if o := added[spec.Name]; o != nil {
			next[spec.Name] = o.listener
			continue
		}
		ls := s.listeners[spec.Name]
		ls.spec.Store(&spec)
		next[spec.Name] = ls
	}
	for _, spec := range p.Listeners {
		if !s.revoking[spec.Pool] {
			s.revoking[spec.Pool] = true
			spec.Pool.OnRevoke(s.revoke)
		}
	}
	for _, o := range added {
		for i, l := range s.loops {
			l.mailbox.post(message{do: func() { l.openDoor(o.sockets[i], o.listener) }})
		}
	}
	for name, ls := range s.listeners {
		if next[name] != ls {
			closed := s.closeDoors(ls)
			if s.live {
				<-closed // its address is free when Apply returns
			}
		}
	}
	s.listeners = next
	s.reckon(len(next))
	return nil
}

// ErrShutdown is what Apply returns once Shutdown was called.
var ErrShutdown = errors.New("l4: the server is shut down")

// openLocked opens the sockets of the listeners in p that the server has not got; all of them, or none.
func (s *Server) openLocked(p Plan) (map[string]*opened, error) {
	added := make(map[string]*opened)
	fail := func(err error) (map[string]*opened, error) {
		for _, o := range added {
			o.close()
		}
		return nil, err
	}
	seen := make(map[string]bool, len(p.Listeners))
	at := make(map[netip.AddrPort]string, len(p.Listeners))
	for _, spec := range p.Listeners {
		if err := spec.validate(); err != nil {
			return fail(err)
		}
		if seen[spec.Name] {
			return fail(fmt.Errorf("listener %q stands in the plan twice", spec.Name))
		}
		if other, taken := at[spec.Address]; taken && spec.Address.Port() != 0 {
			return fail(fmt.Errorf("listeners %q and %q have one address, %s", other, spec.Name, spec.Address))
		}
		seen[spec.Name], at[spec.Address] = true, spec.Name
		if old := s.listeners[spec.Name]; old != nil && old.spec.Load().sameSockets(&spec) {
			continue
		}
		o, err := open(spec, len(s.loops), s.holdsLocked(spec.Address.Port(), added))
		if err != nil {
			return fail(err)
		}
		added[spec.Name] = o
	}
	return added, nil
}

// holdsLocked tells whether a listener of this server, or one just opened for it, has the port: a wildcard
// may stand beside one of its addresses, which the kernel prefers, and an old listener beside its successor.
func (s *Server) holdsLocked(port uint16, added map[string]*opened) bool {
	for _, ls := range s.listeners {
		if ls.address.Port() == port {
			return true
		}
	}
	for _, o := range added {
		if o.listener.address.Port() == port {
			return true
		}
	}
	return false
}

// closeDoors has every loop close its socket of ls, and returns a channel that is closed when all have.
func (s *Server) closeDoors(ls *listener) <-chan struct{} {
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(len(s.loops)))
	for _, l := range s.loops {
		l.mailbox.post(message{do: func() {
			l.closeDoor(ls)
			if left.Add(-1) == 0 {
				close(done)
			}
		}})
	}
	return done
}

// Listeners tells of every listener, in the order of their names.
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

// Sessions is how many sessions there are now.
func (s *Server) Sessions() int { return int(s.sessions.Load()) }

// Shutdown closes the listeners and lets the sessions go on to their end; those that are left when ctx is done
// are cut, and then ctx's error is returned. It returns when the last loop is gone; a second call does nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	if !s.live {
		s.discard()
		s.mu.Unlock()
		return nil
	}
	closing := make([]<-chan struct{}, 0, len(s.listeners))
	for _, ls := range s.listeners {
		closing = append(closing, s.closeDoors(ls))
	}
	listeners := slices.Collect(maps.Values(s.listeners))
	s.mu.Unlock()

	for _, done := range closing {
		<-done
	}
	err := s.drain(ctx)
	for _, l := range s.loops {
		l.mailbox.post(message{do: l.stop})
	}
	s.running.Wait()
	for _, ls := range listeners {
		s.noteRefusals(ls)
	}
	return err
}

// drain waits for the last session, and from the end of ctx on ends them.
func (s *Server) drain(ctx context.Context) error {
	s.draining.Store(true)
	if s.sessions.Load() == 0 {
		s.noteEmpty()
		return nil
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	for _, l := range s.loops {
		l.mailbox.post(message{do: l.endAll})
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

// endAll cuts every session of the loop.
func (l *loop) endAll() {
	l.sessions.all(func(s *session) {
		switch s.phase {
		case queued:
			l.leaveQueue(s, Drained)
		case connecting:
			l.abandon(s, Drained)
		case relaying:
			l.end(s, Drained)
		}
	})
}

// clock is the time since the server was made.
func (s *Server) clock() time.Duration { return time.Since(s.started) }
