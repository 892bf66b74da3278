package session_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// loopback is where all clients of these tests come from.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// startProxied runs a server with one loop, whose listener expects headers of both versions from loopback.
func startProxied(t *testing.T, p *pool.Pool, change func(*l4.ListenerSpec)) (*l4.Server, *l4test.Capture) {
	t.Helper()
	ls := spec(p)
	ls.Proxy = l4.ProxySettings{Versions: l4.ProxyV1 | l4.ProxyV2, Trusted: loopback, Timeout: patience}
	if change != nil {
		change(&ls)
	}
	lines, log := newCapture()
	return start(t, l4.Options{Loops: 1, Access: true, Log: log}, ls), lines
}

// nextVia returns the next access line, and whose connection it says the client has come by.
func nextVia(t *testing.T, lines *l4test.Capture) (line l4test.AccessLine, via string) {
	t.Helper()
	text := l4test.Line(t, lines)
	var other struct{ Via string }
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := json.Unmarshal(text, &other); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return line, other.Via
}

// list lists the sessions of a server.
func list(t *testing.T, s *l4.Server) []l4.SessionInfo {
	t.Helper()
	l, err := s.List(t.Context(), l4.SessionFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return l.Sessions
}

// proxyHeaders are headers, and whom they name; "" is the connection's own address.
var proxyHeaders = []struct{ name, header, client string }{
	{"v1", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n", "192.0.2.7:4711"},
	{"v1 of IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n", "[2001:db8::7]:4711"},
	{"v1 unknown", "PROXY UNKNOWN\r\n", ""},
	{"v2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x00\x50", "192.0.2.7:4711"},
	{"v2 with TLVs", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x00\x50\x01\x00\x02h2",
		"192.0.2.7:4711"},
	{"v2 local", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", ""},
	{"v2 of a Unix socket", "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("\x00", 216), ""},
}

// TestProxyHeader holds that whoever a header names is the client, and that the backend gets what is behind it, in
// whatever pieces both come.
func TestProxyHeader(t *testing.T) {
	s, lines := startProxied(t, newPool(t, backend(t, echo)), nil)
	for _, test := range proxyHeaders {
		for _, pieces := range [][]string{
			{test.header + "hello"},
			{test.header, "hello"},
			{test.header[:len(test.header)-1], test.header[len(test.header)-1:] + "hello"},
			strings.Split(test.header+"hello", ""),
		} {
			t.Run(fmt.Sprintf("%s/%d pieces", test.name, len(pieces)), func(t *testing.T) {
				c := dial(t, address(s))
				for i, piece := range pieces {
					if i > 0 && (len(pieces) < 10 || i%16 == 0) {
						time.Sleep(2 * time.Millisecond) // so that it is a segment, and an event, of its own
					}
					if _, err := c.Write([]byte(piece)); err != nil {
						t.Fatal(err)
					}
				}
				got := make([]byte, 5)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
					t.Fatalf("%q, %v", got, err)
				}
				client := test.client
				if client == "" {
					client = c.LocalAddr().String()
				}
				if listed := list(t, s); len(listed) != 1 || listed[0].Client.String() != client {
					t.Errorf("listed: %+v", listed)
				} else if via := listed[0].Via; via.IsValid() != (test.client != "") ||
					via.IsValid() && via.String() != c.LocalAddr().String() {
					t.Errorf("listed via %v", via)
				}
				c.CloseWrite()
				if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
					t.Errorf("%q, %v", rest, err)
				}
				line, via := nextVia(t, lines)
				if line.Client != client || line.In != 5 || line.Out != 5 || line.Reason != tally.ClientClosed.String() {
					t.Errorf("%+v", line)
				}
				if want := c.LocalAddr().String(); test.client != "" && via != want || test.client == "" && via != "" {
					t.Errorf("via %q", via)
				}
			})
		}
	}
}

// TestProxyHeaderOfOthers holds that nobody who is not trusted is believed: what looks like a header is for the backend.
func TestProxyHeaderOfOthers(t *testing.T) {
	for name, trusted := range map[string][]netip.Prefix{
		"nobody": nil, "others": {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.2/32")},
	} {
		s, lines := startProxied(t, newPool(t, backend(t, echo)), func(ls *l4.ListenerSpec) { ls.Proxy.Trusted = trusted })
		for _, test := range proxyHeaders {
			c := dial(t, address(s))
			c.Write([]byte(test.header))
			c.CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != test.header {
				t.Errorf("%s is trusted, %s: %q, %v", name, test.name, got, err)
			}
			if line, via := nextVia(t, lines); line.Client != c.LocalAddr().String() || via != "" {
				t.Errorf("%s is trusted, %s: via %q, %+v", name, test.name, via, line)
			}
		}
	}
}

// TestProxyHeaderRefused holds how a session ends whose header is wrong, late or missing: before a backend is chosen.
func TestProxyHeaderRefused(t *testing.T) {
	const soon = 50 * time.Millisecond
	sends := func(text string) func(*net.TCPConn) { return func(c *net.TCPConn) { c.Write([]byte(text)) } }
	halfCloses := func(text string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { c.Write([]byte(text)); c.CloseWrite() }
	}
	for _, test := range []struct {
		name    string
		timeout time.Duration
		client  func(*net.TCPConn)
		want    l4.Reason
	}{
		{"another protocol", patience, sends("GET / HTTP/1.1\r\n\r\n"), tally.ProxyHeader},
		{"a line without an end", patience, sends("PROXY " + strings.Repeat("x", 10_000)), tally.ProxyHeader},
		{"more than may be", patience, sends("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"), tally.ProxyHeader},
		{"a wrong checksum", patience, sends("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x07\x03\x00\x04\x00\x00\x00\x00"),
			tally.ProxyHeader},
		{"nothing", soon, sends(""), tally.ProxyHeader},
		{"a part", soon, sends("PROXY TCP4 192.0.2.7"), tally.ProxyHeader},
		{"a part and a FIN", patience, halfCloses("PROXY TCP4"), tally.ProxyHeader},
		{"a FIN", patience, halfCloses(""), tally.Probe},
		{"a reset", patience, resets, tally.Probe},
		{"a part and a reset", patience, func(c *net.TCPConn) { c.Write([]byte("PROXY")); resets(c) }, tally.ClientReset},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, lines := startProxied(t, newPool(t, backend(t, echo)), func(ls *l4.ListenerSpec) {
				ls.Proxy.Timeout = test.timeout
			})
			c := dial(t, address(s))
			test.client(c)
			if test.want == tally.ProxyHeader && !reset(t, c) {
				t.Error("ended without a reset")
			}
			if line := lines.Next(t); line.Reason != test.want.String() || line.Backend != "" || line.In != 0 {
				t.Errorf("%+v", line)
			}
			if n := l4test.Info(s).Ended[test.want]; n != 1 {
				t.Errorf("%d sessions are counted", n)
			}
		})
	}
}

// TestProxyHeaderOneVersion holds that the other version is no header.
func TestProxyHeaderOneVersion(t *testing.T) {
	for version, accepted := range map[wire.ProxyVersions]string{l4.ProxyV1: "v1", l4.ProxyV2: "v2"} {
		s, lines := startProxied(t, newPool(t, backend(t, echo)), func(ls *l4.ListenerSpec) {
			ls.Proxy.Versions = version
		})
		for _, test := range proxyHeaders {
			c := dial(t, address(s))
			c.Write([]byte(test.header))
			want := tally.ProxyHeader
			if strings.HasPrefix(test.name, accepted) {
				c.CloseWrite()
				want = tally.ClientClosed
			}
			if line := lines.Next(t); line.Reason != want.String() && line.Reason != tally.Probe.String() {
				t.Errorf("%s where %s is accepted: %+v", test.name, accepted, line)
			}
		}
	}
}

// TestProxyHeadersWait holds that clients which do not finish their header cost no memory and nobody else's time, are
// listed, and end when they must.
func TestProxyHeadersWait(t *testing.T) {
	const clients = 300
	s, _ := startProxied(t, newPool(t, backend(t, echo)), func(ls *l4.ListenerSpec) {
		ls.Proxy.Trusted, ls.Proxy.Timeout = loopback[:1], time.Second
	})
	var waiting []net.Conn
	for range clients {
		c := dial(t, address(s))
		c.Write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x0f\xff"))
		waiting = append(waiting, c)
	}
	eventually(t, "all are accepted", func() bool { return s.Sessions() == clients })
	c := dial(t, address(s))
	c.Write([]byte(proxyHeaders[0].header))
	if err := ask(c); err != nil {
		t.Error(err)
	}
	if listed := list(t, s); len(listed) != clients+1 || listed[0].Phase != "proxy_header" &&
		listed[0].Phase != "relaying" {
		t.Errorf("%+v", listed)
	}
	for _, w := range waiting { // one that goes on sending has no more time
		w.Write([]byte("x"))
	}
	eventually(t, "all have ended", func() bool { return l4test.Info(s).Ended[tally.ProxyHeader] == clients })
	if err := ask(c); err != nil {
		t.Error(err)
	}
}

// heads is a backend that says what it was sent first, up to "hello$", and then echoes.
func heads(t *testing.T) (addr string, first chan string) {
	first = make(chan string, 100)
	return backend(t, func(c *net.TCPConn) {
		var got []byte
		for b := make([]byte, 1); !strings.HasSuffix(string(got), "hello$"); got = append(got, b...) {
			if _, err := c.Read(b); err != nil {
				first <- string(got) + " and " + err.Error()
				return
			}
		}
		first <- string(got)
		echo(c)
	}), first
}

// proxyPool makes a pool whose backends get headers of a version.
func proxyPool(t *testing.T, version int, addrs ...string) *pool.Pool {
	t.Helper()
	p, err := pool.New(pool.Options{Name: "pool", Algorithm: "client_hash", Initial: pool.Healthy,
		ConnectTimeout: time.Second, Retries: 1, SendProxy: version})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := p.Add(pool.Spec{ID: a, Addr: netip.MustParseAddrPort(a), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestSendProxy holds what header the backend gets, in front of everything else: with the client of an inbound header,
// the address that this one has connected to, and its TLVs.
func TestSendProxy(t *testing.T) {
	for _, version := range []int{1, 2} {
		to, first := heads(t)
		s, lines := startProxied(t, proxyPool(t, version, refusing(t), to), nil)
		for _, test := range proxyHeaders {
			c := dial(t, address(s))
			c.Write([]byte(test.header + "hello$"))
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
			from, local := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
			var tlvs []byte
			if h, _ := wire.ParseProxy([]byte(test.header), l4.ProxyV1|l4.ProxyV2); h.Client.IsValid() {
				from, local, tlvs = h.Client, h.Local, h.TLVs
			}
			want := string(wire.AppendProxy(nil, wire.ProxyVersions(version), from, local, tlvs)) + "hello$"
			if got := <-first; got != want {
				t.Errorf("version %d, %s: the backend was sent %q; want %q", version, test.name, got, want)
			}
			c.CloseWrite()
			if line := lines.Next(t); line.In != 7 || line.Client != from.String() {
				t.Errorf("version %d, %s: %+v", version, test.name, line)
			}
		}
	}
}

// TestSendProxyOfTheKernel holds that a client who is nobody's has a header, too, in which the listener's address is
// the one that the client has connected to, and that it comes before the client has sent anything.
func TestSendProxyOfTheKernel(t *testing.T) {
	to := backend(t, func(c *net.TCPConn) {
		line := make([]byte, 200)
		n, _ := c.Read(line)
		c.Write(line[:n])
	})
	s := start(t, l4.Options{Loops: 1}, spec(proxyPool(t, 1, to)))
	c := dial(t, address(s))
	got, err := io.ReadAll(c)
	client, local := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	want := string(wire.AppendProxy(nil, wire.ProxyV1, client, local, nil))
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// TestSendProxyWhileQueued holds that a client which has sent nothing and leaves the queue wants no answer, although
// there is a header for the backend.
func TestSendProxyWhileQueued(t *testing.T) {
	to := backend(t, echo)
	p := newQueuePool(t, pool.Options{QueueMax: 10, QueueTimeout: patience, SendProxy: 2}, to)
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec(p))
	if err := ask(dial(t, address(s))); err != nil {
		t.Fatal(err)
	}
	waits := queuedClients(t, s, p, 1)[0]
	waits.CloseWrite()
	line := lines.Next(t)
	if line.Client != waits.LocalAddr().String() || line.In != 0 || line.Reason != tally.Probe.String() {
		t.Errorf("%+v", line)
	}
}

// TestProxyHash holds that the named client is the one that is hashed.
func TestProxyHash(t *testing.T) {
	var addrs []string
	for i := range 8 {
		addrs = append(addrs, backend(t, func(c *net.TCPConn) { fmt.Fprint(c, i) }))
	}
	s, _ := startProxied(t, proxyPool(t, 0, addrs...), nil)
	got := make(map[string]map[string]int)
	for i := range 64 {
		client := fmt.Sprintf("192.0.2.%d", i%16)
		c := dial(t, address(s))
		fmt.Fprintf(c, "PROXY TCP4 %s 198.51.100.1 %d 80\r\n", client, 1000+i)
		c.CloseWrite()
		name, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if got[client] == nil {
			got[client] = make(map[string]int)
		}
		got[client][string(name)]++
	}
	all := make(map[string]int)
	for client, names := range got {
		if len(names) != 1 {
			t.Errorf("%s came to %v", client, names)
		}
		for name := range names {
			all[name]++
		}
	}
	if len(all) < 2 {
		t.Errorf("all 16 clients came to %v", all)
	}
}
