package tlsconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestVersions holds which versions and cipher suites clients can have.
func TestVersions(t *testing.T) {
	ca := newAuthority(t, "ca")
	m := Material{Certificates: []KeyPair{ca.pair(t, request{name: "a", names: []string{"a.test"}})}}
	for _, tc := range []struct {
		name             string
		settings         ServerSettings
		least, most, got uint16 // of the client; got 0: refused
	}{
		{"latest", ServerSettings{}, 0, 0, tls.VersionTLS13},
		{"1.2", ServerSettings{}, 0, tls.VersionTLS12, tls.VersionTLS12},
		{"1.1 is too old", ServerSettings{}, tls.VersionTLS10, tls.VersionTLS11, 0},
		{"max_version", ServerSettings{MaxVersion: tls.VersionTLS12}, 0, 0, tls.VersionTLS12},
		{"min_version", ServerSettings{MinVersion: tls.VersionTLS13}, 0, tls.VersionTLS12, 0},
	} {
		client := trusting(ca, "a.test")
		client.MinVersion, client.MaxVersion = tc.least, tc.most
		e := connect(t, newServer(t, tc.settings, m).Config(), client)
		if e.client.Version != tc.got || (tc.got == 0) != (e.clientErr != nil) {
			t.Errorf("%s: got %s, error %v", tc.name, tls.VersionName(e.client.Version), e.clientErr)
		}
	}
	for _, s := range []ServerSettings{{MinVersion: tls.VersionTLS11}, {MinVersion: tls.VersionTLS13,
		MaxVersion: tls.VersionTLS12}} {
		if _, err := NewServer(s, m); err == nil {
			t.Errorf("%+v are accepted", s)
		}
	}
	// Each suite that Go knows is offered alone.
	s := newServer(t, ServerSettings{}, m)
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS13) {
			continue
		}
		client := trusting(ca, "a.test")
		client.MaxVersion, client.CipherSuites = tls.VersionTLS12, []uint16{suite.ID}
		e := connect(t, s.Config(), client)
		good := strings.Contains(suite.Name, "ECDHE_ECDSA") &&
			(strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "CHACHA20"))
		if good != (e.clientErr == nil) {
			t.Errorf("%s: %v", suite.Name, e.clientErr)
		}
	}
}

// TestALPN holds that the server's first protocol that the client offers is chosen.
func TestALPN(t *testing.T) {
	ca := newAuthority(t, "ca")
	m := Material{Certificates: []KeyPair{ca.pair(t, request{name: "a", names: []string{"a.test"}})}}
	s := newServer(t, ServerSettings{ALPN: []string{"postgresql", "x"}}, m)
	client := trusting(ca, "a.test")
	client.NextProtos = []string{"x", "postgresql"}
	if e := connect(t, s.Config(), client).works(t); e.client.NegotiatedProtocol != "postgresql" {
		t.Errorf("got %q", e.client.NegotiatedProtocol)
	}
	client.NextProtos = []string{"h2"}
	if e := connect(t, s.Config(), client); e.clientErr == nil {
		t.Error("a client with other protocols is served")
	}
	client.NextProtos = nil
	connect(t, s.Config(), client).works(t)
}

