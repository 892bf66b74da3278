//go:build vm

package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// Tests of kernel TLS. They need a kernel that has it, and run in a virtual machine (see test/vm, `make vm`).

// A duplex is a connection whose halves end one by one: *net.TCPConn, or *tls.Conn, which ends its half by a
// close_notify alone.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// A leg is a way in which sessions of a kernelWorld are encrypted; it is the name of a listener.
type leg string

const (
	termination  leg = "termination"  // TLS with the client
	reencryption leg = "reencryption" // TLS with the backend
	bothLegs     leg = "both"
	neitherLeg   leg = "off" // TLS with both, of which the kernel gets none
)

// sides are the sides with TLS.
func (g leg) sides() []string {
	switch g {
	case termination:
		return []string{"client"}
	case reencryption:
		return []string{"backend"}
	}
	return []string{"client", "backend"}
}

// A kernelWorld is a balancer with a listener for each leg, and two backends, with and without TLS, that pass their
// connections to the test.
type kernelWorld struct {
	*harness.Balancer
	ca     *authority
	config string
	conns  chan tlsEnd // of the backends
}

// kernelConfig makes the files and the backends, and the configuration, for a balancer that the test starts. Each
// listener has these further lines.
func kernelConfig(t testing.TB, listener ...string) *kernelWorld {
	t.Helper()
	w := &kernelWorld{ca: newAuthority(t, t.TempDir(), "ca"), conns: make(chan tlsEnd)}
	w.ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	pair, err := tls.LoadX509KeyPair(filepath.Join(w.ca.dir, "www.crt"), filepath.Join(w.ca.dir, "www.key"))
	check(t, err)
	plain := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) { w.handOver(ctx, tlsEnd{c, &wire{Conn: c}}) })
	secured := &tls.Config{Certificates: []tls.Certificate{pair}}
	secure := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		below := &wire{Conn: c}
		if s := tls.Server(below, secured); s.HandshakeContext(ctx) == nil {
			w.handOver(ctx, tlsEnd{s, below})
		}
	})
	var b strings.Builder
	b.WriteString("[global]\ndrain_timeout = \"5m\"\n")
	for _, g := range []leg{termination, reencryption, bothLegs, neitherLeg} {
		pool := map[leg]string{termination: "plain", neitherLeg: "off"}[g]
		if pool == "" {
			pool = "secure"
		}
		fmt.Fprintf(&b, "[listener.%s]\naddress = %q\npool = %q\n%s\n", g, harness.FreeAddress(t), pool,
			strings.Join(listener, "\n"))
		keys := []string{w.ca.pairs("www"), `handshake_timeout = "5m"`}
		if g == neitherLeg {
			keys = append(keys, `kernel_tls = "off"`)
		}
		if g != reencryption {
			fmt.Fprintln(&b, tlsTable(keys...))
		}
	}
	verify := w.ca.fileKey("ca", "ca.crt") + "\nserver_name = \"www.example.com\"\n"
	const patient = "connect_timeout = \"5m\"\n" // the machine may be slow
	fmt.Fprintf(&b, "[pool.plain]\nbackends = [%q]\n%s", plain.Address(), patient)
	fmt.Fprintf(&b, "[pool.secure]\nbackends = [%q]\n%s[pool.secure.tls]\n%s", secure.Address(), patient, verify)
	fmt.Fprintf(&b, "[pool.off]\nbackends = [%q]\n%s[pool.off.tls]\n%skernel_tls = \"off\"\n", secure.Address(), patient,
		verify)
	w.config = b.String()
	return w
}

// startKernelWorld starts a balancer with the configuration of kernelConfig.
func startKernelWorld(t testing.TB, listener ...string) *kernelWorld {
	t.Helper()
	w := kernelConfig(t, listener...)
	w.Balancer = harness.StartBalancer(t, w.config)
	return w
}

// handOver passes a connection to the test, and keeps it until the backend's end.
func (w *kernelWorld) handOver(ctx context.Context, e tlsEnd) {
	select {
	case w.conns <- e:
		<-ctx.Done()
	case <-ctx.Done():
	}
}

// A tlsEnd is an end of a session.
type tlsEnd struct {
	duplex       // as the end is used
	below  *wire // the connection under its TLS, or just the connection
}

// socket is the end's connection.
func (e tlsEnd) socket() *net.TCPConn { return e.below.Conn.(*net.TCPConn) }

// A kernelSession is a session through a kernelWorld, which has carried a byte each way.
type kernelSession struct{ client, backend tlsEnd }

// trust is the configuration of a client that knows the listeners' certificate.
func (w *kernelWorld) trust(t testing.TB) *tls.Config {
	t.Helper()
	known := x509.NewCertPool()
	known.AddCert(w.ca.cert)
	return &tls.Config{RootCAs: known, ServerName: "www.example.com"}
}

// dial connects to the listener of a leg at this address.
func (w *kernelWorld) dial(t testing.TB, g leg, at string, config *tls.Config) tlsEnd {
	t.Helper()
	c := harness.Dial(t, at)
	check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
	below := &wire{Conn: c}
	if g == reencryption {
		return tlsEnd{c, below}
	}
	s := tls.Client(below, config)
	check(t, s.Handshake())
	return tlsEnd{s, below}
}

// accept takes the backend's end of the next session.
func (w *kernelWorld) accept(t testing.TB) tlsEnd {
	t.Helper()
	e := harness.Receive(t, "connection at the backend", w.conns)
	t.Cleanup(func() { e.socket().Close() })
	check(t, e.socket().SetDeadline(time.Now().Add(harness.Patience)))
	return e
}

