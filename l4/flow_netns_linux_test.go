//go:build netns

// These tests need a network namespace of their own, but no rights on the machine:
//
//	unshare --user --map-root-user --net go test -tags netns -run Netns ./l4

package l4_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// A farEnd is a network namespace at the other end of a cable. Ours has the addresses 10.77.0.1 and 11 and fd77::1 and
// 11 on it, its own has those that end with 2.
type farEnd struct{ pid string }

// connectFarEnd checks that no other network can be harmed, sets loopback going and lays the cable.
func connectFarEnd(t *testing.T) farEnd {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Name != "lo" {
			t.Fatalf("there is a network interface %s: run this in a network namespace of its own, "+
				"as the head of this file says", i.Name)
		}
	}
	ip(t, "link", "set", "lo", "up")
	sleeper := harness.Start(t, harness.Command{
		Path: harness.Tool(t, "unshare"), Args: []string{"--net", "--", "sleep", "1000"},
	})
	t.Cleanup(func() { sleeper.Kill(t) })
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the far end has a namespace of its own", func() error {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", sleeper.PID()))
		if err != nil || theirs == ours {
			return fmt.Errorf("it is in %s, %w", theirs, err)
		}
		return nil
	})
	f := farEnd{strconv.Itoa(sleeper.PID())}
	ip(t, "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", f.pid)
	t.Cleanup(func() { ip(t, "link", "del", "here") })
	for _, a := range []string{"10.77.0.1/24", "10.77.0.11/24", "fd77::1/64", "fd77::11/64"} {
		ip(t, withoutDAD("address", "add", a, "dev", "here")...)
	}
	ip(t, "link", "set", "here", "up")
	for _, a := range []string{"10.77.0.2/24", "fd77::2/64"} {
		f.run(t, withoutDAD("ip", "address", "add", a, "dev", "there")...)
	}
	f.run(t, "ip", "link", "set", "there", "up")
	return f
}

// withoutDAD has an IPv6 address be there at once, and not when nobody has objected to it.
func withoutDAD(args ...string) []string {
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "fd") }) {
		args = append(args, "nodad")
	}
	return args
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "ip"), Args: args})
}

func (f farEnd) run(t *testing.T, args ...string) string {
	t.Helper()
	at := []string{"--target", f.pid, "--net", "--"}
	return harness.MustRun(t, harness.Command{Path: harness.Tool(t, "nsenter"), Args: append(at, args...)})
}

// TestNetnsFlowSource holds that a listener on all addresses answers a client on another machine from the one it asked,
// IPv4 and IPv6: the client's socket is connected, and hears nobody else.
func TestNetnsFlowSource(t *testing.T) {
	f := connectFarEnd(t)
	b := startUDP(t, echoUDP)
	spec := flowSpec(newPool(t, b.Address()))
	spec.Address, spec.DualStack = netip.MustParseAddrPort("[::]:0"), true
	s := start(t, l4.Options{Loops: 2}, spec)
	for _, a := range []string{"10.77.0.1", "10.77.0.11", "fd77::1", "fd77::11"} {
		ask := fmt.Sprintf(`exec 3<>/dev/udp/%s/%d; printf %%s %[1]s >&3; timeout 10 head -c %[3]d <&3`,
			a, info(s).Address.Port(), len(a))
		if got := f.run(t, harness.Tool(t, "bash"), "-c", ask); got != a {
			t.Errorf("asked %s and got %q", a, got)
		}
	}
	if n := info(s).DatagramsOut; n != 4 {
		t.Errorf("%d answers", n)
	}
}

// TestNetnsFlowHostGone holds that a flow learns that its backend's host does not answer on its network, and moves.
func TestNetnsFlowHostGone(t *testing.T) {
	connectFarEnd(t)
	for _, family := range []string{"ipv4", "ipv6"} { // three requests of a second each are a long wait
		for name, value := range map[string]string{"mcast_solicit": "1", "retrans_time_ms": "100"} {
			if err := os.WriteFile("/proc/sys/net/"+family+"/neigh/here/"+name, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := startUDP(t, naming("b"))
	// Of IPv6, the kernel also takes what others send in our own name; so it is a hint.
	for gone, outcome := range map[string]pool.Outcome{
		"10.77.0.99:53": pool.ConnectUnreachable, "[fd77::99]:53": pool.ICMPError,
	} {
		p := newPool(t, gone, b.Address())
		s := start(t, l4.Options{Loops: 1}, flowSpec(p))
		c := dialUDP(t, address(s))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		awaitDropped(t, s, tally.DropBackendRefused, 1)
		if n := p.Backends()[0].Outcomes[outcome]; n != 1 {
			t.Errorf("%s: %d told to the pool", gone, n)
		}
		if got := askUDP(t, c, "x"); got != "b" {
			t.Errorf("%s: %s", gone, got)
		}
	}
}
