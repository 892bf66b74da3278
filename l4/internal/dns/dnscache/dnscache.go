// Package dnscache answers repeated DNS questions. It reads queries and answers and decides what to do with them. It
// has no socket, no timer and no goroutine, and chooses neither ids nor backends: the caller does.
//
// Ask judges a query. A plain query is answered from memory, waits for the same question already under way, or must be
// forwarded. To forward it, the caller sends Flight.AppendQuery to a backend under an id of its own choosing, remembers
// which flight the id on that socket belongs to, and ends the flight with Answered or Failed. The cache checks the id
// and the question of each answer. It writes each client's answer anew, with the client's id, spelling of the name,
// size and OPT record, so nothing of one client reaches another. A query that is not plain passes: the caller forwards
// it untouched, and its answer back.
//
// All loops share one Cache, and each has its own Resolver. SO_REUSEPORT spreads clients, not names: with a cache for
// each loop every name would be asked and stored once per loop, no loop would know the other loops' questions in
// flight, and a purge would have to reach every loop. Sharing costs a hit next to nothing, since it takes no lock (see
// store): about 100 ns of CPU with one loop, and within 5 % of that with two that ask for the same name. A miss holds
// the lock of one of 64 parts for less than a microsecond.
//
// The store is our own. With otter v2.4.0 in its place (the hash as key, the question compared in the value) a lookup
// took 30 ns against 12 for one popular name, and 370 against 250 for 100,000 names in turn; storing took the same, 0.5
// to 0.6 us. That alone would not decide. But otter bounds either entries or bytes and not both, runs its own
// goroutines, and evicts in the background, so that it exceeds its bound for a while. Purging by name would have been a
// walk over all entries, as here (BenchmarkTable).
//
// A Cache may be used from any goroutine, a Resolver from one at a time.
package dnscache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// A Transport is the protocol by which a query arrived.
type Transport uint8

// The transports. A TCP message is given without its two bytes of length.
const (
	UDP Transport = iota
	TCP
)

// A Verdict says what the caller should do with a query.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota // it is not plain: forward it untouched, and its answer back
	Hit                    // Reply.Answer is the answer
	Stale                  // Reply.Answer is an expired answer, since no backend answered in time (RFC 8767)
	Forward                // send Reply.Flight to a backend; the client waits for it
	Wait                   // the client waits for a flight that another caller ends
	Refuse                 // drop it: too many clients wait, for this question or in all, or Admit refused the client
)

var verdictNames = [...]string{Pass: "pass", Hit: "hit", Stale: "stale", Forward: "forward", Wait: "wait",
	Refuse: "refuse"}

// String returns the verdict as a log writes it.
func (v Verdict) String() string { return verdictNames[v] }

// Defaults of Options.
const (
	entryShare = 1024    // bytes per entry: about four times the usual, so that usually MaxEntries is the bound
	maxWaiters = 16_384  // clients that wait for one question
	maxWaiting = 131_072 // clients that wait in all

	// maxHeldBytes bounds the answers held for clients that do not read them, see Held. Clients that read do not need
	// it.
	maxHeldBytes = 64 << 20

	// maxSubnetFlights bounds the flights for one name and type that differ in their client's subnet, which a client
	// can choose at will.
	maxSubnetFlights = 8
)

// Options are the options of a Cache. They cannot be changed later.
type Options struct {
	MaxEntries int   // at least one
	MaxBytes   int64 // of all entries, overhead included; 0 = 1 KiB for each of MaxEntries

	MinTTL      time.Duration // lower bound for TTLs of positive answers; a TTL of 0 is never cached
	MaxTTL      time.Duration // upper bound for TTLs; wins over MinTTL
	NegativeTTL time.Duration // how long negative answers are cached at most; 0 = not at all
	StaleTTL    time.Duration // how long expired answers are kept as a fallback; 0 = not at all
	FailureTTL  time.Duration // how long a failure is cached at most (RFC 9520), see Resolver.Unanswered; 0 = never

	MaxUDP int // the largest answer by UDP, to clients and from backends; 0 = 1232

	Prefetch bool // refresh names in demand shortly before they expire

	// Explain returns the option of an extended error (RFC 8914) that goes with SERVFAIL to clients whose question no
	// backend answered. Any goroutine may call it. nil = none does.
	Explain func() []byte

	// Only this package's tests set the fields below.
	maxWaitersForTest int // instead of maxWaiters; 0 = maxWaiters
	maxWaitingForTest int // instead of maxWaiting; 0 = maxWaiting
}

// A Cache holds answers and the questions under way. It may be used from any goroutine; its zero value is of no use,
// see New.
type Cache[W any] struct {
	// set once, then read-only
	seed       maphash.Seed
	rules      rules
	prefetch   bool
	explain    func() []byte // see Options.Explain
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
		seed: maphash.MakeSeed(), rules: newRules(&o), prefetch: o.Prefetch, explain: o.Explain,
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

// NewResolver makes a Resolver for a loop. The cache keeps it for its counters, so make only one for each loop.
func (c *Cache[W]) NewResolver() *Resolver[W] {
	r := &Resolver[W]{cache: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolvers = append(c.resolvers, r)
	return r
}

// nameHash returns the hash of a key's name and type, which selects its board and its flights.
func (c *Cache[W]) nameHash(key []byte, nameLen int) uint64 {
	return maphash.Bytes(c.seed, key[:nameLen+2])
}

func (c *Cache[W]) board(nameHash uint64) *board[W] { return &c.boards[nameHash%maxShards] }

// find returns the best usable entry for a question, or nil. It prefers a fresh entry for exactly the question's
// subnet. Otherwise it returns that entry or the one for any subnet, whichever expires later.
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

// anySubnet changes a key with a subnet, in place, into the key for any subnet. It returns the new key and its hash.
func (c *Cache[W]) anySubnet(key []byte, base int) ([]byte, uint64) {
	key = key[:base]
	key[base-1] = key[base-1]&^keySubnet | keyAnySubnet
	return key, maphash.Bytes(c.seed, key)
}
