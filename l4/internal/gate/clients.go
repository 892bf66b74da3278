package gate

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// A clients is what a listener knows of its clients. Its methods may be called from any goroutine.
//
// It is a cache of sets: the hash of a client selects a shard and one of its sets, and there are only eight places
// where the client can be. So no client makes a lookup slow, and none that does not know the hash's key can choose
// whom it pushes out. A shard has one set at first, and doubles them when a set is full of clients that are worth
// remembering; with all sets that it may have, the least worth in the set is forgotten. Doubling moves 500 clients of
// a table for a million.
//
// One map with a list in the order of use was rejected: it needs twice the memory, grows in steps of many milliseconds,
// and a flood of forged addresses would push out everybody else.
type clients struct {
	// set once, then read-only
	seed  maphash.Seed
	mask  clientMask
	epoch Place // the places of its clients; no two tables of a listener in a row have the same

	most   atomic.Int64 // sets that a shard may have
	limit  atomic.Pointer[rate.Limit]
	forgot atomic.Uint64 // clients that had sessions, or were over their rate
	shards [shardCount]shard
}

const (
	shardCount = 1024
	ways       = 8 // the places of a set

	// keptFor is how long a shard rather grows than forgets an idle client.
	keptFor = time.Minute
)

type set [ways]client

// A shard is a part of the clients.
type shard struct {
	mu sync.Mutex
	// mu guards the fields below
	sets  []set
	count int // clients that are known
}

// newClients returns a table without clients.
func newClients(l *Limits, epoch Place) *clients {
	t := &clients{seed: maphash.MakeSeed(), mask: maskOf(l), epoch: epoch}
	t.set(l, 0)
	return t
}

// set gives the table other limits at the moment now. Clients that are more than it may know are forgotten.
func (t *clients) set(l *Limits, now time.Duration) {
	most := setsFor(l.Tracked)
	to := l.ClientRate
	was := t.limit.Swap(&to)
	fewer := t.most.Swap(most) > most
	other := was != nil && *was != to
	if !fewer && !other {
		return
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		if len(sh.sets) > int(most) {
			t.resize(sh, int(most), now)
		}
		if other {
			sh.each(func(c *client) { c.next = to.Instead(*was, c.next, now) })
		}
		sh.mu.Unlock()
	}
}

// each calls visit with each client that is known.
func (sh *shard) each(visit func(*client)) {
	for i := range sh.sets {
		for k := range sh.sets[i] {
			if c := &sh.sets[i][k]; c.seen != 0 {
				visit(c)
			}
		}
	}
}

// bound is how many clients may be known.
func (t *clients) bound() int { return int(t.most.Load()) * ways * shardCount }

// setsFor is how many sets a shard may have if so many clients may be known.
func setsFor(tracked int) int64 {
	if tracked == 0 {
		tracked = DefaultTracked
	}
	return int64(max(1, tracked/shardCount/ways))
}

// place locks the shard of a client, and returns it with the hash that selects the set.
func (t *clients) place(id *ClientID) (*shard, uint32) {
	h := maphash.Bytes(t.seed, id[:])
	sh := &t.shards[h%shardCount]
	sh.mu.Lock()
	return sh, uint32(h >> 32)
}

// setOf returns the set that a hash selects. Each set is split in two when they are doubled.
func (sh *shard) setOf(hash uint32) *set { return &sh.sets[uint64(hash)*uint64(len(sh.sets))>>32] }

// find returns a client that is known, or nil.
func (sh *shard) find(id *ClientID, hash uint32) *client {
	if len(sh.sets) == 0 {
		return nil
	}
	in := sh.setOf(hash)
	for i := range in {
		if c := &in[i]; c.id == *id && c.seen != 0 {
			return c
		}
	}
	return nil
}

// know returns a client, which is known from now on.
func (t *clients) know(sh *shard, id *ClientID, hash uint32, now time.Duration) *client {
	if c := sh.find(id, hash); c != nil {
		return c
	}
	if len(sh.sets) == 0 {
		sh.sets = make([]set, 1)
	}
	for {
		c := t.leastOf(sh.setOf(hash), now)
		if c.seen != 0 && (!c.isIdle(now) || now-c.seen < keptFor) && t.grow(sh, now) {
			continue
		}
		t.replace(sh, c, now)
		*c = client{id: *id}
		return c
	}
}

// leastOf returns a place of a set that nobody has, or whose client is worth the least.
func (t *clients) leastOf(in *set, now time.Duration) *client {
	limit := *t.limit.Load()
	least := &in[0]
	for i := range in {
		c := &in[i]
		if c.seen == 0 {
			return c
		}
		if i > 0 && c.worth(limit, now).less(least.worth(limit, now)) {
			least = c
		}
	}
	return least
}

// replace counts a client out whose place another one gets.
func (t *clients) replace(sh *shard, c *client, now time.Duration) {
	switch limit := *t.limit.Load(); {
	case c.seen == 0:
		sh.count++
	case c.sessions > 0 || limit.On() && limit.Wait(c.next, now) > 0:
		t.forgot.Add(1)
	}
}

