package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	slowClients = 200             // of a test
	slowLimit   = 6 * time.Second // after which the balancer ends each of them
	goodClients = 20              // that a listener has room for besides them
)

// A slowKind is a listener that waits for its clients, clients that keep it waiting, and clients that do not.
type slowKind struct {
	name     string
	backend  func(t *testing.T) string // starts a backend, and returns its address
	listener []string                  // further lines of the listener's table
	pool     []string
	// become is what a slow client does right after it has connected; nil = nothing
	become func(c net.Conn) (net.Conn, error)
	says   string // what it sends then, byte by byte; it never sends the last one
	ended  string // the metric that counts it at its end
	reason string
	good   func(t *testing.T, at string) error // runs a client that does all at once
}

const (
	refusedMetric = "limeload_listener_refused_total"
	endedMetric   = "limeload_listener_ended_total"
)

// slowTLS does a handshake.
func slowTLS(c net.Conn) (net.Conn, error) {
	secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	return secure, secure.Handshake()
}

// after returns a slowKind.become that sends text, and reads as many bytes as the answer has.
func after(text string, answer int) func(net.Conn) (net.Conn, error) {
	return func(c net.Conn) (net.Conn, error) {
		err := harness.SendAll(c, text)
		if err == nil {
			err = readFull(c, make([]byte, answer))
		}
		return c, err
	}
}

// program runs a program that must succeed and print want.
func program(t *testing.T, want, name string, args ...string) error {
	t.Helper()
	stdout, stderr, code := harness.Run(t, harness.Command{Path: harness.Tool(t, name), Args: args})
	if code != 0 || !strings.Contains(stdout, want) {
		return fmt.Errorf("%s ends with %d: %s%s", name, code, stdout, stderr)
	}
	return nil
}

