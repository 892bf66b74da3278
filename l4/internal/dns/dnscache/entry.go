package dnscache

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

const (
	// advertisedUDP is the size in the OPT record of answers: no path fragments it (DNS flag day 2020). It applies to
	// what clients send.
	advertisedUDP = 1232

	// staleSeconds is the TTL of all records of a stale answer (RFC 8767, 4).
	staleSeconds = 30

	// entryBytes is the cost of an entry besides its data: the struct, the slot in the table, the ghost's fingerprint,
	// and the allocator's rounding.
	entryBytes = 192

	// maxHits is the highest count of hits, as S3-FIFO needs it. Further hits only read the counter, so that all loops
	// together do not write a popular entry's memory all the time.
	maxHits = 3
)

// An entry is a stored answer, or one that is delivered without being stored. Any goroutine may read it.
//
// Its data has these parts, in order: the key; the message without its OPT record and with the question's name in lower
// case; the options of extended errors; the offsets of the TTLs in the message, two bytes each.
type entry struct {
	// set once, then read-only
	data       []byte
	hash       uint64
	keyLen     uint16
	nameLen    uint16
	messageLen uint16
	errorLen   uint16
	extended   uint8 // upper bits of the code
	scope      uint8 // of the subnet, in bits
	scoped     bool  // the answer had a subnet
	bare       bool  // a failure without an OPT record: clients must see that the backend does not know EDNS
	failure    bool  // a cached failure; useless once it expired
	own        bool  // a failure that newFailure has made
	stored     time.Duration
	expires    time.Duration
	dead       time.Duration // when it is useless even as a stale answer

	hits    atomic.Uint32 // up to maxHits; eviction decrements it
	asked   atomic.Bool   // a prefetch was started
	holders atomic.Int32  // clients it is held for, see Held
	retryAt atomic.Int64  // when a backend may be asked again after a refresh was late or failed; 0 = none was

	// the shard's mu guards the fields below for writers; readers load next without it
	next         atomic.Pointer[entry] // in its slot of the table
	newer, older *entry                // in its queue
	queue        *queue
}

func (e *entry) key() []byte     { return e.data[:e.keyLen] }
func (e *entry) message() []byte { return e.data[e.keyLen:][:e.messageLen] }
func (e *entry) errors() []byte  { return e.data[int(e.keyLen)+int(e.messageLen):][:e.errorLen] }
func (e *entry) ttls() []byte    { return e.data[int(e.keyLen)+int(e.messageLen)+int(e.errorLen):] }
func (e *entry) bytes() int64    { return int64(len(e.data)) + entryBytes }

// fresh reports whether the entry has not expired; live, whether it is still of any use.
func (e *entry) fresh(now time.Duration) bool { return now < e.expires }
func (e *entry) live(now time.Duration) bool  { return now < e.dead }

// useful reports whether the entry may answer a client. An expired failure stays live only so that the next failure
// lasts longer.
func (e *entry) useful(now time.Duration) bool {
	if e.failure {
		return e.fresh(now)
	}
	return e.live(now)
}

// touch counts a hit and reports whether there was a hit before.
func (e *entry) touch() bool {
	hits := e.hits.Load()
	if hits < maxHits {
		e.hits.Store(hits + 1) // of two concurrent hits, one may be lost
	}
	return hits > 0
}

// aging reports whether less than a tenth of the entry's life is left (unbound's rule).
func (e *entry) aging(now time.Duration) bool { return now >= e.expires-(e.expires-e.stored)/10 }

// newEntry makes an entry from an answer to a question with this key, whose hash is hash. With a lifetime of 0 the
// entry will not be stored, and its TTLs stay as the backend sent them.
func newEntry(a *answer, key []byte, nameLen int, hash uint64, s span, stale, now time.Duration) *entry {
	e := &entry{
		hash: hash, keyLen: uint16(len(key)), nameLen: uint16(nameLen), extended: a.extended,
		bare:   a.failed() && a.optFrom == 0,
		stored: now, expires: now + time.Duration(s.lifetime)*time.Second,
	}
	e.dead = e.expires + stale
	if a.subnet != nil {
		e.scope, e.scoped = a.subnet[3], true
	}
	question := headerLen + nameLen + questionLen
	body, tail := a.message[min(question, a.end):a.end], []byte(nil)
	if a.truncated || a.end == 0 {
		body = nil
	} else if a.optFrom != 0 {
		body, tail = a.message[question:a.optFrom], a.message[a.optTo:a.end]
	}
	e.messageLen = uint16(question + len(body) + len(tail))
	e.errorLen = uint16(len(a.errors))
	data := make([]byte, 0, len(key)+int(e.messageLen)+len(a.errors)+2*len(a.ttls))
	data = append(data, key...)
	bits := key[nameLen+2]
	// CD stays the backend's: resolvers copy it (RFC 4035, 3.2.2), name servers clear it (3.1.6).
	flags := a.flags &^ (flagRD | flagZ)
	if bits&keyRD != 0 {
		flags |= flagRD
	}
	data = binary.BigEndian.AppendUint16(data, 0)
	data = binary.BigEndian.AppendUint16(data, flags)
	data = binary.BigEndian.AppendUint16(data, 1)
	for _, count := range a.counts {
		data = binary.BigEndian.AppendUint16(data, count)
	}
	data = append(data, key[:nameLen+2]...)
	data = append(data, 0, classIN)
	data = append(data, body...)
	data = append(data, tail...)
	data = append(data, a.errors...)
	e.data = data
	if len(tail) > 0 {
		e.closeGap(a)
	}
	if s.lifetime > 0 {
		e.bound(a, &s)
	}
	return e
}

