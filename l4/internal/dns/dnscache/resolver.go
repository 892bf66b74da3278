package dnscache

import (
	"bytes"
	"hash/maphash"
	"sync/atomic"
	"time"
)

// retryPause is how long no backend is asked about a question whose refresh was late or failed, while there is a stale
// answer (RFC 8767, 5: the failure recheck timer).
const retryPause = 30 * time.Second

// A Resolver is one loop's access to a Cache. It holds buffers and counters, so only one goroutine may use it at a
// time. NewResolver makes it. Flights and Answers may move from one Resolver to another of the same Cache.
//
// W identifies a waiting client to the caller. The cache stores it unchanged and returns it.
type Resolver[W any] struct {
	// Admit, if it is set, decides whether a client may wait for an answer, and returns the value that identifies the
	// client from then on. It is called with a lock held and must not block. Each admitted client is among some
	// flight's Answers later.
	Admit func(who W) (W, bool)

	cache  *Cache[W]
	tally  tally
	key    [maxKeyLen]byte
	query  question
	answer answer
}

// A tally holds one Resolver's counters. Any goroutine may read them.
type tally struct {
	hit, miss, stale, coalesced, refused, passed, prefetched, rejected atomic.Uint64
}

// A Reply says what the caller should do with a query.
type Reply[W any] struct {
	Verdict Verdict

	// Answer is the client's answer with Hit and Stale, appended to Ask's dst; otherwise it is nil.
	Answer []byte

	// Flight is set with Forward. It may also be set with Hit and Stale: then the caller refreshes the entry, while no
	// client waits for it. The caller sends the flight's query to a backend and must end the flight with Answered or
	// Failed.
	Flight *Flight[W]
}

// Ask decides what the caller should do with a client's query, which arrived by t. With Hit and Stale it appends the
// answer to dst, which is best empty with room for the largest answer. With Forward and Wait it keeps who, and returns
// it with the answer. now is the time on any clock that does not go back; all calls use the same clock. Ask does not
// keep the query.
//
// A hit takes no lock, unless it starts a prefetch, and allocates nothing: about 100 ns (BenchmarkAsk).
func (r *Resolver[W]) Ask(query []byte, t Transport, who W, now time.Duration, dst []byte) Reply[W] {
	q := &r.query
	if !q.parse(query, t, &r.key) {
		r.tally.passed.Add(1)
		return Reply[W]{Verdict: Pass}
	}
	c := r.cache
	if t == UDP {
		q.limit = min(q.limit, c.maxUDP)
	}
	hash := maphash.Bytes(c.seed, q.key)
	e := c.find(hash, q, now)
	switch {
	case e == nil:
	case e.fresh(now):
		return r.hit(e, hash, query, now, dst)
	case e.retryAt.Load() != 0:
		return r.stale(e, hash, query, now, dst)
	}

	nameHash := c.nameHash(q.key, len(q.name))
	b := c.board(nameHash)
	b.mu.Lock()
	defer b.mu.Unlock()
	f, crowded := b.find(nameHash, q)
	if f == nil {
		// A flight may have ended, and stored its answer, since find was called above.
		if e = c.find(hash, q, now); e != nil && e.fresh(now) {
			return r.hitLocked(e, now, dst)
		}
	}
	if crowded || f != nil && len(f.waiters) >= c.maxWaiters || !c.crowd.join() {
		r.tally.refused.Add(1)
		return Reply[W]{Verdict: Refuse}
	}
	if r.Admit != nil {
		admitted := false
		if who, admitted = r.Admit(who); !admitted {
			c.crowd.leave(1)
			r.tally.refused.Add(1)
			return Reply[W]{Verdict: Refuse}
		}
	}
	w := waiter[W]{caller: q.caller, spelling: spellingOf(q.name), who: who}
	if f != nil {
		r.tally.coalesced.Add(1)
		f.waiters = append(f.waiters, w)
		return Reply[W]{Verdict: Wait}
	}
	r.tally.miss.Add(1)
	f = b.start(hash, nameHash, q, query, c.maxUDP)
	f.waiters = append(f.first[:0], w)
	return Reply[W]{Verdict: Forward, Flight: f}
}

// hit answers from a fresh entry. It starts a refresh if the entry is in demand and about to expire.
func (r *Resolver[W]) hit(e *entry, hash uint64, query []byte, now time.Duration, dst []byte) Reply[W] {
	wanted := e.touch()
	reply := r.hitLocked(e, now, dst)
	if r.cache.prefetch && wanted && !e.failure && e.aging(now) && !e.asked.Swap(true) {
		if reply.Flight = r.refresh(hash, query); reply.Flight != nil {
			r.tally.prefetched.Add(1)
		}
	}
	return reply
}

// hitLocked answers from a fresh entry. The caller may hold the board's mu.
func (r *Resolver[W]) hitLocked(e *entry, now time.Duration, dst []byte) Reply[W] {
	r.tally.hit.Add(1)
	return Reply[W]{Verdict: Hit, Answer: r.appendTo(dst, e, now, false)}
}

// stale answers at once from an expired entry whose refresh was late or failed. It starts another refresh from time to
// time.
func (r *Resolver[W]) stale(e *entry, hash uint64, query []byte, now time.Duration, dst []byte) Reply[W] {
	e.touch()
	r.tally.stale.Add(1)
	reply := Reply[W]{Verdict: Stale, Answer: r.appendTo(dst, e, now, true)}
	if at := e.retryAt.Load(); now >= time.Duration(at) && e.retryAt.CompareAndSwap(at, int64(now+retryPause)) {
		reply.Flight = r.refresh(hash, query)
	}
	return reply
}

