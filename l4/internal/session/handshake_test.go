package session_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/pool"
)

// hello is the ClientHello of a client that wants localhost.
func hello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		_ = tls.Client(ours, &tls.Config{ServerName: "localhost"}).Handshake()
		ours.Close()
	}()
	p := make([]byte, 4096)
	n, err := theirs.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// terminating starts a server that ends TLS in front of an echoing backend, and returns its access lines.
func terminating(t *testing.T, spec func(*l4.ListenerSpec), s l4.TLSServerSettings) (*secured, *l4test.Capture) {
	t.Helper()
	pair := l4test.NewKeyPair(t, "localhost")
	one := l4test.Spec(l4test.NewPool(t, l4test.Backend(t, l4test.Echo)))
	one.TLS = l4test.TLSServer(t, s, pair)
	if spec != nil {
		spec(&one)
	}
	lines, log := l4test.NewCapture()
	x := &secured{sides: sides{client: true}, roots: l4test.Roots(t, pair)}
	x.server = l4test.Start(t, l4.Options{Loops: 1, Log: log, Access: true}, one)
	return x, lines
}

// ask sends a question over TLS, and expects it back.
func (x *secured) ask(t *testing.T) {
	t.Helper()
	c := x.dial(t)
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
		return
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, error %v", got, err)
	}
}

// counted is how many handshakes of the listener ended so.
func (x *secured) counted(side, result string) (n uint64) {
	for h, k := range x.server.Listeners()[0].Handshakes {
		if h.Side.String() == side && h.Result.String() == result {
			n += k
		}
	}
	return n
}

// TestHandshakeTimeouts has clients that stop in the middle: before the hello, in it, and behind it.
func TestHandshakeTimeouts(t *testing.T) {
	x, lines := terminating(t, nil, l4.TLSServerSettings{HandshakeTimeout: 300 * time.Millisecond})
	whole := hello(t)
	for _, sent := range [][]byte{nil, whole[:1], whole[:len(whole)-1], whole} {
		c := l4test.Dial(t, l4test.Address(x.server))
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, c)
		if got := lines.Next(t); got.Reason != "handshake_timeout" || got.In > 0 {
			t.Errorf("%d bytes of %d: %+v", len(sent), len(whole), got)
		}
	}
	if n := x.counted("client", "timeout"); n != 4 {
		t.Errorf("%d handshakes were late, want 4", n)
	}
	x.ask(t)
}

// TestHandshakeRefusals has clients that no handshake succeeds with.
func TestHandshakeRefusals(t *testing.T) {
	x, lines := terminating(t, nil, l4.TLSServerSettings{
		MinVersion: tls.VersionTLS13, ALPN: []string{"one"}, StrictNames: true, HandshakeTimeout: 5 * time.Second,
	})
	for name, c := range map[string]struct {
		config               *tls.Config
		reason, result, sees string
	}{
		"version":  {&tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}, "handshake_failed", "version", "protocol version"},
		"protocol": {&tls.Config{ServerName: "localhost", NextProtos: []string{"two"}}, "handshake_failed", "protocol", "no application protocol"},
		"name":     {&tls.Config{ServerName: "elsewhere"}, "unknown_name", "name", "unrecognized name"},
	} {
		c.config.InsecureSkipVerify = true
		client := tls.Client(l4test.Dial(t, l4test.Address(x.server)), c.config)
		if err := client.Handshake(); err == nil || !strings.Contains(err.Error(), c.sees) {
			t.Errorf("%s: the client sees %v", name, err)
		}
		client.Close()
		if got := lines.Next(t); got.Reason != c.reason || got.In > 0 {
			t.Errorf("%s: %+v", name, got)
		}
		if n := x.counted("client", c.result); n != 1 {
			t.Errorf("%s: counted %d times", name, n)
		}
	}
	// A client that does not trust the certificate sends an alert, and closes with bytes unread: a reset may overtake it.
	client := tls.Client(l4test.Dial(t, l4test.Address(x.server)), &tls.Config{ServerName: "localhost"})
	if err := client.Handshake(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("distrust: the client sees %v", err)
	}
	client.Close()
	got := lines.Next(t)
	if got.Reason != "handshake_failed" && got.Reason != "client_reset" {
		t.Errorf("distrust: %+v", got)
	}
	if n := x.counted("client", "rejected") + x.counted("client", "left"); n != 1 {
		t.Errorf("distrust: counted %d times", n)
	}
	plain := l4test.Dial(t, l4test.Address(x.server))
	if _, err := plain.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, plain)
	if got := lines.Next(t); got.Reason != "not_tls" {
		t.Errorf("HTTP: %+v", got)
	}
}

