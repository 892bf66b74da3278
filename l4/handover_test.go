package l4_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// TestHandOverSessions holds that sessions at rest go on in another process with what they had, that their listener's address
// stays, and that the one that hands over ends without waiting.
func TestHandOverSessions(t *testing.T) {
	for _, loops := range [][2]int{{1, 1}, {2, 2}, {2, 1}, {1, 3}, {3, 2}} {
		at := backend(t, echo)
		before := descriptors(t)
		from := start(t, l4.Options{Loops: loops[0]}, spec(newPool(t, at)))
		const sessions = 20
		var clients []*net.TCPConn
		for range sessions {
			c := dial(t, address(from))
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		old := listOf(t, from, l4.SessionFilter{})
		p := newPool(t, at)
		u := beginHandOver(t, from, l4.Options{Loops: loops[1]}, spec(p))
		if address(u.to) != address(from) {
			t.Errorf("%s became %s", address(from), address(u.to))
		}
		u.pause(0)
		u.moveAll(l4.TCP, sessions)
		if n := from.Sessions(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		if n := u.to.Sessions(); n != sessions {
			t.Errorf("%d sessions are there, want %d", n, sessions)
		}
		if b := p.Backends()[0]; b.Leases != sessions {
			t.Errorf("%d leases, want %d", b.Leases, sessions)
		}
		now := listOf(t, u.to, l4.SessionFilter{})
		byID := make(map[l4.SessionID]l4.SessionInfo)
		for _, b := range now.Sessions {
			byID[b.ID] = b
		}
		for _, a := range old.Sessions {
			b := byID[a.ID]
			if a.ID != b.ID || a.Client != b.Client || a.Backend != b.Backend || a.BytesIn != b.BytesIn ||
				a.BytesOut != b.BytesOut || a.Phase != b.Phase || b.Accepted.Sub(a.Accepted).Abs() > time.Second/10 ||
				b.Connected.Sub(a.Connected).Abs() > time.Second/10 || b.Age < a.Age {
				t.Errorf("%+v became %+v", a, b)
			}
		}
		clients = append(clients, dial(t, address(from)))
		for _, c := range clients {
			if err := ask(c); err != nil {
				t.Error(err)
			}
		}
		u.finish()
		for _, c := range append(clients, dial(t, address(u.to))) {
			if err := ask(c); err != nil {
				t.Error(err)
			}
			c.Close()
		}
		eventually(t, "all have ended", func() bool { return u.to.Sessions() == 0 })
		i := info(u.to)
		if i.Accepted != sessions+2 || i.Ended[tally.ClientClosed] != sessions+2 || i.Duration.Count != sessions+2 ||
			i.ConnectTime.Count != sessions+2 {
			t.Errorf("%+v", i)
		}
		if err := u.to.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before })
	}
}

// TestHandOverBusy holds that a transfer comes to rest, and that no byte of it is lost, doubled or changed.
func TestHandOverBusy(t *testing.T) {
	const size = 64 << 20
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	at := backend(t, func(c *net.TCPConn) {
		buf := bytes.NewBuffer(nil)
		_, _ = io.CopyN(buf, c, 1)
		for range size / len(data) {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	})
	server := start(t, l4.Options{Loops: 2}, spec(newPool(t, at)))
	c := dial(t, address(server))
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	sum := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if _, err := io.Copy(h, c); err != nil {
			t.Error(err)
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	hops := 0
	for sent := uint64(0); sent < size/2; hops++ {
		more := sent + 1<<20
		eventually(t, "bytes move", func() bool {
			sent = listOf(t, server, l4.SessionFilter{}).Sessions[0].BytesOut
			return sent >= more
		})
		u := beginHandOver(t, server, l4.Options{Loops: 2}, spec(newPool(t, at)))
		u.pause(0)
		eventually(t, "the session moves", func() bool {
			moved, _ := u.move(l4.TCP, 10)
			return moved > 0
		})
		u.finish()
		server = u.to
	}
	t.Logf("%d times", hops)
	want := sha256.New()
	for range size / len(data) {
		want.Write(data)
	}
	if got := <-sum; got != [32]byte(want.Sum(nil)) {
		t.Error("the client has got something else")
	}
	c.Close()
	eventually(t, "it has ended", func() bool { return server.Sessions() == 0 })
	if i := info(server); i.BytesOut != size || i.BytesIn != 1 || i.Accepted != 1 || i.Duration.Count != 1 {
		t.Errorf("%d bytes out, %d in, %d accepted, %d ended", i.BytesOut, i.BytesIn, i.Accepted, i.Duration.Count)
	}
}