// appendTo appends an entry as the answer to the current query.
func (r *Resolver[W]) appendTo(dst []byte, e *entry, now time.Duration, stale bool) []byte {
	q := &r.query
	return e.appendTo(dst, &form{caller: q.caller, name: q.name, subnet: q.subnet, stale: stale, cached: e.failure,
		now: now})
}

// refresh starts a flight that no client waits for, unless there is one for the current query.
func (r *Resolver[W]) refresh(hash uint64, query []byte) *Flight[W] {
	c, q := r.cache, &r.query
	nameHash := c.nameHash(q.key, len(q.name))
	b := c.board(nameHash)
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := b.flights[nameHash]; f != nil; f = f.next {
		if bytes.Equal(f.key, q.key) {
			return nil
		}
	}
	if _, crowded := b.find(nameHash, q); crowded {
		return nil
	}
	return b.start(hash, nameHash, q, query, c.maxUDP)
}

// Answered ends a flight with a backend's message, which arrived under the id that the query was sent with. It returns
// false if the message is not the answer: another id, another question, or malformed. Then the flight continues, and
// the true answer may still arrive. It also returns false if the flight has ended already. Otherwise it returns the
// answers for the waiting clients. It does not keep the message.
func (r *Resolver[W]) Answered(f *Flight[W], id uint16, message []byte, now time.Duration) (Answers[W], bool) {
	a := &r.answer
	if !a.read(message, id, f.name(), f.key) || !a.subnetMatches(f.subnet()) {
		r.tally.rejected.Add(1)
		return Answers[W]{}, false
	}
	c := r.cache
	key, hash := f.key, f.hash
	if a.forAnySubnet(f.subnet()) {
		key, hash = c.anySubnet(append(r.key[:0], f.key...), f.base)
	}
	s := c.rules.judge(a)
	e := newEntry(a, key, f.nameLen, hash, s, c.rules.stale, now)

	b := c.board(f.nameHash)
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.ended {
		return Answers[W]{}, false
	}
	waiters := b.end(f)
	c.crowd.leave(len(waiters))
	answers := Answers[W]{entry: e, waiters: waiters, subnet: f.subnet(), now: now}
	if a.failed() {
		if !r.fallBack(&answers, f, now) && a.remembered(f.edns) {
			r.remember(e, f, now)
		}
		return answers, true
	}
	kept := s.lifetime > 0 && !f.purged && len(e.data)-len(key) <= maxKept && c.store.put(e, now)
	if !kept && !a.truncated {
		c.store.take(hash, key) // the old answer is no longer true
	}
	return answers, true
}

// Late reports that a flight had no answer for as long as clients should wait (RFC 8767, 5 advises 1.8 s). If there is
// a stale answer, Late returns it for the waiting clients. The flight continues in either case, and its answer will be
// stored.
func (r *Resolver[W]) Late(f *Flight[W], now time.Duration) Answers[W] {
	c := r.cache
	b := c.board(f.nameHash)
	b.mu.Lock()
	defer b.mu.Unlock()
	answers := Answers[W]{waiters: f.waiters, subnet: f.subnet(), now: now}
	if f.ended || len(f.waiters) == 0 || !r.fallBack(&answers, f, now) {
		return Answers[W]{}
	}
	c.crowd.leave(len(f.waiters))
	f.waiters = nil
	return answers
}

// Failed ends a flight that no backend will answer. The waiting clients get stale answers, or SERVFAIL. For a flight
// that has ended already there are no answers.
func (r *Resolver[W]) Failed(f *Flight[W], now time.Duration) Answers[W] {
	return r.failed(f, false, now)
}

// Unanswered is like Failed, for a flight that was sent to backends and not answered. It caches the failure (RFC 9520),
// for a second at first and then for twice as long each time, up to FailureTTL. Meanwhile clients with the same
// question get SERVFAIL at once.
func (r *Resolver[W]) Unanswered(f *Flight[W], now time.Duration) Answers[W] {
	return r.failed(f, true, now)
}

func (r *Resolver[W]) failed(f *Flight[W], remember bool, now time.Duration) Answers[W] {
	c := r.cache
	b := c.board(f.nameHash)
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.ended {
		return Answers[W]{}
	}
	waiters := b.end(f)
	c.crowd.leave(len(waiters))
	answers := Answers[W]{waiters: waiters, subnet: f.subnet(), now: now}
	if !r.fallBack(&answers, f, now) {
		var why []byte
		if c.explain != nil {
			why = c.explain()
		}
		answers.entry = newFailure(f.key, f.nameLen, f.hash, why, now)
		if remember {
			r.remember(answers.entry, f, now)
		}
	}
	return answers
}

// remember caches a flight's failure for a while. The board's mu is held, and nobody else has the entry.
func (r *Resolver[W]) remember(e *entry, f *Flight[W], now time.Duration) {
	c := r.cache
	if c.rules.failure == 0 || f.purged || len(e.data)-len(f.key) > maxKept {
		return
	}
	c.rules.fail(e, c.store.find(e.hash, e.key()), now)
	c.store.put(e, now)
}

// fallBack answers the waiting clients of a flight that failed or is late from the store: usually with a stale answer.
// It reports whether there is one. Then further clients get it at once, and no backend is asked for a while. The
// board's mu is held.
func (r *Resolver[W]) fallBack(answers *Answers[W], f *Flight[W], now time.Duration) bool {
	key := append(r.key[:0], f.key...)
	e := r.cache.find(f.hash, &question{key: key, base: f.base, subnet: key[f.base:]}, now)
	if e == nil {
		return false
	}
	answers.entry = e
	if !e.fresh(now) {
		answers.stale = true
		e.retryAt.Store(int64(now + retryPause))
		r.tally.stale.Add(uint64(answers.Len()))
	}
	return true
}
