//go:build netns

// These tests need a network namespace of their own, but no rights on the machine:
//
//	unshare --user --map-root-user --net go test -tags netns -run Netns ./healthcheck

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

const groupRange = "/proc/sys/net/ipv4/ping_group_range"

// ownNetwork checks that the network namespace is a new one, starts loopback and allows ping sockets for our group.
func ownNetwork(t *testing.T) {
	t.Helper()
	interfaces, err := net.Interfaces()
	must(t, err)
	for _, i := range interfaces {
		if i.Name != "lo" {
			t.Fatalf("network interface %s: run this in a network namespace of its own, as the head of this file says", i.Name)
		}
	}
	ip(t, "link", "set", "lo", "up")
	setSysctl(t, groupRange, "0 0")
}

func setSysctl(t *testing.T, file, value string) {
	t.Helper()
	old, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(value), 0))
	t.Cleanup(func() { _ = os.WriteFile(file, old, 0) }) // an interface's own goes with it
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "ip"), Args: args})
}

// startRouter connects a second namespace, whose routes refuse packets in several ways. Each side has an address in
// 10.77.0.0/24 and fd77::/64: ours ends with 1, the router's with 2. Nobody has the other addresses.
func startRouter(t *testing.T) {
	t.Helper()
	router := harness.Start(t,
		harness.Command{Path: harness.Tool(t, "unshare"), Args: []string{"--net", "--", "sleep", "1000"}})
	t.Cleanup(func() { router.Kill(t) })
	at := []string{"--target", strconv.Itoa(router.PID()), "--net", "--"}
	there := func(args ...string) {
		t.Helper()
		harness.MustRun(t, harness.Command{Path: harness.Tool(t, "nsenter"),
			Args: append(at[:len(at):len(at)], args...)})
	}
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	harness.Eventually(t, "the router has a namespace of its own", func() error {
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", router.PID())); err != nil || theirs == ours {
			return fmt.Errorf("it is in %s, %w", theirs, err)
		}
		return nil
	})
	ip(t, "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", strconv.Itoa(router.PID()))
	t.Cleanup(func() { ip(t, "link", "del", "here") })
	ip(t, "address", "add", "10.77.0.1/24", "dev", "here")
	ip(t, "address", "add", "fd77::1/64", "dev", "here", "nodad")
	ip(t, "link", "set", "here", "up")
	there("ip", "address", "add", "10.77.0.2/24", "dev", "there")
	there("ip", "address", "add", "fd77::2/64", "dev", "there", "nodad")
	there("ip", "link", "set", "there", "up")
	there("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding;"+
		"echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit")
	for net, kind := range map[string]string{"10.88.1.0/24": "prohibit", "fd88:1::/32": "prohibit",
		"10.88.2.0/24": "unreachable", "fd89:2::/32": "unreachable"} {
		there("ip", "route", "add", kind, net)
	}
	ip(t, "route", "add", "10.88.0.0/16", "via", "10.77.0.2")
	ip(t, "route", "add", "fd88::/15", "via", "fd77::2")
	for _, file := range []string{"ipv4", "ipv6"} { // three requests of a second each are a long wait
		setSysctl(t, "/proc/sys/net/"+file+"/neigh/here/mcast_solicit", "1")
		setSysctl(t, "/proc/sys/net/"+file+"/neigh/here/retrans_time_ms", "100")
	}
	harness.Eventually(t, "the router answers", func() error {
		c := newICMP(t, rawSocket)
		defer c.Close()
		for _, addr := range []string{"10.77.0.2", "fd77::2"} {
			if _, err := c.Check(deadlineIn(t, time.Second), host(addr)); err != nil {
				return err
			}
		}
		return nil
	})
}

var kinds = map[string]icmpKind{"ping socket": pingSocket, "raw socket": rawSocket}

