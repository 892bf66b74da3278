//go:build netns

// These tests have clients of many addresses, which need a network namespace of their own, see netns_linux_test.go.

package test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

// The addresses that layClients gives to this machine, besides those of loopback.
const (
	clients4 = "198.18.0.0/15"
	clients6 = "2001:db8::/32"
	at4      = "198.19.255.1" // where balancers are connected to
	at6      = "2001:db8:ffff::1"
)

// layClients gives loopback all addresses of two prefixes, for clients to come from.
func layClients(t *testing.T) {
	t.Helper()
	ownNamespace(t)
	for _, prefix := range []string{clients4, clients6} {
		ip(t, "route", "add", "local", prefix, "dev", "lo")
		t.Cleanup(func() { ip(t, "route", "del", "local", prefix, "dev", "lo") })
	}
	// a local route is enough to bind to an address of IPv4, but not of IPv6
	check(t, os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0))
}

// A crowd is an abuser and other clients.
type crowd struct {
	name   string
	at     string             // the listener's address, without the port
	abuser func(i int) string // its addresses, which are those of one client
	others []string           // addresses of other clients
}

func crowds() []crowd {
	return []crowd{
		{"IPv4", at4, func(int) string { return "198.18.0.1" }, []string{"198.18.0.2", "198.18.0.3", "198.19.0.1"}},
		{"IPv6", at6, func(int) string { return "2001:db8:0:1::1" },
			[]string{"2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:1:1::1"}},
		{"IPv6, ever new addresses of a /64", at6, func(i int) string {
			return fmt.Sprintf("2001:db8:0:1:%x:%x::%x", i*7919%65536, i, i+1)
		}, []string{"2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:1:1::1"}},
	}
}

// forCrowds runs a test for each crowd, with a balancer that listens on all addresses.
func forCrowds(t *testing.T, w world, start func(w world, t *testing.T) *harness.Balancer,
	f func(t *testing.T, b *harness.Balancer, c crowd, at string)) {
	layClients(t)
	for _, c := range crowds() {
		t.Run(c.name, func(t *testing.T) {
			port := fmt.Sprint(harness.FreePort(t))
			w.Listen = ":" + port
			f(t, start(w, t), c, net.JoinHostPort(c.at, port))
		})
	}
}

func startTCP(w world, t *testing.T) *harness.Balancer { return w.start(t) }

// startKilled starts a balancer that would have sockets to DNS servers for ten seconds more.
func startKilled(w world, t *testing.T) *harness.Balancer {
	t.Helper()
	return harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config(t), Killed: true})
}

// rarely is the line of a listener's table that lets a client come so often, and then once an hour: as good as never.
func rarely(burst int) string { return limitLines(fmt.Sprintf(`client_rate = "1/h burst %d"`, burst)) }

// TestNetnsClientRate has one client connect more often than it may: it alone is refused.
func TestNetnsClientRate(t *testing.T) {
	const burst = 5
	w := world{Backends: []string{greet(t)}, Listener: []string{rarely(burst)}}
	forCrowds(t, w, startTCP, func(t *testing.T, b *harness.Balancer, c crowd, at string) {
		for i := range 3 * burst {
			want := 0
			if i < burst {
				want = 1
			}
			expectVisits(t, c.abuser(i), at, "", 1, want, isReset)
		}
		for _, other := range c.others {
			expectVisits(t, other, at, "", burst, burst, "")
		}
		expectVisits(t, c.abuser(99), at, "", 1, 0, isReset)
		measured(t, b, map[string]float64{
			refusedAs("client_rate"): 2*burst + 1, `limeload_listener_clients{listener="main"}`: float64(1 + len(c.others)),
		})
	})
}

// TestNetnsClientSessions has one client hold more sessions than it may: it alone is refused, until one of them ends.
func TestNetnsClientSessions(t *testing.T) {
	const most = 4
	w := world{Backends: []string{greet(t)}, Listener: []string{limitLines(fmt.Sprintf(`client_sessions = %d`, most))}}
	forCrowds(t, w, startTCP, func(t *testing.T, b *harness.Balancer, c crowd, at string) {
		var held []net.Conn
		hold := func(from string) {
			t.Helper()
			conn, how := visit(t, from, at, "")
			if how != isServed {
				t.Fatalf("%s is %s", from, how)
			}
			held = append(held, conn)
		}
		for i := range most {
			hold(c.abuser(i))
		}
		for i := range 3 {
			expectVisits(t, c.abuser(most+i), at, "", 1, 0, isReset)
		}
		for _, other := range c.others {
			for range most {
				hold(other)
			}
			expectVisits(t, other, at, "", 1, 0, isReset)
		}
		measured(t, b, map[string]float64{refusedAs("client_sessions"): float64(3 + len(c.others))})
		for _, conn := range held {
			check(t, harness.PingPong(conn, 1, 10))
		}
		check(t, held[0].Close())
		harness.Eventually(t, "there is room for a session again", func() error {
			if conn, how := visit(t, c.abuser(50), at, ""); conn == nil {
				return fmt.Errorf("the client is %s", how)
			}
			return nil
		})
	})
}

