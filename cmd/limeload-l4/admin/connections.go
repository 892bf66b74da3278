package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections knows every client connection of a Server. It bounds how many there are, and decides which one is closed
// for a new one. Its methods may be called from any goroutine; its zero value is of no use, see newConnections.
//
// A new connection gets a free place. If there is none, it gets the place of the connection that has been idle for
// longest, and that one is closed. A connection is idle until the header of a request is complete. If every place has a
// request under way, the new connection gets one of a few spare places, on which only /ready and /live are answered: a
// health check that cannot reach /live restarts the daemon, and idle or slow clients must not be able to cause that.
type connections struct {
	// set once, then read-only
	places, spares int

	open sync.WaitGroup // counts the connections; opened adds to it, changed ends them

	mu sync.Mutex
	// mu guards the fields below, and the changing fields of each connection
	all    map[net.Conn]*connection // from opened until it is closed
	placed int                      // how many have an ordinary place
	spared int                      // how many have a spare place
	ending bool
}

// A connection is the state of one client connection.
type connection struct {
	// set once, then read-only
	conn  net.Conn
	spare bool // its place is, or was, a spare one

	hasPlace bool      // false once it gave way to another, or if it found no place; it is being closed then
	busy     bool      // a request is under way
	since    time.Time // when it became idle; of no use while busy
}

func newConnections(places, spares int) *connections {
	return &connections{places: places, spares: spares, all: make(map[net.Conn]*connection)}
}

// requestWithin is how long after it has connected a client is waited for when the server ends. Its request is on the way
// then, and at an upgrade or a reload the next server at the address would have answered it.
const requestWithin = 100 * time.Millisecond

// connectionKey is the key of a request's connection in its context.
type connectionKey struct{}

// opened gives a new connection a place, or closes it. It is the ConnContext of the HTTP server.
func (k *connections) opened(ctx context.Context, c net.Conn) context.Context {
	k.open.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	n := &connection{conn: c, since: time.Now()}
	n.spare = k.placed >= k.places && !k.evictLocked(false)
	switch {
	case n.spare && k.spared >= k.spares && !k.evictLocked(true):
		c.Close()
	default:
		n.hasPlace = true
		*k.countLocked(n.spare)++
	}
	k.all[c] = n
	if k.ending {
		k.endLocked(n)
	}
	return context.WithValue(ctx, connectionKey{}, n)
}

// countLocked returns the number of connections that have a place of one kind.
func (k *connections) countLocked(spare bool) *int {
	if spare {
		return &k.spared
	}
	return &k.placed
}

// evictLocked closes the connection that has been idle for longest, on the spare places or on the others. It reports
// false if each of them has a request under way.
func (k *connections) evictLocked(spare bool) bool {
	var first *connection
	for _, n := range k.all {
		if n.hasPlace && n.spare == spare && !n.busy && (first == nil || n.since.Before(first.since)) {
			first = n
		}
	}
	if first == nil {
		return false
	}
	k.leaveLocked(first)
	first.conn.Close()
	return true
}

// leaveLocked frees the place of a connection, if it has one.
func (k *connections) leaveLocked(n *connection) {
	if n.hasPlace {
		n.hasPlace = false
		*k.countLocked(n.spare)--
	}
}

// changed records the state of a connection. It is the ConnState of the HTTP server, which calls it after opened: with
// StateActive when the header of a request is complete (whatever its documentation says), and with StateClosed as the
// last act of the connection's goroutine.
func (k *connections) changed(c net.Conn, state http.ConnState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.all[c]
	switch state {
	case http.StateActive:
		n.busy = true
	case http.StateIdle:
		n.busy, n.since = false, time.Now()
		if k.ending {
			c.Close()
		}
	case http.StateClosed:
		k.leaveLocked(n)
		delete(k.all, c)
		k.open.Done()
	}
}

// onSpare reports whether a request came by a connection on a spare place.
func onSpare(ctx context.Context) bool {
	n, known := ctx.Value(connectionKey{}).(*connection) // unknown: it came by no listener of ours
	return known && n.spare
}

// end closes the idle connections. From now on, new ones are closed at once, and the others when they become idle.
func (k *connections) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ending = true
	for _, n := range k.all {
		k.endLocked(n)
	}
}

// endLocked closes a connection that has no request under way, at once or when requestWithin has passed.
func (k *connections) endLocked(n *connection) {
	switch left := requestWithin - time.Since(n.since); {
	case n.busy:
	case left <= 0:
		n.conn.Close()
	default:
		time.AfterFunc(left, func() { // in vain if it is closed by then
			k.mu.Lock()
			defer k.mu.Unlock()
			if !n.busy {
				n.conn.Close()
			}
		})
	}
}

// wait returns when all connections are closed and their goroutines are done. No listener may be served any more.
func (k *connections) wait() { k.open.Wait() }
