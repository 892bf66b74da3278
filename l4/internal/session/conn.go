package session

import "github.com/limeload/limeload-l4/l4/internal/sock"

// A conn is one side of a session. Its readiness is what events have said and calls have not yet disproved.
type conn struct {
	fd       int32
	open     bool
	readable bool
	writable bool
	peerDone bool // the peer's FIN is in: a read that does not fill the buffer takes the last bytes
	broken   bool // an error is pending: only reading to the end will tell what and when
	urgent   bool // urgent data came: a short read does not mean that no more is there
	kernel   bool // its TLS is the kernel's, see kernel.go

	excused    bool // it is full, and the kernel does not give it up for that
	unanswered bool // at the last look, probes of its window had no answer
}

// note records the epoll bits as the connection's readiness.
func (c *conn) note(bits uint32) {
	if bits&(sock.PollIn|sock.PollPeerDone|sock.PollError|sock.PollHangup|sock.PollUrgent) != 0 {
		c.readable = true
	}
	if bits&(sock.PollOut|sock.PollError|sock.PollHangup) != 0 {
		c.writable = true
	}
	c.peerDone = c.peerDone || bits&sock.PollPeerDone != 0
	c.broken = c.broken || bits&sock.PollError != 0
	c.urgent = c.urgent || bits&sock.PollUrgent != 0
}

// dries reports whether a read that has not filled its buffer has left nothing behind that is no event to come. Of kernel
// TLS a record of another type may be behind; the kernel reports it when the one in front was read. Behind a FIN that may
// have been reported already.
func (c *conn) dries() bool { return !c.broken && !c.urgent && !(c.kernel && c.peerDone) }

// write writes what the connection takes. last says that the end follows, which then travels with the bytes.
func (c *conn) write(p []byte, last bool) (int, sock.Errno) {
	return sock.Write(int(c.fd), p, last && !c.kernel) // a record that waits for more would not be sent by a FIN
}

// close closes the connection if it is open, with a reset if cut says so.
func (c *conn) close(cut bool) {
	if !c.open {
		return
	}
	c.open = false
	if cut {
		sock.Reset(int(c.fd))
	} else {
		sock.Close(int(c.fd))
	}
}

// A direction is one way of the relay.
//
// Invariant: no byte is read while one is held, so it holds at most loop.ScratchBytes, or a pipe.
type direction struct {
	bytes   uint64     // taken from the source
	flushed uint64     // those of bytes that the listener's and the backend's counters have
	kept    *remainder // what the destination would not take; nil for nothing
	pipe    *sock.Pipe
	rounds  uint8 // reads in a row that filled the scratch buffer; in bulk, wake-ups in a row that brought little
	writes  uint8 // 0, 1, or more: whether Nagle's algorithm could delay the next
	bulk    bool  // bytes go through a pipe
	ended   bool  // the source's FIN was read
	shut    bool  // and passed on
	dead    bool  // the destination takes no more: it was reset, and its own last bytes are awaited
}

// held reports whether bytes wait for the destination.
func (d *direction) held() bool { return d.kept != nil || d.pipe != nil }

// unflushed returns the bytes that the counters do not have, and notes that they get them now.
func (d *direction) unflushed() uint64 {
	n := d.bytes - d.flushed
	d.flushed = d.bytes
	return n
}