// TestNetnsFlowLimits has one client of UDP with too many flows at once, or too many new ones: its datagrams are
// dropped, and those of others are answered.
func TestNetnsFlowLimits(t *testing.T) {
	const most = 5
	for reason, line := range map[string]string{
		"client_limit": fmt.Sprintf("client_flows = %d", most),
		"client_rate":  rarely(most),
	} {
		t.Run(reason, func(t *testing.T) {
			w := world{Listener: []string{line}}
			start := func(w world, t *testing.T) *harness.Balancer { // each has a backend of its own
				w.Backends = []string{harness.ServeUDP(t, harness.EchoDatagrams).Address()}
				return w.startUDP(t)
			}
			forCrowds(t, w, start, func(t *testing.T, b *harness.Balancer, c crowd, at string) {
				var in []*net.UDPConn
				for i := range most {
					conn := harness.DialUDPFrom(t, c.abuser(i), at)
					ask(t, conn, "a flow")
					in = append(in, conn)
				}
				for i := range 2 * most {
					check(t, harness.SendAll(harness.DialUDPFrom(t, c.abuser(most+i), at), "one too many"))
					awaitDrops(t, b, reason, uint64(i+1))
				}
				for _, other := range c.others {
					for range most {
						ask(t, harness.DialUDPFrom(t, other, at), "a flow")
					}
				}
				for _, conn := range in {
					if got := ask(t, conn, "still there"); got != "still there" {
						t.Errorf("an answer is %q", got)
					}
				}
				if n := udpFigures(t, b).Sessions; n != most*(1+len(c.others)) {
					t.Errorf("%d flows", n)
				}
			})
		})
	}
}

// TestNetnsQuestionRate has one client ask more DNS questions than it may, with and without a cache: the questions that
// are too many are dropped, and those of others are answered. dig is one of the others.
func TestNetnsQuestionRate(t *testing.T) {
	const burst = 5
	server := harness.StartDNS(t)
	server.SetZone(t, "www 300 A 192.0.2.80")
	for name, lines := range map[string][]string{"with a cache": {"cache = {}"}, "without a cache": nil} {
		t.Run(name, func(t *testing.T) {
			w := world{Backends: []string{server.Address}, Listener: append([]string{`protocol = "udp"`,
				`profile = "dns"`, rarely(burst)}, lines...)}
			forCrowds(t, w, startKilled, func(t *testing.T, b *harness.Balancer, c crowd, at string) {
				question, err := new(dns.Msg).SetQuestion("www."+harness.DNSZone, dns.TypeA).Pack()
				check(t, err)
				for i := range burst {
					if answer, err := harness.AskUDP(harness.DialUDPFrom(t, c.abuser(i), at), question); err != nil ||
						!hasAddress(t, answer, "192.0.2.80") {
						t.Errorf("question %d: %x, %v", i, answer, err)
					}
				}
				for i := range 2 * burst {
					_, err := harness.DialUDPFrom(t, c.abuser(burst+i), at).Write(question)
					check(t, err)
					awaitDrops(t, b, "client_rate", uint64(i+1))
				}
				host, port, err := net.SplitHostPort(at)
				check(t, err)
				for _, other := range c.others {
					for range burst {
						check(t, program(t, "192.0.2.80", "dig", "@"+host, "-p", port, "-b", other, "+tries=1",
							"www."+harness.DNSZone, "A"))
					}
				}
			})
		})
	}
}

func hasAddress(t *testing.T, answer []byte, address string) bool {
	t.Helper()
	m := new(dns.Msg)
	check(t, m.Unpack(answer))
	for _, rr := range m.Answer {
		if a, is := rr.(*dns.A); is && a.A.String() == address {
			return true
		}
	}
	return false
}

// TestNetnsQuestionRateTCP has one client ask more DNS questions over TCP than it may, on one connection and on new
// ones: those that are too many are answered with REFUSED, and those of others are answered.
func TestNetnsQuestionRateTCP(t *testing.T) {
	const burst = 5
	server := harness.StartDNS(t)
	server.SetZone(t, "www 300 A 192.0.2.80")
	w := world{Backends: []string{server.Address}, Listener: []string{`profile = "dns"`, "cache = {}",
		rarely(burst)}}
	forCrowds(t, w, startKilled, func(t *testing.T, b *harness.Balancer, c crowd, at string) {
		// the connection pays for the first question
		if got := askTCP(t, c.abuser(1), at, 3*burst); got[dns.RcodeSuccess] != burst || got[dns.RcodeRefused] != 2*burst {
			t.Errorf("on one connection: %v", got)
		}
		measured(t, b, map[string]float64{refusedAs("client_rate"): 0}) // of sessions
		for _, other := range c.others {
			if got := askTCP(t, other, at, burst); got[dns.RcodeSuccess] != burst {
				t.Errorf("another client: %v", got)
			}
		}
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.abuser(2))}, Timeout: harness.Patience}
		client := &dns.Client{Net: "tcp", Dialer: d, Timeout: harness.Patience}
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion("www."+harness.DNSZone, dns.TypeA), at)
		if err != nil || m.Rcode != dns.RcodeRefused {
			t.Errorf("on a new connection: %v, %v", m, err)
		}
		awaitMetric(t, b, refusedAs("client_rate"), 1)
	})
}

