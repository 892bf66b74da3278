package tlsconn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// withKernelTLS makes the package believe that the kernel has all suites. Nothing here gives it keys.
func withKernelTLS(t *testing.T) {
	before := kernelTLS
	kernelTLS = func() *sock.KernelTLS {
		return &sock.KernelTLS{Suites: []uint16{
			tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256,
		}}
	}
	t.Cleanup(func() { kernelTLS = before })
}

// A kernelPeer is a Conn that is established, and the other end of its connection, which crypto/tls serves.
type kernelPeer struct {
	conn *Conn
	raw  net.Conn // the Conn's socket
	peer *tls.Conn
	wire net.Conn // the peer's socket
}

// shake does the handshake of the Conn that begin makes, with a peer that says something right behind its own.
func shake(t *testing.T, says string, begin func(*Threads) *Conn, peer func(net.Conn) *tls.Conn) *kernelPeer {
	t.Helper()
	withKernelTLS(t)
	threads := NewThreads(1)
	t.Cleanup(threads.Close)
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	x := &kernelPeer{wire: must(net.Dial("tcp", ln.Addr().String()))}
	x.raw = must(ln.Accept())
	t.Cleanup(func() { x.wire.Close(); x.raw.Close() })
	check(t, x.wire.SetDeadline(time.Now().Add(time.Minute)))
	x.peer = peer(x.wire)
	done := make(chan error, 1)
	go func() {
		_, err := io.WriteString(x.peer, says) // with the handshake
		done <- err
	}()
	x.conn = begin(threads)
	var room [4096]byte
	for first := x.conn.offload.client; x.conn.Result() == Wants; first = false {
		if !first {
			x.conn.Feed(room[:must(x.raw.Read(room[:]))])
		}
		reported := make(chan struct{})
		x.conn.Go(func() bool { close(reported); return true })
		<-reported
		x.conn.Reported()
		if out := x.conn.Outgoing(); len(out) > 0 {
			must(x.raw.Write(out))
		}
	}
	check(t, x.conn.HandshakeError())
	check(t, <-done)
	x.onSocket(t, func(fd int) { x.conn.Established(fd, new(loop.Buffers)) })
	return x
}

func (x *kernelPeer) onSocket(t *testing.T, do func(fd int)) {
	t.Helper()
	check(t, must(x.raw.(*net.TCPConn).SyscallConn()).Control(func(fd uintptr) { do(int(fd)) }))
}

// read reads from the Conn until it has so many bytes, or is ripe.
func (x *kernelPeer) read(t *testing.T, most int) string {
	t.Helper()
	room, n := make([]byte, most), 0
	for deadline := time.Now().Add(time.Minute); n < most && !x.conn.Ripe(); {
		got, err := x.conn.Read(room[n:], true)
		n += got
		if err != nil && err != ErrAgain || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return string(room[:n])
}

// seal and open are what the kernel does with keys, here with AES-128.
func seal(k *sock.KernelKeys, text string) []byte {
	inner := append([]byte(text), sock.RecordData)
	header := binary.BigEndian.AppendUint16([]byte{sock.RecordData, 3, 3}, uint16(len(inner)+16))
	return must(cipher.NewGCM(must(aes.NewCipher(k.Key)))).Seal(header, nonce(k), inner, header)
}

func open(t *testing.T, k *sock.KernelKeys, from io.Reader) string {
	t.Helper()
	header := make([]byte, 5)
	must(io.ReadFull(from, header))
	body := make([]byte, binary.BigEndian.Uint16(header[3:]))
	must(io.ReadFull(from, body))
	inner, err := must(cipher.NewGCM(must(aes.NewCipher(k.Key)))).Open(nil, nonce(k), body, header)
	check(t, err)
	return string(inner[:len(inner)-1])
}

func nonce(k *sock.KernelKeys) []byte {
	n := k.IV
	for i, b := range binary.BigEndian.AppendUint64(nil, k.Sequence) {
		n[4+i] ^= b
	}
	return n[:]
}

// goesOn checks that the keys that the kernel would get are those of the peer's next records.
func (x *kernelPeer) goesOn(t *testing.T) {
	t.Helper()
	if !x.conn.Ripe() {
		t.Fatal("the connection is not ripe")
	}
	state := x.conn.State()
	if state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("the suite is %s", tls.CipherSuiteName(state.CipherSuite))
	}
	send, receive := x.conn.offload.keys(state.CipherSuite)
	must(x.raw.Write(seal(send, "from here")))
	got := make([]byte, len("from here"))
	must(io.ReadFull(x.peer, got))
	if string(got) != "from here" {
		t.Errorf("the peer has read %q", got)
	}
	must(io.WriteString(x.peer, "from there"))
	if got := open(t, receive, x.raw); got != "from there" {
		t.Errorf("the peer has sent %q", got)
	}
}

// asServer returns what makes the Conn of a server, and its client.
func asServer(t *testing.T, settings ServerSettings) (*Server, func(*Threads) *Conn, func(net.Conn) *tls.Conn) {
	ca := newAuthority(t, "ca")
	settings.KernelTLS = true
	m := Material{Certificates: []KeyPair{ca.pair(t, request{name: "a.test", names: []string{"a.test"}})}}
	config := trusting(ca, "a.test")
	if settings.ClientAuth != None {
		m.ClientCAs = ca.pem
		config.Certificates = []tls.Certificate{ca.pair(t, request{name: "client"}).forClient(t)}
	}
	server := newServer(t, settings, m)
	return server, func(threads *Threads) *Conn { return threads.Server(server, netip.Addr{}) },
		func(c net.Conn) *tls.Conn { return tls.Client(c, config) }
}

