// Package dnscache answers repeated DNS questions. It reads queries and answers and says what is to become of them; it has no
// socket, no timer and no goroutine, and chooses neither ids nor backends: whoever calls it does.
//
// Ask judges a query. What is plain is answered from memory, waits for the same question already under way, or is to be forwarded:
// then the caller sends Flight.AppendQuery to a backend under an id of its own choosing, remembers which flight the id on
// that socket stands for, and ends the flight with Answered or Failed. The cache checks the id and the question of what comes
// back, and writes each client's answer anew: its id, its spelling of the name, its size, its OPT record. So nothing of one client
// reaches another. What is not plain passes: the caller forwards it untouched, and the answer back.
//
// One Cache is shared by all loops, each with a Resolver of its own. SO_REUSEPORT spreads clients, not names: with a
// cache for each loop every name would be asked once per loop and kept once per loop, a question in flight would not be
// known elsewhere, and purging would be everybody's business. Sharing costs a hit next to nothing, since it takes no
// lock (see store): about 100 ns of CPU with one loop, and within 5 % of that with two that ask for the same name. A
// miss holds the lock of one part of 64 for less than a microsecond.
//
// The store is our own. With otter v2.4.0 in its place (the hash as key, the question compared in the value) looking up
// took 30 ns against 12 for one popular name and 370 against 250 for 100,000 names in turn; storing was alike at 0.5 to
// 0.6 us. That alone would not decide. But otter bounds by entries or by bytes and not by both, runs goroutines of its
// own, and evicts behind the caller's back, so that a bound is none for a while; purging by name would have been a walk
// over all as here (BenchmarkTable).
//
// A Cache may be used from any goroutine, a Resolver from one at a time.
package dnscache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// A Transport is how a query came.
type Transport uint8

// The transports. TCP means a message without its two bytes of length.
const (
	UDP Transport = iota
	TCP
)

// A Verdict is what becomes of a query.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota // it is not plain: forward it untouched, and what is answered back
	Hit                    // here is the answer
	Stale                  // here is an answer that has expired, since no backend answered in time (RFC 8767)
	Forward                // ask a backend; the client waits for the flight
	Wait                   // the client waits for a flight that another one is to end
	Refuse                 // too many wait, for this question or in all, or this client may not: drop it
)

var verdictNames = [...]string{Pass: "pass", Hit: "hit", Stale: "stale", Forward: "forward", Wait: "wait", Refuse: "refuse"}

// String returns the verdict as a log writes it.
func (v Verdict) String() string { return verdictNames[v] }

// Defaults of Options.
const (
	entryShare = 1024    // bytes for each entry: some four times the usual, so that the number decides as long as answers are usual
	maxWaiters = 16_384  // clients that wait for one question
	maxWaiting = 131_072 // clients that wait in all

	// maxHeldBytes bounds the answers that are held for clients which do not take them, see Held. Clients that read have no need of it.
	maxHeldBytes = 64 << 20

	// maxSubnetFlights is how many questions for one name and type are under way at once that differ in their client's subnet, which a
	// client may choose at will.
	maxSubnetFlights = 8
)

// Options are what a Cache is made with and keeps for life.
type Options struct {
	MaxEntries int   // at least one
	MaxBytes   int64 // of all entries with what they cost besides; 0 = 1 KiB for each of MaxEntries

	MinTTL      time.Duration // shorter TTLs of answers that are not negative are raised to it, but for 0, which is never kept
	MaxTTL      time.Duration // longer ones are lowered to it; wins over MinTTL
	NegativeTTL time.Duration // how long it is at most kept that there is nothing; 0 = not at all
	StaleTTL    time.Duration // how long expired answers are kept for when no backend answers; 0 = not at all
	FailureTTL  time.Duration // how long a failure is remembered at most (RFC 9520), see Resolver.Unanswered; 0 = not at all

	MaxUDP int // the largest answer by UDP, whatever the client takes, and what backends are told we take; 0 = 1232

	Prefetch bool // have names in demand asked again shortly before they expire

	// Only this package's tests set the fields below.
	maxWaitersForTest int // instead of maxWaiters; 0 = maxWaiters
	maxWaitingForTest int // instead of maxWaiting; 0 = maxWaiting
}

// A Cache is answers, and the questions under way. It may be used from any goroutine; its zero value is of no use, see New.
type Cache[W any] struct {
	// set once, then read-only
	seed       maphash.Seed
	rules      rules
	prefetch   bool
	maxWaiters int
	maxUDP     uint16
	store      *store
	boards     []board[W] // by the hash of the name and the type

	crowd crowd
	held  atomic.Int64 // bytes, see Held

	// mu guards the fields below
	mu        sync.Mutex
	resolvers []*Resolver[W]
}

// New makes an empty cache.
func New[W any](o Options) *Cache[W] {
	entries := max(o.MaxEntries, 1)
	c := &Cache[W]{
		seed: maphash.MakeSeed(), rules: newRules(&o), prefetch: o.Prefetch,
		maxWaiters: orDefault(o.maxWaitersForTest, maxWaiters),
		maxUDP:     uint16(min(max(orDefault(o.MaxUDP, advertisedUDP), plainUDP), maxMessage)),
		store:      newStore(entries, orDefault(o.MaxBytes, int64(entries)*entryShare)),
		boards:     make([]board[W], maxShards),
		crowd:      crowd{max: int64(orDefault(o.maxWaitingForTest, maxWaiting))},
	}
	for i := range c.boards {
		c.boards[i].flights = make(map[uint64]*Flight[W])
	}
	return c
}

func orDefault[T int | int64](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// NewResolver makes a Resolver for a loop. The cache keeps it for its counters, so there is to be one for each loop and no more.
func (c *Cache[W]) NewResolver() *Resolver[W] {
	r := &Resolver[W]{cache: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolvers = append(c.resolvers, r)
	return r
}

// nameHash is the hash of a key's name and type, by which its board and its flights are found.
func (c *Cache[W]) nameHash(key []byte, nameLen int) uint64 {
	return maphash.Bytes(c.seed, key[:nameLen+2])
}

func (c *Cache[W]) board(nameHash uint64) *board[W] { return &c.boards[nameHash%maxShards] }

// find returns the best entry for a question that is of any use now, or nil: of one for exactly its subnet and one for any, the one
// that lasts longer.
func (c *Cache[W]) find(hash uint64, q *question, now time.Duration) *entry {
	e := c.store.find(hash, q.key)
	if e != nil && !e.useful(now) {
		e = nil
	}
	if len(q.subnet) == 0 || e != nil && e.fresh(now) {
		return e
	}
	bits := &q.key[q.base-1]
	exact := *bits
	key, hash := c.anySubnet(q.key, q.base)
	general := c.store.find(hash, key)
	*bits = exact
	if general != nil && general.useful(now) && (e == nil || general.expires > e.expires) {
		return general
	}
	return e
}

// anySubnet turns a key with a subnet into that for any, in place, and returns it with its hash.
func (c *Cache[W]) anySubnet(key []byte, base int) ([]byte, uint64) {
	key = key[:base]
	key[base-1] = key[base-1]&^keySubnet | keyAnySubnet
	return key, maphash.Bytes(c.seed, key)
}