func TestNetnsICMP(t *testing.T) {
	ownNetwork(t)
	startRouter(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c := newICMP(t, kind)
			for _, tt := range []struct{ addr, want string }{
				{"127.0.0.1", ""},
				{"::1", ""},
				{"10.77.0.1", ""},
				{"10.77.0.2", ""},
				{"fd77::2", ""},
				{"10.77.0.99", "host unreachable"},
				{"fd77::99", "host unreachable"},
				{"10.88.1.1", "administratively prohibited"},
				{"fd88:1::1", "administratively prohibited"},
				{"10.88.2.1", "host unreachable"},
				{"fd89:2::1", "network unreachable|host unreachable"},
				{"10.99.0.1", "network unreachable"}, // there is no route here
				{"fd99::1", "network unreachable"},
			} {
				start := time.Now()
				_, err := c.Check(deadlineIn(t, patience), host(tt.addr))
				if tt.want != "" {
					failsWith(t, err, tt.want)
				} else if err != nil {
					t.Errorf("%s: %v", tt.addr, err)
				}
				if took := time.Since(start); took > patience/4 {
					t.Errorf("%s: the check took %v", tt.addr, took)
				}
			}
			if n := openSockets(c); n != 2 {
				t.Errorf("%d sockets are open, want one for each family", n)
			}
		})
	}
}

// TestNetnsICMPMixed checks targets that answer and targets that cannot be reached at the same time on one socket. The
// errors of the latter must not fail the checks of the former.
func TestNetnsICMPMixed(t *testing.T) {
	ownNetwork(t)
	startRouter(t)
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c := newICMP(t, kind)
			var checks sync.WaitGroup
			for i := range 2000 {
				tt := [...]struct{ addr, want string }{
					{"10.77.0.2", ""},
					{"10.88.1.1", "administratively prohibited"},
					{"fd77::2", ""},
					{"fd88:1::1", "administratively prohibited"},
					{"10.77.0.99", "host unreachable"},
					{"10.99.0.1", "network unreachable"},
				}[i%6]
				checks.Go(func() {
					if tt.want != "" { // of ICMP errors, Linux sends only so many
						_, err := c.Check(deadlineIn(t, 2*time.Second), host(tt.addr))
						failsWith(t, err, tt.want+"|timed out waiting for the echo reply after .*")
					} else if _, err := c.Check(deadlineIn(t, patience), host(tt.addr)); err != nil {
						t.Errorf("%s: %v", tt.addr, err)
					}
				})
			}
			checks.Wait()
		})
	}
}

// TestNetnsICMPTimesOut checks a target that takes all packets and never answers.
func TestNetnsICMPTimesOut(t *testing.T) {
	ownNetwork(t)
	ip(t, "link", "add", "hole", "type", "veth", "peer", "name", "ground")
	t.Cleanup(func() { ip(t, "link", "del", "hole") })
	ip(t, "address", "add", "10.77.0.1/24", "dev", "hole")
	ip(t, "address", "add", "fd77::1/64", "dev", "hole", "nodad")
	ip(t, "link", "set", "hole", "up")
	ip(t, "link", "set", "ground", "up")
	for _, addr := range []string{"10.77.0.99", "fd77::99"} { // a link-layer address that nobody has
		ip(t, "neighbor", "add", addr, "lladdr", "02:00:00:00:00:99", "dev", "hole")
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			c := newICMP(t, kind)
			for _, addr := range []string{"10.77.0.99", "fd77::99"} {
				_, err := c.Check(deadlineIn(t, hurry), host(addr))
				failsWith(t, err, "timed out waiting for the echo reply after [0-9]+ms")
				forgeErrors(t, c, addr)
			}
		})
	}
}