// slowKinds returns all kinds of listeners that wait for something that a client has to send.
func slowKinds(t *testing.T) []slowKind {
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	hello, shake := string(goHello(t, "www.example.com")), fmt.Sprintf("handshake_timeout = %q", slowLimit)
	table := tlsTable(ca.pairs("www"), shake)
	starttls := tlsTable(ca.pairs("www"), shake, `starttls = "postgres"`)
	inspect := fmt.Sprintf("inspect_timeout = %q", slowLimit)
	proxies := loopbackProxies(fmt.Sprintf("timeout = %q", slowLimit))
	idle := fmt.Sprintf("idle_timeout = %q", slowLimit)
	const (
		header1    = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
		header2    = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x00\x50"
		sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
		startup    = "\x00\x00\x00\x17\x00\x03\x00\x00user\x00somebody\x00\x00"
		connect    = "\x10\x19\x00\x04MQTT\x04\x02\x00\x3c\x00\x0ddevice-number"
		question   = "\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x02lb\x04test\x00\x00\x01\x00\x01"
	)
	echo := func(t *testing.T) string { return harness.Serve(t, harness.Echo).Address() }
	server := func(t *testing.T) string { return harness.StartPostgres(t).Address() }
	names := func(t *testing.T) string {
		s := harness.StartDNS(t)
		s.SetZone(t, "www 300 A 192.0.2.80")
		return s.Address
	}
	broker := func(t *testing.T) string {
		at := harness.FreeAddress(t)
		startMosquitto(t, at)
		return at
	}
	secure := func(_ *testing.T, at string) error {
		_, err := echoTLS(at, &tls.Config{InsecureSkipVerify: true})
		return err
	}
	behind := func(header string, talk func(c net.Conn) error) func(*testing.T, string) error {
		return func(_ *testing.T, at string) error {
			c, err := net.DialTimeout("tcp", at, harness.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			return errors.Join(c.SetDeadline(time.Now().Add(harness.Patience)), harness.SendAll(c, header), talk(c))
		}
	}
	ping := func(c net.Conn) error { return harness.PingPong(c, 1, 100) }
	psql := func(mode string) func(*testing.T, string) error {
		return func(t *testing.T, at string) error {
			host, port, _ := strings.Cut(at, ":")
			return program(t, "42", "psql", "-XAt", fmt.Sprintf("host=%s port=%s user=limeload dbname=postgres sslmode=%s",
				host, port, mode), "-c", "select 42")
		}
	}
	ask := func(tool, how string) func(*testing.T, string) error {
		return func(t *testing.T, at string) error {
			host, port, _ := strings.Cut(at, ":")
			return program(t, "192.0.2.80", tool, how, "@"+host, "-p", port, "www."+harness.DNSZone, "A")
		}
	}
	publish := func(t *testing.T, at string) error {
		host, port, _ := strings.Cut(at, ":")
		return program(t, "", "mosquitto_pub", "-h", host, "-p", port, "-i", "device", "-t", "a", "-m", "b", "-q", "1")
	}
	byDevice := []string{`algorithm = "client_hash"`, `hash_key = "mqtt_client_id"`}
	return []slowKind{
		{name: "TLS hello", backend: echo, listener: []string{table}, says: hello, ended: refusedMetric,
			reason: "handshake_timeout", good: secure},
		{name: "TLS after its hello", backend: echo, listener: []string{table}, become: after(hello, 1),
			says: "\x14\x03\x03\x00\x01\x01", ended: refusedMetric, reason: "handshake_timeout", good: secure},
		{name: "SNI routes", backend: func(t *testing.T) string { return tlsBackend(t, "a").Address() },
			listener: []string{`routes = [{ sni = ["*.example.com"], pool = "all" }]`, inspect}, says: hello,
			ended: refusedMetric, reason: "inspect_timeout", good: func(_ *testing.T, at string) error {
				_, err := askTLS(at, "www.example.com")
				return err
			}},
		{name: "PROXY header v1", backend: echo, listener: []string{proxies}, says: header1, ended: refusedMetric,
			reason: "proxy_header", good: behind(header1, ping)},
		{name: "PROXY header v2", backend: echo, listener: []string{proxies}, says: header2, ended: refusedMetric,
			reason: "proxy_header", good: behind(header2, ping)},
		{name: "TLS behind a PROXY header", backend: echo, listener: []string{proxies, table}, become: after(header2, 0),
			says: hello, ended: refusedMetric, reason: "handshake_timeout",
			good: behind(header1, func(c net.Conn) error {
				c, err := slowTLS(c)
				return errors.Join(err, ping(c))
			})},
		{name: "Postgres startup", backend: server, listener: []string{`profile = "postgres"`, inspect},
			says: startup[:8], ended: refusedMetric, reason: "inspect_timeout", good: psql("disable")},
		{name: "Postgres SSLRequest", backend: server, listener: []string{`profile = "postgres"`, inspect, starttls},
			says: sslRequest, ended: refusedMetric, reason: "inspect_timeout", good: psql("require")},
		{name: "Postgres startup where TLS is required", backend: server,
			listener: []string{`profile = "postgres"`, inspect, starttls}, says: startup, ended: refusedMetric,
			reason: "inspect_timeout", good: psql("require")},
		{name: "Postgres TLS", backend: server, listener: []string{`profile = "postgres"`, inspect, starttls},
			become: after(sslRequest, 1), says: hello, ended: refusedMetric, reason: "handshake_timeout",
			good: psql("require")},
		{name: "Postgres startup within TLS", backend: server,
			listener: []string{`profile = "postgres"`, inspect, starttls},
			become: func(c net.Conn) (net.Conn, error) {
				if c, err := after(sslRequest, 1)(c); err != nil {
					return c, err
				}
				return slowTLS(c)
			},
			says: startup[:8], ended: refusedMetric, reason: "inspect_timeout", good: psql("require")},
		{name: "MQTT CONNECT", backend: broker, listener: []string{inspect}, pool: byDevice, says: connect,
			ended: refusedMetric, reason: "inspect_timeout", good: publish},
		{name: "DNS over TCP", backend: names, listener: []string{`profile = "dns"`, "cache = {}", idle}, says: question,
			ended: endedMetric, reason: "idle", good: ask("dig", "+tcp")},
		{name: "DNS over TLS hello", backend: names, listener: []string{`profile = "dns"`, "cache = {}", idle, table},
			says: hello, ended: refusedMetric, reason: "handshake_timeout", good: ask("kdig", "+tls")},
		{name: "DNS over TLS", backend: names, listener: []string{`profile = "dns"`, "cache = {}", idle, table},
			become: slowTLS, says: question, ended: endedMetric, reason: "idle", good: ask("kdig", "+tls")},
		{name: "nothing that waits", backend: echo, listener: []string{idle}, says: "xx", ended: endedMetric, reason: "idle",
			good: behind("", ping)},
	}
}

// TestSlowClients has, at each kind of listener, clients that send one byte and wait, or one byte now and then, and
// holds that the balancer ends each of them when its time is over and counts it, that other clients are served
// meanwhile, at this listener as long as it has room and at another one in any case, and that a slow client costs a
// descriptor and little memory.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	for _, k := range slowKinds(t) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			k.run(t)
		})
	}
}

