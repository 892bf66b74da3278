package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// proxyTLVs is a handler that sends what the PROXY header says about the client and its TLS.
func proxyTLVs(_ context.Context, c *net.TCPConn) {
	header, err := proxyproto.Read(bufio.NewReader(c))
	if err != nil {
		fmt.Fprintf(c, "no header: %v", err)
		return
	}
	text := fmt.Sprintf("client %s\n", header.SourceAddr)
	tlvs, err := header.TLVs()
	if err != nil {
		fmt.Fprintf(c, "no TLVs: %v", err)
		return
	}
	for _, tlv := range tlvs {
		switch tlv.Type {
		case proxyproto.PP2_TYPE_ALPN:
			text += fmt.Sprintf("alpn %s\n", tlv.Value)
		case proxyproto.PP2_TYPE_AUTHORITY:
			text += fmt.Sprintf("name %s\n", tlv.Value)
		case proxyproto.PP2_TYPE_UNIQUE_ID:
			text += fmt.Sprintf("id %s\n", tlv.Value)
		}
	}
	if ssl, found := tlvparse.FindSSL(tlvs); found {
		version, _ := ssl.SSLVersion()
		cipher, _ := ssl.SSLCipher()
		name, _ := ssl.ClientCN()
		text += fmt.Sprintf("tls %t %s %s\ncertificate %t %q\n", ssl.ClientSSL(), version, cipher,
			ssl.ClientCertConn() && ssl.Verified(), name)
	}
	_, _ = io.WriteString(c, text)
}

// TestTLSBehindHAProxy has HAProxy in front that names its client, TLS that ends at the balancer, and a backend that
// reads what the balancer says of both.
func TestTLSBehindHAProxy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, clients := newAuthority(t, dir, "ca"), newAuthority(t, dir, "clients")
	ca.pair(t, "www", ecdsaKey(t), "*.example.com")
	clients.pair(t, "somebody", ecdsaKey(t))
	shown, err := tls.LoadX509KeyPair(filepath.Join(dir, "somebody.crt"), filepath.Join(dir, "somebody.key"))
	check(t, err)
	front := harness.FreeAddress(t)
	b := world{Backends: []string{harness.Serve(t, proxyTLVs).Address()}, Pool: []string{`send_proxy = "v2"`},
		Listener: []string{loopbackProxies(), tlsTable(ca.pairs("www"), `alpn = ["dot", "h2"]`, `client_auth = "optional"`,
			ca.fileKey("client_ca", "clients.crt"))}}.start(t)
	harness.StartHAProxy(t, fmt.Sprintf("listen all\n mode tcp\n bind %s\n unique-id-format id-%%ci\n"+
		" server lb %s send-proxy-v2 proxy-v2-options crc32c,unique-id\n", front, b.Address(t, "main")), front)
	for _, tc := range []struct {
		config *tls.Config
		want   string
	}{
		{&tls.Config{ServerName: "Db.example.com", NextProtos: []string{"h2"}, Certificates: []tls.Certificate{shown}},
			"id id-127.0.0.1\nalpn h2\nname Db.example.com\ntls true TLSv1.3 TLS_AES_128_GCM_SHA256\n" +
				"certificate true \"somebody\"\n"},
		{&tls.Config{MaxVersion: tls.VersionTLS12},
			"id id-127.0.0.1\ntls true TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\ncertificate false \"\"\n"},
	} {
		tc.config.InsecureSkipVerify = true
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", front, tc.config)
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		got, err := io.ReadAll(c)
		if want := fmt.Sprintf("client %s\n%s", c.LocalAddr(), tc.want); string(got) != want || err != nil {
			t.Errorf("got\n%swant\n%s%v", got, want, err)
		}
		check(t, c.Close())
		line := b.WaitSession(t, c.LocalAddr())
		if !line.Has("via") || line.Reason != "client_closed" && line.Reason != "backend_closed" {
			t.Errorf("%s", line.Text)
		}
	}
}

// TestTLSProxyHeaderToPrograms has HAProxy and nginx as backends, which read the header: in front of plain text and in
// front of the backend's own TLS.
func TestTLSProxyHeaderToPrograms(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "*.example.com")
	pair := filepath.Join(ca.dir, "www")
	bundle := append(readFile(t, pair+".crt"), readFile(t, pair+".key")...)
	check(t, writeFile(pair+".pem", bundle))
	haproxy, haproxyTLS, nginxTLS := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	harness.StartHAProxy(t, fmt.Sprintf("frontend all\n mode http\n bind %s accept-proxy\n"+
		" bind %s accept-proxy ssl crt %s\n http-request return status 200 content-type text/plain lf-string "+
		"\"%%[src]:%%[src_port] <%%[fc_pp_authority]> <%%[ssl_fc_sni]>\"\n", haproxy, haproxyTLS, pair+".pem"),
		haproxy, haproxyTLS)
	harness.StartNginxTCP(t, fmt.Sprintf("server { listen %s ssl proxy_protocol; ssl_certificate %s.crt; "+
		"ssl_certificate_key %s.key; return \"\\r\\n\\r\\n$proxy_protocol_addr:$proxy_protocol_port <> "+
		"<$ssl_server_name>\"; }", nginxTLS, pair, pair), nginxTLS)
	for _, tc := range []struct {
		backend string
		version string
		secure  bool
		want    string
	}{
		{haproxy, "v2", false, "<db.example.com> <>"},
		{haproxy, "v1", false, "<> <>"},
		{haproxyTLS, "v2", true, "<db.example.com> <db.example.com>"},
		{haproxyTLS, "v1", true, "<> <db.example.com>"},
		{nginxTLS, "v2", true, "<> <db.example.com>"},
		{nginxTLS, "v1", true, "<> <db.example.com>"},
	} {
		lines := []string{fmt.Sprintf("send_proxy = %q", tc.version)}
		if tc.secure {
			lines = append(lines, encrypted(ca.fileKey("ca", "ca.crt"), `server_name = "sni"`)...)
		}
		at := world{Backends: []string{tc.backend}, Pool: lines, Listener: []string{tlsTable(ca.pairs("www"))}}.start(t).
			Address(t, "main")
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", at,
			&tls.Config{ServerName: "db.example.com", InsecureSkipVerify: true})
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		check(t, harness.SendAll(c, "GET / HTTP/1.0\r\n\r\n"))
		answer, err := io.ReadAll(c)
		_, got, _ := strings.Cut(string(answer), "\r\n\r\n")
		if want := fmt.Sprintf("%s %s", c.LocalAddr(), tc.want); got != want {
			t.Errorf("%s to %s: %q, want %q, %v", tc.version, tc.backend, got, want, err)
		}
		check(t, c.Close())
	}
}
