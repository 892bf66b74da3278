package flow_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestFlowEcho holds that datagrams of all sizes pass both ways whole, with and without trains, and are counted.
func TestFlowEcho(t *testing.T) {
	withOffload(t, func(t *testing.T, o sock.Offload) {
		b := startUDP(t, echoUDP)
		s := startWith(t, o, l4.Options{Loops: 2}, flowSpec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		sizes := []int{0, 1, 1472, 9000, 65507}
		var bytesSent uint64
		buf := make([]byte, 1<<16)
		for i, size := range sizes {
			datagram := bytes.Repeat([]byte{byte(i + 1)}, size)
			bytesSent += uint64(size)
			if _, err := c.Write(datagram); err != nil {
				t.Fatal(err)
			}
			n, ok := readUDP(t, c, buf, 20*time.Second)
			if !ok || !bytes.Equal(buf[:n], datagram) {
				t.Fatalf("%d bytes came back as %d (%v)", size, n, ok)
			}
		}
		info := info(s)
		if info.Accepted != 1 || info.Sessions != 1 || info.Protocol != l4.UDP ||
			info.DatagramsIn != uint64(len(sizes)) || info.DatagramsOut != uint64(len(sizes)) ||
			info.BytesIn != bytesSent || info.BytesOut != bytesSent || len(info.Dropped) != 0 {
			t.Errorf("%+v", info)
		}
	})
}

// TestFlowTrains holds that the boundaries of datagrams stay when they travel as trains, both ways, in their order.
func TestFlowTrains(t *testing.T) {
	withOffload(t, func(t *testing.T, o sock.Offload) {
		b := startUDP(t, echoUDP)
		s := startWith(t, o, l4.Options{Loops: 1}, flowSpec(newPool(t, b.Address())))
		c := dialUDP(t, address(s))
		if err := c.SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		for round, size := range []int{1200, 1, 9000, 1472} {
			var want [][]byte
			for i := range min(50, 60_000/size) {
				want = append(want, bytes.Repeat([]byte{byte(round), byte(i)}, size)[:size])
			}
			want = append(want, []byte{byte(round)}[:min(1, size-1)])
			if size == 1 {
				want = want[:len(want)-1]
			}
			sendTrain(t, c, want)
			buf := make([]byte, 1<<16)
			for i, w := range want {
				n, ok := readUDP(t, c, buf, 20*time.Second)
				if !ok || !bytes.Equal(buf[:n], w) {
					t.Fatalf("size %d: datagram %d of %d came back as %d bytes (%v), want %d",
						size, i, len(want), n, ok, len(w))
				}
			}
		}
		if d := info(s).Dropped; len(d) != 0 {
			t.Errorf("dropped: %v", d)
		}
	})
}

// TestManyFlows holds that each of a thousand clients at once gets its own answers.
func TestManyFlows(t *testing.T) {
	b := startUDP(t, echoUDP)
	s := start(t, l4.Options{Loops: 2}, flowSpec(newPool(t, b.Address())))
	var clients []*net.UDPConn
	for i := range 1000 {
		c := dialUDP(t, address(s))
		clients = append(clients, c)
		if _, err := fmt.Fprint(c, i); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for i, c := range clients {
		n, ok := readUDP(t, c, buf, 20*time.Second)
		if !ok || string(buf[:n]) != fmt.Sprint(i) {
			t.Fatalf("client %d got %q (%v)", i, buf[:n], ok)
		}
	}
	awaitFlows(t, s, 1000)
	list, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil || list.Total != 1000 || list.Sessions[0].Protocol != l4.UDP || list.Sessions[0].DatagramsOut != 1 {
		t.Fatalf("%d listed, %v", list.Total, err)
	}
	counts, err := s.Count(t.Context())
	if n := counts[l4.SessionGroup{Listener: "test", Protocol: l4.UDP, Pool: "pool", Backend: b.Address()}]; n != 1000 || err != nil {
		t.Errorf("%v, %v", counts, err)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{ID: list.Sessions[0].ID}); n != 1 || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{}); n != 999 || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	awaitFlows(t, s, 0)
	if n := info(s).Ended[tally.EndedByOperator]; n != 1000 {
		t.Errorf("%d ended by the operator", n)
	}
}

// TestFlowTimeout holds that a flow ends when neither side sends anything, that it gets a line in the log, and that
// its descriptor is back then.
func TestFlowTimeout(t *testing.T) {
	b := startUDP(t, echoUDP)
	log, logger := newCapture()
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Timeout = 200 * time.Millisecond
	s := start(t, l4.Options{Loops: 2, Access: true, Log: logger}, spec)
	before := descriptors(t)
	for range 20 {
		c := dialUDP(t, address(s))
		if got := askUDP(t, c, "x"); got != "x" {
			t.Fatal(got)
		}
		c.Close()
	}
	awaitFlows(t, s, 0)
	eventually(t, "the descriptors are back", func() bool { return descriptors(t) == before })
	info := info(s)
	if info.Ended[tally.Idle] != 20 || info.Duration.Count != 20 || info.FirstByteTime.Count != 20 {
		t.Errorf("%+v", info.Ended)
	}
	if o := spec.Pool.Backends()[0].Outcomes[pool.Served]; o != 20 {
		t.Errorf("%d served", o)
	}
	line := l4test.Line(t, log)
	for _, want := range []string{
		`"flow ended"`, `"reason":"idle"`, `"datagrams_in":1`, `"bytes_out":1`, `"backend":"127.0.0.1:`,
	} {
		if !bytes.Contains(line, []byte(want)) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
}

// TestFlowResponses holds that a flow ends with the last answer that its client can expect, and that further answers
// are not delivered.
func TestFlowResponses(t *testing.T) {
	release := make(chan struct{})
	b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		<-release
		for range 3 {
			_, _ = b.WriteToUDPAddrPort(d, from)
		}
	})
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Responses = 2
	s := start(t, l4.Options{Loops: 1}, spec)
	c := dialUDP(t, address(s))
	for _, d := range []string{"a", "b"} {
		if _, err := c.Write([]byte(d)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the backend has both", func() bool { return info(s).DatagramsIn == 2 })
	close(release)
	awaitFlows(t, s, 0)
	var got string
	buf := make([]byte, 10)
	for range 4 {
		n, ok := readUDP(t, c, buf, 20*time.Second)
		if !ok {
			t.Fatalf("got only %q", got)
		}
		got += string(buf[:n])
	}
	if got != "aaab" {
		t.Errorf("got %q", got)
	}
	if n, ok := readUDP(t, c, buf, 50*time.Millisecond); ok {
		t.Errorf("one too many: %q", buf[:n])
	}
	if info := info(s); info.Ended[tally.Answered] != 1 {
		t.Errorf("%v", info.Ended)
	}
}

// TestFlowLimits holds that max_flows and client_flows bound the flows, also when loops share them, and that flows
// that end make room.
func TestFlowLimits(t *testing.T) {
	for _, tc := range []struct {
		name     string
		settings l4.FlowSettings
		why      l4.Drop
	}{
		{"all", l4.FlowSettings{Max: 5}, tally.DropTableFull},
		{"client", l4.FlowSettings{ClientMax: 5}, tally.DropClientLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := startUDP(t, echoUDP)
			spec := flowSpec(newPool(t, b.Address()))
			spec.Flows = tc.settings
			s := start(t, l4.Options{Loops: 2}, spec)
			var clients []*net.UDPConn
			for i := range 12 {
				c := dialUDP(t, address(s))
				clients = append(clients, c)
				if i < 5 {
					askUDP(t, c, "x") // a flow without an answer would give way to the next
				} else if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			awaitDropped(t, s, tc.why, 7)
			awaitFlows(t, s, 5)
			endOne(t, s, 2)
			askUDP(t, dialUDP(t, address(s)), "x")
			if _, err := dialUDP(t, address(s)).Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			awaitDropped(t, s, tc.why, 8)
			awaitFlows(t, s, 5)
			if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
				t.Fatal(err)
			}
			awaitFlows(t, s, 0)
			for _, c := range clients[:5] {
				if got := askUDP(t, c, "again"); got != "again" && got != "x" {
					t.Error(got)
				}
			}
			awaitFlows(t, s, 5)
		})
	}
}

// TestClientFlowsByAddress holds that the flows of one client do not count for another.
func TestClientFlowsByAddress(t *testing.T) {
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.ClientMax = 2
	s := start(t, l4.Options{Loops: 2}, spec)
	for client := range 8 {
		for range 2 {
			askUDP(t, dialUDPFrom(t, fmt.Sprint("127.0.2.", client+1), address(s)), "x")
		}
	}
	if info := info(s); info.Sessions != 16 || len(info.Dropped) != 0 {
		t.Errorf("%d flows, dropped %v", info.Sessions, info.Dropped)
	}
}

// TestFlowKeys holds that the key decides which datagrams go to one backend, and that answers find their way.
func TestFlowKeys(t *testing.T) {
	names := []string{"a", "b", "c"}
	run := func(t *testing.T, key l4.FlowKey) (*l4.Server, *pool.Pool) {
		var addrs []string
		for _, n := range names {
			addrs = append(addrs, startUDP(t, naming(n)).Address())
		}
		spec := flowSpec(newPool(t, addrs...))
		spec.Flows.Key = key
		return start(t, l4.Options{Loops: 2}, spec), spec.Pool
	}
	from := func(t *testing.T, s *l4.Server, client byte) *net.UDPConn {
		return dialUDPFrom(t, fmt.Sprint("127.0.3.", client), address(s))
	}
	t.Run("client", func(t *testing.T) {
		s, _ := run(t, l4.ByClient)
		seen := make(map[string]bool)
		for range 12 {
			c := from(t, s, 1)
			first := askUDP(t, c, "x")
			seen[first] = true
			for range 5 {
				if got := askUDP(t, c, "x"); got != first {
					t.Fatalf("%s after %s", got, first)
				}
			}
		}
		if len(seen) != 3 {
			t.Errorf("only %v were used", seen)
		}
	})
	t.Run("client_ip", func(t *testing.T) {
		s, p := run(t, l4.ByClientIP)
		seen := make(map[string]bool)
		for client := range 12 {
			first := ""
			for range 4 {
				got := askUDP(t, from(t, s, byte(client+1)), "x")
				seen[got] = true
				if first == "" {
					first = got
				}
				if got != first {
					t.Fatalf("%s after %s", got, first)
				}
			}
		}
		if len(seen) != 3 {
			t.Errorf("only %v were used", seen)
		}
		leases := int64(0)
		for _, b := range p.Backends() {
			leases += b.Leases
		}
		if flows := s.Flows(); flows != 48 || leases != 12 {
			t.Errorf("%d flows of 12 addresses have %d leases", flows, leases)
		}
		endOne(t, s, 0)
		leases = 0
		for _, b := range p.Backends() {
			leases += b.Leases
		}
		if leases != 12 {
			t.Errorf("with a flow less, 12 addresses have %d leases", leases)
		}
		if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
			t.Fatal(err)
		}
		for _, b := range p.Backends() {
			if b.Leases != 0 {
				t.Errorf("%s still has %d leases", b.ID, b.Leases)
			}
		}
	})
	t.Run("packet", func(t *testing.T) {
		s, p := run(t, l4.ByPacket)
		c := from(t, s, 1)
		got := make(map[string]int)
		for range 30 {
			got[askUDP(t, c, "x")]++
		}
		for _, n := range names {
			if got[n] != 10 {
				t.Errorf("round robin came to %v", got)
				break
			}
		}
		if flows := s.Flows(); flows != 3 {
			t.Errorf("%d flows for one client and three backends", flows)
		}
		for oldest := range 3 {
			endOne(t, s, oldest)
			for range 6 {
				askUDP(t, c, "x")
			}
			if flows := s.Flows(); flows != 3 {
				t.Errorf("%d flows after one has come back", flows)
			}
		}
		if _, err := s.End(t.Context(), l4.SessionFilter{}); err != nil {
			t.Fatal(err)
		}
		awaitFlows(t, s, 0)
		for _, b := range p.Backends() {
			if b.Leases != 0 {
				t.Errorf("%s still has %d leases", b.ID, b.Leases)
			}
		}
	})
}
