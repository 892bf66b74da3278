package test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/miekg/dns"
)

// startUDP starts a balancer whose listener "main" is of UDP. Its flows do not end by themselves, unless the world says how; those that
// are left at the end of the test are ended then.
func (w world) startUDP(t testing.TB) *harness.Balancer {
	t.Helper()
	lines := []string{`protocol = "udp"`}
	if !slices.ContainsFunc(w.Listener, func(line string) bool { return strings.HasPrefix(line, "flow_timeout") }) {
		lines = append(lines, `flow_timeout = "1h"`)
	}
	w.Listener = append(lines, w.Listener...)
	b := w.start(t)
	t.Cleanup(func() { endFlows(t, b) })
	return b
}

// endFlows ends the flows that a running balancer has.
func endFlows(t testing.TB, b *harness.Balancer) {
	select {
	case <-b.Done():
		return
	default:
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		// not by Ask: the test's context has ended when this is its cleanup
		if status, answer, err := b.TryAPI(context.Background(), "DELETE", "/v1/sessions?client="+all, nil); err != nil || status/100 != 2 {
			t.Errorf("end of the flows: %d %s %v", status, answer, err)
		}
	}
}

// A udpListener is the part of what the control API says of a listener that the tests look at.
type udpListener struct {
	Name         string
	Protocol     string
	Sessions     int
	Accepted     uint64
	BytesIn      uint64            `json:"bytes_in"`
	BytesOut     uint64            `json:"bytes_out"`
	DatagramsIn  uint64            `json:"datagrams_in"`
	DatagramsOut uint64            `json:"datagrams_out"`
	Dropped      map[string]uint64 // what is zero may be there or not
}

// drops is how many datagrams were dropped, by all reasons but those that are zero.
func (l udpListener) drops() map[string]uint64 {
	drops := map[string]uint64{}
	for reason, n := range l.Dropped {
		if n > 0 {
			drops[reason] = n
		}
	}
	return drops
}

// udpFigures asks for the figures of listener "main".
func udpFigures(t testing.TB, b *harness.Balancer) udpListener {
	t.Helper()
	var answer struct{ Listeners []udpListener }
	b.Ask(t, "GET", "/v1/listeners", nil, &answer)
	for _, l := range answer.Listeners {
		if l.Name == "main" {
			return l
		}
	}
	t.Fatalf("no listener main in %+v", answer)
	return udpListener{}
}

// awaitDrops waits until so many datagrams are counted as dropped for this reason.
func awaitDrops(t testing.TB, b *harness.Balancer, reason string, n uint64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d datagrams are dropped for %s", n, reason), func() error {
		if drops := udpFigures(t, b).drops(); drops[reason] != n {
			return fmt.Errorf("dropped are %v", drops)
		}
		return nil
	})
}

// ask sends a datagram to the balancer and returns the answer, which must come.
func ask(t testing.TB, c net.Conn, message string) string {
	t.Helper()
	answer, err := harness.AskUDP(c, []byte(message))
	check(t, err)
	return string(answer)
}

// askOnce asks from a new socket.
func askOnce(t testing.TB, b *harness.Balancer, message string) string {
	t.Helper()
	return ask(t, harness.DialUDP(t, b.Address(t, "main")), message)
}

// udpNamed starts UDP backends that answer with their names, b1, b2 and so on.
func udpNamed(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for i := range n {
		addresses = append(addresses, harness.ServeUDP(t, harness.NameDatagrams(backendName(i))).Address())
	}
	return addresses
}

// dnsZone is a zone with n names of addresses and as many of texts, and the questions for them.
func dnsZone(n int) (records string, questions []string) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "h%d A 192.0.2.%d\nh%d AAAA 2001:db8::%x\nt%d TXT %q\n", i, i%250, i, i, i, strings.Repeat("text ", i%40))
		questions = append(questions,
			fmt.Sprintf("h%d.%s A", i, harness.DNSZone), fmt.Sprintf("h%d.%s AAAA", i, harness.DNSZone),
			fmt.Sprintf("t%d.%s TXT", i, harness.DNSZone), fmt.Sprintf("no%d.%s A", i, harness.DNSZone))
	}
	return b.String(), questions
}

