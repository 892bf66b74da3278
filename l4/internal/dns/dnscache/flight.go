package dnscache

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// A Flight is a question for a backend, sent or about to be sent, with the clients that wait for its answer. The caller
// that got it from Ask ends it with Answered or Failed, on any goroutine. Its zero value is of no use.
type Flight[W any] struct {
	// set once, then read-only
	hash     uint64 // of the key
	nameHash uint64
	key      []byte
	query    []byte
	base     int // length of the key without the subnet
	nameLen  int
	edns     bool
	tcp      bool // it is asked by TCP, which cuts no answer

	// the board's mu guards the fields below
	next    *Flight[W] // with the same nameHash
	waiters []waiter[W]
	first   [1]waiter[W] // room for the usual case
	ended   bool
	purged  bool // its answer is not stored
}

// A waiter is a client that waits for an answer.
type waiter[W any] struct {
	caller
	spelling spelling
	who      W
}

// AppendQuery appends the query for a backend, with an id. It may be called again for another backend, with another id.
// Any goroutine may call it.
func (f *Flight[W]) AppendQuery(dst []byte, id uint16) []byte {
	at := len(dst)
	dst = append(dst, f.query...)
	binary.BigEndian.PutUint16(dst[at:], id)
	return dst
}

// subnet returns the client's subnet, as in the key.
func (f *Flight[W]) subnet() []byte { return f.key[f.base:] }

// name returns the name as it was asked for.
func (f *Flight[W]) name() []byte { return f.query[headerLen : headerLen+f.nameLen] }

// A board holds the flights of a part of all names and types.
type board[W any] struct {
	// mu guards the fields below, and those of the flights. Lock order: a board's mu, then a shard's.
	mu      sync.Mutex
	flights map[uint64]*Flight[W]

	_ [64]byte // keeps two locks out of one cache line
}

// find returns the flight whose answer this client may get, or nil. The flight's query has an OPT record if and only if
// the client's has one, since the backend may not know EDNS. A client of TCP does not wait for a question that is asked
// by UDP, whose answer may be cut. So there are at most four flights for a key, and at most one key for each
// combination of the flags that change the answer. Only subnets can be made up at will: crowded reports that
// maxSubnetFlights of them are under way. mu is held.
func (b *board[W]) find(nameHash uint64, q *question) (f *Flight[W], crowded bool) {
	subnets := 0
	for f := b.flights[nameHash]; f != nil; f = f.next {
		if f.edns == q.edns && (f.tcp || !q.tcp) && bytes.Equal(f.key, q.key) {
			return f, false
		}
		if len(f.subnet()) > 0 {
			subnets++
		}
	}
	return nil, len(q.subnet) > 0 && subnets >= maxSubnetFlights
}

// start adds a flight for a question whose key has this hash. mu is held.
func (b *board[W]) start(hash, nameHash uint64, q *question, query []byte, udp uint16) *Flight[W] {
	f := &Flight[W]{hash: hash, nameHash: nameHash, edns: q.edns, tcp: q.tcp, base: q.base, nameLen: len(q.name),
		next: b.flights[nameHash]}
	data := append(make([]byte, 0, len(q.key)+len(query)), q.key...)
	data = q.appendForwarded(data, query, udp)
	f.key, f.query = data[:len(q.key):len(q.key)], data[len(q.key):]
	b.flights[nameHash] = f
	return f
}

// end removes a flight and returns its waiters. mu is held, and the flight has not ended.
func (b *board[W]) end(f *Flight[W]) []waiter[W] {
	f.ended = true
	switch head := b.flights[f.nameHash]; {
	case head != f:
		for head.next != f {
			head = head.next
		}
		head.next = f.next
	case f.next != nil:
		b.flights[f.nameHash] = f.next
	default:
		delete(b.flights, f.nameHash)
	}
	waiters := f.waiters
	f.waiters = nil
	return waiters
}

// markPurged prevents the answers of all flights whose name (in lower case) matches from being stored: they may be
// older than the purge.
func (b *board[W]) markPurged(which func(name []byte) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.flights {
		for ; f != nil; f = f.next {
			f.purged = f.purged || which(f.key[:f.nameLen])
		}
	}
}

// Answers are the answers for the clients of one flight. They are a value that any goroutine may read for any length of
// time, also in part: a loop may send them to another loop, whose clients wait for the same flight. The zero value is
// no answers.
type Answers[W any] struct {
	entry   *entry
	waiters []waiter[W]
	subnet  []byte
	stale   bool
	now     time.Duration
}

// Len returns how many clients there are.
func (a Answers[W]) Len() int { return len(a.waiters) }

// Waiter returns the value that Ask got for client i.
func (a Answers[W]) Waiter(i int) W { return a.waiters[i].who }

// Append appends the answer for client i, with its id, its spelling of the name, and within its size limit.
func (a Answers[W]) Append(dst []byte, i int) []byte {
	w := &a.waiters[i]
	return appendSpelled(dst, a.entry, &w.spelling,
		form{caller: w.caller, subnet: a.subnet, stale: a.stale, now: a.now})
}

// appendSpelled appends an entry in a form whose name is the entry's name in this spelling.
func appendSpelled(dst []byte, e *entry, s *spelling, f form) []byte {
	var spelled [maxNameLen]byte
	f.name = spelled[:copy(spelled[:], e.key()[:e.nameLen])]
	s.apply(f.name)
	return e.appendTo(dst, &f)
}

// A crowd counts the waiting clients of all questions. Any goroutine may use it.
type crowd struct {
	waiting atomic.Int64
	max     int64
}

// join reports whether there is room for one more client, and counts it if so; then leave must follow.
func (c *crowd) join() bool {
	if c.waiting.Add(1) <= c.max {
		return true
	}
	c.leave(1)
	return false
}

func (c *crowd) leave(n int) { c.waiting.Add(-int64(n)) }

// Waiting returns how many clients wait, for all questions.
func (c *Cache[W]) Waiting() int { return int(c.crowd.waiting.Load()) }
