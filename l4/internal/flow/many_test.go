package flow_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// TestFlowsAtOnce holds that there can be 15,000 flows at once in a process that may open 20,000 files, and that all
// their descriptors come back.
func TestFlowsAtOnce(t *testing.T) {
	const flows, batch = 15_000, 500
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Timeout = time.Hour
	s := start(t, l4.Options{Loops: 2}, spec)
	sessions, _ := l4test.FlowBudget(s)
	if possible := 2 * int(sessions.Load()); possible < flows {
		t.Fatalf("this needs a limit of 20,000 open files: there are descriptors for %d flows", possible)
	}
	before := descriptors(t)
	to := net.UDPAddrFromAddrPort(info(s).Address.AddrPort)
	for i := range flows / batch {
		var clients []*net.UDPConn
		for range batch {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}, to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			clients = append(clients, c)
		}
		for _, c := range clients {
			if got := askUDP(t, c, "x"); got != "x" {
				t.Fatal(got)
			}
			c.Close()
		}
	}
	awaitFlows(t, s, flows)
	if n := descriptors(t); n-before != flows {
		t.Errorf("%d descriptors more for %d flows", n-before, flows)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{}); n != flows || err != nil {
		t.Errorf("%d ended, %v", n, err)
	}
	awaitFlows(t, s, 0)
	eventually(t, "the descriptors are back", func() bool { return descriptors(t) == before })
}

// TestFlowsIdleTogether holds that many flows that are idle at one moment do not all end in one turn of their loop,
// but that all end.
func TestFlowsIdleTogether(t *testing.T) {
	const flows = 5 * flow.EndsInTurn
	b := startUDP(t, nil)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Timeout = time.Hour
	s := start(t, l4.Options{Loops: 1}, spec)
	to := net.UDPAddrFromAddrPort(info(s).Address.AddrPort)
	for i := range flows {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 2, byte(i>>8), byte(i))}, to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if i%100 == 99 {
			awaitFlows(t, s, i+1) // no faster than they are taken
		}
	}
	awaitFlows(t, s, flows)
	onFirstLoop(s, func(l *flow.Loop) {
		flow.Each(l, func(f *flow.Flow) { flow.Rest(l, f, time.Hour) })
	})
	before := s.Loops()[0].Turns
	awaitFlows(t, s, 0)
	// The first of the turns may have begun before the count, and the last is perhaps not over yet.
	if turns := s.Loops()[0].Turns - before; turns < flows/flow.EndsInTurn-2 {
		t.Errorf("%d flows ended in %d turns", flows, turns)
	}
	if n := info(s).Ended[tally.Idle]; n != flows {
		t.Errorf("%d ended idle", n)
	}
}

// TestShortFlows holds that 100,000 flows one after another take no more memory than those that there are at once.
func TestShortFlows(t *testing.T) {
	const flows, clients = 100_000, 10
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Flows.Responses = 1
	s := start(t, l4.Options{Loops: 2}, spec)
	before := descriptors(t)
	var asking sync.WaitGroup
	for range clients {
		c := dialUDP(t, address(s))
		asking.Go(func() {
			defer c.Close()
			buf := make([]byte, 100)
			for asked := 0; asked < flows/clients; {
				if _, err := c.Write([]byte("a question")); err != nil {
					t.Error(err)
					return
				}
				if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					t.Error(err)
					return
				}
				switch _, err := c.Read(buf); {
				case err == nil:
					asked++
				case !errors.Is(err, os.ErrDeadlineExceeded): // lost, then
					t.Error(err)
					return
				}
			}
		})
	}
	asking.Wait()
	awaitFlows(t, s, 0)
	if info := info(s); info.Accepted < flows || info.Ended[tally.Answered] != info.Accepted {
		t.Errorf("%d flows, %v ended", info.Accepted, info.Ended)
	}
	for i, l := range l4test.RoomsOf(s).Flows {
		l4test.OnLoop(s, i, func() {
			if n := flow.Chunks(l); n > 1 {
				t.Errorf("loop %d has %d pieces of memory for its flows", i, n)
			}
		})
	}
	eventually(t, "the descriptors are back", func() bool { return descriptors(t) == before })
}
