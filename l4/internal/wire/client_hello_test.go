package wire

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// A recorder is a connection that keeps what is written to it, and ends at the first read.
type recorder struct {
	net.Conn
	written, unread []byte
}

func (c *recorder) Write(p []byte) (int, error) {
	c.written = append(c.written, p...)
	return len(p), nil
}

func (c *recorder) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func (c *recorder) SetDeadline(time.Time) error      { return nil }
func (c *recorder) SetWriteDeadline(time.Time) error { return nil }
func (c *recorder) Close() error                     { return nil }

// clientHello returns the first flight of a crypto/tls client.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var conn recorder
	if err := tls.Client(&conn, config).Handshake(); err == nil || len(conn.written) == 0 {
		t.Fatalf("%d bytes, %v", len(conn.written), err)
	}
	return conn.written
}

// errSeen ends a server's handshake after the ClientHello.
var errSeen = errors.New("seen")

// serverSees returns what a crypto/tls server reads from a ClientHello, nil if it refuses it.
func serverSees(b []byte) *tls.ClientHelloInfo {
	var seen *tls.ClientHelloInfo
	config := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		seen = info
		return nil, errSeen
	}}
	_ = tls.Server(&recorder{unread: b}, config).HandshakeContext(context.Background())
	return seen
}

// messageOf joins the records of a hello.
func messageOf(b []byte) (message []byte) {
	for len(b) > 0 {
		end := recordHeaderBytes + int(binary.BigEndian.Uint16(b[3:]))
		message = append(message, b[recordHeaderBytes:end]...)
		b = b[end:]
	}
	return message
}

// inRecords splits a message into records that end at these offsets and at its end.
func inRecords(message []byte, ends ...int) (b []byte) {
	from := 0
	for _, to := range append(ends, len(message)) {
		b = append(b, recordHandshake, tlsMajor, 1)
		b = binary.BigEndian.AppendUint16(b, uint16(to-from))
		b = append(b, message[from:to]...)
		from = to
	}
	return b
}

// withExtensions returns the message of a hello with these extensions, in wire format.
func withExtensions(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", randomBytes) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" +
		vector16(extensions)
	return []byte("\x01\x00" + vector16(body))
}