// TestUDPNameServer puts a real name server behind the balancer: it gives the answers of the server itself, to many clients at once, and
// none is lost.
func TestUDPNameServer(t *testing.T) {
	t.Parallel()
	const clients = 30
	server := harness.StartDNS(t)
	records, questions := dnsZone(40)
	server.SetZone(t, records)
	b := world{Backends: []string{server.Address}}.startUDP(t)
	direct := make(map[string]string)
	for _, q := range questions {
		answer, err := resolve(q, server.Address)
		check(t, err)
		direct[q] = answer
	}
	address := b.Address(t, "main")
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			for k := range 20 {
				q := questions[(7*i+11*k)%len(questions)]
				if answer, err := resolve(q, address); err != nil || answer != direct[q] {
					t.Errorf("client %d, %s: %v, answer\n%s\nexpected\n%s", i, q, err, answer, direct[q])
					return
				}
			}
		})
	}
	asking.Wait()

	p := harness.RunDNSPerf(t, address, questions, "-c", "20", "-Q", "1000", "-l", "2")
	if p.Lost != 0 || p.Completed != p.Sent || p.Sent < 1000 || p.Codes["NOERROR"] < 2*p.Codes["NXDOMAIN"] {
		t.Errorf("dnsperf: %s", p.Text)
	}
	l := udpFigures(t, b)
	if want := uint64(20*clients + p.Sent); l.Protocol != "udp" || l.DatagramsIn != want || l.DatagramsOut != want || len(l.drops()) != 0 {
		t.Errorf("after %d questions: %+v", want, l)
	}
}

// resolve asks one question, as "name type", from a socket of its own, and returns the answer but for its id.
func resolve(question, address string) (string, error) {
	name, kind, _ := strings.Cut(question, " ")
	m := new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
	client := dns.Client{Timeout: harness.Patience}
	answer, _, err := client.Exchange(m, address)
	if err != nil {
		return "", err
	}
	if answer.Id != m.Id {
		return "", fmt.Errorf("answer to question %d is to %d", m.Id, answer.Id)
	}
	answer.Id = 0
	return answer.String(), nil
}

// TestUDPSizes sends datagrams from none to the most bytes there are, over both IP versions on either side.
func TestUDPSizes(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:%d", "[::1]:%d"} {
		for _, at := range []string{"127.0.0.1:%d", "[::1]:%d"} {
			t.Run(listen+" to "+at, func(t *testing.T) {
				backend := harness.ServeUDPOn(t, fmt.Sprintf(at, harness.FreePort(t)), harness.EchoDatagrams)
				b := world{Listen: fmt.Sprintf(listen, harness.FreePort(t)), Backends: []string{backend.Address()}}.startUDP(t)
				c := harness.DialUDP(t, b.Address(t, "main"))
				var total uint64
				sizes := []int{0, 1, 512, 1472, 1473, 4096, 16_000, harness.MaxDatagram, 0, 1}
				for i, size := range sizes {
					message := strings.Repeat(string(rune('a'+i)), size)
					if answer := ask(t, c, message); answer != message {
						t.Errorf("%d bytes came back as %d, beginning with %.20q", size, len(answer), answer)
					}
					total += uint64(size)
				}
				l := udpFigures(t, b)
				if n := uint64(len(sizes)); l.DatagramsIn != n || l.DatagramsOut != n || l.BytesIn != total || l.BytesOut != total || len(l.drops()) != 0 {
					t.Errorf("after %d datagrams of %d bytes: %+v", n, total, l)
				}
			})
		}
	}
}

// TestUDPWildcard asks a listener of all addresses at several: the answer comes from the one that was asked, or a connected socket would
// not take it.
func TestUDPWildcard(t *testing.T) {
	t.Parallel()
	four, six := []string{"127.0.0.1", "127.0.0.2", "127.5.6.7"}, []string{"::1"}
	for _, tc := range []struct {
		listen string
		asked  []string
	}{
		{":%d", append(four, six...)},
		{"0.0.0.0:%d", four},
		{"[::]:%d", six},
	} {
		t.Run(tc.listen, func(t *testing.T) {
			port := harness.FreePort(t)
			backend := harness.ServeUDP(t, harness.EchoDatagrams)
			b := world{Listen: fmt.Sprintf(tc.listen, port), Backends: []string{backend.Address()}}.startUDP(t)
			for _, address := range tc.asked {
				for _, from := range tc.asked {
					if strings.Contains(address, ":") != strings.Contains(from, ":") {
						continue
					}
					c := harness.DialUDPFrom(t, from, net.JoinHostPort(address, strconv.Itoa(port)))
					if answer := ask(t, c, address); answer != address {
						t.Errorf("%s, asked from %s, answered %q", address, from, answer)
					}
				}
			}
			// one socket, two of its addresses: two flows, neither with the other's answers
			if len(tc.asked) < 3 {
				return
			}
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP("127.0.0.1")})
			check(t, err)
			defer c.Close()
			check(t, c.SetDeadline(time.Now().Add(2*harness.Patience)))
			for _, address := range []string{"127.0.0.2", "127.5.6.7", "127.0.0.2"} {
				_, err := c.WriteTo([]byte(address), &net.UDPAddr{IP: net.ParseIP(address), Port: port})
				check(t, err)
				answer := make([]byte, 100)
				n, from, err := c.ReadFromUDP(answer)
				check(t, err)
				if string(answer[:n]) != address || from.IP.String() != address {
					t.Errorf("%s was asked and %s answered %q", address, from.IP, answer[:n])
				}
			}
			if tc.listen != "[::]:%d" && udpFigures(t, b).Sessions == 0 {
				t.Error("there are no flows")
			}
		})
	}
}