// TestHandshakeLine holds that clients which stop behind their hello do not keep others out: those beyond the bound wait
// in line, and make the ones that have waited longest for their clients give way.
func TestHandshakeLine(t *testing.T) {
	defer session.SetMaxHandshakes(session.SetMaxHandshakes(4))
	x, _ := terminating(t, nil, l4.TLSServerSettings{HandshakeTimeout: 20 * time.Second})
	whole := hello(t)
	for range 12 {
		if _, err := l4test.Dial(t, l4test.Address(x.server)).Write(whole); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for range 3 {
		x.ask(t)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("three clients took %v", took)
	}
}

// TestHandshakesAtTheEnd ends a server with handshakes in progress and in line.
func TestHandshakesAtTheEnd(t *testing.T) {
	defer session.SetMaxHandshakes(session.SetMaxHandshakes(2))
	x, _ := terminating(t, nil, l4.TLSServerSettings{HandshakeTimeout: 20 * time.Second})
	whole := hello(t)
	for range 5 {
		if _, err := l4test.Dial(t, l4test.Address(x.server)).Write(whole); err != nil {
			t.Fatal(err)
		}
	}
	for x.server.Sessions() < 5 {
		time.Sleep(time.Millisecond)
	}
	_ = x.server.Shutdown(l4test.Done(t))
}

// TestBrokenTLS has clients that break a session of TLS: the backend gets no orderly end.
func TestBrokenTLS(t *testing.T) {
	x, lines := terminating(t, nil, l4.TLSServerSettings{})
	raw := l4test.Dial(t, l4test.Address(x.server))
	c := tls.Client(raw, &tls.Config{RootCAs: x.roots, ServerName: "localhost"})
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte("\x17\x03\x03\x00\x20" + strings.Repeat("x", 32))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the session ends in order")
	}
	if got := lines.Next(t); got.Reason != "broken_tls" || got.In != 5 {
		t.Errorf("%+v", got)
	}

	raw = l4test.Dial(t, l4test.Address(x.server))
	c = tls.Client(raw, &tls.Config{RootCAs: x.roots, ServerName: "localhost"})
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	raw.CloseWrite() // without close_notify, as many clients do
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("after a FIN alone: %q, error %v", got, err)
	}
	if got := lines.Next(t); got.Reason != "client_closed" {
		t.Errorf("%+v", got)
	}
}

// TestBackendTLS has backends that no handshake succeeds with: another one is tried, and if there is none the reason
// says so.
func TestBackendTLS(t *testing.T) {
	pair, other := l4test.NewKeyPair(t, "localhost"), l4test.NewKeyPair(t, "localhost")
	serving := func(k l4.TLSKeyPair) string {
		config := &tls.Config{Certificates: []tls.Certificate{l4test.Certificate(t, k)}}
		return l4test.Backend(t, func(c *net.TCPConn) { over := tls.Server(c, config); _, _ = io.Copy(over, over) })
	}
	good, wrong := serving(pair), serving(other)
	plain := l4test.Backend(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	closing := l4test.Backend(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 100)) })
	for name, c := range map[string]struct {
		backends []string
		timeout  time.Duration
		reason   string
		retries  int
	}{
		"distrusted, then good": {[]string{wrong, good}, 5 * time.Second, "client_closed", 1},
		"closing, then good":    {[]string{closing, good}, 5 * time.Second, "client_closed", 1},
		"silent, then good":     {[]string{plain, good}, 300 * time.Millisecond, "client_closed", 1},
		"silent":                {[]string{plain}, 300 * time.Millisecond, "backend_tls", 0},
		"none":                  {[]string{wrong, closing}, 5 * time.Second, "backend_tls", 1},
	} {
		p, err := pool.New(pool.Options{
			Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: c.timeout, Retries: 2,
			Secure: l4test.TLSClient(t, l4.TLSClientSettings{Verify: true, ServerName: "localhost"}, pair),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range c.backends {
			if err := p.Add(pool.Spec{ID: at, Addr: pool.At(netip.MustParseAddrPort(at)), Weight: 1}); err != nil {
				t.Fatal(err)
			}
		}
		lines, log := l4test.NewCapture()
		s := l4test.Start(t, l4.Options{Loops: 1, Log: log, Access: true}, l4test.Spec(p))
		client := l4test.Dial(t, l4test.Address(s))
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if c.reason == "client_closed" {
			got := make([]byte, 5)
			if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
				t.Errorf("%s: got %q, error %v", name, got, err)
			}
			client.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, client)
		if got := lines.Next(t); got.Reason != c.reason || got.Retries != c.retries {
			t.Errorf("%s: %+v", name, got)
		}
		info := p.Backends()[0]
		if failed := info.Outcomes[pool.TLSFailed] + info.Outcomes[pool.ConnectTimeout]; failed != 1 {
			t.Errorf("%s: the first backend has %v", name, info.Outcomes)
		}
	}
}

