package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// drainingUDP starts a balancer with a flow and shuts it down; it returns when the drain has begun.
func drainingUDP(t *testing.T, drainTimeout, flowTimeout string) (*harness.Balancer, *net.UDPConn) {
	t.Helper()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{
		Backends: []string{backend.Address()}, Global: []string{fmt.Sprintf("drain_timeout = %q", drainTimeout)},
		Listener: []string{fmt.Sprintf("flow_timeout = %q", flowTimeout)},
	}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	ask(t, c, "before")
	b.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, "new clients are not taken", func() error {
		other := harness.DialUDP(t, b.Address(t, "main"))
		check(t, harness.SendAll(other, "new"))
		if err := other.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := other.Read(make([]byte, 10)); err == nil {
			return errors.New("one was answered")
		}
		return nil
	})
	return b, c
}

// TestUDPDrain shuts down a balancer with a flow.
func TestUDPDrain(t *testing.T) {
	t.Parallel()
	t.Run("ends with the last flow", func(t *testing.T) {
		t.Parallel()
		b, c := drainingUDP(t, "1h", "5s")
		for range 50 { // the flow goes on
			if got := ask(t, c, "during"); got != "during" {
				t.Errorf("answer %q", got)
			}
		}
		endsWithZero(t, b)
		if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "idle" || line.DatagramsOut != 51 {
			t.Errorf("%s", line.Text)
		}
	})
	t.Run("ends what is left after drain_timeout", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		b, c := drainingUDP(t, "2s", "1h")
		endsWithZero(t, b)
		if took := time.Since(start); took < 2*time.Second {
			t.Errorf("ended after %v, before drain_timeout", took)
		}
		if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "drained" {
			t.Errorf("%s", line.Text)
		}
	})
	t.Run("ends at once without flows", func(t *testing.T) {
		t.Parallel()
		backend := harness.ServeUDP(t, harness.EchoDatagrams)
		b := world{Backends: []string{backend.Address()}, Global: []string{`drain_timeout = "1h"`}}.startUDP(t)
		b.Signal(t, syscall.SIGTERM)
		endsWithZero(t, b)
	})
}

// A udpClient asks all the time, from one socket or from a new one for each question, and stops at the first question
// without an answer.
type udpClient struct {
	asked atomic.Int64
	err   error // the error of an unanswered question; read only after the end of run
}

// run asks until stop is closed.
func (a *udpClient) run(address string, fresh bool, stop <-chan struct{}) {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if fresh && c != nil {
			c.Close()
			c = nil
		}
		if c == nil {
			if c, a.err = net.Dial("udp", address); a.err != nil {
				return
			}
		}
		if a.err = c.SetDeadline(time.Now().Add(harness.Patience / 2)); a.err != nil {
			return
		}
		question := fmt.Sprintf("question %d", i)
		answer, err := harness.AskUDP(c, []byte(question))
		if err == nil && string(answer) != question {
			err = fmt.Errorf("the answer to %q is %q", question, answer)
		}
		if a.err = err; err != nil {
			return
		}
		a.asked.Add(1)
	}
}

// TestUDPReload applies configurations with other listeners and backends, while clients of an unchanged listener ask
// all the time, from the same sockets and from new ones: no answer is lost.
func TestUDPReload(t *testing.T) {
	t.Parallel()
	one, two := harness.ServeUDP(t, harness.EchoDatagrams), harness.ServeUDP(t, harness.EchoDatagrams)
	stay, moving, other := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	config := func(round int) string {
		// the pool's weights change, and now and then one of its backends is gone
		backends := []string{one.Address(), two.Address()}
		if round%4 == 2 {
			backends = backends[:1]
		}
		text := fmt.Sprintf("[listener.stay]\naddress = %q\nprotocol = \"udp\"\npool = \"all\"\nflow_timeout = \"1h\"\n", stay)
		if round%3 != 1 { // it comes and goes, at another address each time
			text += fmt.Sprintf("[listener.moving]\naddress = %q\nprotocol = \"udp\"\npool = \"all\"\n"+
				"flow_timeout = \"1h\"\n", []string{moving, other}[round%2])
		}
		return text + fmt.Sprintf("[pool.all]\nalgorithm = \"round_robin\"\nbackends = %s\n",
			harness.BackendListWith([]string{fmt.Sprintf("weight = %d", 1+round%5)}, backends...))
	}
	b := harness.StartBalancer(t, config(0))
	t.Cleanup(func() { endFlows(t, b) })
	stop := make(chan struct{})
	clients := make([]udpClient, 6)
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { clients[i].run(stay, i%2 == 0, stop) })
	}
	for round := 1; round <= 24; round++ {
		before := make([]int64, len(clients))
		for i := range clients {
			before[i] = clients[i].asked.Load()
		}
		b.Reload(t, config(round))
		if round%3 != 1 {
			c := harness.DialUDP(t, []string{moving, other}[round%2])
			if got := ask(t, c, "moved"); got != "moved" {
				t.Errorf("round %d: answer %q", round, got)
			}
		}
		harness.Eventually(t, "everybody was answered since", func() error {
			for i := range clients {
				if now := clients[i].asked.Load(); now < before[i]+5 {
					return fmt.Errorf("client %d has %d answers, and had %d", i, now, before[i])
				}
			}
			return nil
		})
	}
	close(stop)
	running.Wait()
	for i := range clients {
		if clients[i].err != nil {
			t.Errorf("client %d, after %d answers: %v", i, clients[i].asked.Load(), clients[i].err)
		}
	}
	b.Configure(t, "[listener.stay]\naddress = \"127.0.0.1:1\"\nprotocol = \"udp\"\npool = \"nowhere\"\n")
	if status, _ := b.API(t, "POST", "/v1/reload", nil); status == http.StatusOK {
		t.Error("a listener without a pool is taken up")
	}
	if got := ask(t, harness.DialUDP(t, stay), "still"); got != "still" {
		t.Errorf("after a broken reload: %q", got)
	}
	b.Reload(t, config(0))
	b.ListenersMoved()
}

