package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool/rate"
)

const (
	// ticketsEvery bounds how long sharedTickets sleeps, since the clock may be set.
	ticketsEvery = time.Minute
	// rotateApart is how long a node waits for the one before it to make the next key: which nodes come first is their
	// duty, see fleet.Duties.
	rotateApart = 15 * time.Second
	// lastToRotate bounds how many nodes one of them waits for.
	lastToRotate = 8
)

// rotateLimit bounds how often a node changes the record, so that nodes whose clocks are days apart do no harm.
var rotateLimit = rate.Limit{Every: 20 * time.Minute, Burst: 3}

// sharedTickets shares the keys of TLS session tickets, so that sessions resume on every node. The keys are in etcd and
// in the memory of the nodes, and on no disk of a node. When the next key has become the current one, one node makes
// another. A node without a connection uses the keys that it knows while they are young enough, and then keys of its
// own. Its methods may be called from any goroutine.
type sharedTickets struct {
	// set once, then read-only
	membership *membership

	changed chan struct{} // has room for one; the record may have changed

	mu sync.Mutex
	// mu guards the fields below, and is held while the servers get keys
	keys    ticketKeys   // as last understood
	record  fleet.Record // that was looked at last
	broken  bool         // that record cannot be used
	later   bool         // it is of a later version of the program, and must stay
	wasUsed bool         // there was a key that makes tickets

	due     time.Time     // since when the record is to be changed; the zero time if it is not
	changes time.Duration // the state of rotateLimit
}

func newSharedTickets(m *membership) *sharedTickets {
	p := &sharedTickets{membership: m, changed: make(chan struct{}, 1)}
	m.fleet.Observe(fleet.Tickets, func([]string) { p.poke() })
	return p
}

// poke makes run look again. It never blocks.
func (p *sharedTickets) poke() { wake(p.changed) }

// run works until ctx is done.
func (p *sharedTickets) run(ctx context.Context) {
	if !p.membership.conf.TicketKeys {
		<-ctx.Done()
		return
	}
	for {
		timer := time.NewTimer(p.look(time.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look takes up the record, makes a key if that is due and this node's duty, and returns when to look again.
func (p *sharedTickets) look(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readLocked()
	wait := min(p.useLocked(now), ticketsEvery)
	if p.later || p.keys.hasNext(now) && !p.broken || !p.membership.fleet.Link().Up {
		p.due = time.Time{}
		return wait
	}
	if p.due.IsZero() {
		p.due = now
	}
	if left := p.due.Add(p.patience()).Sub(now); left > 0 {
		return min(wait, left)
	}
	changes, left := rotateLimit.Take(p.changes, now.Sub(p.membership.daemon.began))
	if left > 0 {
		return min(wait, left)
	}
	p.changes, p.due = changes, time.Time{}
	p.rotateLocked(now)
	return min(p.useLocked(now), ticketsEvery)
}

// rotateLocked makes the next key, or writes those of a record again that cannot be used.
func (p *sharedTickets) rotateLocked(now time.Time) {
	keys := p.keys
	if !keys.hasNext(now) {
		keys = keys.rotated(now)
	}
	r := p.membership.fleet.Change(fleet.Tickets, fleet.Record{Value: keys.value()})
	if r.Serial == 0 {
		return // it cannot be changed, which the fleet counts
	}
	p.keys, p.record, p.broken = keys, r, false
	p.membership.daemon.log.Info().Str("event", "fleet_ticket_key_made").
		Msg("this node has made the next key of TLS session tickets for all nodes")
}

// readLocked takes up the record if it is another one. One that cannot be used changes nothing.
func (p *sharedTickets) readLocked() {
	r, is := p.membership.fleet.Records(fleet.Tickets)[fleet.Tickets]
	if !is || r.Undone || r.Serial == p.record.Serial && r.Node == p.record.Node && r.At.Equal(p.record.At) {
		return
	}
	p.record = r
	keys, err := parseTicketKeys(r.Value)
	p.broken, p.later = err != nil, errors.Is(err, errTicketsVersion)
	if err != nil {
		p.membership.daemon.log.Warn().Str("node", r.Node).AnErr("err", err).Str("event", "fleet_ticket_keys_ignored").
			Msg("the keys of TLS session tickets in etcd cannot be used: this node goes on with those of before")
		return
	}
	p.keys = keys
}

// patience is how long this node waits for others to make a key.
func (p *sharedTickets) patience() time.Duration {
	names := []string{p.membership.fleet.Node()}
	for _, n := range p.membership.fleet.Nodes() {
		names = append(names, n.Name)
	}
	order := fleet.Duties(names, fleet.Tickets, lastToRotate)
	if place := slices.Index(order, names[0]); place >= 0 {
		return time.Duration(place) * rotateApart
	}
	return lastToRotate * rotateApart
}

// useLocked gives the keys in use to the servers of all listeners. It returns how long they stay in use as they are.
func (p *sharedTickets) useLocked(now time.Time) time.Duration {
	keys := p.giveLocked(p.membership.daemon.securedNow(), now)
	log := p.membership.daemon.log
	switch isUsed := len(keys) > 0; {
	case isUsed && !p.wasUsed:
		p.wasUsed = true
		log.Info().Str("event", "fleet_tickets_shared").Msg("TLS sessions resume on every node from now on")
	case !isUsed && p.wasUsed:
		p.wasUsed = false
		log.Warn().Str("event", "fleet_tickets_own").
			Msg("the shared keys of TLS session tickets are too old: until there are others, sessions resume here only")
	}
	if _, until := p.keys.inUse(now); !until.IsZero() {
		return until.Sub(now)
	}
	return ticketsEvery
}

// giveLocked gives the keys in use to servers, and returns them.
func (p *sharedTickets) giveLocked(to *secured, now time.Time) [][l4.TLSTicketKeyBytes]byte {
	keys, _ := p.keys.inUse(now)
	for listener, s := range to.servers {
		s.ShareTicketKeys(listener, keys)
	}
	return keys
}

// give gives the keys in use to servers that are about to be put in force.
func (p *sharedTickets) give(to *secured) {
	if p.membership.conf.TicketKeys {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.giveLocked(to, time.Now())
	}
}

// offered returns the record for the process that takes over from this one; nil for none.
func (p *sharedTickets) offered() *fleet.Saved {
	if saved, is := p.membership.fleet.Saved()[fleet.Tickets]; is && p.membership.conf.TicketKeys {
		return &saved
	}
	return nil
}

// restore takes up the record of the process that this one takes over from; nil for none. It must be called before run.
func (p *sharedTickets) restore(saved *fleet.Saved) {
	if saved == nil || !p.membership.conf.TicketKeys {
		return
	}
	p.membership.fleet.Restore(map[string]fleet.Saved{fleet.Tickets: *saved})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readLocked()
	p.giveLocked(p.membership.daemon.securedNow(), time.Now())
}

// areShared reports whether tickets are made with keys that all nodes have.
func (p *sharedTickets) areShared() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wasUsed
}
