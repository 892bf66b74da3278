package postgres_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// got returns what clients have begun with at a server, and empties the list.
func (b *server) got() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	began := b.began
	b.began = nil
	return began
}

// TestBegin holds what passes a listener that ends no TLS and whose backends take none: all of it, as it came, at once
// and byte by byte.
func TestBegin(t *testing.T) {
	b := serve(t, 4)
	x := start(t, nil, b)
	for name, tc := range map[string]struct{ sends []string }{
		"a session":             {[]string{startup}},
		"TLS is declined":       {[]string{sslRequest, startup}},
		"GSSAPI, TLS, neither":  {[]string{gssRequest, sslRequest, startup}},
		"TLS twice":             {[]string{sslRequest, sslRequest, startup}},
		"version 2 of Postgres": {[]string{request(2<<16, "a server will say what it thinks of that")}},
	} {
		for _, slowly := range []bool{false, true} {
			c := x.dial(t, "")
			for i, message := range tc.sends {
				if slowly {
					for j := range message {
						io.WriteString(c, message[j:j+1])
						time.Sleep(20 * time.Microsecond)
					}
				} else {
					io.WriteString(c, message)
				}
				if i < len(tc.sends)-1 {
					gets(t, c, "N")
				}
			}
			if last := tc.sends[len(tc.sends)-1]; last == startup {
				readKey(t, c)
			} else {
				c.CloseWrite()
				getsAll(t, c, "")
			}
			c.Close()
			if line := x.lines.Next(t); line.In != uint64(len(strings.Join(tc.sends, ""))) || line.Backend == "" {
				t.Errorf("%s, slowly %v: %+v", name, slowly, line)
			}
			if got := b.got(); name != "version 2 of Postgres" && !slices.Equal(got, tc.sends) {
				t.Errorf("%s, slowly %v: the server got %q", name, slowly, got)
			}
		}
	}
}

// TestForeign holds that what is not Postgres goes to the backend untouched, TLS from the first byte too.
func TestForeign(t *testing.T) {
	x := startWith(t, l4test.NewPool(t, l4test.Backend(t, l4test.Echo)), nil)
	for _, sends := range []string{
		"GET / HTTP/1.1\r\n\r\n", string(l4test.ClientHello(t, "db", "postgresql")), "x",
		strings.Repeat("\xff", 100_000),
	} {
		c := x.dial(t, sends)
		c.CloseWrite()
		getsAll(t, c, sends)
	}
}

// TestSlow holds that a client that is too slow is refused, and that one which leaves is no session of a backend.
func TestSlow(t *testing.T) {
	b := serve(t, 4)
	x := start(t, func(s *l4.ListenerSpec) { s.Postgres.Timeout = 50 * time.Millisecond }, b)
	for _, sends := range []string{"", startup[:7], cancelRequest("akeyakey")[:15]} {
		if !l4test.Reset(t, x.dial(t, sends)) {
			t.Errorf("after %q: an orderly end", sends)
		}
		if line := x.lines.Next(t); line.Reason != "inspect_timeout" || line.Backend != "" {
			t.Errorf("after %q: %+v", sends, line)
		}
	}
	x = start(t, nil, b)
	for sends, reason := range map[string]l4.Reason{"": tally.Probe, startup[:7]: tally.ClientClosed} {
		c := x.dial(t, sends)
		c.CloseWrite()
		if reset := l4test.Reset(t, c); reset && sends == "" {
			t.Error("a client that sends nothing is reset")
		}
		if line := x.lines.Next(t); line.Reason != reason.String() || line.Backend != "" {
			t.Errorf("after %q: %+v", sends, line)
		}
	}
	c := x.dial(t, startup[:7])
	l4test.Eventually(t, "it is there", func() bool { return x.Sessions() == 1 })
	c.SetLinger(0)
	c.Close()
	x.line(t, tally.ClientReset)
	if got := b.got(); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
}

// TestAsleep holds that a loop does not wake up for the bytes of a message that cannot make it whole. The runtime may
// wake it, too, which a busy machine makes it do often: so the least of several rounds counts.
func TestAsleep(t *testing.T) {
	x := start(t, nil, serve(t, 4))
	c := x.dial(t, cancelRequest(strings.Repeat("k", 200))[:100])
	turns := func() (n uint64) {
		for _, l := range x.Loops() {
			n += l.Turns
		}
		return n
	}
	l4test.Eventually(t, "it sleeps", func() bool {
		asleep := false
		for i := range 2 {
			l4test.EachSession(x.Server, i, func(s *session.Session) { asleep = asleep || !s.Readable() })
		}
		return asleep
	})
	least := uint64(math.MaxUint64)
	for round := 0; round < 5 && least > 5; round++ {
		before := turns()
		for range 10 {
			io.WriteString(c, "k")
			time.Sleep(time.Millisecond)
		}
		least = min(least, turns()-before)
	}
	if least > 5 {
		t.Errorf("10 bytes woke loops %d times", least)
	}
}

