package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// loopbackProxies are lines of a listener's table that trust this machine.
func loopbackProxies(more ...string) string {
	return "proxy_protocol = { " + strings.Join(append([]string{`accept = "any"`,
		`trusted = ["127.0.0.0/8", "::1"]`}, more...), ", ") + " }"
}

// bothFamilies returns addresses of IPv4 and IPv6 on one free port.
func bothFamilies(t *testing.T) []string {
	port := harness.FreePort(t)
	return []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port)}
}

// TestProxyProtocolIn has HAProxy and nginx name their clients.
func TestProxyProtocolIn(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	at := fmt.Sprintf(":%d", harness.FreePort(t))
	b := world{Listen: at, Backends: []string{backend.Address()}, Listener: []string{loopbackProxies()}}.start(t)
	for name, start := range map[string]func(front []string, lb string){
		"HAProxy v1": func(front []string, lb string) {
			harness.StartHAProxy(t, fmt.Sprintf("listen all\n mode tcp\n bind %s\n bind %s\n server lb %s send-proxy\n",
				front[0], front[1], lb), front...)
		},
		"HAProxy v2": func(front []string, lb string) {
			harness.StartHAProxy(t, fmt.Sprintf("listen all\n mode tcp\n bind %s\n bind %s\n unique-id-format id-%%ci\n"+
				" server lb %s send-proxy-v2 proxy-v2-options crc32c,unique-id\n", front[0], front[1], lb), front...)
		},
		"nginx v1": func(front []string, lb string) {
			harness.StartNginxTCP(t, fmt.Sprintf("server { listen %s; listen %s; proxy_pass %s; proxy_protocol on; }",
				front[0], front[1], lb), front...)
		},
	} {
		for _, lb := range []string{"127.0.0.1" + at, "[::1]" + at} {
			front := bothFamilies(t)
			start(front, lb)
			for _, address := range front {
				c := harness.Dial(t, address)
				check(t, harness.PingPong(c, 3, 1000))
				check(t, c.Close())
				// The start of a proxy is found out by a connection, perhaps from the same port.
				line := b.WaitLine(t, "the session of "+name, func(l harness.Line) bool {
					return l.IsAccess() && l.Client == c.LocalAddr().String() && l.Reason != "probe"
				})
				if line.BytesIn != 3000 || line.Reason != "client_closed" || !line.Has("via") {
					t.Errorf("%s from %s to %s: %s", name, address, lb, line.Text)
				}
			}
		}
	}
}