func (k *slowKind) run(t *testing.T) {
	// handshakes leave what the garbage collector has not freed yet
	const most, memory = slowClients + goodClients, 64 << 20
	calm := harness.Serve(t, harness.Echo)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Measured: true, Config: world{
		Backends: []string{k.backend(t)}, Pool: k.pool,
		Listener: append([]string{fmt.Sprintf("max_sessions = %d", most)}, k.listener...),
	}.config(t) + fmt.Sprintf("[listener.calm]\naddress = %q\npool = 'calm'\n[pool.calm]\nbackends = [%q]\n",
		harness.FreeAddress(t), calm.Address())})
	at, elsewhere := b.Address(t, "main"), b.Address(t, "calm")
	sessions, ended := `limeload_listener_sessions{listener="main"}`, fmt.Sprintf("%s{listener=%q,reason=%q}", k.ended,
		"main", k.reason)
	check(t, k.good(t, at))
	check(t, dialAndPing(elsewhere))
	awaitMetric(t, b, sessions, 0)
	sockets, used := len(b.Descriptors(t).Sockets), b.AnonMemory(t)

	slow := &dribbling{says: k.says[:len(k.says)-1]}
	defer slow.close()
	onlySlow := func(n float64) {
		t.Helper()
		harness.Eventually(t, "all slow clients are there, and nobody else", func() error {
			if m := metrics(t, b); m[sessions]+m[ended] != n {
				return fmt.Errorf("%v sessions, and %v have ended", m[sessions], m[ended])
			}
			return nil
		})
	}
	check(t, slow.come(at, slowClients, k.become))
	onlySlow(slowClients)
	var slowest time.Duration
	serve := func(what string, f func() error) {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		slowest = max(slowest, time.Since(began))
	}
	serve("a client of this listener", func() error { return k.good(t, at) })
	serve("a client of another one", func() error { return dialAndPing(elsewhere) })

	onlySlow(slowClients)
	check(t, slow.come(at, goodClients, k.become))
	onlySlow(most) // now the listener is full
	err := k.good(t, at)
	if m := metrics(t, b); err == nil && m[ended] == 0 {
		t.Errorf("a client was served besides %v sessions", m[sessions])
	}
	mostMemory, mostSockets := int64(0), 0
	for metrics(t, b)[sessions] > 0 {
		slow.dribble()
		serve("a client of another listener, with this one full", func() error { return dialAndPing(elsewhere) })
		mostMemory = max(mostMemory, b.AnonMemory(t)-used)
		mostSockets = max(mostSockets, len(b.Descriptors(t).Sockets)-sockets)
		time.Sleep(slowLimit / 30)
	}
	t.Logf("%d slow clients: %d sockets and %d KiB more at most; a client of others waited %v at most", most, mostSockets,
		mostMemory>>10, slowest)
	perClient := 1
	if k.name == "nothing that waits" {
		perClient = 2 // they have backends
	}
	if mostSockets > perClient*most+goodClients || mostMemory > memory {
		t.Error("slow clients cost too much")
	}
	awaitMetric(t, b, ended, most)
	for _, l := range b.Sessions() {
		if l.Listener == "main" && l.Reason == k.reason && l.Duration < slowLimit.Seconds()*0.99 {
			t.Errorf("a slow client had no more than %vs: %s", l.Duration, l.Text)
		}
	}
	check(t, k.good(t, at))
}

// dribbling are slow clients. Every second one sends a byte now and then.
type dribbling struct {
	says  string
	sent  int // bytes of it, by those that send now and then
	conns []net.Conn
}

