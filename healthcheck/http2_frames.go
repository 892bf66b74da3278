package healthcheck

import (
	"io"
	"net"
)

// Of the header of a frame of HTTP/2. Source: RFC 9113, 4.1 and 6.
const (
	frameHeaderBytes  = 9
	typeAt            = 3 // after three bytes of length
	settingsFrame     = 4
	lastKnownFrame    = 9
	longestKnownFrame = 1 << 14 // unless we allowed more, which net/http does not
)

// A frameFilter is a connection without the frames of HTTP/2 whose type net/http does not know. It would write a line to
// the process' log for each of them, and a target can send tens of thousands of them at each check.
//
// One goroutine reads from it. What does not begin as HTTP/2 does, and frames that are too long, it leaves to net/http to
// refuse.
type frameFilter struct {
	net.Conn

	header [frameHeaderBytes]byte
	out    []byte // of header, still to be returned
	left   int    // of the frame, still to be returned
	begun  bool   // there was a first frame
	broken bool   // nothing is looked at any more
}

// Read implements net.Conn.
func (f *frameFilter) Read(p []byte) (int, error) {
	for {
		switch {
		case len(f.out) > 0:
			n := copy(p, f.out)
			f.out = f.out[n:]
			return n, nil
		case f.broken:
			return f.Conn.Read(p)
		case f.left > 0:
			n, err := f.Conn.Read(p[:min(len(p), f.left)])
			f.left -= n
			return n, err
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
}

// next reads the header of a frame, and all of a frame that is not passed on.
func (f *frameFilter) next() error {
	if _, err := io.ReadFull(f.Conn, f.header[:]); err != nil {
		return err
	}
	h := f.header[:]
	length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	f.broken = !f.begun && h[typeAt] != settingsFrame || length > longestKnownFrame
	f.begun = true
	if !f.broken && h[typeAt] > lastKnownFrame {
		_, err := io.CopyN(io.Discard, f.Conn, int64(length))
		return err
	}
	f.out, f.left = h, length
	return nil
}
