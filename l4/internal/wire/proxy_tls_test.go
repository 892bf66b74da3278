package wire

import (
	"bufio"
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// TestProxyTLVs holds that another implementation reads what is said about TLS, and that what an earlier proxy has said
// about it is not passed on.
func TestProxyTLVs(t *testing.T) {
	client, local := netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.2:5432")
	earlier := []byte(tlv(tlvServerName, "earlier") + tlv(tlvTLS, "\x01\x00\x00\x00\x00") + tlv(0xe1, "kept"))
	said := ProxyTLS{
		ServerName: "db.example.com", Protocol: "postgresql", Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256",
		Certificate: true, CommonName: "alice",
	}
	read := func(said *ProxyTLS, earlier []byte) ([]proxyproto.TLV, tlvparse.PP2SSL) {
		t.Helper()
		header := AppendProxy(nil, ProxyV2, client, local, AppendProxyTLVs(nil, said, earlier))
		h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
		if err != nil {
			t.Fatal(err)
		}
		tlvs, err := h.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		ssl, found := tlvparse.FindSSL(tlvs)
		if !found {
			t.Fatal("nothing about TLS")
		}
		return tlvs, ssl
	}
	values := func(tlvs []proxyproto.TLV, kind proxyproto.PP2Type) (all []string) {
		for _, one := range tlvs {
			if one.Type == kind {
				all = append(all, string(one.Value))
			}
		}
		return all
	}
	tlvs, ssl := read(&said, earlier)
	for kind, want := range map[proxyproto.PP2Type]string{
		proxyproto.PP2_TYPE_AUTHORITY: said.ServerName, proxyproto.PP2_TYPE_ALPN: said.Protocol, 0xe1: "kept",
	} {
		if got := values(tlvs, kind); !slices.Equal(got, []string{want}) {
			t.Errorf("TLVs of type %#x: %q, want %q alone", kind, got, want)
		}
	}
	version, _ := ssl.SSLVersion()
	cipher, _ := ssl.SSLCipher()
	name, _ := ssl.ClientCN()
	if version != said.Version || cipher != said.Cipher || name != said.CommonName {
		t.Errorf("version %q, cipher %q, name %q", version, cipher, name)
	}
	if !ssl.ClientSSL() || !ssl.ClientCertConn() || !ssl.ClientCertSess() || !ssl.Verified() {
		t.Errorf("%+v", ssl)
	}

	said.Resumed = true
	if _, ssl = read(&said, nil); ssl.ClientCertConn() || !ssl.ClientCertSess() {
		t.Errorf("resumed: %+v", ssl)
	}
	said = ProxyTLS{Version: "TLSv1.2", CommonName: string(make([]byte, maxProxyText+1))}
	if tlvs, ssl = read(&said, nil); len(tlvs) != 1 || ssl.ClientCertSess() || ssl.Verified() || !ssl.ClientSSL() {
		t.Errorf("without a certificate: %v, %+v", tlvs, ssl)
	}
	if _, found := ssl.ClientCN(); found {
		t.Error("a name that is too long is sent")
	}
}
