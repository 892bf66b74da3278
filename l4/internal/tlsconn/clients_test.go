package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestClientAuth holds whom a server serves, by the certificate that clients show.
func TestClientAuth(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	between := ca.authority(t, "between")
	server := ca.pair(t, request{name: "server", names: []string{"a.test"}})
	now := time.Now()
	good, revoked := ca.pair(t, request{name: "good"}), ca.pair(t, request{name: "revoked"})
	below := between.pair(t, request{name: "below", chain: between.pem})
	foreign, old := other.pair(t, request{name: "foreign"}), ca.pair(t, request{name: "old", from: now.Add(-2 * time.Hour), to: now.Add(-time.Hour)})
	lists := ca.list(t, time.Time{}, revoked)
	der, _ := pem.Decode(lists)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tc := range []struct {
			name               string
			shows              *KeyPair
			list               []byte
			optional, required string // "": served
		}{
			{"none", nil, nil, "", "client didn't provide a certificate"},
			{"good", &good, nil, "", ""},
			{"good, with a list", &good, lists, "", ""},
			{"below an authority in between", &below, lists, "", ""},
			{"of another authority", &foreign, nil, "unknown authority", "unknown authority"},
			{"expired", &old, nil, "expired", "expired"},
			{"revoked", &revoked, lists, "certificate is revoked", "certificate is revoked"},
			{"revoked, list in DER", &revoked, der.Bytes, "certificate is revoked", "certificate is revoked"},
			{"revoked, expired list", &revoked, ca.list(t, now.Add(-time.Minute), revoked), "certificate is revoked",
				"certificate is revoked"},
			{"below a revoked authority", &below, ca.list(t, time.Time{}, KeyPair{CertPEM: between.pem}),
				"certificate is revoked", "certificate is revoked"},
		} {
			for auth, want := range map[ClientAuth]string{None: "", Optional: tc.optional, Required: tc.required} {
				s := newServer(t, ServerSettings{ClientAuth: auth}, Material{
					Certificates: []KeyPair{server}, ClientCAs: ca.pem, ClientCRL: tc.list})
				client := trusting(ca, "a.test")
				client.MinVersion, client.MaxVersion = version, version
				if tc.shows != nil {
					c := tc.shows.forClient(t)
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
				}
				e := connect(t, s.Config(), client)
				if want == "" && (e.serverErr != nil || e.clientErr != nil) ||
					want != "" && (e.serverErr == nil || !strings.Contains(e.serverErr.Error(), want) || e.clientErr == nil) {
					t.Errorf("%s %v %s: server: %v, client: %v, want %q", tls.VersionName(version), auth, tc.name,
						e.serverErr, e.clientErr, want)
				}
				if strings.HasPrefix(want, "certificate is revoked") && !errors.Is(e.serverErr, ErrRevoked) {
					t.Errorf("error %v is not ErrRevoked", e.serverErr)
				}
			}
		}
	}
}

// TestBadLists holds which revocation lists are refused.
func TestBadLists(t *testing.T) {
	ca := newAuthority(t, "ca")
	block, _ := pem.Decode(ca.list(t, time.Time{}, ca.pair(t, request{name: "a"})))
	list := must(x509.ParseRevocationList(block.Bytes))
	var a authorities
	a.revoked = make(map[serial]bool)
	certs := []*x509.Certificate{ca.cert}
	check(t, a.addList(list, certs))
	for _, tc := range []struct {
		change func(*x509.RevocationList)
		want   string
	}{
		{func(l *x509.RevocationList) { l.Extensions = append(l.Extensions, extension(deltaList, true)) }, "delta CRL"},
		{func(l *x509.RevocationList) { l.Extensions = append(l.Extensions, extension([]int{1, 2, 3}, true)) },
			"critical extension that is not understood, 1.2.3"},
		{func(l *x509.RevocationList) { l.Extensions = append(l.Extensions, extension([]int{1, 2, 3}, false)) }, ""},
		{func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].Extensions = append(l.RevokedCertificateEntries[0].Extensions, extension([]int{2, 5, 29, 29}, true))
		}, "indirect CRL"},
	} {
		l := *list
		l.Extensions = slices.Clone(list.Extensions)
		l.RevokedCertificateEntries = slices.Clone(list.RevokedCertificateEntries)
		tc.change(&l)
		if err := a.addList(&l, certs); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
}