// askTCP asks questions on one connection, and counts the answers by their codes.
func askTCP(t *testing.T, from, at string, questions int) map[int]int {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: harness.Patience}
	raw, err := d.Dial("tcp", at)
	check(t, err)
	defer raw.Close()
	check(t, raw.SetDeadline(time.Now().Add(harness.Patience)))
	c := &dns.Conn{Conn: raw}
	codes := make(map[int]int)
	for range questions {
		check(t, c.WriteMsg(new(dns.Msg).SetQuestion("www."+harness.DNSZone, dns.TypeA)))
		m, err := c.ReadMsg()
		check(t, err)
		codes[m.Rcode]++
	}
	return codes
}

// TestNetnsClientPrefix holds that client_prefix_v4 and client_prefix_v6 say who is one client.
func TestNetnsClientPrefix(t *testing.T) {
	layClients(t)
	port := fmt.Sprint(harness.FreePort(t))
	b := world{Listen: ":" + port, Backends: []string{greet(t)}, Listener: []string{
		limitLines(`client_rate = "1/h burst 2"`, "client_prefix_v4 = 24", "client_prefix_v6 = 48"),
	}}.start(t)
	for _, tt := range []struct {
		at   string
		from []string
		want string
	}{
		{at4, strings.Fields("198.18.0.1 198.18.0.2 198.18.0.200 198.18.1.1"), "served served reset served"},
		{at6, strings.Fields("2001:db8:0:1::1 2001:db8:0:2::1 2001:db8:0:ffff::1 2001:db8:1:1::1"),
			"served served reset served"},
	} {
		var got []string
		for _, from := range tt.from {
			_, how := visit(t, from, net.JoinHostPort(tt.at, port), "")
			got = append(got, how)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%v are %v, want %s", tt.from, got, tt.want)
		}
	}
	measured(t, b, map[string]float64{`limeload_listener_clients{listener="main"}`: 4})
}

// TestNetnsAccessList holds that access lists and rules at run time are for both families at a listener of all
// addresses, for TCP and UDP.
func TestNetnsAccessList(t *testing.T) {
	layClients(t)
	tcp, udp := fmt.Sprint(harness.FreePort(t)), fmt.Sprint(harness.FreePort(t))
	echo := harness.ServeUDP(t, harness.EchoDatagrams)
	const access = `access = { allow = ["198.18.0.0/15", "2001:db8::/32"], ` +
		`deny = ["198.18.66.0/24", "2001:db8:66::/48"] }`
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Killed: true, Config: world{
		Listen: ":" + tcp, Backends: []string{greet(t)}, Listener: []string{access}}.config(t) +
		fmt.Sprintf("[listener.udp]\naddress = %q\nprotocol = 'udp'\npool = 'udp'\n%s\n[pool.udp]\nbackends = [%q]\n",
			":"+udp, access, echo.Address())})
	judge := func(clients map[string]bool) {
		t.Helper()
		for from, admitted := range clients {
			at, want := at4, 0
			if strings.Contains(from, ":") {
				at = at6
			}
			if admitted {
				want = 1
			}
			expectVisits(t, from, net.JoinHostPort(at, tcp), "", 1, want, isReset)
			before := echo.Received()
			c := harness.DialUDPFrom(t, from, net.JoinHostPort(at, udp))
			if admitted {
				ask(t, c, "is answered")
				continue
			}
			denied := fmt.Sprintf("limeload_listener_dropped_total{listener=%q,reason=%q}", "udp", "denied")
			n := metrics(t, b)[denied]
			check(t, harness.SendAll(c, "is dropped"))
			awaitMetric(t, b, denied, n+1)
			if echo.Received() != before {
				t.Errorf("a datagram of %s has come to the backend", from)
			}
		}
	}
	judge(map[string]bool{
		"198.18.0.1": true, "198.18.66.1": false, "127.0.0.1": false,
		"2001:db8:1::1": true, "2001:db8:66:7::1": false,
	})
	for _, args := range [][]string{{"deny", "2001:db8:1::/64"}, {"allow", "198.18.66.7"}, {"allow", "2001:db8:66:7::1"}} {
		if _, stderr, code := b.Command(t, append([]string{"access"}, args...)...); code != 0 {
			t.Fatalf("%v ends with %d: %s", args, code, stderr)
		}
	}
	judge(map[string]bool{
		"198.18.0.1": true, "198.18.66.1": false, "198.18.66.7": true,
		"2001:db8:1::1": false, "2001:db8:66:7::1": true, "2001:db8:66:7::2": false,
	})
}