// A secured is a listener that ends TLS for clients of Postgres.
func secured(t *testing.T, required bool, servers ...*server) (*world, *tls.Config) {
	t.Helper()
	pair := l4test.NewKeyPair(t, "db.example.com")
	x := start(t, func(s *l4.ListenerSpec) {
		s.TLS = l4test.TLSServer(t, l4.TLSServerSettings{StartTLS: true, Required: required}, pair)
		s.Farewell = l4.Postgres
	}, servers...)
	return x, &tls.Config{ServerName: "db.example.com", RootCAs: l4test.Roots(t, pair)}
}

// shake does the handshake of a client.
func shake(t *testing.T, c net.Conn, config *tls.Config) *tls.Conn {
	t.Helper()
	encrypted := tls.Client(c, config)
	if err := encrypted.Handshake(); err != nil {
		t.Fatal(err)
	}
	return encrypted
}

// TestTLS holds that TLS begins with an SSLRequest or at once, and that sessions and cancels work behind it, and plain
// cancels beside it.
func TestTLS(t *testing.T) {
	b := serve(t, 32)
	x, config := secured(t, true, b)
	for name, before := range map[string]string{"asked": sslRequest, "declined": gssRequest + sslRequest, "direct": ""} {
		begin := func() *tls.Conn {
			c := x.dial(t, "")
			for ; before != "" && len(before) >= 8; before = before[8:] {
				io.WriteString(c, before[:8])
				gets(t, c, map[string]string{sslRequest: "S", gssRequest: "N"}[before[:8]])
			}
			return shake(t, c, config)
		}
		sends := before
		c := begin()
		io.WriteString(c, startup[:5])
		time.Sleep(time.Millisecond)
		io.WriteString(c, startup[5:])
		key := readKey(t, c)
		if got := b.got(); !slices.Equal(got, []string{startup}) {
			t.Errorf("%s: the server got %q", name, got)
		}
		x.cancel(t, key) // as libpq before version 17 does
		before = sends
		d := begin()
		io.WriteString(d, cancelRequest(key))
		getsAll(t, d, "")
		x.wantCancels(t, []string{key, key})
		b.got()
		c.Close()
	}
	x.wantCounts(t, 6, 0, 0, 0)
}

// TestDirectTLS holds that a listener whose clients begin with TLS, and do not ask for it first, knows the keys of
// their sessions, too.
func TestDirectTLS(t *testing.T) {
	pair := l4test.NewKeyPair(t, "db.example.com")
	x := start(t, func(s *l4.ListenerSpec) {
		s.TLS = l4test.TLSServer(t, l4.TLSServerSettings{}, pair)
	}, serve(t, 4), serve(t, 4))
	config := &tls.Config{ServerName: "db.example.com", RootCAs: l4test.Roots(t, pair)}
	for i := range 4 {
		c := shake(t, x.dial(t, ""), config)
		io.WriteString(c, startup)
		key := readKey(t, c)
		d := shake(t, x.dial(t, ""), config)
		io.WriteString(d, cancelRequest(key))
		getsAll(t, d, "")
		want := [2][]string{}
		want[i%2] = []string{key}
		x.wantCancels(t, want[0], want[1])
	}
}

// TestRequired holds what a client without TLS is told where TLS is required, and that it is served where it is not.
func TestRequired(t *testing.T) {
	b := serve(t, 4)
	x, _ := secured(t, true, b)
	refusal := string(wire.AppendPostgresFatal(nil, "28000",
		`listener "test" requires TLS: connect with sslmode=require, or better verify-full`))
	getsAll(t, x.dial(t, startup), refusal)
	x.line(t, tally.NotTLS)
	c := x.dial(t, gssRequest)
	gets(t, c, "N")
	io.WriteString(c, startup)
	getsAll(t, c, refusal)
	long := request(3<<16, strings.Repeat("application_name\x00psql\x00", 300))
	getsAll(t, x.dial(t, long), refusal)
	if got := b.got(); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}

	x, config := secured(t, false, b)
	key := x.login(t).key
	x.cancel(t, key)
	x.wantCancels(t, []string{key})
	d := x.dial(t, sslRequest)
	gets(t, d, "S")
	encrypted := shake(t, d, config)
	io.WriteString(encrypted, startup)
	readKey(t, encrypted)
	b.got()

	if err := x.pool.Remove(b.address); err != nil {
		t.Fatal(err)
	}
	getsAll(t, x.dial(t, startup), string(wire.AppendPostgresFatal(nil, "57P03",
		`no backend of pool "pool" is available`)))
}

// TestStuffing holds that what follows an SSLRequest without having been encrypted is not taken for a client's
// (CVE-2021-23214), and that requests come once, and not within TLS.
func TestStuffing(t *testing.T) {
	b := serve(t, 4)
	for _, required := range []bool{true, false} {
		x, config := secured(t, required, b)
		for _, sends := range []string{
			sslRequest + startup, sslRequest + cancelRequest("akeyakey"), sslRequest + sslRequest, gssRequest + gssRequest,
		} {
			c := x.dial(t, sends)
			if got, _ := io.ReadAll(c); len(got) > 1 {
				t.Errorf("%q: got %q", sends, got)
			}
		}
		for _, within := range []string{sslRequest, gssRequest} {
			c := x.dial(t, sslRequest)
			gets(t, c, "S")
			encrypted := shake(t, c, config)
			io.WriteString(encrypted, within)
			getsAll(t, encrypted, string(wire.AppendPostgresFatal(nil, "08P01", "a request for encryption within TLS")))
		}
		if got := b.got(); len(got) > 0 {
			t.Errorf("the server got %q", got)
		}
		x.wantCounts(t, 0, 0, 0, 0)
	}
}