// grow doubles the sets of a shard, if it may have more.
func (t *clients) grow(sh *shard, now time.Duration) bool {
	most := int(t.most.Load())
	if len(sh.sets) >= most {
		return false
	}
	t.resize(sh, min(2*len(sh.sets), most), now)
	return true
}

// resize gives a shard so many sets.
func (t *clients) resize(sh *shard, sets int, now time.Duration) {
	old := sh.sets
	sh.sets, sh.count = make([]set, sets), 0
	for i := range old {
		for k := range old[i] {
			if c := &old[i][k]; c.seen != 0 {
				to := t.leastOf(sh.setOf(uint32(maphash.Bytes(t.seed, c.id[:])>>32)), now)
				limit := *t.limit.Load()
				if to.seen == 0 || to.worth(limit, now).less(c.worth(limit, now)) {
					t.replace(sh, to, now)
					*to = *c
				} else {
					t.replace(sh, c, now)
				}
			}
		}
	}
}

// admit asks for one more of a client, of which it may have most at once; 0 = without a limit. With counts, one that is
// admitted is counted, until leave. In a dry run all are.
func (t *clients) admit(id ClientID, l *Limits, most int, counts bool, now time.Duration) Reason {
	sh, hash := t.place(&id)
	c := t.know(sh, &id, hash, now)
	why := c.admit(l, most, now)
	c.came(now)
	if why != Admitted {
		c.refused++
	}
	if counts && (why == Admitted || l.DryRun) {
		c.sessions++
	}
	sh.mu.Unlock()
	return why
}

// leave counts one of a client out.
func (t *clients) leave(id ClientID) {
	sh, hash := t.place(&id)
	if c := sh.find(&id, hash); c != nil && c.sessions > 0 {
		c.sessions--
	}
	sh.mu.Unlock()
}

// refuse notes that a client was refused for what others have.
func (t *clients) refuse(id ClientID) {
	sh, hash := t.place(&id)
	if c := sh.find(&id, hash); c != nil {
		c.refused++
	}
	sh.mu.Unlock()
}

// known is how many clients are known.
func (t *clients) known() (n int) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		n += sh.count
		sh.mu.Unlock()
	}
	return n
}

// ClientPrefix is what counts as one client with this address.
func (ls *Listener) ClientPrefix(addr netip.Addr) netip.Prefix {
	m := &ls.settings().mask
	return m.prefix(m.id(addr.As16()))
}

// Tracked is how many clients the listener knows, how many it may know, and how many were forgotten while they had
// sessions or were over their rate. All are 0 if it need not know its clients.
func (ls *Listener) Tracked() (known, most int, forgotten uint64) {
	t := ls.clients.Load()
	if t == nil {
		return 0, 0, 0
	}
	return t.known(), t.bound(), t.forgot.Load()
}

// Heaviest returns the heaviest clients that the listener knows, most of them at most.
func (ls *Listener) Heaviest(by Order, most int) []ClientInfo {
	t := ls.clients.Load()
	if t == nil {
		return nil
	}
	return t.heaviest(by, most, time.Since(ls.gate.started))
}

// An Order says which clients are the heaviest.
type Order uint8

// The orders.
const (
	ByRate     Order = iota // who came most often lately
	BySessions              // who has the most sessions and flows
	ByBytes                 // whose sessions and flows have moved most
)

// compare orders the heaviest first, and equals by their address.
func (o Order) compare(a, b ClientInfo) int {
	var first int
	switch o {
	case ByRate:
		first = cmp.Compare(b.Rate, a.Rate)
	case BySessions:
		first = cmp.Compare(b.Sessions, a.Sessions)
	case ByBytes:
		first = cmp.Compare(b.BytesIn+b.BytesOut, a.BytesIn+a.BytesOut)
	}
	return cmp.Or(first, a.Client.Addr().Compare(b.Client.Addr()))
}

// heaviest returns the heaviest clients, most of them at most. It looks at one shard after the other.
func (t *clients) heaviest(by Order, most int, now time.Duration) []ClientInfo {
	var found []ClientInfo
	for i := range t.shards {
		found = t.shards[i].append(found, &t.mask, now)
		if len(found) >= 2*most+1000 {
			slices.SortFunc(found, by.compare)
			found = found[:most]
		}
	}
	slices.SortFunc(found, by.compare)
	return slices.Clip(found[:min(most, len(found))])
}

// append appends what is known of the shard's clients.
func (sh *shard) append(to []ClientInfo, m *clientMask, now time.Duration) []ClientInfo {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.each(func(c *client) {
		to = append(to, ClientInfo{
			Client: m.prefix(c.id), Sessions: int(c.sessions), Rate: c.rateAt(now),
			BytesIn: c.bytes[In], BytesOut: c.bytes[Out], Refused: uint64(c.refused), Seen: c.seen,
		})
	})
	return to
}
