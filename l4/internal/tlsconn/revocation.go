package tlsconn

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrRevoked is the error of a handshake whose client has shown a certificate that a revocation list has.
var ErrRevoked = errors.New("the client's certificate is revoked")

// authorities are those that clients' certificates come from, and what they have revoked. They are immutable.
type authorities struct {
	roots    *x509.CertPool
	identity [sha256.Size]byte // of the set of authorities, whatever their order
	revoked  map[serial]bool
}

// A serial identifies a certificate: an authority gives each of its certificates another number.
type serial struct{ issuer, number string } // the raw subject of the authority, and the number in bytes

// newAuthorities reads the authorities and their revocation lists. It returns nil if something is wrong, and adds that
// to found.
func newAuthorities(pemCAs, lists []byte, found *faultList, now time.Time) *authorities {
	certs, err := parseCertificates(pemCAs)
	if err != nil {
		found.wrong(AuthorityFile, 0, err)
		return nil
	}
	a := &authorities{roots: x509.NewCertPool()}
	sums := make([]string, 0, len(certs))
	for _, c := range certs {
		a.roots.AddCert(c)
		sum := sha256.Sum256(c.Raw)
		sums = append(sums, string(sum[:]))
		if err := validAt(c, now); err != nil {
			found.warn(AuthorityFile, 0, "%w", err)
		}
	}
	slices.Sort(sums)
	a.identity = sha256.Sum256([]byte(strings.Join(slices.Compact(sums), "")))
	if lists == nil {
		return a
	}
	if err := a.readLists(lists, certs, found, now); err != nil {
		found.wrong(RevocationFile, 0, err)
		return nil
	}
	return a
}

// readLists reads revocation lists: PEM, or one in DER.
func (a *authorities) readLists(data []byte, certs []*x509.Certificate, found *faultList, now time.Time) error {
	a.revoked = make(map[serial]bool)
	listed := make(map[string]bool) // authorities that have a list
	ders, err := splitLists(data)
	if err != nil {
		return err
	}
	for i, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err == nil {
			err = a.addList(list, certs)
		}
		if err != nil {
			return fmt.Errorf("list %d in it: %w", i+1, err)
		}
		listed[string(list.RawIssuer)] = true
		if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
			found.warn(RevocationFile, 0, "the list of %q has expired on %s, and is still used",
				list.Issuer.String(), day(list.NextUpdate))
		}
	}
	for _, c := range certs {
		if !listed[string(c.RawSubject)] && c.IsCA {
			found.warn(RevocationFile, 0, "it has no list of %s: none of its certificates is revoked", subject(c))
			listed[string(c.RawSubject)] = true
		}
	}
	return nil
}

func splitLists(data []byte) (ders [][]byte, err error) {
	if len(data) > 0 && data[0] == 0x30 { // a SEQUENCE, which no PEM file begins with
		return [][]byte{data}, nil
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == "X509 CRL" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		return nil, errors.New("there is no revocation list in it: needs a PEM file")
	}
	return ders, nil
}

// The extensions of lists that are understood (RFC 5280, 5.2).
var (
	authorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	listNumber        = asn1.ObjectIdentifier{2, 5, 29, 20}
	deltaList         = asn1.ObjectIdentifier{2, 5, 29, 27}
	distributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	revocationReason  = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// addList verifies a list, and adds the certificates in it to those that are revoked.
func (a *authorities) addList(list *x509.RevocationList, certs []*x509.Certificate) error {
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(deltaList):
			return errors.New("it has only the changes to another list (a delta CRL): needs the whole list")
		case e.Critical && !e.Id.Equal(authorityKeyID) && !e.Id.Equal(listNumber) && !e.Id.Equal(distributionPoint):
			return fmt.Errorf("it has a critical extension that is not understood, %v", e.Id)
		}
	}
	if err := verifyList(list, certs); err != nil {
		return err
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical && !e.Id.Equal(revocationReason) {
				return fmt.Errorf("it has revoked certificates of other authorities (an indirect CRL): needs a list " +
					"of each authority")
			}
		}
		a.revoked[serial{string(list.RawIssuer), string(entry.SerialNumber.Bytes())}] = true
	}
	return nil
}

// verifyList returns an error if none of the authorities has signed the list.
func verifyList(list *x509.RevocationList, certs []*x509.Certificate) error {
	err := fmt.Errorf("it is from %q, and that authority is not in client_ca", list.Issuer.String())
	for _, c := range certs {
		if !bytes.Equal(c.RawSubject, list.RawIssuer) {
			continue
		}
		wrong := list.CheckSignatureFrom(c)
		if wrong == nil {
			return nil
		}
		err = fmt.Errorf("%q has not signed it: %w", list.Issuer.String(), wrong)
	}
	return err
}

// verify refuses a client whose certificate is revoked, or that of an authority in between.
func (a *authorities) verify(state *tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 {
		return nil // a client without a certificate, where it is optional
	}
	if slices.ContainsFunc(state.VerifiedChains, a.isGood) {
		return nil
	}
	return ErrRevoked
}

// isGood reports whether no certificate of a chain is revoked.
func (a *authorities) isGood(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return a.revoked[serial{string(c.RawIssuer), string(c.SerialNumber.Bytes())}]
	})
}