// TestUDPFlowKey sees from the backends which datagrams go together.
func TestUDPFlowKey(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, key string) *harness.Balancer {
		return world{
			Backends: udpNamed(t, 3), Pool: []string{`algorithm = "round_robin"`}, Listener: []string{fmt.Sprintf("flow_key = %q", key)},
		}.startUDP(t)
	}
	t.Run("client", func(t *testing.T) {
		b := start(t, "client")
		shares := map[string]int{}
		for range 6 {
			c := harness.DialUDP(t, b.Address(t, "main"))
			first := ask(t, c, "?")
			shares[first]++
			for range 10 {
				if name := ask(t, c, "?"); name != first {
					t.Errorf("%s answers where %s did", name, first)
				}
			}
		}
		if fmt.Sprint(shares) != "map[b1:2 b2:2 b3:2]" {
			t.Errorf("clients by backend: %v", shares)
		}
	})
	t.Run("client_ip", func(t *testing.T) {
		b := start(t, "client_ip")
		shares := map[string]int{}
		for i := range 6 {
			from := fmt.Sprintf("127.0.3.%d", 1+i)
			first := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
			shares[first]++
			for range 10 {
				if name := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?"); name != first {
					t.Errorf("%s answers another socket of %s than %s, which did the first", name, from, first)
				}
			}
		}
		if fmt.Sprint(shares) != "map[b1:2 b2:2 b3:2]" {
			t.Errorf("addresses by backend: %v", shares)
		}
	})
	t.Run("packet", func(t *testing.T) {
		b := start(t, "packet")
		c := harness.DialUDP(t, b.Address(t, "main"))
		shares := map[string]int{}
		for range 30 {
			shares[ask(t, c, "?")]++
		}
		if fmt.Sprint(shares) != "map[b1:10 b2:10 b3:10]" {
			t.Errorf("datagrams by backend: %v", shares)
		}
		if l := udpFigures(t, b); l.Sessions != 3 || l.Accepted != 3 {
			t.Errorf("a client of three backends has %d flows, and had %d", l.Sessions, l.Accepted)
		}
	})
}

// TestUDPShares has clients come to three backends of weights 1, 2 and 3, and stay.
func TestUDPShares(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		algorithm string
		leeway    float64 // of within; 0 = exact
	}{
		{"round_robin", 0}, {"least_conn", 0}, {"random", 1}, {"p2c", 1},
	} {
		t.Run(tc.algorithm, func(t *testing.T) {
			const clients = 300
			b := world{
				Backends: udpNamed(t, 3), Keys: []string{"weight = 1", "weight = 2", "weight = 3"},
				Pool: []string{fmt.Sprintf("algorithm = %q", tc.algorithm)},
			}.startUDP(t)
			got := map[string]int{}
			for range clients {
				got[askOnce(t, b, "?")]++
			}
			if tc.leeway == 0 && fmt.Sprint(got) != "map[b1:50 b2:100 b3:150]" {
				t.Errorf("clients by backend: %v", got)
			}
			if err := within(got, clients, max(tc.leeway, 1), 1, 2, 3); err != nil {
				t.Error(err)
			}
		})
	}
	for _, algorithm := range []string{"client_hash", "ring_hash", "maglev"} {
		t.Run(algorithm, func(t *testing.T) {
			b := world{Backends: udpNamed(t, 3), Pool: []string{fmt.Sprintf("algorithm = %q", algorithm)}}.startUDP(t)
			got := map[string]int{}
			for i := range 60 {
				from := fmt.Sprintf("127.0.4.%d", 1+i)
				first := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
				second := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
				if first != second {
					t.Errorf("%s got %s, and then %s", from, first, second)
				}
				got[first]++
			}
			if len(got) != 3 {
				t.Errorf("addresses by backend: %v", got)
			}
		})
	}
}

