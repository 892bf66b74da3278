// Package tlsconn is TLS on either side of a session; the protocol itself is that of crypto/tls. A Server is what one
// listener ends TLS with: certificates that are chosen by name, rules for clients' certificates, tickets. A Client is
// what connections to the backends of one pool are encrypted with. Both are made of the bytes of files, and take new
// bytes while they are in use; the package itself reads no file. Their methods may be called from any goroutine. A Conn
// is one connection, and belongs to a loop.
//
// A handshake costs a tenth of a millisecond or more, which a loop must not spend while sessions wait. So a few threads
// of lower priority do the calculating (see Threads), and never touch a socket: what the peer sends is fed to them, and
// what they have for the peer is sent by the loop. After the handshake the loop encrypts and decrypts itself, without
// ever waiting.
package tlsconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// RecordBytes is how many bytes a record can hold (RFC 8446, 5.1).
const RecordBytes = 16 << 10

// ErrAgain means that there is nothing to read now.
var ErrAgain error = again{}

// again is an error that crypto/tls takes for a temporary one, after which a read goes on where it was.
type again struct{}

func (again) Error() string   { return "nothing to read" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// A Conn is TLS on one side of a session. It begins with its handshake; Read, Write and what follows upon them are for
// the time after it. Used onLoop only, but for the handshake's own calculations.
type Conn struct {
	tls  *tls.Conn
	hand *handshake // nil once it is over
	rest []byte     // what the peer has sent right behind the handshake

	fd      int
	buffers *loop.Buffers
	out     loop.ByteQueue // encrypted, and not taken by the socket yet
	records int            // that Write has still to make
	failed  sock.Errno     // what the socket has said; 0 = it works

	offload *offload // nil if it stays out of the kernel

	dry      bool // the socket has nothing to read, as far as is known
	thorough bool // a short read does not mean that
	shut     bool // close_notify is sent
}

// Established makes the Conn, whose handshake is over, read and write the connection fd. buffers are the loop's.
func (c *Conn) Established(fd int, buffers *loop.Buffers) {
	c.fd, c.buffers = fd, buffers
	if len(c.hand.in) > 0 {
		c.rest = slices.Clone(c.hand.in)
	}
	c.hand = nil
	c.checkOffload()
}

// Read decrypts what the peer has sent into p, as much as there is room for. It is called when the socket may have
// something. The error is ErrAgain when all was read that is there, io.EOF at the peer's end, or else the connection is
// of no use any more: Failed says whether that is the socket's doing. n may be above 0 beside any error. thorough says
// that a read which does not fill its buffer may have left something behind, as when the peer's FIN is in.
//
// A Conn that becomes Ripe by the read returns at once.
func (c *Conn) Read(p []byte, thorough bool) (n int, err error) {
	c.dry, c.thorough = false, thorough
	for n < len(p) && (n == 0 || !c.Ripe()) {
		one, err := c.readOnce(p[n:])
		n += one
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readOnce decrypts a record, or a part of one.
func (c *Conn) readOnce(p []byte) (n int, err error) {
	b := c.offload
	if b == nil {
		return c.tls.Read(p)
	}
	b.begins()
	n, err = c.tls.Read(p)
	b.ends(n, len(p))
	return n, err
}

// Write encrypts p, at most three records of RecordBytes, and sends what the socket takes. The rest waits, see Owes. It
// returns an error of the socket.
func (c *Conn) Write(p []byte) sock.Errno {
	if b := c.offload; b != nil && !b.client {
		b.carried = true
	}
	c.records = (len(p) + RecordBytes - 1) / RecordBytes
	_, err := c.tls.Write(p)
	c.records = 0
	if err != nil && c.failed == 0 {
		c.failed = sock.BrokenPipe // the peer has broken the protocol, or we have said goodbye
	}
	return c.failed
}

// Owes reports whether encrypted bytes wait for room in the socket. Until Flush has sent them, Write must not be called.
func (c *Conn) Owes() bool { return c.out.Size() > 0 }

// Debt is how many encrypted bytes wait. A peer can make it grow by asking for new keys and reading nothing.
func (c *Conn) Debt() int { return c.out.Size() }

// Flush sends what waits, as far as the socket takes it: with sock.Again it takes no more now.
func (c *Conn) Flush() sock.Errno {
	for c.out.Size() > 0 {
		n, e := sock.Write(c.fd, c.out.Bytes(), false)
		if e != 0 {
			if e != sock.Again {
				c.failed = e
			}
			return e
		}
		c.out.Done(c.buffers, n)
	}
	return 0
}

// CloseWrite tells the peer that nothing more comes (close_notify), once.
func (c *Conn) CloseWrite() {
	if c.hand == nil && !c.shut {
		c.shut = true
		_ = c.tls.CloseWrite() // an error is the socket's, see Failed
	}
}

// Shut reports whether CloseWrite was called.
func (c *Conn) Shut() bool { return c.shut }

// Failed is what the socket has said when the connection broke; 0 if it has not.
func (c *Conn) Failed() sock.Errno { return c.failed }

// State describes the connection once its handshake is over.
func (c *Conn) State() tls.ConnectionState { return c.tls.ConnectionState() }

// Close gives back what the Conn holds, and gives up its handshake if that is not over. The socket is not its own.
func (c *Conn) Close(buffers *loop.Buffers) {
	c.out.Release(buffers)
	c.rest = nil
	if c.hand != nil { // a thread may have it
		c.hand.giveUp()
	} else {
		c.dropOffload()
	}
}

// A transport is what a tls.Conn reads from and writes to: see Conn.
type transport Conn

// Read implements net.Conn.
func (t *transport) Read(p []byte) (int, error) {
	b := t.offload
	if b == nil {
		return t.read(p)
	}
	p = p[:min(len(p), b.in.most())]
	n, err := t.read(p)
	if size := b.in.pass(p[:n]); size >= 0 {
		b.spoiled = b.spoiled || b.short // and it is not the last one, so it was no data
		b.short = size == keyUpdateBytes
	}
	return n, err
}

func (t *transport) read(p []byte) (int, error) {
	switch {
	case t.hand != nil:
		return t.hand.read(p)
	case len(t.rest) > 0:
		n := copy(p, t.rest)
		if t.rest = t.rest[n:]; len(t.rest) == 0 {
			t.rest = nil
		}
		return n, nil
	case t.dry:
		return 0, ErrAgain
	}
	n, e := sock.Read(t.fd, p)
	switch {
	case e == sock.Again:
		t.dry = true
		return 0, ErrAgain
	case e != 0:
		t.failed = e
		return 0, e
	case n == 0:
		return 0, io.EOF
	case n < len(p) && !t.thorough:
		t.dry = true
	}
	return n, nil
}

// Write implements net.Conn. It takes all of p, which is one record, or the messages of a handshake.
func (t *transport) Write(p []byte) (int, error) {
	if t.hand != nil {
		t.hand.out = append(t.hand.out, p...)
		return len(p), nil
	}
	if t.failed != 0 {
		return 0, t.failed
	}
	t.records--
	if b := t.offload; b != nil {
		b.sent++
		b.spoiled = b.spoiled || b.reading
	}
	n := 0
	if t.out.Size() == 0 {
		var e sock.Errno
		// The records of one Write leave together.
		if n, e = sock.Write(t.fd, p, t.records > 0); e != 0 && e != sock.Again {
			t.failed = e
			return 0, e
		}
	}
	if n < len(p) {
		t.out.Append(t.buffers, p[n:])
	}
	return len(p), nil
}

// Close implements net.Conn: the socket is the session's.
func (t *transport) Close() error { return nil }

// LocalAddr implements net.Conn, and is of no use.
func (t *transport) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn, and is of no use.
func (t *transport) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn: nothing here waits.
func (t *transport) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn: nothing here waits.
func (t *transport) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn: nothing here waits.
func (t *transport) SetWriteDeadline(time.Time) error { return nil }

var errGivenUp = errors.New("the session is over")