// TestProxyProtocolOut has HAProxy and nginx say who their client is.
func TestProxyProtocolOut(t *testing.T) {
	t.Parallel()
	requests := map[string]string{"HAProxy": "GET / HTTP/1.0\r\n\r\n", "nginx": ""}
	haproxy, nginx := bothFamilies(t), bothFamilies(t)
	harness.StartHAProxy(t, fmt.Sprintf("frontend all\n mode http\n bind %s accept-proxy\n bind %s accept-proxy\n"+
		" http-request return status 200 content-type text/plain lf-string \"%%[src] %%[src_port] %%[dst] %%[dst_port]\"\n",
		haproxy[0], haproxy[1]), haproxy...)
	harness.StartNginxTCP(t, fmt.Sprintf("server { listen %s proxy_protocol; listen %s proxy_protocol; return "+
		"\"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }",
		nginx[0], nginx[1]), nginx...)
	words := func(client, local netip.AddrPort) string {
		return fmt.Sprintf("%s %d %s %d", client.Addr(), client.Port(), local.Addr(), local.Port())
	}
	for name, backends := range map[string][]string{"HAProxy": haproxy, "nginx": nginx} {
		for _, backend := range backends {
			for _, version := range []string{"v1", "v2"} {
				at := fmt.Sprintf(":%d", harness.FreePort(t))
				b := world{
					Listen: at, Backends: []string{backend}, Listener: []string{loopbackProxies()},
					Pool: []string{fmt.Sprintf("send_proxy = %q", version)},
				}.start(t)
				for header, client := range map[string]string{
					"PROXY UNKNOWN\r\n":                              "",
					"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n":  "192.0.2.7 4711 198.51.100.1 80",
					"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n": "2001:db8::7 4711 2001:db8::1 80",
				} {
					c := harness.Dial(t, "127.0.0.1"+at)
					check(t, harness.SendAll(c, header+requests[name]))
					body := readAll(t, c)
					body = body[strings.LastIndex(body, "\n")+1:]
					check(t, c.Close())
					if client == "" {
						client = words(addrPort(c.LocalAddr()), addrPort(c.RemoteAddr()))
					}
					if body != client {
						t.Errorf("%s at %s, %s after %q: %q, want %q", name, backend, version, header, body, client)
					}
				}
				b.WaitSessions(t, 3)
			}
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// TestProxyProtocolThrough has the balancer between two HAProxies: what the first one says of the client, and what else
// it says, reaches the second one.
func TestProxyProtocolThrough(t *testing.T) {
	t.Parallel()
	front, behind, lb := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	harness.StartHAProxy(t, fmt.Sprintf("frontend all\n mode http\n bind %s accept-proxy\n"+
		" http-request return status 200 content-type text/plain lf-string "+
		"\"%%[src] %%[src_port] %%[dst] %%[dst_port] %%[fc_pp_unique_id]\"\n", behind), behind)
	world{
		Listen: lb, Backends: []string{behind}, Listener: []string{loopbackProxies()}, Pool: []string{`send_proxy = "v2"`},
	}.start(t)
	harness.StartHAProxy(t, fmt.Sprintf("listen all\n mode tcp\n bind %s\n unique-id-format id-%%ci\n"+
		" server lb %s send-proxy-v2 proxy-v2-options crc32c,unique-id\n", front, lb), front)
	c := harness.Dial(t, front)
	check(t, harness.SendAll(c, "GET / HTTP/1.0\r\n\r\n"))
	_, body, _ := strings.Cut(readAll(t, c), "\r\n\r\n")
	client, local := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	if want := fmt.Sprintf("%s %d %s %d id-127.0.0.1", client.Addr(), client.Port(), local.Addr(),
		local.Port()); body != want {
		t.Errorf("%q, want %q", body, want)
	}
}

// TestProxyProtocolChecks has a backend that serves nobody without a header: its checks have one exactly if send_proxy
// is set, from the moment of a reload on.
func TestProxyProtocolChecks(t *testing.T) {
	t.Parallel()
	backend := harness.FreeAddress(t)
	harness.StartHAProxy(t, fmt.Sprintf("frontend all\n mode http\n bind %s accept-proxy\n"+
		" http-request return status 200 content-type text/plain string ok\n", backend), backend)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend}, Breaker: []string{"failures = 0"},
		Health: []string{`type = "http"`, `interval = "100ms"`, `fast_interval = "50ms"`, "rise = 1", "fall = 1"}}
	started := time.Now()
	b := w.start(t)
	b.WaitVerdict(t, "b1", "unhealthy", started)
	for _, version := range []string{"v1", "v2"} {
		w.Pool = []string{fmt.Sprintf("send_proxy = %q", version)}
		started = time.Now()
		b.Reload(t, w.config(t))
		b.WaitVerdict(t, "b1", "healthy", started)
		w.Pool = nil
		started = time.Now()
		b.Reload(t, w.config(t))
		b.WaitVerdict(t, "b1", "unhealthy", started)
	}
}

// TestProxyProtocolOfStrangers holds that a header from an address that is not trusted reaches the backend as it is,
// before and after a reload that changes who is trusted.
func TestProxyProtocolOfStrangers(t *testing.T) {
	t.Parallel()
	const header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}, Listener: []string{
		`proxy_protocol = { accept = "any", trusted = ["10.0.0.0/8", "127.0.0.2"] }`,
	}}
	b := w.start(t)
	stranger := func() {
		t.Helper()
		c := b.Dial(t, "main")
		check(t, harness.SendAll(c, header))
		check(t, c.CloseWrite())
		if got := readAll(t, c); got != header {
			t.Errorf("the backend was sent %q", got)
		}
		if line := b.WaitSession(t, c.LocalAddr()); line.Has("via") || line.BytesIn != int64(len(header)) {
			t.Error(line.Text)
		}
	}
	stranger()
	was := w.Listener
	w.Listener = []string{loopbackProxies()}
	b.Reload(t, w.config(t))
	c := b.Dial(t, "main")
	check(t, harness.SendAll(c, header))
	check(t, harness.PingPong(c, 1, 10))
	check(t, c.Close())
	b.WaitLine(t, "the named client's session", func(l harness.Line) bool { return l.Client == "192.0.2.7:4711" })
	w.Listener = was
	b.Reload(t, w.config(t))
	stranger()
}