// TestIntoKernel holds that the keys for the kernel, and the numbers of the records, are those of the connection: for
// clients with and without a certificate, whose tickets go out at different moments, and for backends, whose tickets
// come in.
func TestIntoKernel(t *testing.T) {
	for _, auth := range []ClientAuth{None, Required} {
		_, begin, peer := asServer(t, ServerSettings{ClientAuth: auth})
		x := shake(t, "hello", begin, peer)
		if x.conn.Ripe() {
			t.Error("the connection is ripe before its first data")
		}
		if got := x.read(t, 100); got != "hello" {
			t.Errorf("read %q", got)
		}
		x.goesOn(t)
	}
	t.Run("the server has written first", func(t *testing.T) {
		_, begin, peer := asServer(t, ServerSettings{})
		x := shake(t, "", begin, peer)
		if e := x.conn.Write([]byte("welcome")); e != 0 {
			t.Fatal(e)
		}
		must(io.ReadFull(x.peer, make([]byte, len("welcome"))))
		x.goesOn(t)
	})
	t.Run("as a client", func(t *testing.T) {
		ca := newAuthority(t, "ca")
		pair := ca.pair(t, request{name: "b.test", names: []string{"b.test"}}).forClient(t)
		client := must(NewClient(ClientSettings{Verify: true, ServerName: "b.test", KernelTLS: true},
			ClientMaterial{CA: ca.pem}))
		config := &tls.Config{Certificates: []tls.Certificate{pair}}
		for _, resumed := range []bool{false, true} {
			x := shake(t, "hello", func(threads *Threads) *Conn {
				return threads.Client(client, "", netip.MustParseAddrPort("127.0.0.1:1"), netip.Addr{})
			}, func(c net.Conn) *tls.Conn { return tls.Server(c, config) })
			if got := x.read(t, 100); got != "hello" {
				t.Errorf("read %q", got)
			}
			if got := x.conn.State().DidResume; got != resumed {
				t.Errorf("resumed is %t: the ticket has not arrived", got)
			}
			x.goesOn(t)
		}
	})
}

// TestStaysOutOfKernel holds what keeps a connection out of the kernel, and that it works all the same.
func TestStaysOutOfKernel(t *testing.T) {
	works := func(t *testing.T, x *kernelPeer) {
		t.Helper()
		if got := x.read(t, len("hello")); got != "hello" {
			t.Errorf("read %q", got)
		}
		if x.conn.Ripe() {
			t.Error("the connection is ripe")
		}
		if e := x.conn.Write([]byte("answer")); e != 0 {
			t.Fatal(e)
		}
		got := make([]byte, len("answer"))
		must(io.ReadFull(x.peer, got))
		if string(got) != "answer" {
			t.Errorf("the peer has read %q", got)
		}
	}
	t.Run("TLS 1.2", func(t *testing.T) {
		_, begin, peer := asServer(t, ServerSettings{MaxVersion: tls.VersionTLS12})
		works(t, shake(t, "hello", begin, peer))
	})
	t.Run("a part of a record is left", func(t *testing.T) {
		_, begin, peer := asServer(t, ServerSettings{})
		x := shake(t, "hello and more", begin, peer)
		works(t, x)
		if got := x.read(t, 100); got != " and more" {
			t.Errorf("then read %q", got)
		}
		x.goesOn(t)
	})
	t.Run("a part of a record has come", func(t *testing.T) {
		_, begin, peer := asServer(t, ServerSettings{})
		x := shake(t, "hello", begin, peer)
		x.read(t, 100)
		if !x.conn.Ripe() {
			t.Fatal("the connection is not ripe")
		}
		x.conn.offload.in.pass([]byte{sock.RecordData, 3})
		if x.conn.Ripe() {
			t.Error("the connection is ripe within a header")
		}
		x.conn.offload.in.pass([]byte{3, 0, 9})
		if x.conn.Ripe() {
			t.Error("the connection is ripe within a record")
		}
	})
	t.Run("the keys have changed", func(t *testing.T) {
		_, begin, peer := asServer(t, ServerSettings{})
		x := shake(t, "hello", begin, peer)
		x.read(t, len("hello")) // it cannot tell that nothing is left of the record
		x.conn.offload.in.pass([]byte{sock.RecordData, 3, 3, 0, keyUpdateBytes})
		x.conn.offload.short = true
		x.conn.offload.in.pass(make([]byte, keyUpdateBytes))
		x.conn.offload.ends(0, 1)
		if x.conn.offload.partial = false; x.conn.Ripe() {
			t.Error("the connection is ripe")
		}
		if x.conn.offload != nil {
			t.Error("the secrets are still there")
		}
	})
}

// TestEdge holds where records end, however they arrive.
func TestEdge(t *testing.T) {
	stream := "\x17\x03\x03\x00\x03abc" + "\x16\x03\x03\x00\x00" + "\x17\x03\x03\x01\x00" + strings.Repeat("d", 256)
	for most := 1; most < 300; most++ {
		var g edge
		ends := ""
		for at := 0; at < len(stream); {
			n := min(most, g.most(), len(stream)-at)
			g.pass([]byte(stream[at : at+n]))
			if at += n; g.between() {
				ends += string(rune('A' + at%26))
			}
		}
		if want := string([]rune{'A' + 8, 'A' + 13, 'A' + 274%26}); ends != want || g.whole != 3 {
			t.Fatalf("with %d bytes at once: ends %q, expected %q; %d records", most, ends, want, g.whole)
		}
	}
}
