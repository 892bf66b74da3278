package wire

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/test/harness"
)

// A recording is one session with a real server, in the order in which a balancer would relay it.
type recording struct {
	address string // connect here

	mu      sync.Mutex
	session []turn
}

// record relays the first connection to its address to a server, until both have closed.
func record(t *testing.T, server string) *recording {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{address: listener.Addr().String()}
	ended := make(chan struct{})
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		c, err := listener.Accept()
		if err != nil {
			return
		}
		listener.Close()
		defer c.Close()
		s, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		var copies sync.WaitGroup
		copies.Go(func() { r.relay(s, c, '>') })
		copies.Go(func() { r.relay(c, s, '<') })
		copies.Wait()
	}()
	return r
}

// relay copies one direction. Bytes are recorded before they go on, and so before what they lead to.
func (r *recording) relay(to, from net.Conn, side byte) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			r.add(turn{side, string(b[:n])})
			_, _ = to.Write(b[:n])
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// add adds a turn, or a check of what is true now.
func (r *recording) add(one turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = append(r.session, one)
}

// sent returns what the client has sent so far, checks of what is true left out.
func (r *recording) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, one := range r.session {
		if one.from == '>' {
			b.WriteString(one.text)
		}
	}
	return b.String()
}

// turns returns the session so far.
func (r *recording) turns() []turn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.session)
}

// testRecording plays a recording in random pieces.
func testRecording[F any, P interface {
	*F
	follower
}](t *testing.T, r *recording) {
	t.Helper()
	session := r.turns()
	checks := 0
	for _, one := range session {
		if one.from == '?' {
			checks++
		}
	}
	if checks < 2 {
		t.Fatalf("only %d checks in %d turns", checks, len(session))
	}
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{1, 7, 64, 1 << 20}).Draw(t, "most")
		seed := rapid.Uint64().Draw(t, "seed")
		cut := func(left int) int {
			seed = seed*6364136223846793005 + 1442695040888963407
			return 1 + int(seed>>33)%min(left, most)
		}
		if err := play(P(new(F)), session, cut); err != nil {
			t.Fatal(err)
		}
	})
}

// readTo waits until a connection has read what ends with a text, and nothing behind it.
func readTo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var got []byte
		b := make([]byte, 4096)
		for !strings.HasSuffix(string(got), text) {
			n, err := c.Read(b)
			if got = append(got, b[:n]...); err != nil {
				done <- fmt.Errorf("after %q: %w", got, err)
				return
			}
		}
		done <- nil
	}()
	if err := harness.Receive(t, fmt.Sprintf("the reply %q", text), done); err != nil {
		t.Fatal(err)
	}
}
