// Package gate decides who may come in. It is asked in three places: when a client of TCP is accepted, before a flow
// begins, and at a DNS question; each time before anything is allocated for the client. It is asked again when a PROXY
// header has named the real client of a session. It holds the limits of sessions and flows, and shares descriptors and
// local ports out among the listeners. A refusal is a Reason, which the caller counts; the gate itself only logs, now
// and then.
//
// A Gate and its Listeners may be used from any goroutine. A Flows and a Questions belong to one loop.
package gate

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// Options are what a Gate is made with.
type Options struct {
	Log     zerolog.Logger
	Started time.Time // from which moments count, as loop.Loop.Now does
	Reserve int       // descriptors that stay free for what is neither a session, a flow nor a listener
	Loops   int
}

// A Gate is the gate of a process. Its zero value is of no use, see New.
type Gate struct {
	// set once, then read-only
	log     zerolog.Logger
	started time.Time
	spare   int // descriptors for sessions, flows and listeners

	Chains dial.Chains // of the sockets that lead from this process back to itself

	max           atomic.Int64 // sessions; more are refused, 0 = none for that
	capacity      atomic.Int64 // sessions there are descriptors for if there is no flow; more wait in the kernel
	sessions      atomic.Int64
	flows         atomic.Int64
	farewells     atomic.Int64 // clients that are being told why they are refused; none of them is a session
	shared        atomic.Pointer[budget]
	ports         atomic.Int64 // local ports that flows may have now
	portsMost     atomic.Int64 // the same while the kernel has them
	portAddresses atomic.Int64 // local addresses that flows have ports of
	portsAgain    atomic.Int64 // when they may have portsMost again, after the kernel was short of them; 0 = it was not

	draining  atomic.Bool
	emptyOnce sync.Once
	empty     chan struct{} // closed by whoever sees the last session, flow or farewell leave while draining

	rules     atomic.Pointer[ruleSet] // nil = none
	rateShare atomic.Uint64           // the bits of a float64; 0 counts as 1
	held      atomic.Int64            // listening sockets whose clients wait for a place, see Claim
	mute      atomic.Int64            // clients that are refused without a word, and still have a descriptor

	pauseNote note
}

// maxPipes is how many pipes a loop may have. The descriptor limit may allow fewer.
const maxPipes = 64

// New makes a gate, and reads the process's descriptor limit. pipes is how many of them are left for the pipes of each
// loop. The limit leaves room for one session at least, or else there is an error.
func New(o Options) (g *Gate, pipes int, err error) {
	limit, err := sock.DescriptorLimit()
	if err != nil {
		return nil, 0, err
	}
	open, err := sock.OpenDescriptors()
	if err != nil {
		return nil, 0, fmt.Errorf("count open descriptors: %w", err)
	}
	pipes = min(maxPipes, limit/64/o.Loops)
	rest := limit - open - o.Reserve - 2*pipes*o.Loops
	if rest < 2 {
		return nil, 0, fmt.Errorf("a limit of %d open files leaves none for sessions; raise it (ulimit -n, LimitNOFILE=)",
			limit)
	}
	g = &Gate{log: o.Log, started: o.Started, spare: rest, empty: make(chan struct{})}
	g.Share(nil, 0)
	return g, pipes, nil
}

// SetMaxSessions says how many sessions there may be in the process: more are refused, 0 = none for that. Those that
// are there already stay.
func (g *Gate) SetMaxSessions(n int) {
	if g.max.Swap(int64(n)) == int64(n) {
		return
	}
	if possible := g.capacity.Load(); int64(n) > possible {
		g.log.Warn().Int("max_sessions", n).Int64("possible", possible).
			Str("event", "descriptors_short").
			Msg("fewer sessions are possible than max_sessions: raise the limit of open files")
	}
}

// MaxSessions returns what SetMaxSessions has set last.
func (g *Gate) MaxSessions() int { return int(g.max.Load()) }

// SetRateShare says which part of the listeners' rates for all clients is this process's, above 0 to 1. Those that have
// come so far stay counted as they were.
func (g *Gate) SetRateShare(share float64) {
	if !(share > 0 && share <= 1) {
		panic("gate: a share of rates that is not above 0 to 1")
	}
	g.rateShare.Store(math.Float64bits(share))
}

// RateShare returns what SetRateShare has set last; 1 at first.
func (g *Gate) RateShare() float64 {
	if bits := g.rateShare.Load(); bits != 0 {
		return math.Float64frombits(bits)
	}
	return 1
}

// Sessions is how many sessions there are now.
func (g *Gate) Sessions() int { return int(g.sessions.Load()) }

