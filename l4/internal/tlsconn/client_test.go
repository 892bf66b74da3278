package tlsconn

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestClientNames holds which name a backend is asked for, and must have a certificate for.
func TestClientNames(t *testing.T) {
	ca := newAuthority(t, "ca")
	backend := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{ca.pair(t, request{
		name: "backend", names: []string{"db.test", "own.test"}, ips: []net.IP{net.IPv4(127, 0, 0, 1)},
	})}})
	names := map[netip.AddrPort]string{port(1): "own.test", port(2): "else.test"}
	for _, tc := range []struct {
		name     string
		settings ClientSettings
		to       netip.AddrPort
		asked    string // by the client
		sent     string // to the backend
		err      string
	}{
		{"its address", ClientSettings{Verify: true}, port(3), "", "", ""},
		{"its address, mapped", ClientSettings{Verify: true}, netip.MustParseAddrPort("[::ffff:127.0.0.1]:3"), "", "", ""},
		{"another address", ClientSettings{Verify: true}, netip.MustParseAddrPort("127.0.0.2:3"), "", "", "127.0.0.2"},
		{"its own name", ClientSettings{Verify: true}, port(1), "", "own.test", ""},
		{"its own name, which the certificate is not for", ClientSettings{Verify: true}, port(2), "", "else.test", "else.test"},
		{"a name for all", ClientSettings{Verify: true, ServerName: "db.test"}, port(2), "", "db.test", ""},
		{"the client's name does not count", ClientSettings{Verify: true, ServerName: "db.test"}, port(2), "else.test", "db.test", ""},
		{"the client's name", ClientSettings{Verify: true, FromClient: true}, port(2), "db.test", "db.test", ""},
		{"a wrong name of the client", ClientSettings{Verify: true, FromClient: true}, port(1), "x.test", "x.test", "x.test"},
		{"a client without a name", ClientSettings{Verify: true, FromClient: true}, port(1), "", "own.test", ""},
		{"any certificate", ClientSettings{}, port(2), "", "else.test", ""},
	} {
		c := must(NewClient(tc.settings, ClientMaterial{CA: ca.pem, Names: names}))
		var sent string
		server := backend.Config().Clone()
		choose := server.GetCertificate
		server.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			sent = hello.ServerName
			return choose(hello)
		}
		e := connect(t, server, c.Config(tc.asked, tc.to))
		if (e.clientErr == nil) != (tc.err == "") || e.clientErr != nil && !strings.Contains(e.clientErr.Error(), tc.err) ||
			sent != tc.sent {
			t.Errorf("%s: asked for %q, error %v", tc.name, sent, e.clientErr)
		}
	}
}

// TestClientRenames holds that backends without a name get the default one, and that names may come later.
func TestClientRenames(t *testing.T) {
	c := must(NewClient(ClientSettings{Verify: true, DefaultName: "all.test"}, ClientMaterial{}))
	if got := c.Config("", port(1)).ServerName; got != "all.test" {
		t.Errorf("got %q", got)
	}
	before := c.Config("", port(1))
	c.Rename(nil)
	if c.Config("", port(1)) != before {
		t.Error("the same names make another configuration")
	}
	c.Rename(map[netip.AddrPort]string{port(1): "one.test"})
	if got := c.Config("", port(1)).ServerName + " " + c.Config("", port(2)).ServerName; got != "one.test all.test" {
		t.Errorf("got %q", got)
	}
	if len(c.Certificates()) != 0 {
		t.Error("there is a certificate")
	}
}

// TestClientAuthorities holds that a backend of an unknown authority is refused, and that a certificate is shown.
func TestClientAuthorities(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	pair := ca.pair(t, request{names: []string{"db.test"}})
	backend := newServer(t, ServerSettings{ClientAuth: Required}, Material{ClientCAs: ca.pem, Certificates: []KeyPair{pair}})
	shown := ca.pair(t, request{name: "balancer"})
	settings := ClientSettings{Verify: true, ServerName: "db.test"}
	for _, tc := range []struct {
		m   ClientMaterial
		err string
	}{
		{ClientMaterial{CA: ca.pem, Certificate: &shown}, ""},
		{ClientMaterial{CA: ca.pem}, "certificate required"},
		{ClientMaterial{CA: other.pem, Certificate: &shown}, "unknown authority"},
		{ClientMaterial{Certificate: &shown}, "unknown authority"}, // for the system
	} {
		c := must(NewClient(settings, tc.m))
		e := connect(t, backend.Config(), c.Config("", port(1)))
		if (e.clientErr == nil) != (tc.err == "") || e.clientErr != nil && !strings.Contains(e.clientErr.Error(), tc.err) {
			t.Errorf("error %v, want %q", e.clientErr, tc.err)
		}
		wantFaults(t, c.Warnings())
	}
	_, err := NewClient(settings, ClientMaterial{CA: []byte("x"), Certificate: &KeyPair{CertPEM: shown.CertPEM,
		KeyPEM: pair.KeyPEM}})
	wantFaults(t, faultsOf(t, err), "authorities: there is no certificate in it", `key: it is not the key of the certificate for "CN=balancer"`)
	late := ca.pair(t, request{name: "late", from: time.Now().Add(-2 * time.Hour), to: time.Now().Add(-time.Hour)})
	c := must(NewClient(settings, ClientMaterial{Certificate: &late}))
	wantFaults(t, c.Warnings(), `the certificate of "CN=late" has expired on`)
}

// TestClientResumes holds that sessions resume with the same backend alone, and not after other material has come.
func TestClientResumes(t *testing.T) {
	ca := newAuthority(t, "ca")
	m := Material{Certificates: []KeyPair{ca.pair(t, request{names: []string{"db.test"}})}}
	one, two := newServer(t, ServerSettings{}, m), newServer(t, ServerSettings{}, m)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := must(NewClient(ClientSettings{Verify: true, ServerName: "db.test"}, ClientMaterial{CA: ca.pem}))
		resumes := func(s *Server, at int, want bool) {
			t.Helper()
			server := s.Config().Clone()
			server.MaxVersion = version
			if got := connect(t, server, c.Config("", port(at))).works(t).client.DidResume; got != want {
				t.Errorf("%s: resumed %v", tls.VersionName(version), got)
			}
		}
		if c.Config("", port(1)) != c.Config("ignored", port(1)) || c.Config("", port(1)) == c.Config("", port(2)) {
			t.Error("a backend does not have one configuration")
		}
		resumes(one, 1, false)
		resumes(two, 2, false)
		resumes(one, 1, true)
		resumes(two, 2, true)
		resumes(two, 1, false) // another server now has the address
		resumes(two, 1, true)
		check(t, c.Update(ClientMaterial{CA: ca.pem}))
		resumes(two, 1, true) // nothing has changed
		if err := c.Update(ClientMaterial{CA: []byte("x")}); err == nil {
			t.Error("a broken file is accepted")
		}
		resumes(two, 1, true)
		check(t, c.Update(ClientMaterial{CA: ca.pem, Names: map[netip.AddrPort]string{port(1): "x"}}))
		resumes(two, 1, false)
	}
}

// TestClientIsBounded holds that clients who ask for many names cost a bounded memory.
func TestClientIsBounded(t *testing.T) {
	c := must(NewClient(ClientSettings{FromClient: true}, ClientMaterial{}))
	for i := range maxTargets + 100 {
		c.Config(fmt.Sprintf("n%d.test", i), port(1))
	}
	n := 0
	c.current.Load().configs.Range(func(any, any) bool { n++; return true })
	if n > maxTargets {
		t.Errorf("%d targets are remembered", n)
	}
}
