package l4

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A SessionID is a session's or a flow's number, as its access line has it. No two of a Server have the same.
type SessionID = tally.ID

// ParseSessionID reads what SessionID.String has written.
func ParseSessionID(s string) (SessionID, error) { return tally.ParseID(s) }

// A SessionFilter says which sessions and flows are meant: those that match every field that is set. The zero value
// means all.
type SessionFilter struct {
	ID       SessionID
	Listener string        // its name
	Pool     string        // its name
	Backend  string        // its id, or its address; a session that waits for one has none
	Client   netip.Prefix  // of its address
	MinAge   time.Duration // since it was accepted
	MinIdle  time.Duration // since bytes last moved
	Limit    int           // how many List returns; 0 = all. It does not bound End or SessionList.Total
}

// A SessionInfo is a session or a flow at one moment; an immutable copy.
type SessionInfo struct {
	ID             SessionID
	Protocol       Protocol // UDP for a flow, TCP for a session
	Listener       string
	Pool           string         // "" if only a route can say it, and none has yet
	Backend        string         // its id; "" while the session waits for one
	BackendAddress pool.Address   // invalid then
	Client         netip.AddrPort // invalid for a client of a Unix socket
	Via            netip.AddrPort // whose connection it is; invalid unless a PROXY header has named the client
	Process        Credentials    // of such a client; see ClientText
	// Phase is proxy_header, starting, cancelling, handshaking, asking, inspecting, queued, connecting, relaying or
	// refusing; a flow is always relaying.
	Phase        string
	Accepted     time.Time
	Connected    time.Time // to its backend; zero before
	Age          time.Duration
	Idle         time.Duration // since bytes last moved, or it was connected or accepted
	BytesIn      uint64
	BytesOut     uint64
	DatagramsIn  uint64 // of a flow
	DatagramsOut uint64
	Retries      int // connects that failed before; of a flow, how often it got another backend
}

// ClientText is the client's address, or its process if it has come by a Unix socket.
func (s *SessionInfo) ClientText() string {
	if !s.Client.IsValid() {
		return s.Process.String()
	}
	return s.Client.String()
}

// A SessionList is what List returns.
type SessionList struct {
	Sessions []SessionInfo // the oldest first
	Total    int           // how many the filter fits; more than len(Sessions) if it has a Limit
}

