package l4

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// A SessionID is a session's number, as its access line has it. No two sessions of a Server have the same.
type SessionID uint64

// String returns the id as the access line does, in sixteen hexadecimal digits.
func (id SessionID) String() string { return string(hexID(nil, uint64(id))) }

// ParseSessionID reads what String has written.
func ParseSessionID(s string) (SessionID, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("session id %q: needs sixteen hexadecimal digits", s)
	}
	return SessionID(id), nil
}

// A SessionFilter says which sessions and flows are meant: those to which all that is set applies. Its zero value is all.
type SessionFilter struct {
	ID       SessionID
	Listener string        // its name
	Pool     string        // its name
	Backend  string        // its id, or its address and port; a session that waits for one has none
	Client   netip.Prefix  // of its address
	MinAge   time.Duration // since it was accepted
	MinIdle  time.Duration // since bytes last moved
	Limit    int           // of those List returns; 0 = all. End and SessionList.Total do not know it
}

// A SessionInfo is a session or a flow at one moment; an immutable copy.
type SessionInfo struct {
	ID             SessionID
	Protocol       Protocol // UDP for a flow, TCP for a session
	Listener       string
	Pool           string
	Backend        string         // its id; "" while the session waits for one
	BackendAddress netip.AddrPort // invalid then
	Client         netip.AddrPort
	Phase          string // asking, queued, connecting or relaying; a flow is always relaying
	Accepted       time.Time
	Connected      time.Time // to its backend; zero before
	Age            time.Duration
	Idle           time.Duration // since bytes last moved, or it was connected or accepted
	BytesIn        uint64
	BytesOut       uint64
	DatagramsIn    uint64 // of a flow
	DatagramsOut   uint64
	Retries        int // connects that failed before; of a flow, how often it got another backend
}

// A SessionList is what List returns.
type SessionList struct {
	Sessions []SessionInfo // the oldest first
	Total    int           // that the filter fits; more than there are Sessions if it has a limit
}

// List tells of the sessions and flows that f fits. The loops look at a few hundred sessions in a turn, so that traffic does not wait for
// a list of many; one that begins or ends meanwhile may be in it or not. When ctx is done first, the list is what was found
// until then, and the error is ctx's. It may be called from any goroutine.
func (s *Server) List(ctx context.Context, f SessionFilter) (SessionList, error) {
	var list SessionList
	wanted := f.compile()
	err := walk(ctx, s,
		func(l *loop, e listed, found *[]SessionInfo) {
			if wanted.fits(l, e) {
				*found = append(*found, e.describe(l))
			}
		},
		func(found []SessionInfo) {
			list.Total += len(found)
			list.Sessions = append(list.Sessions, found...)
			if f.Limit > 0 && len(list.Sessions) >= 2*f.Limit+1000 {
				list.keepOldest(f.Limit)
			}
		})
	list.keepOldest(f.Limit)
	return list, err
}

// keepOldest sorts the sessions and drops those above limit, if there is one.
func (l *SessionList) keepOldest(limit int) {
	slices.SortFunc(l.Sessions, func(a, b SessionInfo) int {
		return cmp.Or(a.Accepted.Compare(b.Accepted), cmp.Compare(a.ID, b.ID))
	})
	if limit > 0 && len(l.Sessions) > limit {
		clear(l.Sessions[limit:])
		l.Sessions = l.Sessions[:limit]
	}
}

// End ends the sessions and flows that f fits, with reason EndedByOperator, and tells how many they were; f.Limit does not bound them. When
// ctx is done first, the error is ctx's, and some more than are told of may have been ended. Sessions that begin
// meanwhile may live. It may be called from any goroutine.
func (s *Server) End(ctx context.Context, f SessionFilter) (int, error) {
	total := 0
	wanted := f.compile()
	err := walk(ctx, s,
		func(l *loop, e listed, ended *int) {
			if wanted.fits(l, e) {
				e.cut(l, EndedByOperator)
				*ended++
			}
		},
		func(ended int) { total += ended })
	return total, err
}

// A SessionGroup is the sessions or flows of a listener that go to one backend of a pool. A session keeps the pool that its listener had
// when it began.
type SessionGroup struct {
	Listener, Pool string
	Backend        string // its id; "" for those that wait for one
}

// Count tells how many sessions each group has, and walks as List does, with less to carry.
func (s *Server) Count(ctx context.Context) (map[SessionGroup]int, error) {
	type group struct {
		listener *listener
		pool     *pool.Pool
		backend  *pool.Backend
	}
	counts := make(map[SessionGroup]int)
	err := walk(ctx, s,
		func(_ *loop, e listed, groups *map[group]int) {
			if *groups == nil {
				*groups = make(map[group]int)
			}
			f := e.facts()
			(*groups)[group{f.listener, f.pool, f.backend}]++
		},
		func(groups map[group]int) {
			for g, n := range groups {
				key := SessionGroup{Listener: g.listener.name, Pool: g.pool.Name()}
				if g.backend != nil {
					key.Backend = g.backend.ID()
				}
				counts[key] += n
			}
		})
	return counts, err
}

