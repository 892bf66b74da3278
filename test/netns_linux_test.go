//go:build netns

// These tests cut a network. They need a network namespace of their own, but no rights on the machine:
//
//	unshare --user --map-root-user --net go test -tags netns -run Netns ./test

package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	here   = "10.77.0.1"
	remote = "10.77.0.2"
)

// A far is a process in a network namespace of its own, at the other end of a cable.
type far struct{ *harness.Process }

// connectFar starts a far end in the remote role, and connects the cable. There is only one, so these tests do not run
// in parallel.
func connectFar(t *testing.T) far {
	t.Helper()
	ownNamespace(t)
	command := harness.Child(t, "remote")
	command.Args = []string{"--net", "--", command.Path} // unshare executes it in place: the pid stays
	command.Path = harness.Tool(t, "unshare")
	f := far{harness.Start(t, command)}
	harness.Eventually(t, "the far end has a namespace of its own", func() error {
		mine, err := os.Readlink("/proc/thread-self/ns/net")
		check(t, err)
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", f.PID()))
		check(t, err)
		if its == mine {
			return errors.New("it is still in this one's")
		}
		return nil
	})
	ip(t, "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", strconv.Itoa(f.PID()))
	t.Cleanup(func() { ip(t, "link", "del", "here") })
	ip(t, "address", "add", here+"/24", "dev", "here")
	ip(t, "link", "set", "here", "up")
	f.ip(t, "link", "set", "lo", "up")
	f.ip(t, "address", "add", remote+"/24", "dev", "there")
	f.ip(t, "link", "set", "there", "up")
	return f
}

// ownNamespace checks that the test is in a network namespace of its own, and brings loopback up.
func ownNamespace(t *testing.T) {
	t.Helper()
	interfaces, err := net.Interfaces()
	check(t, err)
	for _, i := range interfaces {
		if i.Name != "lo" {
			t.Fatalf("there is a network interface %s: run this in a network namespace of its own, as the head of "+
				"this file says", i.Name)
		}
	}
	ip(t, "link", "set", "lo", "up")
}

// cut removes the far end's address: packets to it are dropped silently, as by a cut cable.
func (f far) cut(t *testing.T) {
	t.Helper()
	f.ip(t, "address", "del", remote+"/24", "dev", "there")
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	return harness.MustRun(t, harness.Command{Path: harness.Tool(t, "ip"), Args: args})
}

func (f far) ip(t *testing.T, args ...string) string {
	t.Helper()
	enter := []string{"--target", strconv.Itoa(f.PID()), "--net", harness.Tool(t, "ip")}
	return harness.MustRun(t, harness.Command{Path: harness.Tool(t, "nsenter"), Args: append(enter, args...)})
}

// liveness returns the two ways to detect a lost peer: unacknowledged data, and keepalive probes in silence.
func liveness() []struct {
	name     string
	listener []string
	send     bool // there is data on its way to the lost peer
} {
	return []struct {
		name     string
		listener []string
		send     bool
	}{
		{"user_timeout", []string{`user_timeout = "2s"`, `keepalive = { idle = "1h", interval = "1h", count = 9 }`},
			true},
		{"keepalive", []string{`user_timeout = "0s"`, `keepalive = { idle = "1s", interval = "1s", count = 2 }`},
			false},
	}
}

func TestNetnsLostClient(t *testing.T) {
	for _, tc := range liveness() {
		t.Run(tc.name, func(t *testing.T) {
			f := connectFar(t)
			conns := make(chan *net.TCPConn, 1)
			backend := harness.Serve(t, handOver(conns))
			b := world{
				Listen: fmt.Sprintf("%s:%d", here, harness.FreePort(t)), Backends: []string{backend.Address()},
				Listener: tc.listener,
			}.start(t)
			f.Say(t, "dial "+b.Address(t, "main"))
			c := harness.Receive(t, "connection at the backend", conns)
			check(t, harness.SendAll(c, readOne(t, c)))
			client := strings.TrimPrefix(f.WaitStdout(t, "connected from "), "connected from ")

			cut := time.Now()
			f.cut(t)
			if tc.send {
				check(t, harness.SendAll(c, "into the void"))
			}
			line := b.WaitLine(t, "end of the session of "+client, func(l harness.Line) bool {
				return l.IsAccess() && l.Client == client
			})
			oneOf(t, []harness.Line{line}, "client_lost")
			t.Logf("lost client found after %v", line.Seen.Sub(cut))
			expectReset(t, c) // the backend learns that it was not an orderly end
		})
	}
}

func TestNetnsLostBackend(t *testing.T) {
	for _, tc := range liveness() {
		t.Run(tc.name, func(t *testing.T) {
			f := connectFar(t)
			address := fmt.Sprintf("%s:%d", remote, harness.FreePort(t))
			f.Say(t, "listen "+address)
			f.WaitStdout(t, "listening on "+address)
			b := world{Backends: []string{address}, Listener: tc.listener}.start(t)
			c := b.Dial(t, "main")
			check(t, harness.PingPong(c, 1, 1))

			cut := time.Now()
			f.cut(t)
			if tc.send {
				check(t, harness.SendAll(c, "into the void"))
			}
			line := b.WaitSession(t, c.LocalAddr())
			oneOf(t, []harness.Line{line}, "backend_lost")
			t.Logf("lost backend found after %v", line.Seen.Sub(cut))
			expectReset(t, c)
		})
	}
}

// TestNetnsNoLocalPort leaves the balancer two ports for connections to its backend.
func TestNetnsNoLocalPort(t *testing.T) {
	ownNamespace(t)
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	old, err := os.ReadFile(file)
	check(t, err)
	backend := harness.Serve(t, harness.Echo)
	b := world{Backends: []string{backend.Address()}}.start(t)
	check(t, os.WriteFile(file, []byte("50000 50001"), 0))
	t.Cleanup(func() { check(t, os.WriteFile(file, old, 0)) })
	from := func() *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: harness.FreePort(t)} }
	dialFrom := func(from *net.TCPAddr) (net.Conn, error) {
		d := net.Dialer{Timeout: harness.Patience, LocalAddr: from}
		return d.Dial("tcp", b.Address(t, "main"))
	}
	dial := func() net.Conn {
		c, err := dialFrom(from())
		check(t, err)
		t.Cleanup(func() { c.Close() })
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		return c
	}
	first, second := dial(), dial()
	check(t, harness.PingPong(first, 1, 1))
	check(t, harness.PingPong(second, 1, 1))
	third := from()
	if c, err := dialFrom(third); !errors.Is(err, syscall.ECONNRESET) { // which connect may see already
		check(t, err)
		defer c.Close()
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		endOf(t, c)
	}
	oneOf(t, []harness.Line{b.WaitSession(t, third)}, "no_descriptors")
	check(t, harness.PingPong(first, 1, 1)) // established sessions go on
	check(t, harness.PingPong(second, 1, 1))
}

func readOne(t *testing.T, c net.Conn) string {
	t.Helper()
	one := make([]byte, 1)
	_, err := io.ReadFull(c, one)
	check(t, err)
	return string(one)
}
