package flow_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// TestFlowBacklog holds that a few datagrams for a socket that takes no more wait in their order, and that the rest
// is dropped and counted.
func TestFlowBacklog(t *testing.T) {
	got := make(chan string, 100)
	b := startUDP(t, func(_ *l4test.UDPBackend, _ netip.AddrPort, d []byte) { got <- string(d) })
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	send := func(i int) {
		if _, err := fmt.Fprint(c, i); err != nil {
			t.Fatal(err)
		}
	}
	send(0)
	<-got
	onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) { flow.Block(f) })
	const more = 8
	for i := range flow.BacklogDatagrams + more {
		send(i + 1)
	}
	awaitDropped(t, s, tally.DropQueueFull, more)
	select {
	case d := <-got:
		t.Fatalf("%q was sent", d)
	default:
	}
	onOneFlow(s, flow.WatchRoom)
	for i := range flow.BacklogDatagrams {
		if d := <-got; d != fmt.Sprint(i+1) {
			t.Fatalf("%q came as number %d", d, i+1)
		}
	}
	send(99)
	if d := <-got; d != "99" {
		t.Errorf("%q after them", d)
	}
	onOneFlow(s, func(l *flow.Loop, f *flow.Flow) {
		if flow.Keeps(f) || flow.Blocked(f) || flow.FreeBacklogs(l) != 1 {
			t.Error("the backlog was not given back")
		}
		flow.Block(f)
	})
	send(100)
	eventually(t, "it waits", func() (waits bool) {
		onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) { waits = flow.Keeps(f) })
		return waits
	})
	if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
		t.Fatal(err)
	}
	awaitDropped(t, s, tally.DropFlowEnded, 1)
}

// TestFlowBacklogBytes holds that the backlog is bounded in bytes, too.
func TestFlowBacklogBytes(t *testing.T) {
	b := startUDP(t, nil)
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	c := dialUDP(t, address(s))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	awaitFlows(t, s, 1)
	onOneFlow(s, func(_ *flow.Loop, f *flow.Flow) { flow.Block(f) })
	for range 7 {
		if _, err := c.Write(make([]byte, 60_000)); err != nil {
			t.Fatal(err)
		}
	}
	awaitDropped(t, s, tally.DropQueueFull, 7-flow.BacklogBytes/60_000)
}

// TestFlowSocketBlocked holds that answers wait in the kernel while a listener's socket takes no more, and that those
// of all flows come when it does.
func TestFlowSocketBlocked(t *testing.T) {
	const answers = 100
	b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		for i := range answers {
			_, _ = b.WriteToUDPAddrPort(fmt.Append(nil, string(d), i), from)
		}
	})
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	var clients []*net.UDPConn
	onFirstLoop(s, flow.BlockSocket)
	for range 3 {
		c := dialUDP(t, address(s))
		clients = append(clients, c)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the flows wait", func() (all bool) {
		onFirstLoop(s, func(l *flow.Loop) { all = flow.Waiting(l) == len(clients) })
		return all
	})
	onFirstLoop(s, flow.WatchSocketRoom)
	buf := make([]byte, 100)
	for _, c := range clients {
		for i := range answers {
			n, ok := readUDP(t, c, buf, 20*time.Second)
			if !ok || string(buf[:n]) != fmt.Sprint("x", i) {
				t.Fatalf("%q (%v) as answer %d", buf[:n], ok, i)
			}
		}
	}
	if d := info(s).Dropped; len(d) != 0 {
		t.Errorf("%v", d)
	}
}

// TestFlowsBesideTrouble holds that clients are served beside a backend that says nothing, one that floods, one that
// refuses, and a client that floods: none of them holds up the loop.
func TestFlowsBesideTrouble(t *testing.T) {
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	t.Cleanup(flooding.Wait)
	t.Cleanup(func() { close(stop) })
	flood := func(send func()) {
		flooding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					send()
				}
			}
		})
	}
	good := startUDP(t, echoUDP)
	flooder := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		flood(func() { _, _ = b.WriteToUDPAddrPort(d, from) })
	})
	trouble := flowSpec(newPool(t, startUDP(t, nil).Address(), refusing(t), flooder.Address()))
	trouble.Name = "trouble"
	well := flowSpec(newPool(t, good.Address(), startUDP(t, nil).Address())) // the second is for the client that floods
	well.Name = "well"
	s := start(t, l4.Options{Loops: 1}, trouble, well)
	at := make(map[string]string)
	for _, ls := range s.Listeners() {
		at[ls.Name] = ls.Address.String()
	}
	for range 6 {
		if _, err := dialUDP(t, at["trouble"]).Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	c := dialUDP(t, at["well"])
	askUDP(t, c, "first")
	loud, err := net.Dial("udp", at["well"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loud.Close() })
	eventually(t, "the backend floods", func() bool { return s.Listeners()[0].DatagramsOut > 1000 })
	flood(func() { _, _ = loud.Write(make([]byte, 100)) })
	// The flood and this client share the kernel's buffer for the listener, so that a datagram may be lost.
	buf := make([]byte, 100)
	for i := range 20 {
		want := fmt.Sprint(i)
		eventually(t, "an answer", func() bool {
			if _, err := c.Write([]byte(want)); err != nil {
				t.Fatal(err)
			}
			n, ok := readUDP(t, c, buf, 50*time.Millisecond)
			return ok && string(buf[:n]) == want
		})
	}
}

// TestFlowOverload holds that a client that sends more than the loop can take does not cost another client its
// datagrams: only the flood is dropped, and nothing more once it is over. A client that is alone may send as fast as
// it likes.
func TestFlowOverload(t *testing.T) {
	var quiet, loud atomic.Int64
	b := startUDP(t, func(_ *l4test.UDPBackend, _ netip.AddrPort, d []byte) {
		if string(d) == "quiet" {
			quiet.Add(1)
		} else {
			loud.Add(1)
		}
	})
	s := start(t, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
	send := func(c *net.UDPConn, d string) {
		if _, err := c.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	flooder, other := dialUDP(t, address(s)), dialUDP(t, address(s))
	const burst, every = 3000, 100
	flood := func(both bool) {
		release := hold(t, s, 0)
		for i := range burst {
			send(flooder, "loud")
			if both && i%every == 0 {
				send(other, "quiet")
			}
		}
		release()
	}
	flood(false)
	eventually(t, "all of a lone client's come", func() bool { return loud.Load() == burst })
	flood(true)
	eventually(t, "all of the quiet client's come", func() bool { return quiet.Load() == burst/every })
	eventually(t, "each of the flood has come or is counted", func() bool {
		return uint64(loud.Load())+info(s).Dropped[tally.DropOverload] == 2*burst
	})
	dropped := info(s).Dropped
	if n := dropped[tally.DropOverload]; n < burst/2 || len(dropped) != 1 {
		t.Errorf("dropped: %v", dropped)
	}
	send(other, "quiet")
	flood(false)
	eventually(t, "a lone client's come again", func() bool {
		return uint64(loud.Load())+info(s).Dropped[tally.DropOverload] == 3*burst
	})
	if more := info(s).Dropped[tally.DropOverload] - dropped[tally.DropOverload]; more > 2*flow.MostQuota {
		t.Errorf("%d of a lone client's were dropped", more)
	}
}
