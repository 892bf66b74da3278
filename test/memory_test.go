package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// The tests of this file measure the balancer's memory. They do not run in parallel with others.

// TestIdleSessions holds 9,000 idle sessions: two descriptors each, and at most 1 KiB of the balancer's own memory.
func TestIdleSessions(t *testing.T) {
	const (
		sessions    = 9000
		descriptors = 20_000
		memory      = 1 << 10
	)
	backend := harness.StartChild(t, "echo")
	address := strings.TrimPrefix(backend.WaitStdout(t, "listening on "), "listening on ")
	b := world{Backends: []string{address}, Descriptors: descriptors, Measured: true}.start(t)

	memoryBefore := b.AnonMemory(t)
	clients := harness.StartChild(t, "clients", b.Address(t, "main"), strconv.Itoa(sessions))
	clients.WaitStdout(t, "ready")
	if total := b.Descriptors(t).Total() - b.StartDescriptors().Total(); total != 2*sessions {
		t.Errorf("%d descriptors for %d sessions, expected two each", total, sessions)
	}
	grown := b.AnonMemory(t) - memoryBefore
	t.Logf("%d sessions took %d bytes of memory each, %d KiB in all", sessions, grown/sessions, grown>>10)
	if grown > sessions*memory {
		t.Errorf("%d bytes of memory for each session, expected at most %d", grown/sessions, memory)
	}

	clients.Say(t, "again") // idle is not lost: all are still served
	clients.WaitStdout(t, "ok")
	clients.CloseStdin(t)
	if code := clients.Wait(t); code != 0 {
		t.Errorf("the clients ended with exit code %d", code)
	}
	oneOf(t, b.WaitSessions(t, sessions), "client_closed")
	backend.CloseStdin(t)
}

// slowReaders is how many sessions do not read while their other side sends without end.
const slowReaders = 64

// slowMemory bounds the balancer's memory for all of them: 64 KiB of kept data each (pages of pipes are the kernel's),
// the same for the runtime, and all of that doubled.
const slowMemory = 16 << 20

func TestSlowReaders(t *testing.T) {
	endless := func(c net.Conn, moved *atomic.Int64) {
		// ends with c
		_, _ = harness.Traffic{Size: 1 << 40, Chunk: 64 << 10}.Send(io.MultiWriter(c, &counter{n: moved}))
	}
	t.Run("clients", func(t *testing.T) {
		var moved atomic.Int64
		slowlyRead(t, &moved,
			func(_ context.Context, c *net.TCPConn) { endless(c, &moved) },
			func(*net.TCPConn) {},
			func(clients []*net.TCPConn) {
				for _, c := range clients {
					_, err := io.CopyN(io.Discard, c, 1<<20)
					check(t, err)
				}
			})
	})
	t.Run("backends", func(t *testing.T) {
		var moved atomic.Int64
		slowlyRead(t, &moved, harness.Unread,
			func(c *net.TCPConn) { endless(c, &moved) },
			func([]*net.TCPConn) {})
	})
}

// slowlyRead measures when every session has stalled, and again after the readers have read a little.
func slowlyRead(t *testing.T, moved *atomic.Int64, handle harness.Handler, use func(*net.TCPConn),
	goOn func([]*net.TCPConn)) {
	backend := harness.Serve(t, handle)
	b := world{Backends: []string{backend.Address()}, Measured: true}.start(t)
	t.Cleanup(backend.Close)
	before := b.AnonMemory(t)
	clients := make([]*net.TCPConn, slowReaders)
	for i := range clients {
		clients[i] = b.Dial(t, "main")
		// not below the 64 KiB that loopback packets hold, or the window would only open by the persist timer
		check(t, clients[i].SetReadBuffer(256<<10))
		go use(clients[i]) // ends with the connection
	}
	measure := func() {
		t.Helper()
		awaitStall(t, moved)
		grown := b.AnonMemory(t) - before
		t.Logf("%d MiB sent, memory grown by %d KiB", moved.Load()>>20, grown>>10)
		if grown > slowMemory {
			t.Errorf("memory grown by %d bytes for %d slow readers, expected at most %d",
				grown, slowReaders, slowMemory)
		}
	}
	measure()
	if backend.Accepted() != slowReaders {
		t.Fatalf("%d of %d sessions reached the backend", backend.Accepted(), slowReaders)
	}
	goOn(clients)
	measure()
}

// awaitStall waits until nothing is sent during half a second of polling.
func awaitStall(t *testing.T, moved *atomic.Int64) {
	t.Helper()
	last, same := int64(-1), 0
	harness.Eventually(t, "all readers stall their senders", func() error {
		now := moved.Load()
		if now != last {
			last, same = now, 0
		}
		if same++; same < 50 {
			return fmt.Errorf("%d bytes sent and counting", now)
		}
		return nil
	})
}
