package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/quic-go/quic-go"
)

// A quicPair is a QUIC server and the settings of its clients. Each connection has one stream: both sides send bytes at
// the same time, and then the server sends the digests of the bytes that it received and sent.
type quicPair struct {
	// set once, then read-only
	address string
	client  *tls.Config
	config  *quic.Config
	bytes   int64 // each way, for each connection

	serving sync.WaitGroup
	errs    chan error // of the server's connections, one each
}

const quicProtocol = "limeload-test"

// startQUIC starts a server that exchanges that many bytes with each of at most that many clients.
func startQUIC(t *testing.T, bytes int64, clients int) *quicPair {
	t.Helper()
	server := makeCertificate(t, time.Now().Add(time.Hour), "127.0.0.1")
	text, err := os.ReadFile(server.file)
	check(t, err)
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		t.Fatal("the certificate is none")
	}
	q := &quicPair{
		client: &tls.Config{RootCAs: authorities, ServerName: "127.0.0.1", NextProtos: []string{quicProtocol},
			MinVersion: tls.VersionTLS13},
		config: &quic.Config{HandshakeIdleTimeout: harness.Patience, MaxIdleTimeout: 2 * harness.Patience},
		bytes:  bytes, errs: make(chan error, clients),
	}
	l, err := quic.ListenAddr(harness.FreeAddress(t),
		&tls.Config{Certificates: []tls.Certificate{server.pair}, NextProtos: []string{quicProtocol},
			MinVersion: tls.VersionTLS13}, q.config)
	check(t, err)
	q.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	q.serving.Go(func() { q.accept(ctx, l) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		q.serving.Wait()
	})
	return q
}

func (q *quicPair) accept(ctx context.Context, l *quic.Listener) {
	for {
		c, err := l.Accept(ctx)
		if err != nil {
			return // closed
		}
		q.serving.Go(func() {
			q.errs <- q.serve(ctx, c)
			select {
			case <-c.Context().Done(): // the client closes it when it has everything, but that message may be lost
			case <-ctx.Done():
				c.CloseWithError(0, "done")
			}
		})
	}
}

func (q *quicPair) serve(ctx context.Context, c *quic.Conn) error {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	sent, got, err := q.both(s, false, func() (digest, error) { return digestOf(s, -1) })
	if err == nil {
		_, err = s.Write(append(got[:], sent[:]...))
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

// exchange sends in both directions of a connection and compares the digests of sent and received bytes.
func (q *quicPair) exchange(ctx context.Context, c *quic.Conn) error {
	defer c.CloseWithError(0, "done")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	sent, got, err := q.both(s, true, func() (digest, error) { return digestOf(s, q.bytes) })
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	said, err := io.ReadAll(s)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if !bytes.Equal(said, append(sent[:], got[:]...)) {
		return errors.New("what came is not what went")
	}
	return nil
}

// A digest is that of the bytes in one direction.
type digest [sha256.Size]byte

// both sends while it receives. ends says that nothing follows what it sends.
func (q *quicPair) both(s *quic.Stream, ends bool, receive func() (digest, error)) (sent, got digest, err error) {
	var sending sync.WaitGroup
	var sendErr error
	sending.Go(func() {
		sum := sha256.New()
		var seed [32]byte
		binary.NativeEndian.PutUint64(seed[:], rand.Uint64())
		source := rand.NewChaCha8(seed)
		_, sendErr = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(sum, s)}, io.LimitReader(source, q.bytes),
			make([]byte, 64<<10))
		sum.Sum(sent[:0])
		if sendErr == nil && ends {
			sendErr = s.Close()
		}
	})
	got, err = receive()
	if err != nil {
		s.CancelWrite(1) // or the sender would wait for a receiver that has given up
	}
	sending.Wait()
	return sent, got, errors.Join(err, sendErr)
}

// digestOf reads n bytes, or all there are if n is negative.
func digestOf(r io.Reader, n int64) (d digest, err error) {
	sum := sha256.New()
	if n < 0 {
		_, err = io.Copy(sum, r)
	} else {
		_, err = io.CopyN(sum, r, n)
	}
	sum.Sum(d[:0])
	return d, err
}

// handshakes is how many connections are made at a time: quic-go refuses them when 32 wait to be accepted.
const handshakes = 16

// askAll connects that many clients through address, exchanges bytes with all at the same time, and fails the test for
// each incomplete exchange.
func (q *quicPair) askAll(t testing.TB, address string, clients int) {
	t.Helper()
	var running sync.WaitGroup
	conns, errs := make([]*quic.Conn, clients), make([]error, clients)
	turns := make(chan struct{}, handshakes)
	for i := range clients {
		turns <- struct{}{}
		running.Go(func() {
			conns[i], errs[i] = quic.DialAddr(t.Context(), address, q.client, q.config)
			<-turns
		})
	}
	running.Wait()
	for i, c := range conns {
		if errs[i] == nil {
			running.Go(func() { errs[i] = q.exchange(t.Context(), c) })
		}
	}
	running.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
			continue
		}
		if err := harness.Receive(t, "the server's end", q.errs); err != nil {
			t.Error(err)
		}
	}
}

// TestQUIC opens QUIC connections through the balancer and exchanges megabytes in both directions of each, without a
// change.
func TestQUIC(t *testing.T) {
	t.Parallel()
	withOffload(t, func(t *testing.T, key string) {
		const clients, each = 20, 1 << 20
		q := startQUIC(t, each, clients)
		b := world{Global: []string{key}, Backends: []string{q.address}}.startUDP(t)
		q.askAll(t, b.Address(t, "main"), clients)
		l := udpFigures(t, b)
		if l.Accepted != clients || l.BytesIn < clients*each || l.BytesOut < clients*each {
			t.Errorf("%d connections of %d bytes each way: %+v", clients, each, l)
		}
		t.Logf("%d datagrams in, %d out, dropped %v", l.DatagramsIn, l.DatagramsOut, l.drops())
	})
}
