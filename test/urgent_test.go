package test

import (
	"bytes"
	"context"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestUrgentByte sends TCP urgent data in the middle of a stream. Reads stop at its mark, so code that takes a short
// read for an empty buffer would stall there. The byte itself may be lost (RFC 6093 advises against its use); all
// others must arrive in order.
func TestUrgentByte(t *testing.T) {
	t.Parallel()
	before, after := bytes.Repeat([]byte("before "), 100), bytes.Repeat([]byte("after "), 100)
	sendAll := func(t *testing.T, c *net.TCPConn) {
		t.Helper()
		check(t, harness.SendAll(c, string(before)))
		check(t, sendUrgent(c, '!'))
		check(t, harness.SendAll(c, string(after)))
	}
	without := append(append([]byte{}, before...), after...)
	with := append(append(append([]byte{}, before...), '!'), after...)
	checkGot := func(t *testing.T, got []byte) {
		t.Helper()
		if !bytes.Equal(got, without) && !bytes.Equal(got, with) {
			t.Errorf("got %d bytes %q, expected %d or %d", len(got), got, len(without), len(with))
		}
	}

	t.Run("from the client before the backend is connected", func(t *testing.T) {
		got := make(chan []byte, 1)
		backend := harness.Swallow(t, readAndAnswer(got, len(without)))
		b := world{Backends: []string{backend.Address()}, Pool: []string{`connect_timeout = "50s"`}}.start(t)
		c := b.Dial(t, "main")
		sendAll(t, c)
		backend.AwaitSYN(t)
		backend.Open(t)
		awaitAnswer(t, c) // the client's half stays open: the bytes after the urgent one must arrive without a FIN
		check(t, c.CloseWrite())
		checkGot(t, harness.Receive(t, "what the backend got", got))
	})
	t.Run("from the client", func(t *testing.T) {
		got := make(chan []byte, 1)
		b, _ := between(t, readAndAnswer(got, len(without)))
		c := b.Dial(t, "main")
		sendAll(t, c)
		awaitAnswer(t, c)
		check(t, c.CloseWrite())
		checkGot(t, harness.Receive(t, "what the backend got", got))
	})
	t.Run("from the backend", func(t *testing.T) {
		_, client, backend := connected(t)
		sendAll(t, backend)
		got := make([]byte, len(without))
		_, err := io.ReadFull(client, got)
		check(t, err)
		check(t, backend.CloseWrite())
		rest, err := io.ReadAll(client)
		check(t, err)
		checkGot(t, append(got, rest...))
	})
	t.Run("in the middle of bulk", func(t *testing.T) {
		const half = 16 << 20
		_, client, backend := connected(t)
		sent := make(chan error, 1)
		go func() {
			_, err := harness.Traffic{Size: half, Chunk: 64 << 10}.Send(client)
			if err == nil {
				err = sendUrgent(client, '!')
			}
			if err == nil {
				_, err = harness.Traffic{Size: half, Chunk: 64 << 10}.Send(client)
			}
			sent <- err
		}()
		n, err := io.Copy(io.Discard, io.LimitReader(struct{ io.Reader }{backend}, 2*half))
		check(t, err)
		check(t, harness.Receive(t, "end of sending", sent))
		check(t, client.CloseWrite())
		rest, err := io.Copy(io.Discard, struct{ io.Reader }{backend})
		check(t, err)
		if n+rest != 2*half && n+rest != 2*half+1 {
			t.Errorf("%d bytes came of %d and an urgent one", n+rest, 2*half)
		}
	})
}

// readAndAnswer returns a handler that reads n bytes, answers with one byte, reads the rest and sends all bytes read to
// got.
func readAndAnswer(got chan<- []byte, n int) harness.Handler {
	return func(_ context.Context, c *net.TCPConn) {
		b := make([]byte, n)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if harness.SendAll(c, ".") != nil {
			return
		}
		rest, err := io.ReadAll(c)
		if err == nil {
			got <- append(b, rest...)
		}
	}
}

func awaitAnswer(t *testing.T, c *net.TCPConn) {
	t.Helper()
	_, err := io.ReadFull(c, make([]byte, 1))
	check(t, err)
}

// sendUrgent sends one byte of urgent data.
func sendUrgent(c *net.TCPConn, b byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = syscall.Sendto(int(fd), []byte{b}, syscall.MSG_OOB, nil)
		return sendErr != syscall.EAGAIN
	})
	if err != nil {
		return err
	}
	return sendErr
}
