package l4

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
	"github.com/limeload/limeload-l4/pool"
)

// A dnsQuestion is a question on its way to a backend and back. It belongs to one asker; its memory is used again for a later
// question.
type dnsQuestion struct {
	// With a cache, flight says what is asked and who waits. Without, client waits, and query is what it has sent.
	flight *dnscache.Flight[dnsClient]
	client caller
	query  []byte

	picksFor netip.AddrPort // the client that a backend is picked for: the first one
	tried    []*pool.Backend

	// while it is asked
	socket *dnsSocket // nil otherwise
	lease  pool.Lease
	id     uint16
	unsent bool          // stands in the socket's unsent
	sent   time.Duration // since Server.started
	bytes  int           // that its backend was sent
	silent bool          // a backend that it was tried at has not answered
	fled   bool          // it was asked anew since somebody tries ids; see flee
	lost   bool          // a datagram of it, or of its answer, very likely is, just now
	again  bool          // a backend that it was tried at may be asked once more, and was; see ask and streamEnded

	began time.Duration
	links [dnsOrders]dnsLinks
}

// appendTo appends the query as the socket sends it.
func (q *dnsQuestion) appendTo(dst []byte) []byte {
	if q.flight != nil {
		return q.flight.AppendQuery(dst, q.id)
	}
	at := len(dst)
	dst = append(dst, q.query...)
	binary.BigEndian.PutUint16(dst[at:], q.id)
	return dst
}

// The orders in which questions wait for a moment. All in one order wait for equally long, so the first is the first to be looked at,
// and a list is all that is needed.
const (
	bySent  = iota // for the end of the timeout
	byBegun        // for the moment when clients have waited long enough
	dnsOrders
)

// dnsLinks are a question's neighbours in one order.
type dnsLinks struct {
	prev, next *dnsQuestion
	listed     bool
}

// A dnsList is questions in one order, the oldest first. Its zero value is empty and for bySent.
type dnsList struct {
	order       int
	first, last *dnsQuestion
}

// push makes a question the last.
func (d *dnsList) push(q *dnsQuestion) {
	q.links[d.order] = dnsLinks{prev: d.last, listed: true}
	if d.last != nil {
		d.last.links[d.order].next = q
	} else {
		d.first = q
	}
	d.last = q
}

// remove takes a question out, if it is in.
func (d *dnsList) remove(q *dnsQuestion) {
	links := q.links[d.order]
	if !links.listed {
		return
	}
	if links.prev != nil {
		links.prev.links[d.order].next = links.next
	} else {
		d.first = links.next
	}
	if links.next != nil {
		links.next.links[d.order].prev = links.prev
	} else {
		d.last = links.prev
	}
	q.links[d.order] = dnsLinks{}
}

// Parts of the wire format (RFC 1035, 4.1) that telling a question from something else needs.
const (
	dnsHeaderBytes   = 12
	dnsAnswerBit     = 0x80 // of the third byte
	maxDNSMessage    = 1<<16 - 1
	dnsMaxLabelBytes = 63
	dnsMaxNameBytes  = 255 // lengths of labels included
	dnsTypeOPT       = 41  // RFC 6891
	dnsFirstMetaType = 128 // up to 255: questions like AXFR, which may have several answers, and TSIG (RFC 6895, 3.1)
	dnsLastMetaType  = 255
)

// maxPlainQuery is how long a query may be to go by a shared socket without a cache: what a plain one ever is, cookie, subnet and padding
// included.
const maxPlainQuery = 512

// plainQuery tells whether a message is one question that has one answer, and nothing but an OPT record besides. Only such a one goes by a
// shared socket without a cache; it goes as it is but for its id. A cache is choosier.
func plainQuery(m []byte) bool {
	if len(m) < dnsHeaderBytes || len(m) > maxPlainQuery {
		return false
	}
	const answerAndOpcode = 0xf8
	records := binary.BigEndian.Uint16(m[10:])
	if m[2]&answerAndOpcode != 0 || binary.BigEndian.Uint32(m[4:]) != 1<<16 || binary.BigEndian.Uint16(m[8:]) != 0 || records > 1 {
		return false
	}
	end := questionEnd(m)
	if end == 0 {
		return false
	}
	if typ := binary.BigEndian.Uint16(m[end-4:]); typ >= dnsFirstMetaType && typ <= dnsLastMetaType {
		return false
	}
	if records == 0 {
		return end == len(m)
	}
	return len(m) >= end+3 && m[end] == 0 && binary.BigEndian.Uint16(m[end+1:]) == dnsTypeOPT
}

// isQuestion reports whether a datagram may be a question, of whatever kind, and not an answer (RFC 1035, 4.1.1).
func isQuestion(m []byte) bool { return len(m) >= dnsHeaderBytes && m[2]&dnsAnswerBit == 0 }

// isAnswer is the reverse.
func isAnswer(m []byte) bool { return len(m) >= dnsHeaderBytes && m[2]&dnsAnswerBit != 0 }

// questionEnd is where the first question of a message ends, or 0 if it is not whole, or its name is compressed or too long.
func questionEnd(m []byte) int {
	for at := dnsHeaderBytes; at < len(m); {
		size := int(m[at])
		switch {
		case size == 0:
			if at+1-dnsHeaderBytes > dnsMaxNameBytes || at+5 > len(m) {
				return 0
			}
			return at + 5
		case size > dnsMaxLabelBytes:
			return 0
		}
		at += 1 + size
	}
	return 0
}

// appendServFail appends the answer to a plainQuery that no backend has answered.
func appendServFail(dst, query []byte) []byte {
	const (
		recursionWanted    = 0x01
		recursionAvailable = 0x80
		checkingDisabled   = 0x10
		servFail           = 2
	)
	at := len(dst)
	dst = append(dst, query[:questionEnd(query)]...)
	m := dst[at:]
	wanted := m[2] & recursionWanted
	m[2] = dnsAnswerBit | wanted
	m[3] = m[3]&checkingDisabled | servFail
	if wanted != 0 {
		m[3] |= recursionAvailable // whoever asked for recursion expects it, also of who fails
	}
	clear(m[6:dnsHeaderBytes])
	return dst
}
