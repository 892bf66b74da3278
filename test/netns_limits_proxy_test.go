//go:build netns

package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// Senders of PROXY headers: those in trusted are believed.
const (
	trusted   = "198.18.8.0/24"
	sender    = "198.18.8.1"
	untrusted = "198.18.7.1"
)

// trustSenders is the line of a listener's table that trusts them.
func trustSenders() string {
	return fmt.Sprintf(`proxy_protocol = { accept = "any", trusted = [%q] }`, trusted)
}

// freeAt4 is a free port of the address where balancers are connected to.
func freeAt4(t *testing.T) string { return net.JoinHostPort(at4, fmt.Sprint(harness.FreePort(t))) }

// proxyHeader is the header that names a client.
func proxyHeader(version int, client string) string {
	a := netip.MustParseAddr(client)
	if version == 1 {
		if a.Is4() {
			return fmt.Sprintf("PROXY TCP4 %s 192.0.2.1 4711 80\r\n", a)
		}
		return fmt.Sprintf("PROXY TCP6 %s 2001:db8::1 4711 80\r\n", a)
	}
	family, to := byte(0x11), netip.MustParseAddr("192.0.2.1")
	if a.Is6() {
		family, to = 0x21, netip.MustParseAddr("2001:db8::1")
	}
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), family)
	b = binary.BigEndian.AppendUint16(b, uint16(2*a.BitLen()/8+4))
	b = append(append(b, a.AsSlice()...), to.AsSlice()...)
	return string(append(b, 0x12, 0x67, 0, 80))
}

// TestNetnsLimitsBehindProxy has a trusted sender name its clients: each of them is limited by itself, and the sender
// is not.
func TestNetnsLimitsBehindProxy(t *testing.T) {
	const burst = 4
	layClients(t)
	for _, version := range []int{1, 2} {
		for _, names := range []struct {
			abuser func(i int) string
			others []string
		}{
			{func(int) string { return "203.0.113.1" }, []string{"203.0.113.2", "203.0.113.3"}},
			{func(i int) string { return fmt.Sprintf("2001:db8:0:1::%x", i+1) },
				[]string{"2001:db8:0:2::1", "2001:db8:0:3::1"}},
		} {
			t.Run(fmt.Sprintf("v%d %s", version, names.others[0]), func(t *testing.T) {
				at := freeAt4(t)
				w := world{Listen: at, Backends: []string{greet(t)}, Listener: []string{trustSenders(), rarely(burst)}}
				b := w.start(t)
				for i := range 3 * burst {
					want := 0
					if i < burst {
						want = 1
					}
					expectVisits(t, sender, at, proxyHeader(version, names.abuser(i)), 1, want, isReset)
				}
				for _, other := range names.others {
					expectVisits(t, sender, at, proxyHeader(version, other), burst, burst, "")
				}
				measured(t, b, map[string]float64{
					refusedAs("client_rate"):                     2 * burst,
					`limeload_listener_clients{listener="main"}`: float64(1 + len(names.others)),
				})

				w.Listener[1] = limitLines("client_sessions = 2") // the same clients, with other limits
				b.Reload(t, w.config(t))
				awaitMetric(t, b, `limeload_listener_sessions{listener="main"}`, 0)
				for _, client := range append(names.others, names.abuser(7)) {
					for range 2 {
						if _, how := visit(t, sender, at, proxyHeader(version, client)); how != isServed {
							t.Errorf("%s is %s", client, how)
						}
					}
					expectVisits(t, sender, at, proxyHeader(version, client), 2, 0, isReset)
				}
				measured(t, b, map[string]float64{refusedAs("client_sessions"): float64(2 * (1 + len(names.others)))})
			})
		}
	}
}

// TestNetnsLimitsOfUntrusted has a sender whose headers are not believed name ever new clients: it is limited itself.
func TestNetnsLimitsOfUntrusted(t *testing.T) {
	layClients(t)
	at := freeAt4(t)
	b := world{Listen: at, Backends: []string{greet(t)}, Listener: []string{trustSenders(),
		limitLines(`client_rate = "1/h burst 3"`), `access = { deny = ["203.0.113.0/24"] }`}}.start(t)
	for i := range 8 {
		want := 0
		if i < 3 {
			want = 1
		}
		expectVisits(t, untrusted, at, proxyHeader(1+i%2, fmt.Sprintf("203.0.113.%d", i+1)), 1, want, isReset)
	}
	expectVisits(t, sender, at, proxyHeader(1, "192.0.2.7"), 3, 3, "")
	expectVisits(t, sender, at, proxyHeader(2, "203.0.113.7"), 1, 0, isReset)
	measured(t, b, map[string]float64{refusedAs("client_rate"): 5, refusedAs("denied"): 1})
}

// TestNetnsAccessBehindProxy holds that access lists are about the clients that a trusted sender names, and not about
// the sender, and that a sender that is not trusted is a client like any other.
func TestNetnsAccessBehindProxy(t *testing.T) {
	layClients(t)
	at := freeAt4(t)
	w := world{Listen: at, Backends: []string{greet(t)}}
	config := func(access string) string {
		w.Listener = []string{trustSenders(), "access = { " + access + " }"}
		return w.config(t)
	}
	b := harness.StartBalancer(t, config(fmt.Sprintf(`deny = [%q, "203.0.113.66", "2001:db8:66::/48"]`, trusted)))
	for _, version := range []int{1, 2} {
		for client, want := range map[string]int{
			"203.0.113.1": 1, "203.0.113.66": 0, "2001:db8:1::1": 1, "2001:db8:66:7::1": 0,
		} {
			expectVisits(t, sender, at, proxyHeader(version, client), 1, want, isReset)
		}
	}
	expectVisits(t, untrusted, at, proxyHeader(1, "203.0.113.66"), 1, 1, "")
	measured(t, b, map[string]float64{refusedAs("denied"): 4})
	b.Reload(t, config(`allow = ["203.0.113.0/24"]`))
	expectVisits(t, sender, at, proxyHeader(1, "203.0.113.66"), 1, 1, "")
	expectVisits(t, sender, at, proxyHeader(1, "192.0.2.7"), 1, 0, isReset)
	expectVisits(t, untrusted, at, proxyHeader(1, "203.0.113.1"), 1, 0, isReset)
}

// TestNetnsLimitsBehindHAProxy has HAProxy in front, which names its clients.
func TestNetnsLimitsBehindHAProxy(t *testing.T) {
	layClients(t)
	for _, send := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(send, func(t *testing.T) {
			front, at := freeAt4(t), freeAt4(t)
			b := world{Listen: at, Backends: []string{greet(t)}, Listener: []string{trustSenders(),
				limitLines(`client_rate = "1/h burst 3"`),
				fmt.Sprintf(`access = { deny = [%q, "198.18.66.0/24"] }`, trusted)}}.start(t)
			harness.StartHAProxy(t, fmt.Sprintf("listen all\n mode tcp\n bind %s\n server lb %s %s source %s\n", front, at, send,
				sender), front)
			visitFront := func(from string, come, want int) {
				t.Helper()
				fares := visits(t, come, from, front, "")
				if fares[isServed] != want {
					t.Errorf("%s comes %d times, and is %v", from, come, fares)
				}
			}
			visitFront("198.18.0.1", 9, 3)
			visitFront("198.18.0.2", 3, 3)
			visitFront("198.18.0.3", 3, 3)
			visitFront("198.18.66.7", 2, 0)
			visitFront("198.18.0.1", 1, 0)
			measured(t, b, map[string]float64{refusedAs("client_rate"): 7, refusedAs("denied"): 2})
		})
	}
}