// closeGap corrects compressed names whose targets moved because the OPT record in front of them was removed.
func (e *entry) closeGap(a *answer) {
	gap := a.optTo - a.optFrom
	message := e.message()
	for _, at := range a.pointers {
		to := message[int(at)-gap:]
		binary.BigEndian.PutUint16(to, binary.BigEndian.Uint16(to)-uint16(gap))
	}
}

// bound puts the TTLs within their bounds, and appends their offsets to the data.
func (e *entry) bound(a *answer, s *span) {
	for _, at := range a.ttls {
		if a.optFrom != 0 && int(at) > a.optFrom {
			at -= uint16(a.optTo - a.optFrom)
		}
		ttl := e.message()[at:]
		binary.BigEndian.PutUint32(ttl, s.bound(seconds(ttl)))
		e.data = binary.BigEndian.AppendUint16(e.data, at)
	}
}

// A form says how an entry is written for one client.
type form struct {
	caller
	name   []byte // as the client spells it
	subnet []byte // as in the key; empty when the client sent none
	stale  bool
	cached bool // the entry is a cached failure
	now    time.Duration
}

// appendTo appends the entry as the answer for one client. If the answer does not fit, it is cut and TC is set (RFC
// 2181, 9). Extended errors are omitted first, which does not set TC.
func (e *entry) appendTo(dst []byte, f *form) []byte {
	message := e.message()
	size, limit := len(message), int(f.limit)
	opt := f.edns && !e.bare
	subnet := opt && e.scoped && len(f.subnet) > 0
	if opt {
		size += optLen
	}
	if subnet {
		size += 5 + len(f.subnet) // the option's head, and the scope
	}
	truncated := size > limit
	if truncated {
		message = message[:headerLen+int(e.nameLen)+questionLen]
	}
	from := len(dst)
	dst = append(dst, message...)
	written := dst[from:]
	binary.BigEndian.PutUint16(written, f.id)
	copy(written[headerLen:], f.name)
	if truncated {
		written[2] |= flagTC >> 8
		clear(written[6:headerLen])
	} else {
		e.age(written, f)
	}
	if !opt {
		return dst
	}
	additional := written[10:]
	binary.BigEndian.PutUint16(additional, binary.BigEndian.Uint16(additional)+1)
	errors := e.errors()
	switch {
	case f.stale:
		errors = staleError(message)
	case f.cached && (len(errors) == 0 || e.own):
		errors = cachedError
	}
	if size+len(errors) > limit {
		errors = nil
	}
	return e.appendOPT(dst, f, subnet, errors)
}

// age subtracts the entry's age from the TTLs.
func (e *entry) age(message []byte, f *form) {
	gone := uint32(max(f.now-e.stored, 0) / time.Second)
	if gone == 0 && !f.stale {
		return
	}
	for at := e.ttls(); len(at) > 0; at = at[2:] {
		ttl := message[binary.BigEndian.Uint16(at):]
		left := uint32(staleSeconds)
		if !f.stale {
			left = binary.BigEndian.Uint32(ttl) - gone // above 0: a fresh entry is younger than its lowest TTL
		}
		binary.BigEndian.PutUint32(ttl, left)
	}
}

// appendOPT appends the OPT record (RFC 6891, 6.1.2).
func (e *entry) appendOPT(dst []byte, f *form, subnet bool, errors []byte) []byte {
	options := len(errors)
	if subnet {
		options += 5 + len(f.subnet)
	}
	var do byte
	if f.do {
		do = flagDO >> 8
	}
	dst = append(dst, 0, 0, typeOPT, advertisedUDP>>8, advertisedUDP&0xff, e.extended, 0, do, 0, byte(options>>8),
		byte(options))
	if subnet {
		dst = append(dst, 0, optionSubnet, 0, byte(1+len(f.subnet)))
		dst = append(dst, f.subnet[:3]...)
		dst = append(dst, e.scope)
		dst = append(dst, f.subnet[3:]...)
	}
	return append(dst, errors...)
}

// staleError returns the option that marks an answer as stale (RFC 8914, 4.4 and 4.20).
func staleError(message []byte) []byte {
	if message[3]&maskRcode == rcodeNoName {
		return staleNoNameError
	}
	return staleAnswerError
}

// Our own extended errors' options; read-only.
var (
	staleAnswerError = []byte{0, optionError, 0, 2, 0, 3}
	staleNoNameError = []byte{0, optionError, 0, 2, 0, 19}
	cachedError      = []byte{0, optionError, 0, 2, 0, 13} // RFC 8914, 4.14
)

// newFailure makes the SERVFAIL answer for clients whose question no backend answered. why is the option of an extended
// error; empty for none.
func newFailure(key []byte, nameLen int, hash uint64, why []byte, now time.Duration) *entry {
	flags := uint16(flagQR | rcodeFailed)
	if key[nameLen+2]&keyRD != 0 {
		flags |= flagRA // a client that asks for recursion expects it, even in a failure
	}
	if key[nameLen+2]&keyCD != 0 {
		flags |= flagCD
	}
	a := answer{found: found{flags: flags, rcode: rcodeFailed}, errors: why}
	e := newEntry(&a, key, nameLen, hash, span{}, 0, now)
	e.bare, e.own = false, true // the answer is our own, and we know EDNS
	return e
}
