package l4test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tlsconn"
)

func TLSServer(t testing.TB, c *tls.Config) *l4.TLSServer { return &tlsconn.Server{C: c} }
func TLSClient(t testing.TB, roots *x509.CertPool) *l4.TLSClient {
	return &tlsconn.Client{C: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
}
