package tlsconn

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A Conn can go into the kernel: the keys of its handshake go into the socket, and the loop then reads and writes it as
// one without TLS. crypto/tls does not give the keys away, but it writes the secrets that they are derived from into a
// log (KeyLogWriter), and what else is needed can be counted from outside: the records of each direction. For that a
// Conn that may go into the kernel reads no further than to the end of a record, so that crypto/tls holds nothing that
// the kernel would have to decrypt.
//
// It goes with the first data, and not right behind the handshake: a backend's session tickets come between the two, and
// only crypto/tls can take them.

// An offload is what a Conn needs to go into the kernel.
type offload struct {
	suites *sock.KernelTLS

	client bool // the Conn is the client of its peer, a backend
	// secrets of TLS 1.3 (RFC 8446, 7.1) for what the client and the server send; empty before they are known
	clientSecret, serverSecret []byte

	in      edge   // of the peer's records; it counts those behind the handshake
	sent    uint64 // records behind the handshake, session tickets among them
	carried bool   // the peer has sent data, or a client has got some
	partial bool   // crypto/tls may hold a part of a record that is decrypted

	reading bool // crypto/tls reads just now, so that whatever it writes is not ours
	short   bool // the record that was read last can be a KeyUpdate
	spoiled bool // the keys have changed, or may have
}

// kernelTLS is what the kernel can do. Tests, whose kernel may have no TLS, replace it.
var kernelTLS = sock.DetectKernelTLS

// mayOffload makes a Conn, which has yet to begin its handshake, one that may go into the kernel. It returns the
// configuration for the handshake.
func (c *Conn) mayOffload(config *tls.Config, client bool) *tls.Config {
	kernel := kernelTLS()
	if len(kernel.Suites) == 0 {
		return config
	}
	b := &offload{suites: kernel, client: client}
	c.offload = b
	own := config.Clone()
	own.KeyLogWriter = b
	if !client && !config.SessionTicketsDisabled {
		own.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
			b.sent++ // each is a record of its own, under the keys of the session
			return config.EncryptTicket(state, session)
		}
	}
	return own
}

// Write implements io.Writer for the log of secrets (draft-ietf-tls-keylogfile): lines of a label, the client's random
// and a secret, of which those of the session are kept.
func (b *offload) Write(line []byte) (int, error) {
	label, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	_, secret, _ := bytes.Cut(rest, []byte(" "))
	var into *[]byte
	switch string(label) {
	case "CLIENT_TRAFFIC_SECRET_0":
		into = &b.clientSecret
	case "SERVER_TRAFFIC_SECRET_0":
		into = &b.serverSecret
	default:
		return len(line), nil
	}
	*into = make([]byte, hex.DecodedLen(len(secret)))
	_, err := hex.Decode(*into, secret)
	return len(line), err
}

// dropOffload makes a Conn stay as it is.
func (c *Conn) dropOffload() {
	if b := c.offload; b != nil {
		clear(b.clientSecret)
		clear(b.serverSecret)
		c.offload = nil
	}
}

// checkOffload looks at a handshake that is over, and drops the offload if the kernel cannot do what was agreed upon.
func (c *Conn) checkOffload() {
	b := c.offload
	if b == nil {
		return
	}
	b.in.whole = 0
	state := c.tls.ConnectionState()
	if state.Version != tls.VersionTLS13 || !b.suites.Has(state.CipherSuite) || len(b.clientSecret) == 0 ||
		len(b.serverSecret) == 0 {
		c.dropOffload()
	}
}

// begins notes that crypto/tls is called to read, with room for at least one byte.
func (b *offload) begins() {
	b.reading = true
	if b.in.between() {
		b.short = false
	}
}

// ends notes what it has returned: n bytes, of at most so many.
func (b *offload) ends(n, most int) {
	b.reading = false
	switch {
	case n > 0:
		b.carried, b.partial = true, n == most
	case b.short && b.in.between():
		b.spoiled = true
	}
}

