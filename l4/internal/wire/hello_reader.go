package wire

import "encoding/binary"

// Extensions that a Hello is made of (IANA's registry of TLS ExtensionType values).
const (
	extensionServerName = 0  // RFC 6066
	extensionALPN       = 16 // RFC 7301
)

const serverNameHost = 0 // RFC 6066, 3: the only type of server names there is

// maxHostName is the longest host name (RFC 1035, 2.3.4: 255 bytes with the length of the first label and the root),
// and maxLabel the longest of its labels.
const (
	maxHostName = 253
	maxLabel    = 63
)

// A helloReader reads bytes of a message over the boundaries of its records. The records are complete and checked. It
// is a plain value: a copy reads on its own. Its zero value is at its end.
type helloReader struct {
	b    []byte
	at   int  // of the next byte, or of the record header in front of it
	end  int  // of the record
	left int  // bytes of the message, or of the part that it reads
	bad  bool // a read went beyond the end; it returned zeros
}

// skip skips n bytes.
func (r *helloReader) skip(n int) {
	if n > r.left {
		r.bad = true
		n = r.left
	}
	r.left -= n
	for n > 0 {
		r.enter()
		step := min(n, r.end-r.at)
		r.at += step
		n -= step
	}
}

// enter enters the next record at the end of one.
func (r *helloReader) enter() {
	if r.at == r.end {
		r.end = r.at + recordHeaderBytes + int(binary.BigEndian.Uint16(r.b[r.at+3:]))
		r.at += recordHeaderBytes
	}
}

func (r *helloReader) uint8() byte {
	if r.left == 0 {
		r.bad = true
		return 0
	}
	r.enter()
	c := r.b[r.at]
	r.at++
	r.left--
	return c
}

func (r *helloReader) uint16() int {
	high := int(r.uint8())
	return high<<8 | int(r.uint8())
}

// part returns a reader of the next n bytes, and skips them.
func (r *helloReader) part(n int) helloReader {
	part := *r
	part.left = min(n, r.left)
	r.skip(n)
	return part
}

// vector8 returns a reader of a vector whose length has one byte, and skips it; vector16 does for two bytes.
func (r *helloReader) vector8() helloReader  { return r.part(int(r.uint8())) }
func (r *helloReader) vector16() helloReader { return r.part(r.uint16()) }

// hello reads a ClientHello (RFC 8446, 4.1.2).
func (r *helloReader) hello(h *Hello) error {
	r.skip(messageHeaderBytes)
	if r.uint8() != tlsMajor {
		return ErrMalformedHello
	}
	r.skip(1 + randomBytes)
	session := r.vector8()
	suites := r.vector16()
	compression := r.vector8()
	if r.bad || session.left > maxSessionIDBytes || suites.left == 0 || suites.left%2 != 0 || compression.left == 0 {
		return ErrMalformedHello
	}
	if r.left == 0 {
		return nil // up to TLS 1.2 there may be no extensions (RFC 5246, 7.4.1.2)
	}
	extensions := r.vector16()
	if r.bad || r.left != 0 {
		return ErrMalformedHello
	}
	return extensions.extensions(h)
}

// extensions reads the extensions of a ClientHello.
func (r *helloReader) extensions(h *Hello) error {
	var seen [1 << 16 / 64]uint64 // by type; 8 KiB of stack, so that many extensions cost no more than linear time
	for r.left > 0 {
		kind := r.uint16()
		data := r.vector16()
		if r.bad || seen[kind/64]>>(kind%64)&1 != 0 {
			return ErrMalformedHello
		}
		seen[kind/64] |= 1 << (kind % 64)
		switch kind {
		case extensionServerName:
			if err := data.serverNames(h); err != nil {
				return err
			}
		case extensionALPN:
			list := data.vector16()
			if data.bad || data.left != 0 || !list.protocolNames() {
				return ErrMalformedHello
			}
			h.protocols = list
		}
	}
	return nil
}

// protocolNames reports whether the reader's bytes are a ProtocolNameList without its length (RFC 7301, 3.1): names of
// at least one byte, and at least one name.
func (r helloReader) protocolNames() bool {
	if r.left == 0 {
		return false
	}
	for r.left > 0 {
		if name := r.vector8(); r.bad || name.left == 0 {
			return false
		}
	}
	return true
}

// serverNames reads a ServerNameList (RFC 6066, 3). It skips names of unknown types, which have a length of two bytes
// too. A second host name is malformed.
func (r *helloReader) serverNames(h *Hello) error {
	list := r.vector16()
	if r.bad || r.left != 0 || list.left == 0 {
		return ErrMalformedHello
	}
	for list.left > 0 {
		kind := list.uint8()
		name := list.vector16()
		if list.bad || name.left == 0 || kind == serverNameHost && h.nameBytes > 0 {
			return ErrMalformedHello
		}
		if kind == serverNameHost && !name.hostName(h) {
			return ErrServerName
		}
	}
	return nil
}

// hostName reads a host name, stores it in lower case, and reports whether it is one: labels of letters, digits,
// hyphens and underscores, without a final dot. A last label of digits alone is an IPv4 address, or a part of one.
func (r *helloReader) hostName(h *Hello) bool {
	if r.left > maxHostName {
		return false
	}
	n, label, digits := r.left, 0, true // the length of the current label, and whether it has only digits
	for i := range n {
		c := r.uint8()
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label, digits = -1, true
		case 'A' <= c && c <= 'Z':
			c |= 0x20
			digits = false
		case 'a' <= c && c <= 'z', c == '-', c == '_':
			digits = false
		case c < '0' || c > '9':
			return false
		}
		if label++; label > maxLabel {
			return false
		}
		h.name[i] = c
	}
	h.nameBytes = uint8(n)
	return label > 0 && !digits
}
