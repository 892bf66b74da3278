package tlsconn

import (
	"crypto/tls"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func keyOf(b byte) [TicketKeyBytes]byte {
	return [TicketKeyBytes]byte(slices.Repeat([]byte{b}, TicketKeyBytes))
}

// TestSharedTicketKeys holds which servers with shared keys resume the sessions of another one.
func TestSharedTicketKeys(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	m := Material{Certificates: []KeyPair{ca.pair(t, request{names: []string{"a.test"}})}}
	withFile, withCA, withOther := m, m, m
	withFile.TicketKeys, withCA.ClientCAs, withOther.ClientCAs = ticketFile, ca.pem, other.pem
	shown := ca.pair(t, request{name: "client"}).forClient(t)
	type node struct {
		listener string
		s        ServerSettings
		m        Material
		keys     [][TicketKeyBytes]byte
	}
	keys := [][TicketKeyBytes]byte{keyOf(2), keyOf(3), keyOf(1)} // the current one, the next one, the one before
	web := node{"web", ServerSettings{}, m, keys}
	required := ServerSettings{ClientAuth: Required}
	for _, tc := range []struct {
		name          string
		first, second node
		want          bool
	}{
		{"two nodes", web, web, true},
		{"a node that has rotated", web, node{"web", web.s, m, [][TicketKeyBytes]byte{keyOf(3), keyOf(4), keyOf(2)}}, true},
		{"a node that has not rotated yet", node{"web", web.s, m, [][TicketKeyBytes]byte{keyOf(3), keyOf(4), keyOf(2)}}, web, true},
		{"two rotations later", web, node{"web", web.s, m, [][TicketKeyBytes]byte{keyOf(4), keyOf(5), keyOf(3)}}, false},
		{"another listener", web, node{"web2", web.s, m, keys}, false},
		{"a file of keys", web, node{"web", web.s, withFile, keys}, false},
		{"a file of keys before", node{"web", web.s, withFile, keys}, web, false},
		{"no shared keys", web, node{"web", web.s, m, nil}, false},
		{"client certificates", node{"web", required, withCA, keys}, node{"web", required, withCA, keys}, true},
		{"other authorities", node{"web", required, withCA, keys}, node{"web", required, withOther, keys}, false},
		{"client certificates now", web, node{"web", required, withCA, keys}, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			client := trusting(ca, "a.test")
			client.MinVersion, client.MaxVersion = version, version
			client.Certificates = []tls.Certificate{shown}
			first, second := newServer(t, tc.first.s, tc.first.m), newServer(t, tc.second.s, tc.second.m)
			first.ShareTicketKeys(tc.first.listener, tc.first.keys)
			second.ShareTicketKeys(tc.second.listener, tc.second.keys)
			if got := twice(t, first.Config(), second.Config(), client); got != tc.want {
				t.Errorf("%s, %s: resumed %v", tc.name, tls.VersionName(version), got)
			}
		}
	}
}

// TestSharedTicketKeysComeAndGo holds that a server still reads its own tickets when it gets shared keys, for as long as
// otherwise; that it makes its own again without them; and that an update of the certificates and the same keys again
// change nothing.
func TestSharedTicketKeysComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t, "ca")
		m := Material{Certificates: []KeyPair{ca.pair(t, request{names: []string{"a.test"}})}}
		s, peer := newServer(t, ServerSettings{}, m), newServer(t, ServerSettings{}, m)
		client := trusting(ca, "a.test")
		resumesAt := func(s *Server) bool {
			t.Helper()
			return connect(t, s.Config(), client).works(t).server.DidResume
		}
		begin := func(s *Server) {
			t.Helper()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			if resumesAt(s) {
				t.Error("the first session is resumed")
			}
		}
		shared := [][TicketKeyBytes]byte{keyOf(1)}
		begin(s)
		s.ShareTicketKeys("web", shared)
		peer.ShareTicketKeys("web", shared)
		if !resumesAt(s) {
			t.Error("its own ticket is not read any more")
		}
		if !resumesAt(peer) {
			t.Error("the ticket after it is not shared")
		}
		in := s.Config()
		if s.ShareTicketKeys("web", shared); s.Config() != in {
			t.Error("the same keys again make another configuration")
		}
		next := m
		next.Certificates = []KeyPair{ca.pair(t, request{names: []string{"a.test", "b.test"}})}
		check(t, s.Update(next))
		if begin(s); !resumesAt(peer) {
			t.Error("no shared keys after an update")
		}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		own := newServer(t, ServerSettings{}, m)
		connect(t, own.Config(), client).works(t)
		own.ShareTicketKeys("web", shared)
		time.Sleep(25 * time.Hour)
		if resumesAt(own) || len(own.random) != 0 {
			t.Errorf("its own ticket is read after 25 hours; it has %d keys of its own", len(own.random))
		}
		s.ShareTicketKeys("web", nil)
		if begin(s); !resumesAt(s) || resumesAt(peer) {
			t.Error("without shared keys it makes tickets that are not its own, or none")
		}
	})
}