// TestUDPAccessLine looks at each field of a flow's line, and at the flow while it is one.
func TestUDPAccessLine(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{Backends: []string{backend.Address()}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	for _, message := range []string{"one", "", "three"} {
		ask(t, c, message)
	}

	var list struct {
		Sessions []struct {
			ID, Listener, Client, Pool, Backend string
			Address                             string `json:"backend_address"`
			BytesIn                             uint64 `json:"bytes_in"`
			BytesOut                            uint64 `json:"bytes_out"`
		}
		Total int
	}
	b.Ask(t, "GET", "/v1/sessions", nil, &list)
	if list.Total != 1 || len(list.Sessions) != 1 {
		t.Fatalf("one flow is listed as %+v", list)
	}
	f := list.Sessions[0]
	if f.ID == "" || f.Listener != "main" || f.Client != c.LocalAddr().String() || f.Pool != "all" || f.Backend != "b1" ||
		f.Address != backend.Address() || f.BytesIn != 8 || f.BytesOut != 8 {
		t.Errorf("the flow is %+v", f)
	}
	b.Ask(t, "DELETE", "/v1/sessions/"+f.ID, nil, nil)

	line := b.WaitFlow(t, c.LocalAddr())
	if line.Flow != f.ID || line.Listener != "main" || line.Pool != "all" || line.Backend != "b1" || line.BackendAddress != backend.Address() ||
		line.BytesIn != 8 || line.BytesOut != 8 || line.DatagramsIn != 3 || line.DatagramsOut != 3 || line.Retries != 0 ||
		line.Reason != "ended_by_operator" || line.Level != "info" || line.Has("err") {
		t.Errorf("%s", line.Text)
	}
	if !line.Has("first_byte_time") || line.FirstByteTime < 0 || line.Duration < line.FirstByteTime {
		t.Errorf("times: %s", line.Text)
	}
	ask(t, c, "four") // from the same socket: another flow
	if got := len(backend.Sources()); got != 2 {
		t.Errorf("the backend has seen %d flows, expected 2", got)
	}
}

// TestUDPFlowEnds ends flows by time and by answers.
func TestUDPFlowEnds(t *testing.T) {
	t.Parallel()
	t.Run("flow_timeout", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: udpNamed(t, 2), Pool: []string{`algorithm = "round_robin"`}, Listener: []string{`flow_timeout = "300ms"`}}.startUDP(t)
		c := harness.DialUDP(t, b.Address(t, "main"))
		first := ask(t, c, "?")
		line := b.WaitFlow(t, c.LocalAddr())
		if line.Reason != "idle" || line.Duration < 0.3 || line.Backend != first {
			t.Errorf("%s", line.Text)
		}
		if second := ask(t, c, "?"); second == first {
			t.Errorf("a client whose flow was forgotten got the same backend again in turn, %s", second)
		}
	})
	t.Run("responses", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: udpNamed(t, 2), Pool: []string{`algorithm = "round_robin"`}, Listener: []string{`responses = 1`}}.startUDP(t)
		c := harness.DialUDP(t, b.Address(t, "main"))
		var got []string
		for range 4 {
			got = append(got, ask(t, c, "?"))
			harness.Eventually(t, "the flow has ended with its answer", func() error {
				if n := udpFigures(t, b).Sessions; n != 0 {
					return fmt.Errorf("there are %d", n)
				}
				return nil
			})
		}
		if slices.Equal(got[:2], []string{got[0], got[0]}) || got[0] != got[2] || got[1] != got[3] {
			t.Errorf("answers of %v, expected turns", got)
		}
		if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "answered" || line.DatagramsOut != 1 {
			t.Errorf("%s", line.Text)
		}
	})
}

// TestUDPLimits has more clients than may be: their datagrams are dropped and counted, the others are served, and so are they when
// there is room.
func TestUDPLimits(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	t.Run("max_flows", func(t *testing.T) {
		b := world{Backends: []string{backend.Address()}, Listener: []string{"max_flows = 2"}}.startUDP(t)
		one, two, three := harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, b.Address(t, "main"))
		ask(t, one, "1")
		ask(t, two, "2")
		for i := range 3 {
			check(t, harness.SendAll(three, "lost"))
			awaitDrops(t, b, "table_full", uint64(i+1))
		}
		ask(t, one, "1")
		ask(t, two, "2")
		b.Ask(t, "DELETE", "/v1/sessions?client="+one.LocalAddr().(*net.UDPAddr).IP.String(), nil, nil)
		b.WaitFlow(t, one.LocalAddr())
		b.WaitFlow(t, two.LocalAddr())
		if got := ask(t, three, "now"); got != "now" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("client_flows", func(t *testing.T) {
		b := world{Backends: []string{backend.Address()}, Listener: []string{"client_flows = 2"}}.startUDP(t)
		address := b.Address(t, "main")
		for i := range 2 {
			ask(t, harness.DialUDPFrom(t, "127.0.0.5", address), fmt.Sprint(i))
		}
		third := harness.DialUDPFrom(t, "127.0.0.5", address)
		check(t, harness.SendAll(third, "lost"))
		awaitDrops(t, b, "client_limit", 1)
		for i := range 2 {
			ask(t, harness.DialUDPFrom(t, fmt.Sprintf("127.0.0.%d", 6+i), address), "another client")
		}
		if drops := udpFigures(t, b).drops(); drops["client_limit"] != 1 || len(drops) != 1 {
			t.Errorf("dropped are %v", drops)
		}
	})
}
