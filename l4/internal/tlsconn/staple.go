package tlsconn

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// stapleSkew is by how much the clock of the authority that made an OCSP answer may be ahead.
const stapleSkew = 5 * time.Minute

// staple takes an OCSP answer for a certificate, to be sent with it. An answer that clients would not accept is left
// out, with a warning: without one, most of them go on.
func (c *certificate) staple(der []byte, chain []*x509.Certificate, index int, found *faultList, now time.Time) {
	until, err := checkStaple(der, chain, now)
	if err != nil {
		found.warn(OCSPFile, index, "not sent to clients: %w", err)
		return
	}
	c.stapled, c.stapleUntil = c.plain, until
	c.stapled.OCSPStaple = der
}

// checkStaple returns until when an OCSP answer for chain[0] is valid.
func checkStaple(der []byte, chain []*x509.Certificate, now time.Time) (until time.Time, err error) {
	if len(chain) < 2 {
		return until, fmt.Errorf("the certificate's file has no certificate of its authority to verify it with")
	}
	answer, err := ocsp.ParseResponseForCert(der, chain[0], chain[1])
	if err != nil {
		return until, err
	}
	// ParseResponseForCert verifies the signatures, but not whether the authority lets the signer answer for it.
	if signer := answer.Certificate; signer != nil && !bytes.Equal(signer.Raw, chain[1].Raw) &&
		!slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return until, fmt.Errorf("it is signed by %s, which may not sign such answers", subject(signer))
	}
	switch {
	case answer.Status == ocsp.Revoked:
		return until, fmt.Errorf("it says that the certificate was revoked on %s", day(answer.RevokedAt))
	case answer.Status != ocsp.Good:
		return until, fmt.Errorf("it says that the authority does not know the certificate")
	case answer.ThisUpdate.After(now.Add(stapleSkew)):
		return until, fmt.Errorf("it is not valid before %s", day(answer.ThisUpdate))
	case answer.NextUpdate.IsZero():
		return until, fmt.Errorf("it does not say for how long it is valid")
	case now.After(answer.NextUpdate):
		return until, fmt.Errorf("it has expired on %s", day(answer.NextUpdate))
	}
	return answer.NextUpdate, nil
}