// twice connects a client two times, to one configuration and then to another, and reports whether the second
// connection resumed the session of the first.
func twice(t *testing.T, first, second *tls.Config, client *tls.Config) bool {
	t.Helper()
	client = client.Clone()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if connect(t, first, client).works(t).client.DidResume {
		t.Error("the first session is resumed")
	}
	e := connect(t, second, client)
	if e.clientErr != nil {
		return false
	}
	return e.works(t).server.DidResume
}

var ticketFile = []byte("# keys\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n")

// TestTickets holds which servers resume the sessions of another one.
func TestTickets(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	pair := ca.pair(t, request{name: "server", names: []string{"a.test"}})
	shown := ca.pair(t, request{name: "client"}).forClient(t)
	one := slices.Repeat([]byte{1}, 32)
	newKey := []byte(base64.StdEncoding.EncodeToString(one) + "\n" + string(ticketFile))
	m := Material{Certificates: []KeyPair{pair}, TicketKeys: ticketFile}
	with := func(change func(*Material)) Material {
		m := m
		change(&m)
		return m
	}
	cas := func(pems ...[]byte) Material {
		return with(func(m *Material) { m.ClientCAs = slices.Concat(pems...) })
	}
	type node struct {
		s ServerSettings
		m Material
	}
	open := node{m: m}
	required := node{ServerSettings{ClientAuth: Required}, cas(ca.pem)}
	for _, tc := range []struct {
		name          string
		first, second node
		want          bool
	}{
		{"a fleet", open, open, true},
		{"another certificate", open, node{m: with(func(m *Material) {
			m.Certificates = []KeyPair{ca.pair(t, request{names: []string{"a.test", "b.test"}})}
		})}, true},
		{"a new key, and the old one after it", open, node{m: with(func(m *Material) { m.TicketKeys = newKey })}, true},
		{"a new key", open, node{m: with(func(m *Material) {
			m.TicketKeys = []byte(base64.StdEncoding.EncodeToString(one))
		})}, false},
		{"a key that this node does not make tickets with", node{m: with(func(m *Material) { m.TicketKeys = newKey })}, open, false},
		{"random keys", node{m: with(func(m *Material) { m.TicketKeys = nil })}, node{m: with(func(m *Material) { m.TicketKeys = nil })}, false},
		{"alike", required, required, true},
		{"the same authorities, in another order", node{required.s, cas(ca.pem, other.pem)}, node{required.s, cas(other.pem, ca.pem, ca.pem)}, true},
		{"one authority more", required, node{required.s, cas(ca.pem, other.pem)}, false},
		{"another authority", required, node{required.s, cas(other.pem)}, false},
		{"optional before", node{ServerSettings{ClientAuth: Optional}, cas(ca.pem)}, required, false},
		{"optional now", required, node{ServerSettings{ClientAuth: Optional}, cas(ca.pem)}, false},
		{"nobody asked before", open, node{ServerSettings{ClientAuth: Optional}, cas(ca.pem)}, false},
		{"nobody asks now", required, open, false},
		{"a name that is not served", open, node{ServerSettings{StrictNames: true}, with(func(m *Material) {
			m.Certificates = []KeyPair{ca.pair(t, request{names: []string{"b.test"}})}
		})}, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := trusting(ca, "a.test")
			client.MinVersion, client.MaxVersion = version, version
			client.Certificates = []tls.Certificate{shown}
			first, second := newServer(t, tc.first.s, tc.first.m), newServer(t, tc.second.s, tc.second.m)
			if got := twice(t, first.Config(), second.Config(), client); got != tc.want {
				t.Errorf("%s, %s: resumed %v", tc.name, tls.VersionName(version), got)
			}
		}
	}
}

