package wire

import "encoding/binary"

// The types of TLVs about TLS (proxy-protocol.txt, 2.2.1, 2.2.2 and 2.2.5).
const (
	tlvALPN       = 0x01
	tlvServerName = 0x02
	tlvTLS        = 0x20
	tlvVersion    = 0x21 // these are within tlvTLS
	tlvCommonName = 0x22
	tlvCipher     = 0x23
)

// The bits of the first byte of tlvTLS.
const (
	proxyOverTLS     = 0x01
	proxyCertConn    = 0x02 // the client has shown a certificate by this connection
	proxyCertSession = 0x04 // or in the TLS session that this connection resumes
)

// maxProxyText bounds a text in a TLV: longer ones are left out. A certificate may have a name of any length.
const maxProxyText = 1 << 10

// A ProxyTLS is what a PROXY header says about TLS between the client and its sender.
type ProxyTLS struct {
	ServerName string // that the client has asked for; "" = none
	Protocol   string // that was agreed on by ALPN; "" = none
	Version    string // such as "TLSv1.3"
	Cipher     string

	Certificate bool   // the client has shown a certificate, and it was verified
	Resumed     bool   // in an earlier connection
	CommonName  string // of that certificate; "" = none
}

// AppendProxyTLVs appends the TLVs that say t, and those of others but for the types that t speaks of: what another
// proxy says about TLS concerns the connection to that proxy.
func AppendProxyTLVs(to []byte, t *ProxyTLS, others []byte) []byte {
	for len(others) > 0 {
		var first []byte
		if first, others, _ = firstTLV(others); first[0] != tlvALPN && first[0] != tlvServerName && first[0] != tlvTLS {
			to = append(to, first...)
		}
	}
	to = appendTLV(to, tlvALPN, t.Protocol)
	to = appendTLV(to, tlvServerName, t.ServerName)
	at := len(to)
	flags, unverified := byte(proxyOverTLS), byte(1)
	if t.Certificate {
		flags, unverified = flags|proxyCertSession, 0
		if !t.Resumed {
			flags |= proxyCertConn
		}
	}
	to = append(to, tlvTLS, 0, 0, flags, 0, 0, 0, unverified)
	to = appendTLV(to, tlvVersion, t.Version)
	to = appendTLV(to, tlvCommonName, t.CommonName)
	to = appendTLV(to, tlvCipher, t.Cipher)
	binary.BigEndian.PutUint16(to[at+1:], uint16(len(to)-at-3))
	return to
}

// appendTLV appends a TLV, unless its text is empty or too long.
func appendTLV(to []byte, kind byte, text string) []byte {
	if text == "" || len(text) > maxProxyText {
		return to
	}
	to = append(to, kind)
	return append(binary.BigEndian.AppendUint16(to, uint16(len(text))), text...)
}