// vector16 is a string behind its length of two bytes.
func vector16(s string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

func extension(kind uint16, data string) string {
	return string(binary.BigEndian.AppendUint16(nil, kind)) + vector16(data)
}

// sni is the server_name extension with one host name.
func sni(name string) string {
	return extension(extensionServerName, vector16("\x00"+vector16(name)))
}

// echConfigs returns a list of one configuration for Encrypted Client Hello, with this public name.
func echConfigs(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	contents := "\x07\x00\x20" + vector16(string(key.PublicKey().Bytes())) + vector16("\x00\x01\x00\x01") +
		"\x20" + string([]byte{byte(len(name))}) + name + vector16("")
	return []byte(vector16("\xfe\x0d" + vector16(contents)))
}

// manyProtocols returns protocols that make a hello larger than a record.
func manyProtocols() (names []string) {
	for i := range 90 {
		names = append(names, fmt.Sprintf("%0250d", i))
	}
	return names
}

// TestClientHello reads hellos of crypto/tls, whose key shares are those of ML-KEM, so that a hello is longer than a
// TCP segment of Ethernet.
func TestClientHello(t *testing.T) {
	for name, tc := range map[string]struct {
		config    *tls.Config
		name      string
		protocols []string
		least     int
	}{
		"usual":      {&tls.Config{ServerName: "www.example.com"}, "www.example.com", nil, 1400},
		"upper case": {&tls.Config{ServerName: "WWW.Example.COM"}, "www.example.com", nil, 1400},
		"final dot":  {&tls.Config{ServerName: "www.example.com."}, "www.example.com", nil, 1400},
		"no name":    {&tls.Config{InsecureSkipVerify: true}, "", nil, 1400},
		"IPv4":       {&tls.Config{ServerName: "192.0.2.1"}, "", nil, 1400},
		"protocols": {&tls.Config{ServerName: "a.b", NextProtos: []string{"h2", "http/1.1"}}, "a.b",
			[]string{"h2", "http/1.1"}, 1400},
		"TLS 1.2": {&tls.Config{ServerName: "old", MaxVersion: tls.VersionTLS12}, "old", nil, 100},
		"several": {&tls.Config{ServerName: "large", NextProtos: manyProtocols()}, "large", manyProtocols(),
			20_000},
		"ECH's outer": {&tls.Config{ServerName: "secret.example", MinVersion: tls.VersionTLS13,
			EncryptedClientHelloConfigList: echConfigs(t, "public.example")}, "public.example", nil, 1400},
		"longest name": {&tls.Config{ServerName: strings.Repeat("a.", 126) + "a"}, strings.Repeat("a.", 126) + "a", nil,
			1400},
	} {
		t.Run(name, func(t *testing.T) {
			b := clientHello(t, tc.config)
			if len(b) < tc.least {
				t.Errorf("%d bytes, want %d or more", len(b), tc.least)
			}
			check := func(b []byte) {
				t.Helper()
				hello, need, err := ClientHello(b)
				protocols := protocolsOf(hello)
				if string(hello.ServerName()) != tc.name || !slices.Equal(protocols, tc.protocols) || need != 0 ||
					err != nil {
					t.Fatalf("%q, %d protocols, need %d, %v", hello.ServerName(), len(protocols), need, err)
				}
				for _, p := range tc.protocols {
					if !hello.Offers(p) || hello.Offers(p+"x") || hello.Offers(p[1:]) {
						t.Fatalf("wrong offers of %q", p)
					}
				}
			}
			check(b)
			check(append(slices.Clone(b), "\x17\x03\x03\x00\x01x"...)) // early data
			checkPrefixes(t, b)
		})
	}
}

// checkPrefixes checks that a hello lacks bytes at every length but its own, and never more than there are.
func checkPrefixes(t *testing.T, b []byte) {
	t.Helper()
	for cut := range b {
		hello, need, err := ClientHello(b[:cut])
		if need <= cut || need > len(b) || err != nil || len(hello.ServerName()) > 0 {
			t.Fatalf("%d of %d bytes: need %d, %v", cut, len(b), need, err)
		}
	}
	calls := 0
	for have := 0; ; calls++ {
		_, need, err := ClientHello(b[:have])
		if err != nil {
			t.Fatal(err)
		}
		if need == 0 {
			break
		}
		have = need
	}
	if calls > 40 {
		t.Errorf("%d calls for %d bytes", calls, len(b))
	}
}

// TestClientHelloInRecords splits a hello at every position, and into records of every small size.
func TestClientHelloInRecords(t *testing.T) {
	config := &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}}
	message := messageOf(clientHello(t, config))
	check := func(b []byte) {
		t.Helper()
		hello, need, err := ClientHello(b)
		if string(hello.ServerName()) != config.ServerName || need != 0 || err != nil ||
			!slices.Equal(protocolsOf(hello), config.NextProtos) || !hello.Offers("http/1.1") {
			t.Fatalf("%q, need %d, %v", hello.ServerName(), need, err)
		}
	}
	for at := 1; at < len(message); at++ {
		check(inRecords(message, at))
	}
	for size := 1; size < 40; size++ {
		var ends []int
		for end := size; end < len(message); end += size {
			ends = append(ends, end)
		}
		b := inRecords(message, ends...)
		check(b)
		checkPrefixes(t, b)
	}
}

// TestNotClientHello has bytes that are refused, and at which of them.
func TestNotClientHello(t *testing.T) {
	const valid = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
	if _, need, err := ClientHello([]byte(valid)); need != 5+512 || err != nil {
		t.Fatalf("need %d, %v", need, err)
	}
	for name, tc := range map[string]struct {
		bytes string
		err   error
	}{
		"HTTP":                   {"G", ErrNotTLS},
		"SSH":                    {"S", ErrNotTLS},
		"SSL 2":                  {"\x80", ErrNotTLS},
		"PROXY header":           {"P", ErrNotTLS},
		"an alert":               {"\x15", ErrNotTLS},
		"another version":        {"\x16\x02", ErrNotTLS},
		"a long record":          {"\x16\x03\x01\x41", ErrMalformedHello},
		"a byte too long":        {"\x16\x03\x01\x40\x01", ErrMalformedHello},
		"an empty record":        {"\x16\x03\x01\x00\x00", ErrMalformedHello},
		"a ServerHello":          {"\x16\x03\x01\x02\x00\x02", ErrNotTLS},
		"16 MiB":                 {"\x16\x03\x01\x02\x00\x01\x01", ErrHelloTooLong},
		"64 KiB with headers":    {"\x16\x03\x01\x02\x00\x01\x00\xff\xff", ErrHelloTooLong},
		"a short message":        {"\x16\x03\x01\x02\x00\x01\x00\x00\x28", ErrMalformedHello},
		"more than the message":  {"\x16\x03\x01\x02\x00\x01\x00\x01\xfb", ErrMalformedHello},
		"an alert in between":    {"\x16\x03\x01\x00\x01\x01\x15", ErrNotTLS},
		"a later wrong type":     {"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\x00\x17", ErrNotTLS},
		"a later empty record":   {"\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x00", ErrMalformedHello},
		"a later length too big": {"\x16\x03\x01\x00\x02\x01\x00\x16\x03\x01\x00\x02\xff\xff", ErrHelloTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte(tc.bytes)
			if _, need, err := ClientHello(b); need != 0 || !errors.Is(err, tc.err) {
				t.Errorf("need %d, %v, want %v", need, err, tc.err)
			}
			if _, need, err := ClientHello(b[:len(b)-1]); need < len(b) || err != nil {
				t.Errorf("a byte earlier: need %d, %v", need, err)
			}
		})
	}
}