// Flows is how many flows there are now.
func (g *Gate) Flows() int { return int(g.flows.Load()) }

// Drain returns a channel that is closed when the last session, flow and farewell have left. Nobody may be admitted
// from now on.
func (g *Gate) Drain() <-chan struct{} {
	g.draining.Store(true)
	g.left()
	return g.empty
}

// left is called after a session, a flow or a farewell has left. A session that becomes a farewell is counted as that
// before it is counted out, so farewells are read last.
func (g *Gate) left() {
	if g.draining.Load() && g.sessions.Load()+g.flows.Load() == 0 && g.farewells.Load() == 0 {
		g.emptyOnce.Do(func() { close(g.empty) })
	}
}

// A Client is who wants to come in.
type Client struct {
	Addr netip.AddrPort
	From *dial.Link // set by an Admit that lets a socket of this process in; nil for all other clients
}

// admit is what all clients pass, of whatever they want to have another one.
func (ls *Listener) admit(p sock.Protocol, c *Client) Reason {
	from, back := ls.gate.Chains.ComesBack(p, c.Addr, ls.ID)
	if back {
		ls.noteLoop()
		return Loop
	}
	c.From = from
	return Admitted
}

// A Place is what a session or a flow holds at its client. The zero value holds nothing.
type Place uint8

// AdmitSession asks for one more session for a client that was accepted. With Admitted the session is counted, until
// LeaveSession. With Loop it is counted too: it begins, and ends at once. claimed says that Claim has taken its place
// already, which is given back if the client is refused.
func (ls *Listener) AdmitSession(c *Client, place *Place, claimed bool, now time.Duration) Reason {
	*place = 0
	s := ls.settings()
	if why := ls.admitComing(s, c.Addr.Addr(), place, claimed, now); why != Admitted {
		if claimed {
			ls.Unclaim()
		}
		return why
	}
	if !claimed {
		if why := ls.countSession(s); why != Admitted {
			ls.leaveClient(*place, c.Addr.Addr())
			ls.NoteRefusal(why, c.Addr.Addr())
			return why
		}
	}
	return ls.admit(sock.TCP, c)
}

// admitComing asks for a session for whatever depends on who the client is, and on how often clients come.
func (ls *Listener) admitComing(s *Settings, client netip.Addr, place *Place, claimed bool, now time.Duration) Reason {
	if ls.isOpen(s) {
		return Admitted
	}
	if client.IsValid() && (s.Names == nil || !s.Names(client)) {
		if why := ls.admitClient(s, client, place, s.Limits.ClientSessions, now); why != Admitted {
			return why
		}
	}
	if claimed && !s.Limits.DryRun {
		return Admitted
	}
	return ls.admitOften(s, client, place, now)
}

// countSession counts a session, unless there are as many as may be.
func (ls *Listener) countSession(s *Settings) Reason {
	g := ls.gate
	if limit := int64(s.MaxSessions); ls.sessions.Add(1) > limit && limit > 0 {
		ls.sessions.Add(-1)
		return ListenerFull
	}
	if limit := g.max.Load(); g.sessions.Add(1) > limit && limit > 0 {
		ls.uncountSession()
		return ProcessFull
	}
	return Admitted
}

// AdmitNamed asks again for a session that AdmitSession has counted, when a PROXY header has named its client: whatever
// depends on who the client is. The session stays counted with any Reason.
func (ls *Listener) AdmitNamed(client netip.AddrPort, place *Place, now time.Duration) Reason {
	if s := ls.settings(); !ls.isOpen(s) {
		if why := ls.admitClient(s, client.Addr(), place, s.Limits.ClientSessions, now); why != Admitted {
			return why
		}
	}
	return ls.admit(sock.TCP, &Client{Addr: client})
}

// LeaveSession counts a session out, whose client has that address now. It reports whether there are sockets whose
// clients wait for a place, see Claim.
func (ls *Listener) LeaveSession(place Place, client netip.Addr) (wanted bool) {
	ls.leaveClient(place, client)
	ls.uncountSession()
	return ls.gate.held.Load() > 0
}

func (ls *Listener) uncountSession() {
	ls.sessions.Add(-1)
	ls.gate.sessions.Add(-1)
	ls.gate.left()
}

// Room reports whether there are descriptors for another session of the listener, which takes two. Where there are not,
// clients wait in the kernel's queue.
func (ls *Listener) Room() bool {
	g := ls.gate
	return ls.keepsPromises(g.descriptorsLeft()-2, 2*g.capacity.Load(), g.shared.Load().all, (*Listener).descriptors)
}
