package admin

import (
	"context"
	"net"
	"sync"
	"time"
)

// connections bounds how many clients are connected at once, and decides which of them gives way.
// Its methods may be called from any goroutine; its zero value is of no use, see newConnections.
//
// While a place is free, a new connection gets it. When all places are taken, the new connection gets the place of one that has
// no request under way, the one that has rested longest, and that one is closed; a request whose header is not whole yet does not
// count. When every place has a request under way, the new connection gets one of a few spare places, on which only
// /ready and /live are answered: whoever asks /live restarts a daemon that does not answer, and idle or slow clients must
// not bring that about.
type connections struct {
	// set once, then read-only
	places, spares int

	mu sync.Mutex
	// mu guards the fields below, and the changing fields of each connection
	held   map[*connection]bool // those that have a place, spare or not
	spared int                  // of held, on a spare place
	ending bool
}

// A connection is one client's, as connections sees it.
type connection struct {
	// set once, then read-only
	conn  net.Conn
	spare bool

	busy  bool      // a request is under way
	since time.Time // it rests since then, unless busy
}

func newConnections(places, spares int) *connections {
	return &connections{places: places, spares: spares, held: make(map[*connection]bool)}
}

// connectionKey is the key of a request's connection in its context.
type connectionKey struct{}

// opened takes in a new connection; it is the ConnContext of the HTTP server.
func (k *connections) opened(ctx context.Context, c net.Conn) context.Context {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := &connection{conn: c, since: time.Now()}
	n.spare = len(k.held)-k.spared >= k.places && !k.evictLocked(false)
	switch {
	case k.ending, n.spare && k.spared >= k.spares && !k.evictLocked(true):
		c.Close()
	default:
		k.held[n] = true
		if n.spare {
			k.spared++
		}
	}
	return context.WithValue(ctx, connectionKey{}, n)
}

// evictLocked closes the connection that is to give way among those on a spare place, or among the others. It reports false when
// each of them has a request under way.
func (k *connections) evictLocked(spare bool) bool {
	var first *connection
	for c := range k.held {
		if c.spare == spare && !c.busy && (first == nil || c.since.Before(first.since)) {
			first = c
		}
	}
	if first == nil {
		return false
	}
	k.dropLocked(first)
	first.conn.Close()
	return true
}

// dropLocked gives a connection's place back, if it has one.
func (k *connections) dropLocked(c *connection) {
	if !k.held[c] {
		return
	}
	delete(k.held, c)
	if c.spare {
		k.spared--
	}
}

// work notes that a request is under way on a connection.
func (k *connections) work(c *connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.busy = true
}

// rest notes that the request is over.
func (k *connections) rest(c *connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.busy, c.since = false, time.Now()
	if k.ending {
		c.conn.Close()
	}
}

// onSpare tells whether a request came by a connection on a spare place.
func onSpare(ctx context.Context) bool {
	c, known := ctx.Value(connectionKey{}).(*connection) // unknown: it came by no listener of ours
	return known && c.spare
}

// closed gives the place of a connection back that has ended.
func (k *connections) closed(c *connection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(c)
}

// end closes the connections that rest, and from now on each one that comes or comes to rest.
func (k *connections) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending = true
	for c := range k.held {
		if !c.busy {
			c.conn.Close()
		}
	}
}
