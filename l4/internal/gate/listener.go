package gate

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool/rate"
)

// Settings are what a listener allows its clients. The zero value has no limit of the listener's own.
type Settings struct {
	Pool        string // the pool's name, for the log
	MaxSessions int    // at once; 0 = without a limit of its own
	MaxFlows    int    // at once; at least 1 for a listener of UDP
	ClientFlows int    // at once for one client, and DNS questions in flight; 0 = without a limit

	Limits Limits
	Access *AccessList // who may come in; nil = everybody
	// Names reports whether a client of that address names the real client, which then is asked for instead; nil if
	// none does.
	Names func(netip.Addr) bool

	mask clientMask // of Limits
}

// A Listener is a listener as the gate knows it, and what all rooms of the data plane count for it. It lasts as long as
// there is a listener of its name. Its methods may be called from any goroutine.
type Listener struct {
	// set once, then read-only
	Name     string
	ID       dial.ListenerID
	Counters []tally.Counters // one for each loop
	gate     *Gate

	set      atomic.Pointer[Settings]
	clients  atomic.Pointer[clients] // nil if none need be known
	rate     rate.Bucket
	sessions atomic.Int64
	flows    atomic.Int64

	unanswered atomic.Int64 // flows, those that are being begun included

	epoch Place // of its last table; only Set uses it

	loopNote, delayNote note
	refused             [2][reasonCount]refusals // of dry runs, and of others
}

// NewListener makes a listener without sessions. id is its own, and loops how many loops there are.
func (g *Gate) NewListener(name string, id dial.ListenerID, loops int) *Listener {
	ls := &Listener{Name: name, ID: id, Counters: make([]tally.Counters, loops), gate: g}
	ls.Set(Settings{})
	return ls
}

// Set gives the listener other settings, for clients that come from now on. What is known of clients stays.
// They are forgotten if other parts of addresses stand for a client, or if none need be known any more. Only one
// goroutine may call it at a time.
func (ls *Listener) Set(to Settings) {
	to.mask = maskOf(&to.Limits)
	now := time.Since(ls.gate.started)
	if was := ls.set.Load(); was != nil {
		share := ls.gate.RateShare()
		if from, to := was.Limits.rate(share), to.Limits.rate(share); from != to {
			ls.rate.Change(from, to, now)
		}
	}
	switch t := ls.clients.Load(); {
	case !to.tracks():
		ls.clients.Store(nil)
	case t == nil:
		ls.clients.Store(newClients(&to.Limits, ls.nextEpoch()))
	case t.mask != to.mask:
		ls.clients.Store(newClients(&to.Limits, ls.nextEpoch()))
	default:
		t.set(&to.Limits, now)
	}
	ls.set.Store(&to)
}

func (ls *Listener) settings() *Settings { return ls.set.Load() }

// Sessions is how many sessions the listener has now.
func (ls *Listener) Sessions() int { return int(ls.sessions.Load()) }

// Flows is how many flows the listener has now.
func (ls *Listener) Flows() int { return int(ls.flows.Load()) }

// noteEvery keeps a long shortage or a flood from filling the log.
const noteEvery = 10 * time.Second

// A note is a line of the log that is written every noteEvery at most. Its zero value is ready.
type note struct{ next atomic.Int64 }

// due reports whether it is time for the line.
func (n *note) due(g *Gate) bool {
	now := int64(time.Since(g.started))
	next := n.next.Load()
	return now >= next && n.next.CompareAndSwap(next, now+int64(noteEvery))
}

// NotePause warns that accepting the listener's clients has paused, now and then. e is the error that said so, zero if
// it was Room.
func (ls *Listener) NotePause(e sock.Errno) {
	g := ls.gate
	if !g.pauseNote.due(g) {
		return
	}
	ev := g.log.Warn().Str("listener", ls.Name).Int64("listener_sessions", ls.sessions.Load()).
		Int64("sessions", g.sessions.Load()).Int64("possible", g.capacity.Load())
	if e != 0 {
		ev = ev.AnErr("err", e)
	}
	ev.Str("event", "accept_paused")
	ev.Msg("accept paused: out of descriptors, but for those promised to other listeners; " +
		"clients wait in the kernel's queue; raise the limit of open files")
}

// noteLoop warns of clients that come back to the listener, now and then.
func (ls *Listener) noteLoop() {
	if ls.loopNote.due(ls.gate) {
		ls.gate.log.Warn().Str("listener", ls.Name).Str("pool", ls.settings().Pool).
			Str("event", "loop_refused").Msg("clients refused that come from this listener: a backend leads back to it")
	}
}
