package tlsconn

import (
	"crypto/tls"
	"strings"
	"testing"
)

// TestNames holds which certificate clients get, by the name they ask for.
func TestNames(t *testing.T) {
	ca := newAuthority(t, "ca")
	pair := func(name string, names ...string) KeyPair { return ca.pair(t, request{name: name, names: names}) }
	m := Material{Certificates: []KeyPair{
		pair("first", "first.test", "shared.test"), pair("exact", "a.example.com", "UPPER.test"),
		pair("wild", "*.example.com", "*.com"), pair("second", "shared.test"), pair("common.name.test"),
	}}
	open, strict := newServer(t, ServerSettings{}, m), newServer(t, ServerSettings{StrictNames: true}, m)
	for _, tc := range []struct{ asks, gets string }{ // gets "": none of them
		{"first.test", "first"}, {"FIRST.test", "first"}, {"shared.test", "first"}, {"a.example.com", "exact"},
		{"A.Example.Com", "exact"}, {"upper.test", "exact"}, {"b.example.com", "wild"}, {"b.EXAMPLE.com", "wild"},
		{"example.com", "wild"}, {"common.name.test", "common.name.test"},
		{"a.b.example.com", ""}, {"com", ""}, {"other.test", ""}, {"", ""}, {strings.Repeat("a.", 126) + "a", ""},
	} {
		client := &tls.Config{ServerName: tc.asks, InsecureSkipVerify: true}
		got := func(s *Server) string {
			e := connect(t, s.Config(), client)
			if e.clientErr != nil {
				return e.clientErr.Error()
			}
			return e.client.PeerCertificates[0].Subject.CommonName
		}
		want := tc.gets
		if want == "" {
			want = "first"
		}
		if is := got(open); is != want {
			t.Errorf("%q: got %s, want %s", tc.asks, is, want)
		}
		if want = tc.gets; want == "" {
			want = "remote error: tls: unrecognized name"
		}
		if is := got(strict); is != want {
			t.Errorf("%q, strict: got %s, want %s", tc.asks, is, want)
		}
		if !open.Serves([]byte(tc.asks)) || strict.Serves([]byte(tc.asks)) != (tc.gets != "") {
			t.Errorf("%q: served %v, and %v if strict", tc.asks, open.Serves([]byte(tc.asks)), strict.Serves([]byte(tc.asks)))
		}
	}
	if strict.Serves(make([]byte, 300)) || strict.Serves([]byte(".")) || strict.Serves([]byte(".com")) {
		t.Error("names that are none are served")
	}
	for _, name := range []string{"B.example.com", "a.example.com", "none.test"} {
		if n := testing.AllocsPerRun(100, func() { strict.Serves([]byte(name)) }); n > 0 {
			t.Errorf("Serves allocates %v times for %s", n, name)
		}
	}
}

// TestKeyTypes holds that clients get the certificate with the type of key they understand.
func TestKeyTypes(t *testing.T) {
	ca := newAuthority(t, "ca")
	names := []string{"a.test", "*.a.test"}
	m := Material{Certificates: []KeyPair{
		ca.pair(t, request{name: "rsa", names: names, key: rsaKeyOnce()}), ca.pair(t, request{name: "ecdsa", names: names}),
		ca.pair(t, request{name: "other", names: []string{"a.test", "b.test"}, key: rsaKeyOnce()}),
	}}
	s := newServer(t, ServerSettings{}, m)
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, tc := range []struct {
		name   string
		suites []uint16
		want   string
	}{
		{"a.test", nil, "ecdsa"}, {"x.a.test", nil, "ecdsa"}, {"", nil, "ecdsa"}, {"none.test", nil, "ecdsa"},
		{"a.test", rsaOnly, "rsa"}, {"x.a.test", rsaOnly, "rsa"}, {"", rsaOnly, "rsa"}, {"none.test", rsaOnly, "rsa"},
		{"b.test", nil, "other"},
	} {
		client := &tls.Config{ServerName: tc.name, InsecureSkipVerify: true, CipherSuites: tc.suites}
		if tc.suites != nil {
			client.MaxVersion = tls.VersionTLS12
		}
		e := connect(t, s.Config(), client).works(t)
		if got := e.client.PeerCertificates[0].Subject.CommonName; got != tc.want {
			t.Errorf("%q %v: got %s, want %s", tc.name, tc.suites, got, tc.want)
		}
	}
	wantFaults(t, s.Warnings(), "certificate: rsa, too, is for a.test")
	// A common name is enough, also beside another certificate.
	s = newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{
		ca.pair(t, request{name: "old.test", key: rsaKeyOnce()}), ca.pair(t, request{name: "old.test"}),
	}})
	e := connect(t, s.Config(), &tls.Config{ServerName: "old.test", InsecureSkipVerify: true}).works(t)
	if e.client.PeerCertificates[0].PublicKeyAlgorithm.String() != "ECDSA" {
		t.Error("the preferred type of key is not chosen for a common name")
	}
	// A client that understands neither gets an alert about that.
	e = connect(t, s.Config(), &tls.Config{ServerName: "old.test", InsecureSkipVerify: true,
		MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}})
	if e.clientErr == nil || e.clientErr.Error() != "remote error: tls: handshake failure" {
		t.Errorf("error %v", e.clientErr)
	}
}