// TestEncryptedBackend holds that clients are declined TLS where the balancer encrypts what backends get, and that
// cancels to them are encrypted, too.
func TestEncryptedBackend(t *testing.T) {
	pair := l4test.NewKeyPair(t, "localhost")
	b := serve(t, 4)
	config := &tls.Config{Certificates: []tls.Certificate{l4test.Certificate(t, pair)}}
	address := l4test.Backend(t, func(c *net.TCPConn) {
		var asked [8]byte
		io.ReadFull(c, asked[:])
		if string(asked[:]) != sslRequest {
			t.Errorf("the server got %q", asked)
			return
		}
		io.WriteString(c, "S")
		b.handle(tls.Server(c, config))
	})
	client := l4test.TLSClient(t, l4.TLSClientSettings{Verify: true, StartTLS: true}, pair)
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: patience, Secure: client,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pool.Spec{ID: "b", Addr: pool.At(addrPort(address)), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	x := startWith(t, p, nil, b)
	c := x.dial(t, gssRequest)
	gets(t, c, "N")
	io.WriteString(c, sslRequest)
	gets(t, c, "N")
	io.WriteString(c, startup)
	key := readKey(t, c)
	x.cancel(t, key)
	x.wantCancels(t, []string{key})
	x.wantCounts(t, 1, 0, 0, 0)
	binding(t, b, p)
}

// binding holds that clients without TLS are not offered channel binding by servers with TLS, and that others are.
func binding(t *testing.T, b *server, p *pool.Pool) {
	const plain, bound = "SCRAM-SHA-256\x00\x00", "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"
	b.hello = message('R', "\x00\x00\x00\x0a"+bound)
	pair := l4test.NewKeyPair(t, "db.example.com")
	x := startWith(t, p, func(s *l4.ListenerSpec) {
		s.TLS = l4test.TLSServer(t, l4.TLSServerSettings{StartTLS: true}, pair)
	}, b)
	c := x.dial(t, startup)
	gets(t, c, message('R', "\x00\x00\x00\x0a"+plain))
	readKey(t, c) // it is found all the same
	c = x.dial(t, sslRequest)
	gets(t, c, "S")
	encrypted := shake(t, c, &tls.Config{ServerName: "db.example.com", RootCAs: l4test.Roots(t, pair)})
	io.WriteString(encrypted, startup)
	gets(t, encrypted, b.hello)
	readKey(t, encrypted)
}

// TestRefusedCancel holds that a cancel gets through a listener that holds all the sessions it may, with TLS and
// without, and that it counts as one refused client, as others do.
func TestRefusedCancel(t *testing.T) {
	pair := l4test.NewKeyPair(t, "db.example.com")
	for _, withTLS := range []bool{true, false} {
		x := start(t, func(s *l4.ListenerSpec) {
			s.MaxSessions, s.Farewell = 1, l4.Postgres
			if withTLS {
				s.TLS = l4test.TLSServer(t, l4.TLSServerSettings{StartTLS: true}, pair)
				s.Postgres.Timeout = 0 // StartTLS says enough
			}
		}, serve(t, 4))
		c := x.login(t)
		x.cancel(t, c.key)
		x.wantCancels(t, []string{c.key})
		getsAll(t, x.dial(t, startup), string(wire.AppendPostgresFatal(nil, "53300",
			`listener "test" has reached its limit of sessions`)))
		d := x.dial(t, startup[:3])
		d.CloseWrite()
		l4test.Reset(t, d)
		l4test.Eventually(t, "they are gone", func() bool { return l4test.Info(x.Server).Sessions == 1 })
		info := l4test.Info(x.Server)
		if len(info.Ended) != 1 || info.Ended[tally.MaxSessions] != 3 || info.Accepted != 1 {
			t.Errorf("TLS %v: ended %v, accepted %d", withTLS, info.Ended, info.Accepted)
		}
	}
}

// TestInvalidSettings holds that settings which make no sense are refused.
func TestInvalidSettings(t *testing.T) {
	s, err := l4.New(l4.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(l4test.Done(t))
	for want, change := range map[string]func(*l4.ListenerSpec){
		"clients of Postgres need TCP":                  func(s *l4.ListenerSpec) { s.Protocol = l4.UDP },
		"clients of Postgres and DNS settings":          func(s *l4.ListenerSpec) { s.DNS = new(l4.DNSSettings) },
		"no time for what clients of Postgres begin wi": func(s *l4.ListenerSpec) { s.Postgres.Timeout = -1 },
	} {
		spec := l4test.Spec(l4test.NewPool(t))
		spec.Postgres.Timeout = 1
		change(&spec)
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err == nil ||
			!strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