// come has n more clients connect and send their first byte.
func (d *dribbling) come(at string, n int, become func(net.Conn) (net.Conn, error)) error {
	const together = 4
	var mu sync.Mutex
	var coming sync.WaitGroup
	var errs []error
	for i := range together {
		coming.Go(func() {
			for range (n + together - 1 - i) / together {
				c, err := slowClient(at, become)
				if err == nil {
					err = harness.SendAll(c, d.says[:1])
				}
				mu.Lock()
				if c != nil {
					d.conns = append(d.conns, c)
				}
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	coming.Wait()
	d.sent = max(d.sent, 1)
	return errors.Join(errs...)
}

func slowClient(at string, become func(net.Conn) (net.Conn, error)) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", at, harness.Patience)
	if err != nil || become == nil {
		return c, err
	}
	err = c.SetDeadline(time.Now().Add(2 * harness.Patience))
	if err == nil {
		var became net.Conn
		if became, err = become(c); became != nil {
			return became, err
		}
	}
	return c, err
}

// dribble sends the next byte of every second client. Some may have been turned away already.
func (d *dribbling) dribble() {
	if d.sent >= len(d.says) {
		return
	}
	for i := 0; i < len(d.conns); i += 2 {
		_ = harness.SendAll(d.conns[i], d.says[d.sent:d.sent+1])
	}
	d.sent++
}

func (d *dribbling) close() {
	for _, c := range d.conns {
		c.Close()
	}
}

// TestSlowRefused has many clients that are refused at a full listener, and say so slowly what they want that they
// cannot be told why. It holds that each of them is gone in time, that they are counted, and that others are served.
func TestSlowRefused(t *testing.T) {
	t.Parallel()
	const clients, least = 300, time.Minute // that the listener gives a client which it serves
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	hello, long := string(goHello(t, "www.example.com")), `handshake_timeout = "1m"`
	for _, tt := range []struct {
		name     string
		listener []string
		secure   bool // the client that the listener has
		says     string
	}{
		{"Postgres", []string{`profile = "postgres"`, `inspect_timeout = "1m"`}, false,
			"\x00\x00\x00\x16\x00\x03\x00\x00user\x00"},
		{"Redis", []string{`profile = "redis"`}, false, "*2\r\n$3\r\nGET\r\n$1000\r\n" + strings.Repeat("x", 100)},
		{"DNS", []string{`profile = "dns"`, "cache = {}", `idle_timeout = "1m"`}, false,
			"\x00\x1d\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03"},
		{"TLS", []string{`refuse_with = "protocol"`, tlsTable(ca.pairs("www"), long)}, true, hello},
		{"Redis within TLS", []string{`profile = "redis"`, tlsTable(ca.pairs("www"), long)}, true, hello},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			silent := harness.Serve(t, harness.Silent)
			calm := harness.Serve(t, harness.Echo)
			b := harness.StartBalancerWith(t, harness.BalancerOptions{Measured: true, Config: world{
				Backends: []string{silent.Address()}, Listener: append([]string{"max_sessions = 1"}, tt.listener...),
			}.config(t) + fmt.Sprintf("[listener.calm]\naddress = %q\npool = 'calm'\n[pool.calm]\nbackends = [%q]\n",
				harness.FreeAddress(t), calm.Address())})
			at, elsewhere := b.Address(t, "main"), b.Address(t, "calm")
			check(t, dialAndPing(elsewhere))
			t.Cleanup(silent.Close) // before the balancer is checked for leaks
			if c := b.Dial(t, "main"); tt.secure {
				_, err := slowTLS(c)
				check(t, err)
			}
			awaitMetric(t, b, `limeload_listener_sessions{listener="main"}`, 1)
			sockets := len(b.Descriptors(t).Sockets)
			slow := &dribbling{says: tt.says[:len(tt.says)-1]}
			defer slow.close()
			check(t, slow.come(at, clients, nil))
			awaitMetric(t, b, refusedMetric+`{listener="main",reason="max_sessions"}`, clients)
			began := time.Now()
			for {
				check(t, dialAndPing(elsewhere))
				time.Sleep(100 * time.Millisecond) // its own session is over, too
				left := len(b.Descriptors(t).Sockets) - sockets
				if left <= 0 {
					break
				}
				if time.Since(began) > harness.Patience {
					t.Fatalf("%d refused clients are still there", left)
				}
				slow.dribble()
			}
			took := time.Since(began)
			t.Logf("the last one was gone after %v", took)
			if took > least/2 {
				t.Error("refused clients have as much time as others")
			}
			measured(t, b, map[string]float64{
				refusedMetric + `{listener="main",reason="max_sessions"}`: clients,
				`limeload_listener_sessions{listener="main"}`:             1,
			})
		})
	}
}
