package dns

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/pool"
)

// A question is a question on its way to a backend and back. It belongs to one forwarder; its memory is used again for
// a later question.
type question struct {
	// With a cache, flight says what is asked and who waits. Without, client waits, and query is what it has sent.
	flight *dnscache.Flight[client]
	client flow.Sender
	as     gate.ClientID // as which the client is counted
	query  []byte

	picksFor netip.AddrPort // the client that a backend is picked for: the first one
	tried    []*pool.Backend

	// while it is asked
	socket *socket // nil otherwise
	lease  pool.Lease
	id     uint16
	unsent bool          // stands in the socket's unsent
	sent   time.Duration // since Server.started
	bytes  int           // that were sent to its backend
	silent bool          // a backend that it was tried at has not answered
	fled   bool          // it was asked again since somebody tries ids; see flee
	lost   bool          // its datagram, or that of its answer, was very likely lost just now
	again  bool          // a backend that it was tried at was asked once more; see ask and streamEnded

	began time.Duration
	links [orders]neighbours
}

// appendTo appends the query as the socket sends it.
func (q *question) appendTo(dst []byte) []byte {
	if q.flight != nil {
		return q.flight.AppendQuery(dst, q.id)
	}
	at := len(dst)
	dst = append(dst, q.query...)
	binary.BigEndian.PutUint16(dst[at:], q.id)
	return dst
}

// The orders in which questions wait for a moment. All questions in one order wait equally long, so the first one is
// due first, and a list is all that is needed.
const (
	bySent  = iota // for the end of the timeout
	byBegun        // for the moment when clients have waited long enough
	orders
)

// neighbours are a question's neighbours in one order.
type neighbours struct {
	prev, next *question
	listed     bool
}

// A list is questions in one order, the oldest first. Its zero value is empty and for bySent.
type list struct {
	order       int
	first, last *question
}

// push makes a question the last.
func (d *list) push(q *question) {
	q.links[d.order] = neighbours{prev: d.last, listed: true}
	if d.last != nil {
		d.last.links[d.order].next = q
	} else {
		d.first = q
	}
	d.last = q
}

// remove takes a question out, if it is in.
func (d *list) remove(q *question) {
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
	q.links[d.order] = neighbours{}
}
