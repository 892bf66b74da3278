package tlsconn

import (
	"crypto/x509"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestStaple holds which OCSP answers are sent.
func TestStaple(t *testing.T) {
	now := time.Now()
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	pair := ca.pair(t, request{name: "a", names: []string{"a.test"}, chain: ca.pem})
	another := ca.pair(t, request{name: "b"})
	good := ocsp.Response{Status: ocsp.Good, NextUpdate: now.Add(time.Hour)}
	responder := func(usage ...x509.ExtKeyUsage) []byte {
		key := newKey(t)
		cert := ca.sign(t, request{name: "responder", key: key, usage: usage})
		answer := good
		answer.Certificate, answer.SerialNumber, answer.ThisUpdate = cert, leafOf(t, pair).SerialNumber, now
		return must(ocsp.CreateResponse(ca.cert, cert, answer, key))
	}
	for _, tc := range []struct {
		name string
		der  []byte
		want string // the warning; "": it is sent
	}{
		{"good", ca.answer(t, pair, good), ""},
		{"of a responder", responder(x509.ExtKeyUsageOCSPSigning), ""},
		{"of another server", responder(x509.ExtKeyUsageServerAuth), `it is signed by "CN=responder", which may not sign such answers`},
		{"for another certificate", ca.answer(t, another, good), "no response matching the supplied certificate"},
		{"of another authority", other.answer(t, pair, good), "bad OCSP signature"},
		{"revoked", ca.answer(t, pair, ocsp.Response{Status: ocsp.Revoked, RevokedAt: now, NextUpdate: now.Add(time.Hour)}),
			"it says that the certificate was revoked on 20"},
		{"unknown", ca.answer(t, pair, ocsp.Response{Status: ocsp.Unknown, NextUpdate: now.Add(time.Hour)}),
			"it says that the authority does not know the certificate"},
		{"expired", ca.answer(t, pair, ocsp.Response{Status: ocsp.Good, NextUpdate: now.Add(-time.Minute)}), "it has expired on 20"},
		{"early", ca.answer(t, pair, ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(time.Hour), NextUpdate: now.Add(2 * time.Hour)}),
			"it is not valid before 20"},
		{"for ever", ca.answer(t, pair, ocsp.Response{Status: ocsp.Good}), "it does not say for how long it is valid"},
		{"no answer", []byte("x"), "asn1: "},
		{"an error", ocsp.TryLaterErrorResponse, "try later"},
	} {
		p := pair
		p.OCSP = tc.der
		s := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{p}})
		e := connect(t, s.Config(), trusting(ca, "a.test")).works(t)
		if sent := e.client.OCSPResponse; (sent != nil) != (tc.want == "") || sent != nil && !slices.Equal(sent, tc.der) {
			t.Errorf("%s: %d bytes are sent", tc.name, len(sent))
		}
		if tc.want == "" {
			wantFaults(t, s.Warnings())
		} else {
			wantFaults(t, s.Warnings(), tc.want)
		}
	}
	alone := ca.pair(t, request{name: "a", names: []string{"a.test"}})
	alone.OCSP = ca.answer(t, alone, good)
	s := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{alone}})
	wantFaults(t, s.Warnings(), "the certificate's file has no certificate of its authority")
}

// TestStapleExpires holds that an answer is not sent any more when it has expired.
func TestStapleExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t, "ca")
		p := ca.pair(t, request{names: []string{"a.test"}, chain: ca.pem})
		p.OCSP = ca.answer(t, p, ocsp.Response{Status: ocsp.Good, NextUpdate: time.Now().Add(time.Hour)})
		s := newServer(t, ServerSettings{}, Material{Certificates: []KeyPair{p}})
		if len(connect(t, s.Config(), trusting(ca, "a.test")).works(t).client.OCSPResponse) == 0 {
			t.Error("the answer is not sent")
		}
		time.Sleep(2 * time.Hour)
		if len(connect(t, s.Config(), trusting(ca, "a.test")).works(t).client.OCSPResponse) > 0 {
			t.Error("the answer is sent after it has expired")
		}
	})
}
