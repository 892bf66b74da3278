package harness

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

// patternBytes is the length of the block that a stream repeats. It is prime, so that a lost, repeated or swapped chunk
// of any usual size never goes unnoticed.
const patternBytes = 4<<20 + 15

// A Digest has the number of bytes and their SHA-256. Digests of equal bytes are equal.
type Digest struct {
	Bytes int64
	Sum   [sha256.Size]byte
}

// String shows the length and the start of the sum.
func (d Digest) String() string { return fmt.Sprintf("%d bytes, sha256 %x...", d.Bytes, d.Sum[:6]) }

// Traffic is what one end of a connection sends: Size bytes that follow from Seed, in writes of Chunk bytes.
type Traffic struct {
	Seed  uint64
	Size  int64
	Chunk int
}

// Send writes the traffic and returns the digest of what was written.
func (tr Traffic) Send(w io.Writer) (Digest, error) {
	pattern := make([]byte, min(patternBytes, tr.Size)+int64(tr.Chunk))
	seed := [32]byte{byte(tr.Seed), byte(tr.Seed >> 8), byte(tr.Seed >> 16), byte(tr.Seed >> 24)}
	_, _ = rand.NewChaCha8(seed).Read(pattern) // never fails
	copy(pattern[min(patternBytes, tr.Size):], pattern)

	sum := sha256.New()
	d := Digest{}
	for d.Bytes < tr.Size {
		start := d.Bytes % patternBytes
		chunk := pattern[start:][:min(int64(tr.Chunk), tr.Size-d.Bytes)]
		sum.Write(chunk)
		n, err := w.Write(chunk)
		d.Bytes += int64(n)
		if err != nil {
			return d, fmt.Errorf("send byte %d of %d: %w", d.Bytes, tr.Size, err)
		}
	}
	sum.Sum(d.Sum[:0])
	return d, nil
}

// Collect reads r to its end and returns the digest of the bytes.
func Collect(r io.Reader) (Digest, error) {
	sum := sha256.New()
	n, err := io.CopyBuffer(sum, struct{ io.Reader }{r}, make([]byte, 256<<10))
	d := Digest{Bytes: n}
	sum.Sum(d.Sum[:0])
	if err != nil {
		return d, fmt.Errorf("receive after byte %d: %w", n, err)
	}
	return d, nil
}

// Exchange sends tr and closes its half of c, while it reads until the other side has closed its half.
func Exchange(c *net.TCPConn, tr Traffic) (sent, got Digest, err error) {
	var sending sync.WaitGroup
	var sendErr error
	sending.Go(func() {
		sent, sendErr = tr.Send(c)
		if sendErr == nil {
			sendErr = c.CloseWrite()
		}
	})
	got, err = Collect(c)
	if err != nil {
		c.Close() // otherwise the sender would wait for a peer that does not read
	}
	sending.Wait()
	return sent, got, errors.Join(err, sendErr)
}

// SendAll writes text.
func SendAll(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("send %d bytes: %w", len(text), err)
	}
	return nil
}

// PingPong sends n messages of size bytes, each after the answer to the one before, which must be the same bytes.
func PingPong(c net.Conn, n, size int) error {
	message, answer := make([]byte, size), make([]byte, size)
	for i := range n {
		for k := range message {
			message[k] = byte(i + k)
		}
		if _, err := c.Write(message); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			return fmt.Errorf("answer %d: %w", i, err)
		}
		if !bytes.Equal(message, answer) {
			return fmt.Errorf("answer %d begins with % x, sent % x", i, answer[:min(8, size)], message[:min(8, size)])
		}
	}
	return nil
}