// forgeErrors sends forged ICMP errors about echoes to an address that never answers. Only the one that quotes an echo
// correctly may end the check.
func forgeErrors(t *testing.T, c *ICMP, addr string) {
	t.Helper()
	to := netip.MustParseAddr(addr)
	via, err := icmpAddress(to)
	must(t, err)
	s, e, err := c.begin(deadlineIn(t, patience), to, via)
	must(t, err)
	defer s.forget(e)
	must(t, s.send(e))
	network, local, typ := "ip4:icmp", "127.0.0.1", unreachable(to.Is6())
	if to.Is6() {
		network, local = "ip6:ipv6-icmp", "::1"
	}
	conn, err := net.Dial(network, local)
	must(t, err)
	defer conn.Close()
	good := echoMessage{id: s.id, seq: e.seq, token: e.token}
	for _, change := range []func(m *echoMessage){
		func(m *echoMessage) { m.id++ }, func(m *echoMessage) { m.seq++ }, func(m *echoMessage) { m.token[3]++ }, nil,
	} {
		m := good
		if change != nil {
			change(&m)
		}
		b := quoteEcho(t, typ, 1, to, m)
		if to.Is6() {
			// The source of what we quote has to be the one it was sent from; nothing looks at it but the kernel.
			copy(b[16:32], netip.MustParseAddr("fd77::1").AsSlice())
		}
		if change == nil && len(e.done) != 0 {
			t.Errorf("%s: a wrong error ended the check", addr)
		}
		_, err := conn.Write(b)
		must(t, err)
	}
	select {
	case out := <-e.done:
		failsWith(t, out.err, "host unreachable|administratively prohibited", syscall.EHOSTUNREACH)
	case <-time.After(patience):
		t.Errorf("%s: the right error did not end the check", addr)
	}
}

// TestNetnsICMPPermission takes away the right to ping sockets, and then the right to raw sockets.
func TestNetnsICMPPermission(t *testing.T) {
	ownNetwork(t)
	c := newICMP(t)
	_, err := c.Check(deadlineIn(t, patience), host("127.0.0.1"))
	must(t, err)
	if s, err := c.socket(false); err != nil || s.kind != pingSocket {
		t.Errorf("%v, want a ping socket to be preferred", err)
	}
	err = onLostThread(func() error {
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil { // where no group may have ping sockets
			return os.NewSyscallError("unshare", err)
		}
		for _, v6 := range []bool{false, true} {
			s, err := openICMP(v6, nil)
			if err != nil || s.kind != rawSocket {
				t.Errorf("%v, want a raw socket", err)
			} else {
				s.close()
			}
		}
		if err := dropCapabilities(); err != nil {
			return err
		}
		_, err := newICMP(t).Check(deadlineIn(t, patience), host("127.0.0.1"))
		return err
	})
	if !errors.Is(err, healthcheck.ErrInconclusive) || !errors.Is(err, errICMPPermission) {
		t.Errorf("error %v, want %v", err, errICMPPermission)
	}
	for _, remedy := range []string{"net.ipv4.ping_group_range", "CAP_NET_RAW"} {
		if !strings.Contains(fmt.Sprint(err), remedy) {
			t.Errorf("error %v does not name %s", err, remedy)
		}
	}
}

// TestNetnsUDPHostUnreachable checks a host that is gone: it must not count as healthy because it is silent.
func TestNetnsUDPHostUnreachable(t *testing.T) {
	ownNetwork(t)
	startRouter(t)
	for addr, want := range map[string]string{
		"10.77.0.99": "host unreachable", "fd77::99": "host unreachable",
		"10.88.1.1": "host unreachable|administratively prohibited",
		"10.77.0.2": "port unreachable", "fd77::2": "port unreachable", "10.99.0.1": "network unreachable",
		"fd88:1::1": "administratively prohibited",
	} {
		// Again, if need be: a router says that a route is prohibited once per second only, and counts its other
		// errors, too (ip_error of the kernel), which no sysctl of a namespace changes.
		failsAtLast(t, want, func(ctx context.Context) error {
			_, err := UDP{}.Check(ctx, host(addr))
			return err
		})
	}
}

// onLostThread runs f on a thread that is not used again, since capabilities and namespaces belong to a thread. It is
// never the main thread, which does not end with its goroutine, and whose namespaces /proc/self shows.
func onLostThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and left locked: the thread ends with the goroutine
		if syscall.Gettid() != syscall.Getpid() {
			done <- f()
			return
		}
		err := onLostThread(f)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// dropCapabilities drops all capabilities of this thread.
func dropCapabilities() error {
	header := struct {
		version uint32
		pid     int32
	}{version: 0x20080522} // _LINUX_CAPABILITY_VERSION_3
	var none [2]struct{ effective, permitted, inheritable uint32 }
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)),
		uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
