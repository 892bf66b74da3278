package l4test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// A firstFlight is a connection that keeps what is written to it, and whose peer says nothing.
type firstFlight struct {
	net.Conn
	written []byte
}

func (c *firstFlight) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}

func (c *firstFlight) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *firstFlight) SetDeadline(time.Time) error      { return nil }
func (c *firstFlight) SetWriteDeadline(time.Time) error { return nil }
func (c *firstFlight) Close() error                     { return nil }

// ClientHello returns the ClientHello of a crypto/tls client, which has ML-KEM key shares and is longer than a segment
// of Ethernet. The name may be "", and then there is none.
func ClientHello(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	var c firstFlight
	_ = tls.Client(&c, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protocols}).Handshake()
	if len(c.written) == 0 {
		t.Fatalf("no hello for %q", name)
	}
	return c.written
}

// InRecords splits a ClientHello into records with so many bytes of the message each.
func InRecords(hello []byte, size int) (split []byte) {
	for message := hello[5:]; len(message) > 0; {
		n := min(size, len(message))
		split = append(split, hello[:3]...)
		split = binary.BigEndian.AppendUint16(split, uint16(n))
		split = append(split, message[:n]...)
		message = message[n:]
	}
	return split
}