// TestFarewellOverTLS holds that a refused client of a listener with TLS is told so behind its handshake, or by an alert.
func TestFarewellOverTLS(t *testing.T) {
	empty := func(farewell l4.Language) func(*l4.ListenerSpec) {
		return func(spec *l4.ListenerSpec) { spec.Pool, spec.Farewell = l4test.NewPool(t), farewell }
	}
	x, lines := terminating(t, empty(l4.Postgres), l4.TLSServerSettings{})
	c := x.dial(t)
	startup := append([]byte{0, 0, 0, 0, 0, 3, 0, 0}, "user\x00me\x00\x00"...)
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if _, err := c.Write(startup); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Contains(got, []byte("57P03")) {
		t.Errorf("got %q, error %v", got, err)
	}
	c.Close()
	if got := lines.Next(t); got.Reason != "no_backend" {
		t.Errorf("%+v", got)
	}

	x, lines = terminating(t, empty(l4.TLS), l4.TLSServerSettings{})
	err := x.dial(t).(*tls.Conn).Handshake()
	if alert, ok := errors.AsType[*net.OpError](err); !ok || !strings.Contains(alert.Error(), "internal error") {
		t.Errorf("the client sees %v", err)
	}
	if got := lines.Next(t); got.Reason != "no_backend" {
		t.Errorf("%+v", got)
	}

	full := func(spec *l4.ListenerSpec) { spec.MaxSessions, spec.Farewell = 1, l4.Redis }
	x, _ = terminating(t, full, l4.TLSServerSettings{})
	first := x.dial(t)
	if err := first.(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	second := x.dial(t)
	if _, err := second.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(second); err != nil || !strings.HasPrefix(string(got), "-ERR max number of clients") {
		t.Errorf("got %q, error %v", got, err)
	}
}

// TestBackendTLSByClientsName holds that a handshake whose server name the client has chosen says nothing about the
// backend, whether it fails or is not over in time.
func TestBackendTLSByClientsName(t *testing.T) {
	pair, other := l4test.NewKeyPair(t, "localhost"), l4test.NewKeyPair(t, "localhost")
	config := &tls.Config{Certificates: []tls.Certificate{l4test.Certificate(t, other)}}
	for name, handle := range map[string]func(*net.TCPConn){
		"distrusted": func(c *net.TCPConn) { _ = tls.Server(c, config).Handshake() },
		"silent":     func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) },
	} {
		p, err := pool.New(pool.Options{
			Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: 300 * time.Millisecond,
			Secure: l4test.TLSClient(t, l4.TLSClientSettings{
				Verify: true, ServerName: "localhost", FromClient: true,
			}, pair),
		})
		if err != nil {
			t.Fatal(err)
		}
		at := pool.At(netip.MustParseAddrPort(l4test.Backend(t, handle)))
		if err := p.Add(pool.Spec{ID: "one", Addr: at, Weight: 1}); err != nil {
			t.Fatal(err)
		}
		lines, log := l4test.NewCapture()
		s := l4test.Start(t, l4.Options{Loops: 1, Log: log, Access: true}, l4test.Spec(p))
		_, _ = io.Copy(io.Discard, l4test.Dial(t, l4test.Address(s)))
		if got := lines.Next(t); got.Reason != "backend_tls" {
			t.Errorf("%s: %+v", name, got)
		}
		if o := p.Backends()[0].Outcomes; o[pool.Neutral] != 1 || o[pool.TLSFailed]+o[pool.ConnectTimeout] > 0 {
			t.Errorf("%s: the backend has %v", name, o)
		}
	}
}