// TestUpdate holds that new material is for handshakes from then on, and that wrong material changes nothing.
func TestUpdate(t *testing.T) {
	ca := newAuthority(t, "ca")
	pair := func(name string) KeyPair { return ca.pair(t, request{name: name, names: []string{"a.test"}}) }
	first, second := pair("first"), pair("second")
	s := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{first}})
	shows := func(want string) {
		t.Helper()
		e := connect(t, s.Config(), trusting(ca, "a.test")).works(t)
		if got := e.client.PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("the client sees %q, want %q", got, want)
		}
	}
	shows("first")
	before := s.Config()
	check(t, s.Update(Material{Certificates: []KeyPair{{Name: "first", CertPEM: bytes.Clone(first.CertPEM),
		KeyPEM: first.KeyPEM}}}))
	if s.Config() != before {
		t.Error("the same material makes another configuration")
	}
	broken := second
	broken.KeyPEM = first.KeyPEM
	warnings, err := s.Check(Material{Certificates: []KeyPair{second, broken}})
	wantFaults(t, faultsOf(t, err), `key: it is not the key of the certificate for "CN=second"`)
	if err := s.Update(Material{Certificates: []KeyPair{second, broken}}); err == nil || warnings != nil {
		t.Errorf("error %v, warnings %v", err, warnings)
	}
	shows("first")
	if infos := s.Certificates(); len(infos) != 1 || infos[0].Name != "first" || infos[0].KeyType != "ECDSA" ||
		!slices.Equal(infos[0].Names, []string{"a.test"}) || !infos[0].NotAfter.Equal(leafOf(t, first).NotAfter) {
		t.Errorf("certificates: %+v", infos)
	}
	check(t, s.Update(Material{Certificates: []KeyPair{second}}))
	shows("second")
}

// TestUpdateUnderHandshakes replaces certificates under handshakes, of which none may fail.
func TestUpdateUnderHandshakes(t *testing.T) {
	ca := newAuthority(t, "ca")
	pairs := make([]KeyPair, 4)
	for i := range pairs {
		pairs[i] = ca.pair(t, request{names: []string{"a.test"}})
	}
	s := newServer(t, ServerSettings{}, Material{Certificates: pairs[:1]})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			config := trusting(ca, "a.test")
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for range 25 {
				if e := connect(t, s.Config(), config); e.clientErr != nil || e.serverErr != nil {
					t.Errorf("client: %v; server: %v", e.clientErr, e.serverErr)
				}
			}
		})
	}
	for i := range 100 {
		check(t, s.Update(Material{Certificates: pairs[i%4 : i%4+1]}))
	}
	clients.Wait()
}

