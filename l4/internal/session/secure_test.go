package session_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/pool"
)

// sides are which sides of a session have TLS.
type sides struct{ client, backend bool }

func (s sides) String() string {
	return fmt.Sprintf("client TLS %v, backend TLS %v", s.client, s.backend)
}

// A secured is a server whose sessions have TLS on some sides.
type secured struct {
	sides
	server *l4.Server
	roots  *x509.CertPool
}

// secure starts a server in front of a backend that serves with handle.
func secure(t *testing.T, on sides, version uint16, handle func(net.Conn)) *secured {
	t.Helper()
	pair := l4test.NewKeyPair(t, "localhost")
	x := &secured{sides: on, roots: l4test.Roots(t, pair)}
	config := &tls.Config{Certificates: []tls.Certificate{l4test.Certificate(t, pair)}, MaxVersion: version}
	backend := l4test.Backend(t, func(c *net.TCPConn) {
		if on.backend {
			handle(tls.Server(c, config))
		} else {
			handle(c)
		}
	})
	o := pool.Options{Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: 5 * time.Second}
	if on.backend {
		o.Secure = l4test.TLSClient(t, l4.TLSClientSettings{Verify: true, ServerName: "localhost"}, pair)
	}
	p, err := pool.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(pool.Spec{ID: "one", Addr: pool.At(netip.MustParseAddrPort(backend)), Weight: 1}); err != nil {
		t.Fatal(err)
	}
	spec := l4test.Spec(p)
	if on.client {
		spec.TLS = l4test.TLSServer(t, l4.TLSServerSettings{MaxVersion: version}, pair)
	}
	x.server = l4test.Start(t, l4.Options{Loops: 1}, spec)
	return x
}

// dial connects a client.
func (x *secured) dial(t *testing.T) halfCloser {
	t.Helper()
	c := l4test.Dial(t, l4test.Address(x.server))
	if !x.client {
		return c
	}
	return tls.Client(c, &tls.Config{RootCAs: x.roots, ServerName: "localhost"})
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// everySide calls f for each combination of sides and version.
func everySide(t *testing.T, f func(t *testing.T, on sides, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, on := range []sides{{true, false}, {false, true}, {true, true}} {
			t.Run(fmt.Sprint(on, ", ", tls.VersionName(version)), func(t *testing.T) { f(t, on, version) })
		}
	}
}

// TestSecureRelay sends questions and answers of all sizes through sessions with TLS, and ends them in order.
func TestSecureRelay(t *testing.T) {
	everySide(t, func(t *testing.T, on sides, version uint16) {
		x := secure(t, on, version, func(c net.Conn) {
			_, _ = io.Copy(c, c)
			c.(halfCloser).CloseWrite()
		})
		c := x.dial(t)
		for _, size := range []int{1, 2, 100, 16 << 10, 16<<10 + 1, 48 << 10, 64<<10 + 7, 300_000} {
			sent := random(size)
			go func() { _, _ = c.Write(sent) }()
			got := make([]byte, size)
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes come back as others", size)
			}
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Fatalf("at the end: %d bytes, error %v", len(rest), err)
		}
	})
}

// TestSecureBulk moves megabytes both ways at once to a reader that stops now and then.
func TestSecureBulk(t *testing.T) {
	everySide(t, func(t *testing.T, on sides, version uint16) {
		const size = 8 << 20
		sent, answer := random(size), random(size)
		got := make(chan []byte, 1)
		x := secure(t, on, version, func(c net.Conn) {
			var both sync.WaitGroup
			both.Go(func() {
				b, _ := io.ReadAll(slowly{c})
				got <- b
			})
			both.Go(func() {
				_, _ = c.Write(answer)
				c.(halfCloser).CloseWrite()
			})
			both.Wait()
		})
		c := x.dial(t)
		go func() {
			_, _ = c.Write(sent)
			c.CloseWrite()
		}()
		back, err := io.ReadAll(slowly{c})
		if err != nil || !bytes.Equal(back, answer) {
			t.Errorf("the answer has %d bytes, error %v", len(back), err)
		}
		if b := <-got; !bytes.Equal(b, sent) {
			t.Errorf("the backend got %d bytes of %d", len(b), size)
		}
	})
}

// slowly reads with a pause now and then.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	if rand.IntN(100) == 0 {
		time.Sleep(time.Millisecond)
	}
	return s.Reader.Read(p[:min(len(p), 1+rand.IntN(100_000))])
}

// TestSecureFragments has a client whose connection brings its bytes one by one.
func TestSecureFragments(t *testing.T) {
	x := secure(t, sides{true, true}, tls.VersionTLS13, func(c net.Conn) { _, _ = io.Copy(c, c) })
	c := l4test.Dial(t, l4test.Address(x.server))
	over := tls.Client(&crumbs{Conn: c}, &tls.Config{RootCAs: x.roots, ServerName: "localhost"})
	if _, err := over.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8)
	if _, err := io.ReadFull(over, got); err != nil || string(got) != "question" {
		t.Fatalf("got %q, error %v", got, err)
	}
}

// crumbs writes a few bytes at a time.
type crumbs struct{ net.Conn }

func (c *crumbs) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := c.Conn.Write(p[n:min(len(p), n+7)])
		n += k
		if err != nil {
			return n, err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return n, nil
}

func random(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return p
}
