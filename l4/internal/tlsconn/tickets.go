package tlsconn

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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
	key, err := hkdf.Key(sha256.New, k[:], nil, "limeload-l4 session tickets, version 1\x00"+rules, ticketKeyBytes)
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
	var kept keyring
	for _, k := range *r {
		if now.Sub(k.made) < keepTicketKeys {
			kept = append(kept, k)
		}
	}
	if len(kept) == 0 || now.Sub(kept[0].made) >= renewTicketKeys {
		next := timedKey{made: now}
		_, _ = rand.Read(next.key[:]) // never returns an error
		kept = append(keyring{next}, kept...)
	}
	*r = kept
}

// setKeys gives the configuration of a generation its ticket keys. The caller holds s.mu, and nobody uses the
// generation yet.
func (s *Server) setKeys(g *generation, now time.Time) {
	keys := g.keys
	if keys == nil {
		s.random.renew(now)
		for _, k := range s.random {
			keys = append(keys, k.key)
		}
		g.renewAt = s.random[0].made.Add(renewTicketKeys)
	}
	rules := s.ticketRules(g)
	derived := make([][ticketKeyBytes]byte, len(keys))
	for i, k := range keys {
		derived[i] = k.derive(rules)
	}
	g.config.SetSessionTicketKeys(derived)
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
	// A configuration that is in use must not change, so it is copied.
	next := *g
	next.config = s.configFor(&next)
	s.setKeys(&next, now)
	s.current.Store(&next)
	return &next
}