// TestFaults holds which part each mistake is found in.
func TestFaults(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	good := ca.pair(t, request{name: "a", names: []string{"a.test"}})
	b := ca.pair(t, request{name: "b", names: []string{"b.test"}})
	_, odd, _ := ed25519.GenerateKey(nil)
	with := func(change func(*KeyPair)) Material {
		p := b
		change(&p)
		return Material{Certificates: []KeyPair{good, p}, ClientCAs: ca.pem}
	}
	one := Material{Certificates: []KeyPair{good}, ClientCAs: ca.pem}
	crl := func(list []byte) Material {
		m := one
		m.ClientCRL = list
		return m
	}
	keys := func(text string) Material {
		m := one
		m.TicketKeys = []byte(text)
		return m
	}
	for _, tc := range []struct {
		m     Material
		part  Part
		index int
		want  string
	}{
		{Material{ClientCAs: ca.pem}, CertificateFile, 0, "there is none"},
		{with(func(p *KeyPair) { p.CertPEM = nil }), CertificateFile, 1, "there is no certificate in it: needs a PEM file"},
		{with(func(p *KeyPair) { p.CertPEM = encode("CERTIFICATE", []byte("x")) }), CertificateFile, 1, "certificate 1 in it: x509:"},
		{with(func(p *KeyPair) { p.CertPEM = slices.Concat(ca.pem, p.CertPEM) }), KeyFile, 1,
			`it is not the key of the first certificate in the file, which is for "CN=ca"`},
		{with(func(p *KeyPair) { p.KeyPEM = p.CertPEM }), KeyFile, 1, "there is no key in it: needs a PEM file"},
		{with(func(p *KeyPair) { p.KeyPEM = encode("ENCRYPTED PRIVATE KEY", []byte("x")) }), KeyFile, 1,
			"the key is encrypted: decrypt it with `openssl pkey"},
		{with(func(p *KeyPair) {
			p.KeyPEM = []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n" +
				"-----END EC PRIVATE KEY-----\n")
		}), KeyFile, 1, "the key is encrypted"},
		{with(func(p *KeyPair) { p.KeyPEM = good.KeyPEM }), KeyFile, 1, `it is not the key of the certificate for "CN=b"`},
		{with(func(p *KeyPair) { p.KeyPEM = encodeKey(t, odd) }), KeyFile, 1, "it is not the key of the certificate for"},
		{with(func(p *KeyPair) { p.KeyPEM = encode("PRIVATE KEY", []byte("x")) }), KeyFile, 1, "failed to parse private key"},
		{Material{Certificates: one.Certificates}, AuthorityFile, 0, "there is no certificate in it"},
		{Material{Certificates: one.Certificates, ClientCAs: []byte("x")}, AuthorityFile, 0, "there is no certificate in it"},
		{crl([]byte("x")), RevocationFile, 0, "there is no revocation list in it: needs a PEM file"},
		{crl(encode("X509 CRL", []byte("x"))), RevocationFile, 0, "list 1 in it: x509:"},
		{crl(other.list(t, time.Time{})), RevocationFile, 0, `list 1 in it: it is from "CN=other", and that authority is not in`},
		{crl(newAuthority(t, "ca").list(t, time.Time{})), RevocationFile, 0, `list 1 in it: "CN=ca" has not signed it: x509:`},
		{keys("#none\n\n"), TicketKeyFile, 0, "there is no key in it"},
		{keys("x\n"), TicketKeyFile, 0, "line 1 is not a key of 32 bytes in base64: make one with `openssl rand -base64 32`"},
	} {
		_, err := NewServer(ServerSettings{ClientAuth: Required}, tc.m)
		all := faultsOf(t, err)
		if len(all) != 1 || all[0].Part != tc.part || all[0].Index != tc.index ||
			!strings.Contains(all[0].Err.Error(), tc.want) {
			t.Errorf("got %v, want %v %d: %q", err, tc.part, tc.index, tc.want)
		}
	}
	_, err := NewServer(ServerSettings{ClientAuth: Required}, Material{
		Certificates: []KeyPair{{}, good, {}}, TicketKeys: []byte("x")})
	wantFaults(t, faultsOf(t, err), "certificate: ", "certificate: ", "authorities: ", "ticket keys: ")
	if fault, ok := errors.AsType[*Fault](err); !ok || fault.Part != CertificateFile {
		t.Errorf("error %v is no fault", err)
	}
}