// TestClientHelloTooLong checks that a hello of many small records is refused when its headers make it too long, and
// that a caller which waits for the needed bytes never waits for more than the limit.
func TestClientHelloTooLong(t *testing.T) {
	message := withExtensions(extension(0xfafa, strings.Repeat("x", 20_000)))
	ends := make([]int, 0, len(message))
	for end := 1; end < len(message); end++ {
		ends = append(ends, end)
	}
	b := inRecords(message, ends...)
	calls, have := 0, 0
	for ; calls < 40; calls++ {
		_, need, err := ClientHello(b[:have])
		if errors.Is(err, ErrHelloTooLong) {
			return
		}
		if err != nil || need <= have || need > MaxClientHello {
			t.Fatalf("%d bytes: need %d, %v", have, need, err)
		}
		have = need
	}
	t.Errorf("not refused after %d calls and %d bytes", calls, have)
}

// TestClientHelloAllocatesNothing checks that reading a hello does not allocate, nor does one that announces more than
// it has.
func TestClientHelloAllocatesNothing(t *testing.T) {
	config := &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}}
	message := messageOf(clientHello(t, config))
	b := inRecords(message, 100, 101, 700)
	announced := []byte("\x16\x03\x01\x40\x00\x01\x00\xf0\x00")
	names := map[string]int{"www.example.com": 1}
	n := testing.AllocsPerRun(100, func() {
		hello, need, err := ClientHello(b)
		if need != 0 || err != nil || names[string(hello.ServerName())] != 1 || !hello.Offers("http/1.1") {
			t.Fatal(need, err)
		}
		if _, need, err = ClientHello(announced); need < 0xf000 || err != nil {
			t.Fatal(need, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzClientHello reads any bytes, as they are and as the message of a hello cut into records. A prefix of them never
// leads to another error than the whole, and the cuts change nothing. A crypto/tls server that accepts the hello reads
// the same name and protocols.
func FuzzClientHello(f *testing.F) {
	config := &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}}
	f.Add(clientHello(f, config), uint16(7))
	f.Add(inRecords(messageOf(clientHello(f, config)), 1, 5, 600), uint16(100))
	f.Add(inRecords(withExtensions(sni("a.example")+extension(0x0a0a, ""))), uint16(50))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		hello, need, err := ClientHello(b)
		prefix := b[:min(len(b), int(cut))]
		_, prefixNeed, prefixErr := ClientHello(prefix)
		switch {
		case need != 0 && (need <= len(b) || need > MaxClientHello || err != nil):
			t.Fatalf("need %d, %v", need, err)
		case prefixErr != nil && (err == nil || need != 0):
			t.Fatalf("%v after %d bytes, and then %v", prefixErr, len(prefix), err)
		case prefixNeed > len(b) && need == 0 && err == nil:
			t.Fatalf("need %d of %d bytes", prefixNeed, len(b))
		case need != 0 || err != nil:
			return
		}
		if info := serverSees(b); info != nil {
			if !strings.EqualFold(info.ServerName, string(hello.ServerName())) ||
				!slices.Equal(info.SupportedProtos, protocolsOf(hello)) {
				t.Fatalf("%q, %q; a server sees %q, %q", hello.ServerName(), protocolsOf(hello),
					info.ServerName, info.SupportedProtos)
			}
		}
		size, _, _ := completeHello(b)
		r := helloReader{b: b, left: size}
		message := make([]byte, 0, size)
		for range size {
			message = append(message, r.uint8())
		}
		at := 1 + int(cut)%(size-1)
		if at > maxRecordBytes || size-at > maxRecordBytes {
			return
		}
		again, need, err := ClientHello(inRecords(message, at))
		if need != 0 || err != nil || string(again.ServerName()) != string(hello.ServerName()) ||
			!slices.Equal(protocolsOf(again), protocolsOf(hello)) {
			t.Fatalf("cut at %d: %q, need %d, %v", at, again.ServerName(), need, err)
		}
	})
}

// protocolsOf returns the protocols that the client offers by ALPN, the preferred one first. Their names are any bytes,
// among them the reserved names of RFC 8701 (GREASE).
func protocolsOf(h Hello) (all []string) {
	for list := h.protocols; list.left > 0; {
		var protocol [255]byte
		name := list.vector8()
		n := name.left
		for i := range n {
			protocol[i] = name.uint8()
		}
		all = append(all, string(protocol[:n]))
	}
	return all
}
