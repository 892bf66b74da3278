package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// serverName is the name in the certificates, and the SNI that clients send.
const serverName = "bench.test"

// A certificate has the files of one key pair, as the balancers read them. Its zero value names no files.
type certificate struct {
	cert, key string
	both      string // both in one file, for HAProxy
}

// writeCertificates makes a certificate for each kind of TLS traffic and writes it into dir. The certificates are
// self-signed: a chain would add the same bytes to every contender's handshake.
func writeCertificates(dir string) (map[traffic]certificate, error) {
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	all := map[traffic]certificate{}
	for t, key := range map[traffic]crypto.Signer{trafficTLSECDSA: ecdsaKey, trafficTLSRSA: rsaKey} {
		if all[t], err = writeCertificate(filepath.Join(dir, string(t)), key); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// writeCertificate writes the files of a certificate for key; their names begin with base.
func writeCertificate(base string, key crypto.Signer) (certificate, error) {
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: serverName},
		DNSNames:     []string{serverName},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour), // longer than any run
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certDER, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	c := certificate{cert: base + ".crt", key: base + ".key", both: base + ".pem"}
	for _, file := range []struct {
		name string
		text []byte
	}{{c.cert, certPEM}, {c.key, keyPEM}, {c.both, slices.Concat(certPEM, keyPEM)}} {
		if err := os.WriteFile(file.name, file.text, 0o600); err != nil {
			return certificate{}, err
		}
	}
	return c, nil
}