// TestWarnings holds what is allowed, and probably not meant.
func TestWarnings(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, "ca")
	between := ca.authority(t, "between")
	late := (*issuer)(nil).sign(t, request{name: "late", ca: true, key: newKey(t), from: now.Add(-2 * time.Hour),
		to: now.Add(-time.Hour)})
	lateBetween := &issuer{key: newKey(t)}
	lateBetween.cert = ca.sign(t, request{name: "late between", ca: true, key: lateBetween.key,
		from: now.Add(-2 * time.Hour), to: now.Add(-time.Hour)})
	pair := func(a *issuer, r request) KeyPair {
		if r.names == nil {
			r.names = []string{"a.test"}
		}
		return a.pair(t, r)
	}
	for _, tc := range []struct {
		name string
		m    Material
		want []string
	}{
		{"all is well", Material{Certificates: []KeyPair{pair(ca, request{name: "a"})}, ClientCAs: ca.pem}, nil},
		{"expired", Material{Certificates: []KeyPair{pair(ca, request{name: "a", from: now.Add(-2 * time.Hour), to: now.Add(-time.Hour)})},
			ClientCAs: ca.pem}, []string{`certificate: the certificate of "CN=a" has expired on 20`}},
		{"early", Material{Certificates: []KeyPair{pair(ca, request{name: "a", from: now.Add(time.Hour)})}, ClientCAs: ca.pem},
			[]string{`certificate: the certificate of "CN=a" is not valid before 20`}},
		{"an expired authority in between", Material{Certificates: []KeyPair{pair(lateBetween, request{name: "a",
			chain: encode("CERTIFICATE", lateBetween.cert.Raw)})}, ClientCAs: ca.pem},
			[]string{`certificate: the certificate of "CN=late between" has expired on 20`}},
		{"the root in the chain", Material{Certificates: []KeyPair{pair(between, request{name: "a",
			chain: slices.Concat(between.pem, ca.pem)})}, ClientCAs: ca.pem}, nil},
		{"another chain", Material{Certificates: []KeyPair{pair(between, request{name: "a", chain: ca.pem})}, ClientCAs: ca.pem},
			[]string{`certificate: the certificate of "CN=a" is followed by that of "CN=ca", which has not signed it`}},
		{"no name", Material{Certificates: []KeyPair{ca.pair(t, request{name: "A server"})}, ClientCAs: ca.pem},
			[]string{`certificate: it is for no name that a client could ask for`}},
		{"twice", Material{Certificates: []KeyPair{pair(ca, request{name: "a"}), pair(ca, request{name: "b",
			names: []string{"b.test", "A.test"}})}, ClientCAs: ca.pem},
			[]string{`certificate: a, too, is for a.test with a key of the same type, and comes first`}},
		{"two types", Material{Certificates: []KeyPair{pair(ca, request{name: "a"}), pair(ca, request{name: "b",
			key: rsaKeyOnce()})}, ClientCAs: ca.pem}, nil},
		{"an expired authority of clients", Material{Certificates: []KeyPair{pair(ca, request{name: "a"})},
			ClientCAs: encode("CERTIFICATE", late.Raw)}, []string{`authorities: the certificate of "CN=late" has expired on 20`}},
		{"an expired list", Material{Certificates: []KeyPair{pair(ca, request{name: "a"})}, ClientCAs: ca.pem,
			ClientCRL: ca.list(t, now.Add(-time.Minute))}, []string{`revocation list: the list of "CN=ca" has expired on 20`}},
		{"a list for one of two", Material{Certificates: []KeyPair{pair(ca, request{name: "a"})},
			ClientCAs: slices.Concat(ca.pem, between.pem), ClientCRL: ca.list(t, time.Time{})},
			[]string{`revocation list: it has no list of "CN=between": none of its certificates is revoked`}},
	} {
		s := newServer(t, ServerSettings{ClientAuth: Optional}, tc.m)
		t.Run(tc.name, func(t *testing.T) { wantFaults(t, s.Warnings(), tc.want...) })
	}
}

// TestExpiryOfChain holds that a certificate is as good as the first of its chain to expire, but for the root.
func TestExpiryOfChain(t *testing.T) {
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	root := newAuthority(t, "root")
	between := &issuer{key: newKey(t)}
	between.cert = root.sign(t, request{name: "between", ca: true, key: between.key, to: soon})
	p := between.pair(t, request{names: []string{"a.test"}, chain: encode("CERTIFICATE", between.cert.Raw)})
	infos := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{p}}).Certificates()
	if !infos[0].NotAfter.Equal(soon) {
		t.Errorf("got %v, want %v", infos[0].NotAfter, soon)
	}
}

func TestSettingsEqual(t *testing.T) {
	one := ServerSettings{ALPN: []string{"a"}}
	for _, other := range []ServerSettings{{}, {ALPN: []string{"b"}}, {ALPN: []string{"a"}, MinVersion: 1},
		{ALPN: []string{"a"}, MaxVersion: 1}, {ALPN: []string{"a"}, StrictNames: true}, {ALPN: []string{"a"}, KernelTLS: true},
		{ALPN: []string{"a"}, ClientAuth: 1}, {ALPN: []string{"a"}, StartTLS: true},
		{ALPN: []string{"a"}, Required: true}, {ALPN: []string{"a"}, HandshakeTimeout: 1}} {
		if one.Equal(&other) {
			t.Errorf("%+v equals %+v", one, other)
		}
	}
	if other := (ServerSettings{ALPN: []string{"a"}}); !one.Equal(&other) {
		t.Error("equal settings differ")
	}
}