// keyUpdateBytes is the body of a record with a KeyUpdate (RFC 8446, 4.6.3, 5.2): header and content of the message, the
// type of the record, its seal. A peer that hides one by padding breaks its own session only.
const keyUpdateBytes = 4 + 1 + 1 + 16

// Ripe reports whether the Conn can go into the kernel now.
func (c *Conn) Ripe() bool {
	b := c.offload
	if b == nil || !b.carried || b.partial || !b.in.between() || len(c.rest) > 0 || c.shut || c.failed != 0 || c.Owes() {
		return false
	}
	if b.spoiled {
		c.dropOffload()
		return false
	}
	return true
}

// IntoKernel makes the kernel go on with a Conn that is Ripe. It reports false, and Failed says why the connection is of
// no use if it is: else the Conn stays as it is. If it reports true, the Conn has only to be closed.
func (c *Conn) IntoKernel() bool {
	b := c.offload
	defer c.dropOffload()
	if sock.BeginKernelTLS(c.fd) != 0 {
		return false // the peer has ended its side, or memory is short
	}
	send, receive := b.keys(c.tls.ConnectionState().CipherSuite)
	c.failed = sock.SetKernelTLS(c.fd, send, receive)
	clear(send.Key)
	clear(receive.Key)
	return c.failed == 0
}

// keys are those of the two directions, for their next records.
func (b *offload) keys(suite uint16) (send, receive *sock.KernelKeys) {
	from, to := b.clientSecret, b.serverSecret
	if b.client {
		from, to = to, from
	}
	return kernelKeys(suite, to, b.sent), kernelKeys(suite, from, b.in.whole)
}

// kernelKeys derives the keys of one direction from its secret (RFC 8446, 7.3).
func kernelKeys(suite uint16, secret []byte, sequence uint64) *sock.KernelKeys {
	k := &sock.KernelKeys{Suite: suite, Sequence: sequence}
	hash := sha256.New
	if suite == tls.TLS_AES_256_GCM_SHA384 {
		hash = sha512.New384
	}
	k.Key = expandLabel(hash, secret, "key", sock.KernelKeyBytes(suite))
	copy(k.IV[:], expandLabel(hash, secret, "iv", len(k.IV)))
	return k
}

// expandLabel is HKDF-Expand-Label without a context (RFC 8446, 7.1).
func expandLabel[H hash.Hash](hash func() H, secret []byte, label string, bytes int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(bytes))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	key, err := hkdf.Expand(hash, secret, string(info), bytes)
	if err != nil {
		panic("tlsconn: " + err.Error()) // only lengths and FIPS 140 modes that do not fit cause it
	}
	return key
}

// recordHeaderBytes is the size of a record's header (RFC 8446, 5.1).
const recordHeaderBytes = 5

// An edge finds where the records of a stream end. Its zero value is at the beginning of the first.
type edge struct {
	header [recordHeaderBytes]byte
	have   uint8 // bytes of the header
	body   int   // bytes that are left, once the header is complete
	whole  uint64
}

// between reports whether the stream is at the end of a record.
func (g *edge) between() bool { return g.have == 0 }

// most is how many bytes can be read without going beyond the end of the record, or of its header.
func (g *edge) most() int {
	if g.have < recordHeaderBytes {
		return recordHeaderBytes - int(g.have)
	}
	return g.body
}

// pass notes bytes that were read, at most as many as most says. It returns the size of the record's body when its
// header has become complete, else -1.
func (g *edge) pass(p []byte) (size int) {
	if g.have < recordHeaderBytes {
		g.have += uint8(copy(g.header[g.have:], p))
		if g.have < recordHeaderBytes {
			return -1
		}
		g.body = int(binary.BigEndian.Uint16(g.header[3:]))
		size = g.body
	} else {
		g.body -= len(p)
		size = -1
	}
	if g.body == 0 {
		g.have = 0
		g.whole++
	}
	return size
}
