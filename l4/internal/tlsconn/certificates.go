package tlsconn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CertificateInfo describes a certificate of a Server. It is a copy.
type CertificateInfo struct {
	Name      string   // KeyPair.Name
	Names     []string // that it is for, in lower case; "*.example.com" is a wildcard
	KeyType   string   // "ECDSA", "Ed25519" or "RSA"
	NotBefore time.Time
	// NotAfter is when the certificate expires, or that of an authority in its file if that is earlier.
	NotAfter    time.Time
	StapleUntil time.Time // until when an OCSP answer is sent with it; the zero time if there is none
}

// A keyKind is the type of a certificate's key. Its order is that of preference: ECDSA costs the server a tenth of RSA,
// and few clients know Ed25519.
type keyKind uint8

const (
	ecdsaKey keyKind = iota
	rsaKey
	ed25519Key
)

func (k keyKind) String() string { return [...]string{"ECDSA", "RSA", "Ed25519"}[k] }

// A certificate is one of a Server's. It is immutable.
type certificate struct {
	file  string
	names []string
	kind  keyKind

	plain       tls.Certificate // without an OCSP answer
	stapled     tls.Certificate // with one
	stapleUntil time.Time       // the zero time without one

	notBefore, notAfter time.Time
}

// certificates are those of a Server. They are immutable once made.
type certificates struct {
	list  []*certificate // in the order of the material
	table nameTable
	first candidates // for clients that no other one fits
}

// newCertificates reads the pairs. It returns nil if something is wrong, and adds that to found.
func newCertificates(pairs []KeyPair, found *faultList, now time.Time) *certificates {
	if len(pairs) == 0 {
		found.wrong(CertificateFile, 0, errors.New("there is none"))
		return nil
	}
	cs := &certificates{}
	for i := range pairs {
		c := readPair(&pairs[i], i, found, now)
		if c == nil {
			continue
		}
		cs.list = append(cs.list, c)
		if len(c.names) == 0 && len(c.plain.Leaf.IPAddresses) == 0 {
			found.warn(CertificateFile, i, "it is for no name that a client could ask for")
		}
		if taken, by := cs.table.add(c); len(taken) > 0 {
			found.warn(CertificateFile, i, "%s, too, is for %s with a key of the same type, and comes first",
				by.file, strings.Join(taken, ", "))
		}
	}
	if len(cs.list) < len(pairs) {
		return nil
	}
	for _, c := range cs.list {
		same := func(o *certificate) bool { return o.kind == c.kind }
		if slices.Equal(c.names, cs.list[0].names) && !slices.ContainsFunc(cs.first, same) {
			cs.first = cs.first.with(c)
		}
	}
	return cs
}

// readPair reads one pair; nil if something is wrong with it.
func readPair(p *KeyPair, index int, found *faultList, now time.Time) *certificate {
	chain, err := parseCertificates(p.CertPEM)
	if err != nil {
		found.wrong(CertificateFile, index, err)
		return nil
	}
	if err := checkKeyFile(p.KeyPEM); err != nil {
		found.wrong(KeyFile, index, err)
		return nil
	}
	pair, err := tls.X509KeyPair(p.CertPEM, p.KeyPEM)
	if err != nil {
		found.wrong(KeyFile, index, pairError(chain, err))
		return nil
	}
	c := &certificate{file: p.Name, names: namesOf(chain[0]), plain: pair}
	c.notBefore, c.notAfter = chain[0].NotBefore, chain[0].NotAfter
	if c.kind, err = kindOf(pair.PrivateKey); err != nil {
		found.wrong(KeyFile, index, err)
		return nil
	}
	c.checkChain(chain, index, found, now)
	if p.OCSP != nil {
		c.staple(p.OCSP, chain, index, found, now)
	}
	return c
}

// parseCertificates reads certificates in PEM, at least one.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in it: needs a PEM file")
	}
	return all, nil
}