// begin begins a session at a listener with this address, and sends a byte each way.
func (w *kernelWorld) begin(t testing.TB, g leg, at string, config *tls.Config) *kernelSession {
	t.Helper()
	client := w.dial(t, g, at, config)
	s := &kernelSession{client, w.accept(t)}
	check(t, roundTrip(s.client, s.backend))
	return s
}

// open begins a session. When it returns, the kernel has the session's TLS, unless the leg is neitherLeg.
func (w *kernelWorld) open(t testing.TB, g leg) *kernelSession {
	t.Helper()
	return w.openWith(t, g, w.trust(t))
}

// openWith is open with another configuration of the client.
func (w *kernelWorld) openWith(t testing.TB, g leg, config *tls.Config) *kernelSession {
	t.Helper()
	before := w.secured(t, g, "kernel")
	s := w.begin(t, g, w.Address(t, string(g)), config)
	if g != neitherLeg {
		w.awaitSecured(t, g, "kernel", before, 1)
	}
	return s
}

// ends are the end on this side and the other one.
func (s *kernelSession) ends(side string) (from, to tlsEnd) {
	if side == "client" {
		return s.client, s.backend
	}
	return s.backend, s.client
}

// close closes both ends.
func (s *kernelSession) close() {
	s.client.Close()
	s.backend.Close()
}

// secured are the numbers of sessions of a leg whose TLS is the kernel's or the program's, by the leg's sides.
func (w *kernelWorld) secured(t testing.TB, g leg, by string) (counts []float64) {
	t.Helper()
	now := metrics(t, w.Balancer)
	for _, side := range g.sides() {
		counts = append(counts, now[securedBy(g, side, by)])
	}
	return counts
}

// awaitSecured waits until more sessions than before are the kernel's or the program's, on each side of the leg.
func (w *kernelWorld) awaitSecured(t testing.TB, g leg, by string, before []float64, more float64) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%v sessions of listener %s are of the %s", more, g, by), func() error {
		now := w.secured(t, g, by)
		for i := range now {
			if now[i] != before[i]+more {
				return fmt.Errorf("they are %v, and were %v, for the sides %v", now, before, g.sides())
			}
		}
		return nil
	})
}

func securedBy(g leg, side, by string) string {
	return fmt.Sprintf("limeload_listener_tls_sessions_total{by=%q,listener=%q,side=%q}", by, g, side)
}

// trade has one end of a session send this traffic while it reads, until the other end has ended its half.
func trade(c duplex, tr harness.Traffic) (e end) {
	var sending sync.WaitGroup
	var failed error
	sending.Go(func() {
		if e.sent, failed = tr.Send(c); failed == nil {
			failed = c.CloseWrite()
		}
	})
	e.got, e.err = harness.Collect(c)
	if e.err != nil {
		c.Close() // otherwise the sender would wait for a peer that does not read
	}
	sending.Wait()
	e.err = errors.Join(e.err, failed)
	return e
}

// tradeBothWays sends so many bytes each way at once, and checks them and the session's access line.
func (w *kernelWorld) tradeBothWays(t *testing.T, s *kernelSession, size int64) {
	t.Helper()
	ends := make(chan end, 1)
	go func() { ends <- trade(s.backend, harness.Traffic{Seed: 1, Size: size, Chunk: 256 << 10}) }()
	client := trade(s.client, harness.Traffic{Seed: 2, Size: size + 1, Chunk: 100_001})
	backend := harness.Receive(t, "the backend's end", ends)
	check(t, errors.Join(client.err, backend.err))
	if client.sent != backend.got || backend.sent != client.got {
		t.Errorf("client sent %v, backend got %v; backend sent %v, client got %v", client.sent, backend.got, backend.sent,
			client.got)
	}
	s.close()
	line := w.WaitSession(t, s.client.LocalAddr())
	const greeting = 1 // of open
	if line.BytesIn != size+1+greeting || line.BytesOut != size+greeting {
		t.Errorf("%s", line.Text)
	}
	oneOf(t, []harness.Line{line}, "client_closed", "backend_closed")
}

// A wire is a connection below the TLS of a test, which it can disturb. Its zero value lacks only Conn. What it does is
// changed while nobody reads or writes.
type wire struct {
	net.Conn
	corks    bool   // what is written is kept, see uncork
	kept     []byte // so far
	crumbles bool   // each byte is sent by itself
	spoils   bool   // the last byte of what is read changes
}

// Write implements io.Writer.
func (w *wire) Write(p []byte) (int, error) {
	switch {
	case w.corks:
		w.kept = append(w.kept, p...)
		return len(p), nil
	case w.crumbles:
		for i := range p {
			if _, err := w.Conn.Write(p[i : i+1]); err != nil {
				return i, err
			}
		}
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Read implements io.Reader.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.spoils && n > 0 {
		p[n-1] ^= 1
	}
	return n, err
}

// uncork sends what is kept, at once.
func (w *wire) uncork(t testing.TB) {
	t.Helper()
	check(t, w.SetWriteDeadline(time.Now().Add(harness.Patience))) // a close_notify of crypto/tls lets it pass
	w.corks = false
	_, err := w.Conn.Write(w.kept)
	check(t, err)
	w.kept = nil
}

// expectText reads exactly this text.
func expectText(t testing.TB, c io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// expectEnd reads the end.
func expectEnd(t testing.TB, c io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("got %.100q, %v, want an end in order", rest, err)
	}
}
