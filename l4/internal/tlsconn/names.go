package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
)

// maxNameBytes is the length of the longest host name (RFC 1035, 2.3.4).
const maxNameBytes = 253

// A nameTable finds the certificates for a name. It is immutable once made, and its names are in lower case.
type nameTable struct {
	exact map[string]candidates
	// below has the wildcards without their "*": that of "*.example.com" is ".example.com". A wildcard stands for one
	// label (RFC 6125, 6.4.3).
	below map[string]candidates
}

// Candidates are certificates for one name, of different types of keys, the preferred one first.
type candidates []*certificate

// add puts a certificate's names into the table. It returns those that an earlier certificate with the same type of key
// has already, and the earlier certificate of the first of them.
func (t *nameTable) add(c *certificate) (taken []string, by *certificate) {
	if t.exact == nil {
		t.exact, t.below = make(map[string]candidates), make(map[string]candidates)
	}
	for _, name := range c.names {
		m, key := t.exact, name
		if wild, ok := strings.CutPrefix(name, "*"); ok {
			m, key = t.below, wild
		}
		all := m[key]
		if i := slices.IndexFunc(all, func(o *certificate) bool { return o.kind == c.kind }); i >= 0 {
			if taken = append(taken, name); by == nil {
				by = all[i]
			}
			continue
		}
		m[key] = all.with(c)
	}
	return taken, by
}

// with returns the candidates and one more, in the order of preference.
func (all candidates) with(c *certificate) candidates {
	i := 0
	for i < len(all) && all[i].kind <= c.kind {
		i++
	}
	return slices.Insert(slices.Clone(all), i, c)
}

// find returns the certificates for a name in lower case: those for the name itself, or else those for a wildcard.
func (t *nameTable) find(name string) candidates {
	if all := t.exact[name]; all != nil {
		return all
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		return t.below[name[i:]]
	}
	return nil
}

// has reports whether find would return any for a name in any case.
func (t *nameTable) has(name []byte) bool {
	var lower [maxNameBytes]byte
	if len(name) > len(lower) {
		return false
	}
	dot := 0
	for i, b := range name {
		switch {
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		case b == '.' && dot == 0:
			dot = i
		}
		lower[i] = b
	}
	if t.exact[string(lower[:len(name)])] != nil { // this conversion does not allocate
		return true
	}
	return dot > 0 && t.below[string(lower[dot:len(name)])] != nil
}

// pick returns the certificate that the client of a hello understands; the preferred one if it understands none, so
// that the handshake ends with the right alert. It returns nil if there is none.
func (all candidates) pick(hello *tls.ClientHelloInfo) *certificate {
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	nameless := *hello
	nameless.ServerName = "" // the name is known to fit, and x509 does not accept all that clients accept
	for _, c := range all {
		if nameless.SupportsCertificate(&c.plain) == nil {
			return c
		}
	}
	return all[0]
}

// namesOf returns the names that clients may ask for to get a certificate, in lower case and without duplicates. A
// certificate without any alternative name is for its common name, as OpenSSL and libpq have it.
func namesOf(leaf *x509.Certificate) []string {
	found := leaf.DNSNames
	if len(found) == 0 && len(leaf.IPAddresses) == 0 && len(leaf.EmailAddresses) == 0 && len(leaf.URIs) == 0 {
		found = []string{leaf.Subject.CommonName}
	}
	var names []string
	for _, name := range found {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if isServerName(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// isServerName reports whether a client may ask for a name, or for one that the wildcard stands for.
func isServerName(name string) bool {
	rest := strings.TrimPrefix(name, "*.")
	if _, err := netip.ParseAddr(rest); err == nil || rest == "" || len(name) > maxNameBytes {
		return false
	}
	return strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" && rest[0] != '.'
}