// checkKeyFile explains keys that cannot be used.
func checkKeyFile(data []byte) error {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return errors.New("there is no key in it: needs a PEM file")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return errors.New("the key is encrypted: decrypt it with `openssl pkey -in FILE -out FILE`")
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return nil
		}
	}
}

// pairError says why a certificate and a key are not a pair.
func pairError(chain []*x509.Certificate, err error) error {
	switch text := err.Error(); {
	case !strings.Contains(text, "does not match public key"):
		return err
	case len(chain) > 1:
		return fmt.Errorf("it is not the key of the first certificate in the file, which is for %s", subject(chain[0]))
	}
	return fmt.Errorf("it is not the key of the certificate for %s", subject(chain[0]))
}

// kindOf returns the type of a key that TLS can use.
func kindOf(key crypto.PrivateKey) (keyKind, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return rsaKey, nil
	case *ecdsa.PrivateKey:
		if key.Curve.Params().BitSize < 256 {
			return 0, errors.New("TLS has no use for keys of less than 256 bits: needs P-256, P-384 or P-521")
		}
		return ecdsaKey, nil
	case ed25519.PrivateKey:
		return ed25519Key, nil
	}
	return 0, fmt.Errorf("TLS has no use for a key of type %T", key)
}

// checkChain warns of what clients will not accept. The chain still is used: many a client does not look, and a
// balancer that did not start for an expired certificate would be worse than one with it.
func (c *certificate) checkChain(chain []*x509.Certificate, index int, found *faultList, now time.Time) {
	if key, ok := chain[0].PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		found.warn(KeyFile, index, "an RSA key of %d bits is weak: needs 2048 or more", key.N.BitLen())
	}
	for i, link := range chain {
		root := bytes.Equal(link.RawSubject, link.RawIssuer) && i > 0
		if root {
			continue // clients have their own, and do not look at this one
		}
		if err := validAt(link, now); err != nil {
			found.warn(CertificateFile, index, "%w", err)
		}
		if link.NotAfter.Before(c.notAfter) {
			c.notAfter = link.NotAfter
		}
		if i+1 < len(chain) && link.CheckSignatureFrom(chain[i+1]) != nil {
			found.warn(CertificateFile, index, "the certificate of %s is followed by that of %s, which has not "+
				"signed it", subject(link), subject(chain[i+1]))
		}
	}
}

// validAt returns an error if a certificate has expired or is not yet valid.
func validAt(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate of %s has expired on %s", subject(c), day(c.NotAfter))
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate of %s is not valid before %s", subject(c), day(c.NotBefore))
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// subject names a certificate for messages.
func subject(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("%q", strings.Join(c.DNSNames, ", "))
}

// choose returns the certificate for a hello; one of the first if no other fits. It is for tls.Config.GetCertificate.
func (cs *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := cs.table.find(strings.ToLower(hello.ServerName))
	if all == nil {
		all = cs.first
	}
	return all.pick(hello).now(), nil
}

// chooseStrictly is choose, but none of the first. Then crypto/tls sends the alert unrecognized_name.
func (cs *certificates) chooseStrictly(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := cs.table.find(strings.ToLower(hello.ServerName)).pick(hello); c != nil {
		return c.now(), nil
	}
	return nil, nil
}

// now returns the certificate with its OCSP answer while that is valid.
func (c *certificate) now() *tls.Certificate {
	if !c.stapleUntil.IsZero() && time.Now().Before(c.stapleUntil) {
		return &c.stapled
	}
	return &c.plain
}

// has reports whether a certificate is for a name, in any case.
func (cs *certificates) has(name []byte) bool { return cs.table.has(name) }

func (cs *certificates) infos() []CertificateInfo {
	all := make([]CertificateInfo, len(cs.list))
	for i, c := range cs.list {
		all[i] = c.info()
	}
	return all
}

func (c *certificate) info() CertificateInfo {
	return CertificateInfo{
		Name: c.file, Names: slices.Clone(c.names), KeyType: c.kind.String(),
		NotBefore: c.notBefore, NotAfter: c.notAfter, StapleUntil: c.stapleUntil,
	}
}