// A part is what a loop has made of a slice of its sessions.
type part[T any] struct {
	loop *loop
	next int // where the next slice begins, negative after the last
	made T
}

// walk has visit called onLoop for each session of each loop, and take with what that has made of a slice of them, on the
// caller's goroutine. A loop gets its next slice when the last one was taken, so there is never more than one part of it, and
// many callers at once are only so many slices. It returns ctx's error when that is done first.
func walk[T any](ctx context.Context, s *Server, visit func(*loop, listed, *T), take func(T)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.serving() {
		return nil // there is no session
	}
	parts := make(chan part[T], len(s.loops)) // no loop ever waits for it
	ask := func(l *loop, from int) bool {
		return l.mailbox.post(message{do: func() {
			p := part[T]{loop: l}
			p.next = l.some(from,
				func(s *session) { visit(l, s, &p.made) },
				func(f *flow) { visit(l, f, &p.made) })
			parts <- p
		}})
	}
	left := 0
	for _, l := range s.loops {
		if ask(l, 0) {
			left++
		}
	}
	for left > 0 {
		select {
		case p := <-parts:
			take(p.made)
			if p.next < 0 || !ask(p.loop, p.next) {
				left--
			}
		case <-s.gone: // what the loops have made is there: with what they did the last session may have gone, and they with it
			for len(parts) > 0 {
				take((<-parts).made)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// A compiledFilter is a SessionFilter and what it would be dear to find out for each session anew.
type compiledFilter struct {
	SessionFilter
	backend netip.AddrPort // Backend as an address; invalid if it is none
}

func (f SessionFilter) compile() compiledFilter {
	c := compiledFilter{SessionFilter: f}
	if at, err := netip.ParseAddrPort(f.Backend); err == nil {
		c.backend = at
	}
	return c
}

// fits tells whether the filter fits a session or a flow. onLoop.
func (f *compiledFilter) fits(l *loop, e listed) bool {
	s := e.facts()
	switch {
	case f.ID != 0 && f.ID != SessionID(s.id),
		f.Listener != "" && f.Listener != s.listener.name,
		f.Pool != "" && f.Pool != s.pool.Name(),
		f.Client.IsValid() && !f.Client.Contains(s.peer.Addr()),
		l.now-s.began < f.MinAge,
		l.now-s.active < f.MinIdle:
		return false
	}
	if f.Backend == "" {
		return true
	}
	b := s.backend
	return b != nil && (b.ID() == f.Backend || b.Addr() == f.backend)
}

// A listed is a session or a flow, as List, End and Count see it. Its methods are for its loop.
type listed interface {
	facts() facts
	describe(l *loop) SessionInfo
	cut(l *loop, why Reason)
}

// facts are what a filter goes by.
type facts struct {
	id            uint64
	listener      *listener
	pool          *pool.Pool
	peer          netip.AddrPort
	began, active time.Duration
	backend       *pool.Backend // nil for none
}

func (s *session) facts() facts {
	return facts{s.id, s.listener, s.pool, s.peer, s.accepted, s.active, s.currentBackend()}
}

func (s *session) cut(l *loop, why Reason) { l.cut(s, why) }

func (f *flow) facts() facts {
	return facts{f.serial, f.listener, f.pool, f.peer.AddrPort(), f.began, f.active, f.destination()}
}

func (f *flow) cut(l *loop, why Reason) { l.endFlow(f, why) }

// describe copies what is to be known of a flow.
func (f *flow) describe(l *loop) SessionInfo {
	info := SessionInfo{
		ID: SessionID(f.serial), Protocol: UDP, Listener: f.listener.name, Pool: f.pool.Name(), Client: f.peer.AddrPort(),
		Phase: relaying.String(), Accepted: l.server.started.Add(f.began), Connected: l.server.started.Add(f.connected),
		Age: l.now - f.began, Idle: l.now - f.active,
		BytesIn: f.in.bytes, BytesOut: f.out.bytes, DatagramsIn: f.in.datagrams, DatagramsOut: f.out.datagrams,
		Retries: f.retries(),
	}
	if b := f.destination(); b != nil {
		info.Backend, info.BackendAddress = b.ID(), b.Addr()
	}
	return info
}

// currentBackend is the session's backend, nil while it waits for one.
func (s *session) currentBackend() *pool.Backend {
	if s.phase == queued {
		return nil
	}
	return s.lease.Backend()
}

// describe copies what is to be known of a session.
func (s *session) describe(l *loop) SessionInfo {
	info := SessionInfo{
		ID: SessionID(s.id), Protocol: TCP, Listener: s.listener.name, Pool: s.pool.Name(), Client: s.peer,
		Phase: s.phase.String(), Accepted: l.server.started.Add(s.accepted),
		Age: l.now - s.accepted, Idle: l.now - s.active,
		BytesIn: s.in.bytes, BytesOut: s.out.bytes, Retries: len(s.tried),
	}
	if b := s.currentBackend(); b != nil {
		info.Backend, info.BackendAddress = b.ID(), b.Addr()
	}
	if s.phase == relaying {
		info.Connected = l.server.started.Add(s.connected)
	}
	return info
}