// TestProxyProtocolFlood has 10,000 clients who send a header that never ends, a byte every now and then, and holds
// that the balancer's memory is bounded, that sessions of this and another listener go on, and that all clients are
// turned away in time.
func TestProxyProtocolFlood(t *testing.T) {
	t.Parallel()
	const clients, perClient = 10_000, 2 << 10 // bytes of memory, where an idle session has 0.6 KiB
	backend := harness.Serve(t, harness.Echo)
	flooded, other := harness.FreeAddress(t), harness.FreeAddress(t)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Measured: true, Config: fmt.Sprintf(`
[listener.flooded]
address = %q
pool = "all"
%s
[listener.other]
address = %q
pool = "all"
[pool.all]
backends = [%q]
`, flooded, loopbackProxies(`timeout = "5s"`), other, backend.Address())})
	calm, proxied := b.Dial(t, "other"), b.Dial(t, "flooded")
	check(t, harness.SendAll(proxied, "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"))
	check(t, harness.PingPong(calm, 1, 100))
	check(t, harness.PingPong(proxied, 1, 100))
	before := b.AnonMemory(t)
	conns := make([]net.Conn, 0, clients)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	const header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x0f\xff"
	for i := range clients {
		c, err := net.Dial("tcp", flooded)
		check(t, err)
		conns = append(conns, c)
		check(t, harness.SendAll(c, header[:1+i%len(header)]))
	}
	for i, c := range conns {
		_, _ = io.WriteString(c, header[1+i%len(header):]+"x") // some may have been turned away already
	}
	if grown := b.AnonMemory(t) - before; grown > clients*perClient {
		t.Errorf("%d clients take %d KiB of memory", clients, grown>>10)
	}
	for range 20 {
		check(t, harness.PingPong(calm, 10, 100))
		check(t, harness.PingPong(proxied, 10, 100))
		check(t, harness.PingPong(b.Dial(t, "other"), 1, 100))
	}
	harness.Eventually(t, "all are turned away", func() error {
		n := 0
		for _, l := range b.Sessions() {
			if l.Reason == "proxy_header" && l.Listener == "flooded" && l.Backend == "" {
				n++
			}
		}
		if n != clients {
			return fmt.Errorf("%d were", n)
		}
		return nil
	})
	check(t, harness.PingPong(proxied, 1, 100))
}

// TestProxyProtocolDocument runs the configuration of docs/proxy-protocol.md, with addresses of this machine.
func TestProxyProtocolDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/proxy-protocol.md")
	check(t, err)
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(page)
	if found == nil {
		t.Fatal("the page has no configuration")
	}
	backends := []string{harness.FreeAddress(t), harness.FreeAddress(t)}
	for _, address := range backends {
		harness.StartHAProxy(t, fmt.Sprintf("frontend all\n mode http\n bind %s accept-proxy\n"+
			" http-request return status 200 content-type text/plain lf-string %%[src]\n", address), address)
	}
	text := string(found[1])
	for from, to := range map[string]string{
		`":8080"`: fmt.Sprintf("%q", harness.FreeAddress(t)), "10.0.0.0/8": "127.0.0.0/8",
		"10.0.1.11:8080": backends[0], "10.0.1.12:8080": backends[1],
	} {
		if !strings.Contains(text, from) {
			t.Fatalf("the configuration has no %s", from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	started := time.Now()
	b := harness.StartBalancer(t, text)
	for _, backend := range backends {
		b.WaitVerdict(t, backend, "healthy", started)
	}
	c := b.Dial(t, "web")
	check(t, harness.SendAll(c, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\nGET / HTTP/1.0\r\n\r\n"))
	if _, body, _ := strings.Cut(readAll(t, c), "\r\n\r\n"); body != "2001:db8::7" {
		t.Errorf("the backend's client is %q", body)
	}
}