// List describes the sessions and flows that f fits. The loops look at a few hundred sessions in a turn, so that
// traffic does not wait for a list of many; one that begins or ends meanwhile may be in it or not. When ctx is done
// first, the list is what was found until then, and the error is ctx's. It may be called from any goroutine.
func (s *Server) List(ctx context.Context, f SessionFilter) (SessionList, error) {
	var list SessionList
	wanted := f.compile()
	err := walk(ctx, s,
		func(now time.Duration, e *tally.Entry, _ func(Reason), found *[]SessionInfo) {
			if wanted.fits(now, e) {
				*found = append(*found, s.describe(now, e))
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

// End ends the sessions and flows that f fits, with reason EndedByOperator, and returns how many they were; f.Limit
// does not bound them. When ctx is done first, the error is ctx's, and some more may have been ended. Sessions that
// begin meanwhile may live. It may be called from any goroutine.
func (s *Server) End(ctx context.Context, f SessionFilter) (int, error) {
	total := 0
	wanted := f.compile()
	err := walk(ctx, s,
		func(now time.Duration, e *tally.Entry, end func(Reason), ended *int) {
			if wanted.fits(now, e) {
				end(tally.EndedByOperator)
				*ended++
			}
		},
		func(ended int) { total += ended })
	return total, err
}

// A SessionGroup is the sessions or flows of a listener that go to one backend of a pool. A session keeps the pool that
// its listener had when it began.
type SessionGroup struct {
	Listener, Pool string // the pool is "" if no route has chosen it yet
	Protocol       Protocol
	Backend        string // its id; "" for those that wait for one
}

// Count returns how many sessions each group has. It walks as List does, with less to carry.
func (s *Server) Count(ctx context.Context) (map[SessionGroup]int, error) {
	type group struct {
		listener string
		protocol Protocol
		pool     *pool.Pool
		backend  *pool.Backend
	}
	counts := make(map[SessionGroup]int)
	err := walk(ctx, s,
		func(_ time.Duration, e *tally.Entry, _ func(Reason), groups *map[group]int) {
			if *groups == nil {
				*groups = make(map[group]int)
			}
			(*groups)[group{e.Listener, e.Protocol, e.Pool, e.Backend}]++
		},
		func(groups map[group]int) {
			for g, n := range groups {
				key := SessionGroup{Listener: g.listener, Protocol: g.protocol}
				if g.pool != nil {
					key.Pool = g.pool.Name()
				}
				if g.backend != nil {
					key.Backend = g.backend.ID()
				}
				counts[key] += n
			}
		})
	return counts, err
}

// A part is what a loop has made of a slice of its sessions or flows.
type part[T any] struct {
	loop int
	next int // where the next slice begins, negative after the last
	made T
}

// flowsFrom is where a walk through a loop's sessions goes on with its flows.
const flowsFrom = 1 << 30

// walk calls visit onLoop for each session and flow of each loop, with a function that ends it. It calls take with what
// visit has made of a slice of them, on the caller's goroutine. A loop gets its next slice when the last one was taken,
// so there is never more than one part of it, and many callers at once are only so many slices. It returns ctx's error
// when that is done first.
func walk[T any](
	ctx context.Context, s *Server, visit func(time.Duration, *tally.Entry, func(Reason), *T), take func(T),
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.serving() {
		return nil // there is no session
	}
	parts := make(chan part[T], len(s.loops)) // no loop ever waits for it
	ask := func(i, from int) bool {
		return s.loops[i].Post(func() {
			p := part[T]{loop: i}
			p.next = s.someOnLoop(i, from, func(e *tally.Entry, end func(Reason)) {
				visit(s.loops[i].Now, e, end, &p.made)
			})
			parts <- p
		})
	}
	left := 0
	for i := range s.loops {
		if ask(i, 0) {
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
		case <-s.gone: // what the loops have made is there: it may have ended the last session, and with it the loops
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

// someOnLoop visits a slice of a loop's sessions, and after the last of them of its flows, as loop.Slab.Some does.
func (s *Server) someOnLoop(i, from int, visit func(e *tally.Entry, end func(Reason))) int {
	if from < flowsFrom {
		sessions := s.sessions[i]
		next := sessions.Some(from, func(one *session.Session) {
			e := sessions.Entry(one)
			visit(&e, func(why Reason) { sessions.Cut(one, why) })
		})
		if next < 0 {
			next = flowsFrom
		}
		return next
	}
	flows := s.flows[i]
	next := flows.Some(from-flowsFrom, func(one *flow.Flow) {
		e := flows.Entry(one)
		visit(&e, func(why Reason) { flows.End(one, why) })
	})
	if next >= 0 {
		return flowsFrom + next
	}
	return -1
}

// A compiledFilter is a SessionFilter, and what it would be expensive to find out for each session again.
type compiledFilter struct {
	SessionFilter
	backend pool.Address // Backend as an address; invalid if it is none
}

func (f SessionFilter) compile() compiledFilter {
	c := compiledFilter{SessionFilter: f}
	if at, err := pool.ParseAddress(f.Backend); err == nil {
		c.backend = at
	}
	return c
}

// fits reports whether the filter fits a session or a flow.
func (f *compiledFilter) fits(now time.Duration, e *tally.Entry) bool {
	switch {
	case f.ID != 0 && f.ID != e.ID,
		f.Listener != "" && f.Listener != e.Listener,
		f.Pool != "" && f.Pool != e.PoolName(),
		f.Client.IsValid() && !f.Client.Contains(e.Client.Addr()),
		now-e.Began < f.MinAge,
		now-e.Active < f.MinIdle:
		return false
	}
	if f.Backend == "" {
		return true
	}
	b := e.Backend
	return b != nil && (b.ID() == f.Backend || b.Addr() == f.backend || e.BackendAddress() == f.backend)
}

// describe returns the public description of a session or a flow.
func (s *Server) describe(now time.Duration, e *tally.Entry) SessionInfo {
	info := SessionInfo{
		ID: e.ID, Protocol: e.Protocol, Listener: e.Listener, Pool: e.PoolName(), Client: e.Client, Via: e.Via,
		Phase: e.Phase, Accepted: s.started.Add(e.Began), Age: now - e.Began, Idle: now - e.Active,
		BytesIn: e.BytesIn, BytesOut: e.BytesOut, DatagramsIn: e.DatagramsIn, DatagramsOut: e.DatagramsOut,
		Retries: e.Retries, Process: e.Process,
	}
	if e.Connected > 0 {
		info.Connected = s.started.Add(e.Connected)
	}
	if b := e.Backend; b != nil {
		info.Backend, info.BackendAddress = b.ID(), e.BackendAddress()
	}
	return info
}
