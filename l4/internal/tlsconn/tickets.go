package tlsconn

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Session tickets are encrypted by the server and kept by the client. Whoever has the key can resume, and so a ticket
// is as good as the check of the certificate that the client has shown for it. crypto/tls (Go 1.26) checks upon
// resumption that the version and the cipher suite are still allowed, that there is a client certificate if one is
// needed and that a chain of it is still valid with the listener's authorities. It does not look at revocation lists,
// which is why VerifyConnection does. The keys differ by client_auth and client_ca, too, so a ticket of a listener with
// other rules for clients is not even read.

const (
	ticketKeyBytes = 32
	maxTicketKeys  = 16 // each costs a hash for every ticket that none of them has made

	renewTicketKeys = 12 * time.Hour // for how long a random key makes tickets
	keepTicketKeys  = 24 * time.Hour // for how long it reads them
)

// TicketKeyBytes is the size of a key of ShareTicketKeys.
const TicketKeyBytes = ticketKeyBytes

// A ticketKey is what the keys for crypto/tls are derived from.
type ticketKey [ticketKeyBytes]byte

// parseTicketKeys reads a file of keys for session tickets: one key of 32 bytes in base64 a line, as
// `openssl rand -base64 32` writes it. Empty lines and those that begin with # are skipped. The first key makes
// tickets, and all of them read tickets. The error does not contain a key.
func parseTicketKeys(data []byte) ([]ticketKey, error) {
	var keys []ticketKey
	number := 0
	for line := range bytes.Lines(data) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(key) != ticketKeyBytes {
			return nil, fmt.Errorf("line %d is not a key of %d bytes in base64: make one with "+
				"`openssl rand -base64 %d`", number, ticketKeyBytes, ticketKeyBytes)
		}
		if len(keys) == maxTicketKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", number, maxTicketKeys)
		}
		for _, other := range keys {
			if bytes.Equal(other[:], key) {
				return nil, fmt.Errorf("line %d: the key is there twice", number)
			}
		}
		keys = append(keys, ticketKey(key))
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it: make one with `openssl rand -base64 32`")
	}
	return keys, nil
}

// derive returns the key for crypto/tls, for tickets that are shared by listeners with the same rules for clients.
func (k ticketKey) derive(rules string) [ticketKeyBytes]byte {
	return k.expand("limeload-l4 session tickets, version 1\x00" + rules)
}

// deriveFor is derive of a key that many listeners have, for one of them.
func (k ticketKey) deriveFor(listener, rules string) [ticketKeyBytes]byte {
	return k.expand(fmt.Sprintf("limeload-l4 session tickets of a fleet, version 1\x00%d %s %s",
		len(listener), listener, rules))
}

func (k ticketKey) expand(info string) [ticketKeyBytes]byte {
	key, err := hkdf.Key(sha256.New, k[:], nil, info, ticketKeyBytes)
	if err != nil {
		panic("tlsconn: " + err.Error()) // only lengths and FIPS 140 modes that do not fit cause it
	}
	return [ticketKeyBytes]byte(key)
}

// A keyring has random ticket keys, the newest first. The zero value has none.
type keyring []timedKey

type timedKey struct {
	key  ticketKey
	made time.Time
}

// renew adds a key if the newest is too old, and removes those that are too old for tickets.
func (r *keyring) renew(now time.Time) {
	r.forget(now)
	if len(*r) == 0 || now.Sub((*r)[0].made) >= renewTicketKeys {
		next := timedKey{made: now}
		_, _ = rand.Read(next.key[:]) // never returns an error
		*r = append(keyring{next}, *r...)
	}
}

// forget removes the keys that are too old for tickets.
func (r *keyring) forget(now time.Time) {
	var kept keyring
	for _, k := range *r {
		if now.Sub(k.made) < keepTicketKeys {
			kept = append(kept, k)
		}
	}
	*r = kept
}

// sharedKeys are the ticket keys of ShareTicketKeys. The zero value has none.
type sharedKeys struct {
	listener string
	keys     []ticketKey
}

// ShareTicketKeys gives the server ticket keys that other servers have, too, for handshakes that begin from now on. The
// first one makes tickets, and all of them read tickets; without keys the server makes its own, as at first. Sessions
// resume on servers with the same key, the same name of the listener, and the same rules for clients. Keys of a file
// take precedence. Tickets that the server has made with its own keys are still read.
func (s *Server) ShareTicketKeys(listener string, keys [][TicketKeyBytes]byte) {
	next := sharedKeys{listener: listener}
	for _, k := range keys {
		next.keys = append(next.keys, ticketKey(k))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared.listener == listener && slices.Equal(s.shared.keys, next.keys) {
		return
	}
	s.shared = next
	if s.current.Load().keys == nil {
		s.rekeyLocked(time.Now())
	}
}

// setKeys gives the configuration of a generation its ticket keys. The caller holds s.mu, and nobody uses the
// generation yet.
func (s *Server) setKeys(g *generation, now time.Time) {
	rules := s.ticketRules(g)
	var derived [][ticketKeyBytes]byte
	for _, k := range g.keys {
		derived = append(derived, k.derive(rules))
	}
	if g.renewAt = (time.Time{}); g.keys == nil {
		for _, k := range s.shared.keys {
			derived = append(derived, k.deriveFor(s.shared.listener, rules))
		}
		g.renewAt = s.renewRandom(now)
		for _, k := range s.random {
			derived = append(derived, k.key.derive(rules))
		}
	}
	g.config.SetSessionTicketKeys(derived)
}

// renewRandom renews the random keys, or only forgets the old ones if shared ones make tickets. It returns when to do so
// again; the zero time for never. The caller holds s.mu.
func (s *Server) renewRandom(now time.Time) time.Time {
	if len(s.shared.keys) == 0 {
		s.random.renew(now)
		return s.random[0].made.Add(renewTicketKeys)
	}
	s.random.forget(now)
	if n := len(s.random); n > 0 {
		return s.random[n-1].made.Add(keepTicketKeys)
	}
	return time.Time{}
}

// ticketRules returns what listeners must have in common to resume each other's sessions.
func (s *Server) ticketRules(g *generation) string {
	if g.auth == nil {
		return "none"
	}
	return fmt.Sprintf("%d %x", s.settings.ClientAuth, g.auth.identity)
}

// renew replaces the ticket keys if they are still too old, and returns the state in use.
func (s *Server) renew() *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	g := s.current.Load()
	if g.renewAt.IsZero() || !now.After(g.renewAt) {
		return g // another goroutine was first
	}
	return s.rekeyLocked(now)
}

// rekeyLocked puts a copy of the state in use in force that has the ticket keys of now, since a configuration that is in
// use must not change. It returns the copy.
func (s *Server) rekeyLocked(now time.Time) *generation {
	next := *s.current.Load()
	next.config = s.configFor(&next)
	s.setKeys(&next, now)
	s.current.Store(&next)
	return &next
}