// TestUDPRemovedListener removes the listener of a flow by a reload: the flow continues, and no new client is served.
func TestUDPRemovedListener(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	gone, stays := harness.FreeAddress(t), harness.FreeAddress(t)
	listener := func(name, address string) string {
		return fmt.Sprintf("[listener.%s]\naddress = %q\nprotocol = \"udp\"\npool = \"all\"\nflow_timeout = \"1h\"\n",
			name, address)
	}
	pool := "[pool.all]\nbackends = " + harness.BackendList(backend.Address()) + "\n"
	b := harness.StartBalancer(t, listener("gone", gone)+listener("stays", stays)+pool)
	t.Cleanup(func() { endFlows(t, b) })
	c := harness.DialUDP(t, gone)
	ask(t, c, "before")
	b.Reload(t, listener("stays", stays)+pool)
	for range 10 {
		if got := ask(t, c, "after"); got != "after" {
			t.Errorf("answer %q", got)
		}
	}
	ask(t, harness.DialUDP(t, stays), "the other")
	check(t, harness.SendAll(harness.DialUDP(t, gone), "new"))
	ask(t, c, "and again") // behind the new one's: on the same socket or on another, that one was not answered
	if n := len(backend.Sources()); n != 2 {
		t.Errorf("the backend has seen %d flows, expected 2", n)
	}
	endFlows(t, b)
	harness.Eventually(t, "the port is closed", func() error {
		probe := harness.DialUDP(t, gone)
		if _, err := harness.AskUDP(probe, []byte("?")); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("it is not: %w", err)
		}
		return nil
	})
}

// TestUDPListenersOfBothProtocols binds one port by TCP and by UDP, as name servers do.
func TestUDPListenersOfBothProtocols(t *testing.T) {
	t.Parallel()
	server := harness.StartDNS(t)
	server.SetZone(t, "www A 192.0.2.1")
	address := harness.FreeAddress(t)
	b := harness.StartBalancer(t, fmt.Sprintf("[listener.tcp]\naddress = %[1]q\npool = \"all\"\n"+
		"[listener.udp]\naddress = %[1]q\nprotocol = \"udp\"\npool = \"all\"\n[pool.all]\nbackends = %[2]s\n", address,
		harness.BackendList(server.Address)))
	t.Cleanup(func() { endFlows(t, b) })
	p := harness.RunDNSPerf(t, address, []string{"www." + harness.DNSZone + " A"}, "-n", "20")
	over := harness.RunDNSPerf(t, address, []string{"www." + harness.DNSZone + " A"}, "-n", "20", "-m", "tcp")
	if p.Completed != 20 || over.Completed != 20 {
		t.Errorf("%s\n%s", p.Text, over.Text)
	}
	var protocols []string
	var answer struct{ Listeners []udpListener }
	b.Ask(t, "GET", "/v1/listeners", nil, &answer)
	for _, l := range answer.Listeners {
		protocols = append(protocols, fmt.Sprintf("%s %s %d", l.Name, l.Protocol, l.DatagramsIn))
	}
	slices.Sort(protocols)
	if got := strings.Join(protocols, ", "); got != "tcp tcp 0, udp udp 20" {
		t.Errorf("listeners are %s", got)
	}
}