// TestTicketsAndUpdates holds that sessions resume after an update, unless that has changed the rules for clients or
// revoked the client's certificate.
func TestTicketsAndUpdates(t *testing.T) {
	ca := newAuthority(t, "ca")
	m := Material{Certificates: []KeyPair{ca.pair(t, request{names: []string{"a.test"}})}, ClientCAs: ca.pem}
	shown := ca.pair(t, request{name: "client"})
	changed := func(change func(*Material)) Material {
		next := m
		change(&next)
		return next
	}
	for _, tc := range []struct {
		name string
		next Material
		want bool
		err  error
	}{
		{"another certificate", changed(func(m *Material) {
			m.Certificates = []KeyPair{ca.pair(t, request{names: []string{"a.test"}})}
		}), true, nil},
		{"a list without the client", changed(func(m *Material) { m.ClientCRL = ca.list(t, time.Time{}) }), true, nil},
		{"a list with the client", changed(func(m *Material) { m.ClientCRL = ca.list(t, time.Time{}, shown) }), false, ErrRevoked},
		{"one authority more", changed(func(m *Material) {
			m.ClientCAs = slices.Concat(ca.pem, newAuthority(t, "other").pem)
		}), false, nil},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := newServer(t, ServerSettings{ClientAuth: Required}, m)
			client := trusting(ca, "a.test")
			client.MinVersion, client.MaxVersion = version, version
			client.Certificates = []tls.Certificate{shown.forClient(t)}
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			connect(t, s.Config(), client).works(t)
			check(t, s.Update(tc.next))
			e := connect(t, s.Config(), client)
			if e.server.DidResume != tc.want || !errors.Is(e.serverErr, tc.err) {
				t.Errorf("%s, %s: resumed %v, error %v", tc.name, tls.VersionName(version), e.server.DidResume, e.serverErr)
			}
		}
	}
}

// TestTicketKeysAreRenewed holds for how long random keys make tickets and read them.
func TestTicketKeysAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t, "ca")
		pairs := []KeyPair{ca.pair(t, request{names: []string{"a.test"}})}
		s := newServer(t, ServerSettings{}, Material{Certificates: pairs})
		client := trusting(ca, "a.test")
		sessionAfter := func(d time.Duration) (resumed bool) {
			t.Helper()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			connect(t, s.Config(), client).works(t)
			time.Sleep(d)
			return connect(t, s.Config(), client).works(t).server.DidResume
		}
		first := s.Config()
		if !sessionAfter(11*time.Hour) || s.Config() != first {
			t.Error("keys are replaced too early")
		}
		if !sessionAfter(2*time.Hour) || s.Config() == first { // 13 h
			t.Error("keys are not replaced, or do not read tickets any more")
		}
		second := s.Config()
		if !sessionAfter(11*time.Hour) || s.Config() != second { // 24 h
			t.Error("the second key does not last as long")
		}
		if sessionAfter(25 * time.Hour) {
			t.Error("an old key still reads tickets")
		}
		if sessionAfter(100*time.Hour) || len(s.random) != 1 {
			t.Errorf("after a silence, there are %d keys", len(s.random))
		}
		check(t, s.Update(Material{Certificates: pairs, TicketKeys: ticketFile}))
		third := s.Config()
		if !sessionAfter(72*time.Hour) || s.Config() != third {
			t.Error("the keys of a file are replaced")
		}
	})
}

// TestTicketKeyFile holds what a file of keys may be like.
func TestTicketKeyFile(t *testing.T) {
	line := func(b byte) string { return base64.StdEncoding.EncodeToString(slices.Repeat([]byte{b}, 32)) }
	var many strings.Builder
	for b := range byte(17) {
		many.WriteString(line(b) + "\n")
	}
	for _, tc := range []struct {
		file string
		keys int
		err  string
	}{
		{line(1), 1, ""}, {line(1) + "\n", 1, ""}, {"\n  " + line(1) + " \r\n#old\n" + line(2) + "\n", 2, ""},
		{"", 0, "there is no key in it"},
		{line(1) + "\n" + line(1), 0, "line 2: the key is there twice"},
		{line(1) + "\n" + line(2)[1:], 0, "line 2 is not a key of 32 bytes in base64"},
		{base64.StdEncoding.EncodeToString(make([]byte, 48)), 0, "line 1 is not a key of 32 bytes"},
		{many.String(), 0, "line 17: more than 16 keys"},
	} {
		keys, err := parseTicketKeys([]byte(tc.file))
		if len(keys) != tc.keys || (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%q: %d keys, error %v", tc.file, len(keys), err)
		}
	}
	if a, b := (ticketKey{1}).derive("none"), (ticketKey{1}).derive("1 x"); a == b {
		t.Error("different rules have one key")
	}
}

func extension(id asn1.ObjectIdentifier, critical bool) pkix.Extension {
	return pkix.Extension{Id: id, Critical: critical}
}
